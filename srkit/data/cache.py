"""Decoded pictures in one memory-mapped file per set: a crop costs microseconds where decoding costs milliseconds.

Folder: `data-<digest>.raw` (pictures one after another), `index.json` (a column each for name, size, mtime_ns, height,
width, channels, bytes per value, offset) and `.lock`. The index names its data file and is replaced last, so a
reader finds the old pair or the new one, never a mixture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from srkit.data.order import skip_limit
from srkit.data.sources import Shape, Source, in_threads
from srkit.errors import DataError

_FORMAT = 1
_ALIGN = 64
_COLUMNS = ("size", "mtime_ns", "height", "width", "channels", "itemsize", "offset")
_SIZE, _MTIME, _OFFSET, _SHAPE, _ITEM = 0, 1, 6, slice(2, 5), 5
_TYPES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16)}
_log = logging.getLogger("srkit")


def cache_root(folder: str | None) -> Path:
    """Where caches live: the option, else $SRKIT_CACHE, else ~/.cache/srkit."""
    return Path(folder or os.environ.get("SRKIT_CACHE") or "~/.cache/srkit").expanduser()


class CachedSource:
    """A source whose pictures are read from the decoded file where that is current, else from `inner`.

    Nothing is cached before `build`. Processes that build the same cache wait for one another.

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
        """Size of the decoded file, also before `build` when an earlier run made one."""
        return sum(path.stat().st_size for path in self.folder.glob("data-*.raw"))

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
        with _locked(self.folder / ".lock"):
            old_rows, old_path = self._load()
            current = (old_rows[:, [_SIZE, _MTIME]] == self.stats()).all(axis=1) & (old_rows[:, _OFFSET] >= 0)
            failures = self._still_unreadable(current)
            if len(failures) < int((~current).sum()):
                failures = self._write(old_rows, old_path, current, progress)
                old_rows, old_path = self._load()
            self._rows, self._data_path = old_rows, old_path
            self._map()
        return failures

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
        rows = np.full((len(self.names), len(_COLUMNS)), -1, np.int64)
        try:
            index = json.loads((self.folder / "index.json").read_text())
            held = {name: k for k, name in enumerate(index["names"])}
            columns = np.array([index[column] for column in _COLUMNS], np.int64).T.reshape(-1, len(_COLUMNS))
            path = self.folder / index["data"]
            if path.stat().st_size != index["bytes"]:
                return rows, None
        except FileNotFoundError:
            return rows, None
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("cache %s: its index is damaged (%s) and is made anew", self.folder, error)
            return rows, None
        for k, name in enumerate(self.names):
            if name in held:
                rows[k] = columns[held[name]]
        return rows, path

    def _write(
        self, old_rows: np.ndarray, old_path: Path | None, current: np.ndarray, progress: bool
    ) -> dict[int, str]:
        from tqdm import tqdm

        for left_over in self.folder.glob("*.tmp"):
            left_over.unlink()
        rows = np.full_like(old_rows, -1)
        rows[:, :2] = self.stats()
        failures: dict[int, str] = {}
        temporary = self.folder / "data.tmp"
        # disable=None: no bar where stderr is no terminal
        bar = tqdm(total=int((~current).sum()), desc="decoding", unit="file", disable=None if progress else True)
        with temporary.open("wb") as out, bar:
            if old_path is not None and current.any():
                self._copy(out, rows, old_rows, old_path, np.flatnonzero(current))
            changed = np.flatnonzero(~current).tolist()
            for k, result in zip(changed, in_threads(self._try_read, changed)):
                if isinstance(result, str):
                    failures[k] = result
                else:
                    rows[k, 2:] = *result.shape, result.dtype.itemsize, out.tell()
                    _append(out, result)
                bar.update()
            out.flush()
            os.fsync(out.fileno())
        self._commit(rows, temporary)
        return failures

    def _copy(self, out: BinaryIO, rows: np.ndarray, old: np.ndarray, path: Path, indices: np.ndarray) -> None:
        """Carry current pictures over into the new file without decoding them."""
        data = np.memmap(path, dtype=np.uint8, mode="r")
        for k in indices.tolist():
            offset, length = int(old[k, _OFFSET]), int(old[k, 2:6].prod())
            rows[k, 2:] = old[k, 2:]
            rows[k, _OFFSET] = out.tell()
            _append(out, data[offset : offset + length])

    def _try_read(self, index: int) -> np.ndarray | str:
        try:
            return self.inner.read(index)
        except DataError as error:
            return str(error)

    def _commit(self, rows: np.ndarray, temporary: Path) -> None:
        kept = np.flatnonzero(rows[:, _OFFSET] >= 0).tolist()
        index: dict[str, Any] = {column: rows[kept, c].tolist() for c, column in enumerate(_COLUMNS)}
        index["names"] = [self.names[k] for k in kept]
        digest = hashlib.sha256(json.dumps(index).encode()).hexdigest()[:16]
        index |= {"format": _FORMAT, "identity": self.identity}
        index |= {"data": f"data-{digest}.raw", "bytes": temporary.stat().st_size}
        temporary.replace(self.folder / index["data"])
        written = self.folder / "index.tmp"
        written.write_text(json.dumps(index))
        written.replace(self.folder / "index.json")
        for path in self.folder.glob("data-*.raw"):
            if path.name != index["data"]:
                path.unlink()


def _append(out: BinaryIO, values: np.ndarray) -> None:
    out.write(np.ascontiguousarray(values).data)
    out.write(bytes(-out.tell() % _ALIGN))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the file's lock; the kernel frees it when the holder dies."""
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.info("waiting for another process that builds the cache %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
