"""A call in a fork of this process, with limits: a crash of a library, a hang or a flood of memory ends the fork alone. No tests."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from usage import usage

_ROOM_MIB = 4000
"""Address space that a fork may take beyond this process's: libraries reserve far more than they use."""


class Ending(NamedTuple):
    """How a fork ended.

    Attributes:
        code: Exit code, or minus the number of the signal that ended it.
        said: All that it printed.
        elapsed_s: Wall time.
        added_mib: Resident memory at its highest, above what the fork began with.
    """

    code: int
    said: str
    elapsed_s: float
    added_mib: float


def in_fork(call: Callable[[], int | None], said: Path, within_s: float = 10) -> Ending:
    """Runs `call`, whose number is the exit code; an exception is 1 and its traceback. `said` gets what is printed.

    A fork that takes longer than `within_s` is killed, and its code is then -SIGKILL.
    """
    began, (read, write) = time.monotonic(), os.pipe()
    child = os.fork()
    if not child:
        os.write(write, f"{usage().resident_mib}\n".encode())  # less than this process's: files are not mapped yet
        _run(call, said)
    with os.fdopen(read) as first:
        before = float(first.readline())
    os.close(write)
    done = 0
    while not done:
        done, status, used = os.wait4(child, os.WNOHANG)
        if not done and time.monotonic() - began > within_s:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.002)
    elapsed_s = time.monotonic() - began
    text = said.read_text(errors="replace")
    return Ending(os.waitstatus_to_exitcode(status), text, elapsed_s, used.ru_maxrss / 1024 - before)


def _run(call: Callable[[], int | None], said: Path) -> None:
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout = sys.stderr = os.fdopen(out, "w", buffering=1)  # pytest's own lead elsewhere
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _ROOM_MIB * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        code = int(call() or 0)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent is to see it
        traceback.print_exc()
    finally:
        os._exit(code)
