"""A page in a headless Chromium: what a script finds there, and every error it met. No tests."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def seen(page: Path, script: str, width: int, work: Path, dark: bool = False) -> dict:
    """What `script` (a JavaScript function body) returns in a window of that width, and "errors".

    A window of a real browser has a least width, so the page is shown in a frame.
    """
    watch = "<script>window.errors = []; addEventListener('error', (e) => errors.push(e.message));</script>"
    copy = work / "page.html"
    copy.write_text(page.read_text().replace("<head>", "<head>" + watch, 1))
    ask = (
        f"const view = frame.contentWindow; const found = new view.Function({json.dumps(script)})();"
        "out.textContent = JSON.stringify({...found, errors: view.errors});"
    )
    outer = work / "outer.html"
    outer.write_text(
        f'<body><iframe id="frame" src="{copy.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>'
        f'<pre id="out"></pre><script>frame.onload = () => {{ {ask} }};</script>'
    )
    done = subprocess.run(
        [
            BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={work / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--window-size=1800,1000", "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--dump-dom",
            outer.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    text = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(html.unescape(text.group(1)))
