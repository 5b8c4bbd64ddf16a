"""Ways a run ends early on purpose: signals and a time limit, asked about between iterations and pictures."""

from __future__ import annotations

import math
import os
import re
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import ClassVar

from srkit.errors import ExitCode, RefusedError

_PATIENCE_S = 10.0
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Seconds in '540', '9m', '1h30m', '2d'. Raises RefusedError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if re.fullmatch(r"\d+(\.\d+)?", text) and float(text) > 0:
        return float(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise RefusedError(f"--time_limit {text}: not a duration; write seconds or e.g. 9m, 1h30m, 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _say(text: str) -> None:
    """To stderr from a signal handler; Ctrl-C may have ended the reader of a pipe as well."""
    with suppress(OSError):
        os.write(2, f"\n{text}\n".encode())


class StopRequest:
    """Remembers the first reason to stop. Signals only set it; the loop acts when an iteration is whole.

    Args:
        limit_s: Seconds after `started` at which the process must be gone, or None.
        started: `time.monotonic()` of the process's start.
    """

    SIGNALS: ClassVar = {
        signal.SIGINT: (ExitCode.INTERRUPTED, "Ctrl-C"),
        signal.SIGTERM: (ExitCode.TERMINATED, "SIGTERM"),
        signal.SIGUSR1: (ExitCode.REQUEUE, "SIGUSR1"),
        signal.SIGHUP: (ExitCode.HUNG_UP, "SIGHUP, for its terminal was closed"),
    }

    def __init__(self, limit_s: float | None = None, started: float | None = None) -> None:
        self.deadline = None if limit_s is None else (started or time.monotonic()) + limit_s
        self.reserve_s = 5.0
        self.code: ExitCode | None = None
        self.reason = ""
        self._asked_at = math.inf
        self._terminals: list[int] = []

    def install(self) -> None:
        """Takes over SIGINT, SIGTERM, SIGUSR1 and, unless nohup has it ignored, SIGHUP (main thread only)."""
        for number in self.SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.code == ExitCode.INTERRUPTED:
            _say("stopped at once; the newest checkpoint is the last one saved")
            os._exit(ExitCode.INTERRUPTED)
        if number == signal.SIGHUP:  # writing to a terminal that is gone is an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self._terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)
        if self.code is None:
            self.code, self.reason = self.SIGNALS[signal.Signals(number)]
            self._asked_at = time.monotonic()
            _say(f"{self.reason}: finishing this iteration, then saving")

    def is_requested(self, ahead_s: float = 0.0) -> bool:
        """Whether to stop now; `ahead_s` is how long the caller's next piece of work is expected to take."""
        late = self.deadline is not None and time.monotonic() + ahead_s + self.reserve_s > self.deadline
        if self.code is None and late:
            self.code, self.reason = ExitCode.TIME_LIMIT, "--time_limit"
        return self.code is not None

    def is_overdue(self) -> bool:
        """Whether a signal came so long ago that no iteration is worth waiting for: SLURM kills after 30 s."""
        return time.monotonic() - self._asked_at > _PATIENCE_S

    def adopt(self, code: ExitCode, reason: str) -> None:
        """Takes over a peer's reason, so that all ranks end alike."""
        if self.code is None:
            self.code, self.reason = code, reason
