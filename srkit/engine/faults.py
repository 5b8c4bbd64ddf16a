"""Named places where a test can make the process die, fail, hang or get a signal: SRKIT_FAULT=<stage>[:n][:kind]."""

from __future__ import annotations

import errno
import os
import signal
import time

_ERRORS = {"full": errno.ENOSPC, "quota": errno.EDQUOT, "readonly": errno.EROFS, "io": errno.EIO}
_SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM, "usr1": signal.SIGUSR1}
_passed: dict[str, int] = {}


def fault(stage: str) -> None:
    """Does nothing unless SRKIT_FAULT names this stage; then, at its n-th passing (default 1), acts.

    Kinds: `die` (default; the process ends at once with 86, as a power cut would); `full`, `quota`, `readonly` and `io`
    (OSError); `memory` (MemoryError); `hang`; `int`, `term` and `usr1` (a signal to this process).
    """
    wanted = os.environ.get("SRKIT_FAULT")
    if not wanted or wanted.split(":")[0] != stage:
        return
    _, _, rest = wanted.partition(":")
    count, _, kind = rest.partition(":")
    _passed[stage] = _passed.get(stage, 0) + 1
    if _passed[stage] != int(count or 1):
        return
    if kind in _ERRORS:
        raise OSError(_ERRORS[kind], f"{os.strerror(_ERRORS[kind])} (injected at {stage})")
    if kind == "memory":
        raise MemoryError(f"injected at {stage}")
    if kind == "hang":
        time.sleep(3600)
    elif kind in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[kind])
    else:
        os._exit(86)
