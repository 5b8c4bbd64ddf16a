"""Decoded pictures in one memory-mapped file per set: a crop costs microseconds where decoding costs milliseconds.

Folder: `data-<digest>.raw` (pictures one after another), `index.json` (a column each for name, size, mtime_ns, height,
width, channels, bytes per value, offset) and `.lock`. The index names its data file and is replaced last, so a
reader finds the old pair or the new one, never a mixture. While it is built there are `data-<computer>-<user>.tmp` and
`.journal`, from which a build that was killed goes on. The lock spares work and no more: no file is ever written by two
computers, so a network file system without locks costs a second build, never a wrong picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from srkit.data.cache_file import GrowingFile, noted
from srkit.data.order import skip_limit
from srkit.data.sources import Shape, Source, in_threads
from srkit.errors import DataError

_FORMAT = 1
_COLUMNS = ("size", "mtime_ns", "height", "width", "channels", "itemsize", "offset")
_SIZE, _MTIME, _OFFSET, _SHAPE, _ITEM = 0, 1, 6, slice(2, 5), 5
_LEFT_OVER_S = 24 * 3600.0
_TYPES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}
_log = logging.getLogger("srkit")


def cache_root(folder: str | None) -> Path:
    """Where caches live: the option, else $SRKIT_CACHE, else ~/.cache/srkit."""
    return Path(folder or os.environ.get("SRKIT_CACHE") or "~/.cache/srkit").expanduser()


class CachedSource:
    """A source whose pictures are read from the decoded file where that is current, else from `inner`.

    Nothing is cached before `build`. Processes of one computer that build the same cache wait for one another, and those
    of several where the file system has locks.

    Args:
        inner: Where the pictures come from.
        folder: Root of all caches; this one gets a folder named after the pictures' root and recipe.
    """

    def __init__(self, inner: Source, folder: Path) -> None:
        self.inner, self.names, self.identity = inner, inner.names, inner.identity
        digest = hashlib.sha256(f"{_FORMAT} {inner.identity}".encode("utf-8", "surrogateescape")).hexdigest()
        self.folder = folder / digest[:24]
        self._rows = np.full((len(self.names), len(_COLUMNS)), -1, np.int64)
        self._data_path: Path | None = None
        self._flat: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_flat": None}  # a spawned worker maps the file itself instead of receiving it

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded file, also before `build` when an earlier run made one or a part of one."""
        held = 0
        for path in self.folder.glob("data-*.*"):
            with suppress(FileNotFoundError):  # another process was done with it just now
                held += path.stat().st_size
        return held

    def label(self, index: int) -> str:
        return self.inner.label(index)

    def stats(self) -> np.ndarray:
        return self.inner.stats()

    def holds(self, index: int) -> bool:
        """Whether this picture is read from the decoded file."""
        return self._rows[index, _OFFSET] >= 0

    def shape(self, index: int) -> Shape:
        if not self.holds(index):
            return self.inner.shape(index)
        height, width, channels = self._rows[index, _SHAPE].tolist()
        return height, width, channels

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        if not self.holds(index):
            return self.inner.inspect(index)
        return self.shape(index), _TYPES[int(self._rows[index, _ITEM])]

    def read(self, index: int) -> np.ndarray:
        _, _, height, width, channels, itemsize, offset = self._rows[index].tolist()
        if offset < 0:
            return self.inner.read(index)
        if self._flat is None and not self._map():
            return self.inner.read(index)
        assert self._flat is not None
        values = self._flat[offset : offset + height * width * channels * itemsize]
        return values.view(_TYPES[itemsize]).reshape(height, width, channels)

    def build(self, *, progress: bool = False) -> dict[int, str]:
        """Decode what is new or changed and map the file.

        Returns: index -> reason of the pictures that could not be read; all others are then cached.
        Raises: OSError when the folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder):
            old_rows, old_path = self._load()
            current = self._current(old_rows)
            failures = self._still_unreadable(current)
            if len(failures) < int((~current).sum()):
                failures = self._write(old_rows, old_path, current, progress)
                old_rows, old_path = self._load()
            self._rows, self._data_path = old_rows, old_path
            self._map()
            self._sweep()
        return failures

    def _current(self, rows: np.ndarray) -> np.ndarray:
        """(N,) bool: which rows tell of the files as they are now."""
        return (rows[:, [_SIZE, _MTIME]] == self.stats()).all(axis=1) & (rows[:, _OFFSET] >= 0)

    def _sweep(self) -> None:
        """Removes what other computers began and did not go on with for a day."""
        for path in [*self.folder.glob("*.tmp"), *self.folder.glob("*.journal")]:
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_OVER_S:
                    path.unlink()

    def _still_unreadable(self, current: np.ndarray) -> dict[int, str]:
        """A few bad files tried again, so that they do not cause a copy of the whole cache at every start."""
        changed = np.flatnonzero(~current).tolist()
        if len(changed) > skip_limit(len(self.names)):
            return {}
        tried = {k: self._try_read(k) for k in changed}
        return {k: reason for k, reason in tried.items() if isinstance(reason, str)}

    def _map(self) -> bool:
        """Map the data file. False, and no picture is cached any more, when another run has replaced it."""
        try:
            if self._data_path is not None:
                # A plain array over the map: slicing a memmap object runs Python code each time.
                self._flat = np.asarray(np.memmap(self._data_path, dtype=np.uint8, mode="r"))
        except (FileNotFoundError, ValueError):  # ValueError: an empty file, when no picture was readable
            self._data_path = None
        if self._data_path is None:
            self._rows[:, _OFFSET] = -1
        return self._data_path is not None

    def _load(self) -> tuple[np.ndarray, Path | None]:
        """Rows of the index in the order of `names` (-1 where it has none), and its data file."""
        try:
            index = json.loads((self.folder / "index.json").read_text())
            columns = np.array([index[column] for column in _COLUMNS], np.int64).T.reshape(-1, len(_COLUMNS))
            rows = self._in_order(dict(zip(index["names"], columns, strict=True)))
            path = self.folder / index["data"]
            if path.stat().st_size != index["bytes"]:
                return self._in_order({}), None
        except FileNotFoundError:
            return self._in_order({}), None
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("cache %s: its index is damaged (%s) and is made anew", self.folder, error)
            return self._in_order({}), None
        return rows, path

    def _in_order(self, held: Mapping[str, Sequence[int] | np.ndarray]) -> np.ndarray:
        """Rows in the order of `names`; -1 where `held` has none."""
        rows = np.full((len(self.names), len(_COLUMNS)), -1, np.int64)
        for k, name in enumerate(self.names) if held else ():
            if name in held:
                rows[k] = held[name]
        return rows

    def _write(
        self, old_rows: np.ndarray, old_path: Path | None, current: np.ndarray, progress: bool
    ) -> dict[int, str]:
        from tqdm import tqdm

        rows = np.full_like(old_rows, -1)
        rows[:, :2] = self.stats()
        failures: dict[int, str] = {}
        stem = f"data-{_me()}"
        with GrowingFile(self.folder, stem) as out:
            held = self._in_order(out.held)
            rows = np.where(self._current(held)[:, None], held, rows)
            if out.held:
                _log.info("cache %s: going on from %s pictures", self.folder, f"{len(out.held):,}")
            if old_path is not None:
                self._copy(out, rows, old_rows, old_path, current)
            for journal in self.folder.glob("data-*.journal"):  # of other computers, which perhaps still write them
                if journal.stem != stem:
                    left = self._in_order(noted(journal)[0])
                    self._copy(out, rows, left, journal.with_suffix(".tmp"), self._current(left))
            todo = np.flatnonzero(rows[:, _OFFSET] < 0).tolist()
            # disable=None: no bar where stderr is no terminal
            bar = tqdm(total=len(todo), desc="decoding", unit="file", disable=None if progress else True)
            with bar:
                for k, result in zip(todo, in_threads(self._try_read, todo)):
                    if isinstance(result, str):
                        failures[k] = result
                    else:
                        rows[k, 2:_OFFSET] = *result.shape, result.dtype.itemsize
                        rows[k, _OFFSET] = out.append(self.names[k], rows[k, :_OFFSET].tolist(), result)
                    bar.update()
        self._commit(rows, out)
        return failures

    def _copy(self, out: GrowingFile, rows: np.ndarray, old: np.ndarray, path: Path, current: np.ndarray) -> None:
        """Carry current pictures over from another file without decoding them, where `rows` has none yet."""
        wanted = np.flatnonzero(current & (rows[:, _OFFSET] < 0)).tolist()
        if not wanted:
            return
        try:
            data = np.memmap(path, dtype=np.uint8, mode="r")
        except FileNotFoundError:  # another computer has replaced it: they are decoded
            return
        for k in wanted:
            offset, length = int(old[k, _OFFSET]), int(old[k, 2:_OFFSET].prod())
            rows[k, 2:_OFFSET] = old[k, 2:_OFFSET]
            rows[k, _OFFSET] = out.append(self.names[k], old[k, :_OFFSET].tolist(), data[offset : offset + length])

    def _try_read(self, index: int) -> np.ndarray | str:
        try:
            return self.inner.read(index)
        except DataError as error:
            return str(error)

    def _commit(self, rows: np.ndarray, out: GrowingFile) -> None:
        there, path = self._load()
        if path is not None and self._current(there)[rows[:, _OFFSET] >= 0].all():
            out.remove()  # another computer was faster, and may be reading its own file already
            return
        kept = np.flatnonzero(rows[:, _OFFSET] >= 0).tolist()
        index: dict[str, Any] = {column: rows[kept, c].tolist() for c, column in enumerate(_COLUMNS)}
        index["names"] = [self.names[k] for k in kept]
        digest = hashlib.sha256(json.dumps(index).encode()).hexdigest()[:16]
        index |= {"format": _FORMAT, "identity": self.identity}
        index |= {"data": f"data-{digest}.raw", "bytes": out.path.stat().st_size}
        out.path.replace(self.folder / index["data"])
        written = self.folder / f"index-{_me()}.tmp"
        written.write_text(json.dumps(index))
        written.replace(self.folder / "index.json")
        out.remove()
        for path in self.folder.glob("data-*.raw"):
            if path.name != index["data"]:
                path.unlink(missing_ok=True)


def _me() -> str:
    """Names what this user's processes on this computer write; the lock lets one of them do so at a time."""
    return f"{socket.gethostname()}-{os.getuid()}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a cache; the kernel frees it when the holder dies.

    A file system without locks (some network ones) is answered by a lock for this computer alone, in its folder for
    temporary files.
    """
    with ExitStack() as held:
        file = held.enter_context((folder / ".lock").open("a"))
        try:
            _lock(file, folder)
        except OSError as error:
            name = hashlib.sha256(str(folder.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
            local = Path(tempfile.gettempdir()) / f"srkit-cache-{os.getuid()}-{name}.lock"
            _log.info("cache %s: no locks on its file system (%s); only this computer's wait", folder, error.strerror)
            _lock(held.enter_context(local.open("a")), folder)
        yield


def _lock(file: TextIO, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("waiting for another process that builds the cache %s", folder)
        fcntl.flock(file, fcntl.LOCK_EX)
