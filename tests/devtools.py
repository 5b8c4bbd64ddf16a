"""A page of a web server in a headless Chromium, driven over the DevTools protocol. No tests."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from browser import BROWSER
from websockets.sync.client import connect


class Tab:
    """One tab. `asked` are the addresses that it requested, `errors` what its scripts failed at.

    Args:
        work: Folder for the browser's profile and for downloads.
    """

    def __init__(self, work: Path, width: int = 1400, height: int = 1000) -> None:
        profile = work / "profile"
        self._process = subprocess.Popen(
            [
                BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
                "--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}",
                "--remote-debugging-port=0", "--remote-allow-origins=*", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        note = profile / "DevToolsActivePort"
        self._until(lambda: note.exists() and note.read_text().count("\n"), 30, "the browser's port")
        port = note.read_text().split("\n")[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            target = next(item for item in json.load(answer) if item["type"] == "page")
        self._ends = ExitStack()
        self._socket = self._ends.enter_context(connect(target["webSocketDebuggerUrl"], max_size=None))
        self._numbers = itertools.count(1)
        self.asked: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(work))
        self.size(width, height)

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        self._process.terminate()
        self._process.wait(20)

    def call(self, method: str, **params) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, event: dict) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "unknown"))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def js(self, expression: str):
        """What an expression of JavaScript is, as JSON."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, seconds: float = 30):
        """Waits until an expression is true, and gives it."""
        return self._until(lambda: self.js(expression), seconds, expression)

    def give(self, selector: str, path: Path) -> None:
        """A file for an `<input type=file>`."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, selector
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def click(self, selector: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def file(self, folder: Path, pattern: str) -> Path:
        """The download whose name is like that, when it is whole."""
        return self._until(lambda: next(iter(folder.glob(pattern)), None), 30, pattern)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=False)["data"]))

    @staticmethod
    def _until(ask, seconds: float, what: str):
        end = time.monotonic() + seconds
        while True:
            if found := ask():
                return found
            assert time.monotonic() < end, f"waited {seconds} s for {what}"
            time.sleep(0.1)
