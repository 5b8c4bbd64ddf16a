"""The cache's data file while it grows: what a process that was killed has noted, the next one goes on from."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import TracebackType

import numpy as np

_ALIGN = 64
_NOTE_S = 5.0  # what may have to be decoded again
_FACTS = 6  # size, mtime_ns, height, width, channels, bytes per value


class GrowingFile:
    """`<stem>.tmp`, pictures one after another, and `<stem>.journal`, a line of JSON for each: its name, then its row.

    A picture is noted when its bytes are on the disk, so the journal is true after a power cut too. When an error of the
    disk ends the work, both files are removed, for it may be full; after any other end they stay.

    Args:
        stem: No two processes may have a file of one stem open.

    Attributes:
        held: Name -> row (six facts, then the offset) of the pictures that an earlier process has noted.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self.path, self._journal_path = folder / f"{stem}.tmp", folder / f"{stem}.journal"
        self.held, whole = noted(self._journal_path)
        self.path.touch()
        self._journal_path.touch()
        self._data, self._journal = self.path.open("r+b"), self._journal_path.open("r+b")
        self._journal.truncate(whole)
        self._journal.seek(whole)
        end = max((_end(row) for row in self.held.values()), default=0)
        self._data.truncate(end + -end % _ALIGN)
        self._data.seek(0, os.SEEK_END)
        self._lines: list[str] = []
        self._noted_at = time.monotonic()

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if not isinstance(error, OSError):
                self._note()
        except OSError as refused:
            error = refused
            raise
        finally:
            self._data.close()
            self._journal.close()
            if isinstance(error, OSError):
                self.remove()

    def append(self, name: str, facts: list[int], values: np.ndarray) -> int:
        """Adds a picture (or the bytes of one); returns its offset."""
        offset = self._data.tell()
        self._data.write(np.ascontiguousarray(values).data)
        self._data.write(bytes(-self._data.tell() % _ALIGN))
        self._lines.append(json.dumps([name, *facts, offset]) + "\n")
        if time.monotonic() - self._noted_at >= _NOTE_S:
            self._note()
        return offset

    def remove(self) -> None:
        """Removes both files."""
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def _note(self) -> None:
        self._data.flush()
        os.fsync(self._data.fileno())
        self._journal.write("".join(self._lines).encode())
        self._journal.flush()
        self._lines, self._noted_at = [], time.monotonic()


def noted(journal: Path) -> tuple[dict[str, list[int]], int]:
    """Rows by name out of a journal, whose process may live, and how many bytes of it are whole; nothing when it is not there."""
    rows: dict[str, list[int]] = {}
    whole = 0
    try:
        size = journal.with_suffix(".tmp").stat().st_size
        lines = journal.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return rows, 0
    for line in lines:
        try:
            name, *row = json.loads(line)
            row = [int(value) for value in row]
            if not line.endswith(b"\n") or len(row) != _FACTS + 1 or _end(row) > size:
                break
        except (ValueError, TypeError):
            break  # the last one, cut in the middle
        rows[name] = row
        whole += len(line)
    return rows, whole


def _end(row: list[int]) -> int:
    """First byte after the picture."""
    return int(row[_FACTS] + np.prod(row[2:_FACTS], dtype=np.int64))
