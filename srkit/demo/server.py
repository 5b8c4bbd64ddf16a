"""The page as a local web server: a free port, a private folder, no other host to talk to, and nothing left behind."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import sys
import tempfile
import time
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from srkit.engine.log import logger, start_console
from srkit.errors import ExitCode, RefusedError, Stopped
from srkit.inference.settings import RunSettings

_WAITING = 8  # jobs in the queue
_PATIENCE_S = 2  # for open connections at the end
# Whatever a script of the page asks for, the browser fetches nothing from another host. gradio's own scripts are inline.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'self'"
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Args:
    models: Model files.
    host, port: Where the page is; port 0 is a free one.
    max_upload_mb: Larger files are refused.
    max_pixels: Of a picture, a region or a volume, before it is enlarged.
    opens: Start a browser; None does where there is a screen.
    """

    models: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 0
    max_upload_mb: int = 1000
    max_pixels: int = 25_000_000
    run: RunSettings
    opens: bool | None = None


def serve(settings: DemoSettings) -> None:
    """Opens the models and serves the page until Ctrl-C or SIGTERM.

    Raises: RefusedError where gradio is missing or the place is taken; what opening a model raises; Stopped on SIGTERM.
    """
    started = time.monotonic()
    start_console(is_main=True)
    door = bound(settings.host, settings.port)
    with door, tempfile.TemporaryDirectory(prefix="srkit-demo-") as folder:  # readable by its owner alone
        previous = signal.signal(signal.SIGTERM, _stopped)
        try:
            _serve(settings, door, Path(folder), started)
        finally:
            signal.signal(signal.SIGTERM, previous)


def _serve(settings: DemoSettings, door: socket.socket, folder: Path, started: float) -> None:
    # Read by gradio when it is imported: no statistics, no look for a newer version, no SSR server.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
    }
    try:
        import gradio as gr
        import uvicorn
        from fastapi import FastAPI
    except ImportError:
        raise RefusedError("the demo page needs gradio; pip install 'srkit[demo]'") from None
    from srkit.demo.models import open_models
    from srkit.demo.page import CSS, build, theme, upload_limit
    from srkit.demo.work import Workbench

    host, port = door.getsockname()[:2]
    models = open_models(settings.models, settings.run)
    bench = Workbench(models, folder / "job", settings.max_pixels)
    page = build(bench, max_upload_mb=settings.max_upload_mb, waiting=_WAITING)
    app = gr.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        max_file_size=settings.max_upload_mb * 1_000_000,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=theme(),
        css=CSS,
        head=upload_limit(settings.max_upload_mb),
    )
    # gradio checks that a request names an uploaded file, and no other of this machine, only on pages that were
    # launched; a mounted one is not unless it says so (6.31).
    page.has_launched = True
    config = uvicorn.Config(
        Guard(app, is_loopback(host)), log_level="warning", timeout_graceful_shutdown=_PATIENCE_S, ws="none"
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not is_loopback(host):
        logger.warning(
            "--host %s: everyone who reaches this machine can use the page, without a password", settings.host
        )
    logger.info(
        "the page is at %s (%d model%s, ready after %.1f s); Ctrl-C ends it",
        address, len(models), "s" * (len(models) != 1), time.monotonic() - started,
    )  # fmt: skip
    if _has_screen() if settings.opens is None else settings.opens:
        webbrowser.open(address)  # the socket listens already, so that the browser waits for the first answer
    uvicorn.Server(config).run(sockets=[door])


def bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises RefusedError for a place that is taken, not allowed or not of this machine."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        door = socket.socket(family, kind, protocol)
    except OSError as error:
        raise RefusedError(f"--host {host}: is no address of this machine ({error.strerror}); leave it out") from None
    try:
        if os.name == "posix":  # a page that has just ended does not keep its port
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(place)
        door.listen(128)
    except OSError as error:
        door.close()
        if error.errno == errno.EADDRINUSE:
            raise RefusedError(
                f"--port {port}: another program has this port of {host}; give another one, or leave --port out for a free one"
            ) from None
        raise RefusedError(
            f"--host {host} --port {port}: cannot be used ({error.strerror}); leave both out for a free port of this machine"
        ) from None
    return door


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can reach that address."""
    return ipaddress.ip_address(host).is_loopback


class Guard:
    """In front of the page: keeps the browser to this host, and on loopback answers to this machine's own names alone.

    The second is against pages elsewhere whose host name is made to point to 127.0.0.1.
    """

    def __init__(self, app: Any, is_local: bool) -> None:
        self._app, self._is_local = app, is_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._is_local and not _is_own(dict(scope["headers"]).get(b"host", b"")):
            body = b"srkit demo: this page answers to 127.0.0.1 and localhost only\n"
            head = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 400, "headers": head})
            await send({"type": "http.response.body", "body": body})
            return

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, with_policy)


def _is_own(header: bytes) -> bool:
    name = header.decode("latin-1").rsplit(":", 1)[0] if not header.endswith(b"]") else header.decode("latin-1")
    return name in ("127.0.0.1", "localhost", "[::1]")


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ))


def _stopped(number: int, frame: FrameType | None) -> None:
    raise Stopped("SIGTERM ended the page", ExitCode.TERMINATED)
