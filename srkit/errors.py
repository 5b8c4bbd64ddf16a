"""Exit codes and the exceptions that carry them: one table for every command (documented in docs/exit_codes.md)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status says; `docs/exit_codes.md` lists the remedy for each."""

    OK = 0
    BUG = 1
    REFUSED = 2
    DIVERGED = 3
    LOADING = 4
    OUT_OF_MEMORY = 5
    STORAGE = 6
    IN_USE = 7
    PEER_LOST = 8
    INCOMPLETE = 9
    REQUEUE = 75
    TIME_LIMIT = 76
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class SrkitError(Exception):
    """An end that srkit foresaw. The message names the place and the remedy; no traceback is shown."""

    exit_code: ExitCode = ExitCode.BUG


class RefusedError(SrkitError, ValueError):
    """What the user gave does not fit; raised before any work starts."""

    exit_code = ExitCode.REFUSED


class OptionError(RefusedError):
    """Mistakes in an option file, all of them.

    Args:
        source: File (or "command line") the problems were found in.
        problems: One line each, without bullet: place, what was found, what was expected.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, list(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        super().__init__("\n".join([f"{source}: {count}", *(f"  - {p}" for p in self.problems)]))


class DataError(RefusedError):
    """Pictures, pairs or list files that cannot be used; found before training."""


class WeightsError(RefusedError):
    """A weights or checkpoint file that does not fit or cannot be trusted."""


class DivergedError(SrkitError):
    """Too many non-finite steps in a row."""

    exit_code = ExitCode.DIVERGED


class LoadingError(SrkitError):
    """Reading samples failed while training or testing ran."""

    exit_code = ExitCode.LOADING


class OutOfMemoryError(SrkitError):
    """Device or host memory did not suffice; the message gives advice in numbers."""

    exit_code = ExitCode.OUT_OF_MEMORY


class StorageError(SrkitError):
    """A checkpoint or result could not be written."""

    exit_code = ExitCode.STORAGE


class InUseError(SrkitError):
    """Another process holds the experiment."""

    exit_code = ExitCode.IN_USE


class PeerLostError(SrkitError):
    """A process of the group died or stopped answering."""

    exit_code = ExitCode.PEER_LOST


class Stopped(SrkitError):
    """Training ended early on request, after a checkpoint. `exit_code` says by whom."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name a typing slip most likely meant, or None."""
    known = list(known)
    folded = {k.lower(): k for k in known}
    if name.lower() in folded:
        return folded[name.lower()]
    match = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or, when nothing is near, the list of known names."""
    known = sorted(known)
    close = nearest(name, known)
    return f"; did you mean '{close}'?" if close else f"; known: {', '.join(known) or 'none'}"
