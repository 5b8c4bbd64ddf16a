"""File names: a compact list of them, what may stand in one, and what a tile's name says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from srkit.errors import DataError, nearest

_TILE = re.compile(r"(?P<slide>.+)_\d+x_\d+px_(?P<field>x\d+_y\d+_Patch\d+)$")


class NameList:
    """Names as one bytes object and one array of ends.

    A list of 300,000 Python strings takes tens of MB, and forked workers copy all of it as they count references;
    two objects are never touched.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return os.fsdecode(self._blob[self._ends[index] : self._ends[index + 1]])

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    @property
    def has_folders(self) -> bool:
        """Whether "/" stands in any of them."""
        return b"/" in self._blob

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self._blob) + self._ends.nbytes


def stem(name: str) -> str:
    """`name` without its last suffix, folders kept: "a/b.x2.png" -> "a/b.x2"."""
    dot = name.rfind(".")  # not pathlib: this runs for each of several hundred thousand names
    return name[:dot] if dot > name.rfind("/") + 1 else name


def output_name(name: str, keep_folders: bool) -> str:
    """Stem for output files, without folders or with "/" written as "__"."""
    return stem(name).replace("/", "__") if keep_folders else stem(name[name.rfind("/") + 1 :])


def need_folders(names: NameList) -> bool:
    """Whether output names are unique only with their folders."""
    return names.has_folders and len({output_name(name, False) for name in names}) < len(names)


def unsafe(name: str) -> str | None:
    """Why a name out of a list file or database is refused, or None: it must stay below its root."""
    if ".." not in name and name[:1] not in ("/", "\\") and name[1:2] != ":":
        return None  # the rule for nearly all of a long list
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or re.match(r"[A-Za-z]:", name):
        return "is absolute; names are relative to the data root"
    return "leaves its folder by '..'" if ".." in path.parts else None


def tile_key(name: str) -> str | None:
    """Slide and field of a microscope tile's name, the same at every resolution; None for other names.

    "TCGA-BR-8363-01A-01-TS1.ab_40x_256px_x512_y0_Patch7.jpg" -> "TCGA-BR-8363-01A-01-TS1.ab x512_y0_Patch7".
    """
    match = _TILE.match(stem(name[name.rfind("/") + 1 :]))
    return f"{match['slide']} {match['field']}" if match else None


def require_folder(key: str, folder: str) -> None:
    """Raises DataError naming the first part of the path that is missing and what stands there instead."""
    path = Path(folder)
    if path.is_dir():
        return
    if path.exists():
        raise DataError(f"{key}: '{folder}' is a file, a folder was expected")
    missing = path.absolute()
    while not missing.parent.exists():
        missing = missing.parent
    siblings = [p.name for p in missing.parent.iterdir() if p.is_dir()] if missing.parent.is_dir() else []
    close = nearest(missing.name, siblings)
    hint = f"; did you mean '{missing.parent / close}'?" if close else f"; '{missing.parent}' has no '{missing.name}'"
    raise DataError(f"{key}: folder '{folder}' does not exist{hint}")


def read_lines(key: str, path: str) -> list[str]:
    """The non-empty lines of a UTF-8 list file, stripped. DataError when missing, unreadable or empty."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        around = Path(path).absolute().parent
        known = [p.name for p in around.iterdir()] if around.is_dir() else []
        close = nearest(Path(path).name, known)
        hint = f"; did you mean '{around / close}'?" if close else ""
        raise DataError(f"{key}: list file '{path}' does not exist{hint}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{key}: list file '{path}' cannot be read: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{key}: list file '{path}' is empty")
    return lines
