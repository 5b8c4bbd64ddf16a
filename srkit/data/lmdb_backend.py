"""Pictures in an LMDB folder as BasicSR writes it: data.mdb, lock.mdb and meta_info.txt."""

from __future__ import annotations

import os
import re
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from srkit.data.names import NameList, read_lines, require_folder, stem
from srkit.data.sources import Shape, described
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import decode_image

_open_sources: weakref.WeakSet[LmdbSource] = weakref.WeakSet()
_opening = threading.Lock()
_LINE = re.compile(r"(?P<name>.+?)\s+\((?P<shape>\d+\s*,\s*\d+\s*,\s*\d+)\)(\s+\d+)?$")


def lmdb_names(key: str, root: str) -> dict[str, Shape]:
    """ "name.png" -> (height, width, channels) of every line of meta_info.txt; DataError for a line of another form."""
    require_folder(key, root)
    if not (Path(root) / "data.mdb").is_file():
        raise DataError(f"{key}: '{root}' is no LMDB folder (no data.mdb in it); for picture files use io_backend disk")
    path = str(Path(root) / "meta_info.txt")
    found: dict[str, Shape] = {}
    for number, line in enumerate(read_lines(key, path), 1):
        match = _LINE.match(line)
        if match is None:
            raise DataError(f"{path}, line {number}: expected 'name.png (height,width,channels) level', found '{line}'")
        height, width, channels = (int(n) for n in match["shape"].split(","))
        found[match["name"]] = (height, width, channels)
    return found


class LmdbSource:
    """Encoded pictures under their names without suffix.

    The database is opened at the first read, and closed before a fork: a child can neither use the parent's handle
    nor open the file beside it.
    """

    def __init__(self, root: str, names: list[str], shapes: dict[str, Shape], *, max_pixels: int = 100_000_000) -> None:
        import_lmdb()
        self.root, self.names, self.max_pixels = root, NameList(names), max_pixels
        self._shapes = np.array([shapes[name] for name in names], np.int64).reshape(-1, 3)
        self.identity = f"lmdb {os.path.realpath(root)}"
        self._environment: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}

    def label(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}"

    def stats(self) -> np.ndarray:
        """The raw size stands for each picture's; all share the database's time."""
        time = (Path(self.root) / "data.mdb").stat().st_mtime_ns
        return np.stack([self._shapes.prod(axis=1), np.full(len(self.names), time)], axis=1)

    def shape(self, index: int) -> Shape:
        height, width, channels = self._shapes[index].tolist()
        return height, width, channels

    def read(self, index: int) -> np.ndarray:
        return decode_image(self.encoded(index), self.label(index), max_pixels=self.max_pixels)

    def encoded(self, index: int) -> bytes:
        key = stem(self.names[index])
        with self._open().begin(write=False) as transaction:
            data = transaction.get(key.encode())
        if data is None:
            raise DataError(f"{self.root}: meta_info.txt lists '{key}', the database does not hold it")
        return bytes(data)

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        return described(self.read(index))

    def _open(self) -> Any:
        with _opening:  # two threads must not open one file
            if self._environment is None:
                lmdb = import_lmdb()
                try:
                    self._environment = lmdb.open(self.root, readonly=True, lock=False, readahead=False, meminit=False)
                except lmdb.Error as error:
                    raise DataError(f"{self.root}: the LMDB cannot be opened: {error}") from error
                _open_sources.add(self)
            return self._environment

    def close(self) -> None:
        """Close the database; the next read opens it again."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


def _close_all() -> None:
    for source in list(_open_sources):
        source.close()


os.register_at_fork(before=_close_all)


def import_lmdb() -> Any:
    """The package lmdb, an extra of srkit. RefusedError with the command that installs it."""
    try:
        import lmdb
    except ImportError:
        raise RefusedError("io_backend lmdb needs the package lmdb: pip install lmdb") from None
    return lmdb
