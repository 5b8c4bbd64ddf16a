"""Named places where a test can make the process die or fail: SRKIT_FAULT=<stage>[:n][:kind]."""

from __future__ import annotations

import errno
import os

_passed: dict[str, int] = {}


def fault(stage: str) -> None:
    """Does nothing unless SRKIT_FAULT names this stage; then, at its n-th passing (default 1), acts.

    Kinds: `die` (default; the process ends at once with 86, as a power cut would), `full` (OSError "no space left").
    """
    wanted = os.environ.get("SRKIT_FAULT", "")
    if not wanted or wanted.split(":")[0] != stage:
        return
    _, _, rest = wanted.partition(":")
    count, _, kind = rest.partition(":")
    _passed[stage] = _passed.get(stage, 0) + 1
    if _passed[stage] != int(count or 1):
        return
    if kind == "full":
        raise OSError(errno.ENOSPC, f"No space left on device (injected at {stage})")
    os._exit(86)
