"""Makes the virtual environment the two README commands run in. Standard library only: it runs before anything is installed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def prepare(folder: Path, extra: str | None = None, lock: Path | None = None) -> Path:
    """The Python of a virtual environment with srkit's requirements (and one of setup.py's extras) installed.

    A second call finds the work done, unless requirements.txt, setup.py or `lock`, which fixes versions, changed.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this file is the one older Pythons do reach
        sys.exit(f"srkit needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    told = [ROOT / "requirements.txt", ROOT / "setup.py", *([lock] if lock else [])]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in told)).hexdigest()
    stamp = folder / f"srkit-{extra or 'base'}.stamp"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    if not python.exists():
        print(f"making a virtual environment in {folder}", flush=True)
        venv.create(folder, with_pip=True)
    what = ["-e", f"{ROOT}[{extra}]"] if extra else ["-r", str(ROOT / "requirements.txt")]
    what += ["-c", str(lock)] if lock else []
    print("installing " + " ".join(what) + " (several GB the first time)", flush=True)
    began = time.monotonic()
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    if subprocess.run(pip).returncode != 0:
        free = shutil.disk_usage(folder).free / 2**30
        sys.exit(
            f"installing into {folder} failed for the reason above ({free:.1f} GB are free on that disk; about 8 are needed); "
            "mend that and run this again"
        )
    stamp.write_text(wanted)
    print(f"installed in {time.monotonic() - began:.0f} s", flush=True)
    return python
