"""Whether a slide can be as large as it says: asked of its header, because OpenSlide ends the process where memory for a tile
is refused, and reads places that no tile was stored for as empty, however many there are."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from math import ceil
from typing import BinaryIO, NamedTuple

import numpy as np

from srkit.errors import DataError

_LARGEST_TILE_PX = 1 << 26  # 256 MiB decoded; scanners write 240 to 4096 on a side
_LONGEST_PX = 1_000_000  # of a level; a glass slide of 76 mm has 760,000 at 0.1 microns
_TIFF = ("aperio", "generic-tiff", "leica", "philips", "trestle", "ventana")  # OpenSlide's formats of tiled TIFF
_WIDTH, _LENGTH, _STRIP_OFFSETS, _STRIP_BYTES = 256, 257, 273, 279
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # struct code by TIFF type: short, long, long8
_MOST_DIRECTORIES, _MOST_FIELDS = 1000, 1 << 16


class _Layout(NamedTuple):
    """Sizes in bytes, as struct codes, of classic TIFF or of BigTIFF."""

    length: str  # number of a directory's entries
    entry: str  # tag, type, number of values, value or its place
    place: str  # of the next directory


class _Field(NamedTuple):
    """An entry of a directory: TIFF type, number of values, and the values themselves or, of more than fit, their place."""

    kind: int
    values: int
    held: bytes


_CLASSIC, _BIG = _Layout("H", "HHI4s", "I"), _Layout("Q", "HHQ8s", "Q")


def require_possible(path: str, facts: Mapping[str, str]) -> None:
    """Refuses sizes that no file, or not this one, can have.

    Args:
        facts: OpenSlide's properties of the file.

    Raises: DataError naming the file and the level that no such file can hold.
    """
    is_tiff = facts.get("openslide.vendor") in _TIFF
    for level in range(int(facts.get("openslide.level-count", 0))):
        width, height, across, down = (
            int(facts.get(f"openslide.level[{level}].{name}", 0))
            for name in ("width", "height", "tile-width", "tile-height")
        )
        if max(width, height) > _LONGEST_PX:
            raise _damaged(
                path, f"level {level} has {width} x {height} pixels, expected {_LONGEST_PX:,} a side at most"
            )
        if is_tiff and across * down > _LARGEST_TILE_PX:  # a level of another format may be one tile
            raise _damaged(
                path,
                f"level {level} has tiles of {across} x {down} pixels, expected {_LARGEST_TILE_PX:,} in a tile at most",
            )
    if not is_tiff:
        return
    with open(path, "rb") as file:
        try:
            for order, layout, tags in _directories(file):
                _require_tiles(path, file, order, layout, tags)
        except DataError:
            raise
        except (struct.error, OSError, ValueError) as error:  # the last two: places that no file can have
            raise _damaged(path, f"a directory of the TIFF is cut short, or leads out of the file ({error})") from None


def _require_tiles(path: str, file: BinaryIO, order: str, layout: _Layout, tags: Mapping[int, _Field]) -> None:
    """As many tiles as cover the picture are listed, and none is longer than the file."""
    numbers = {tag: _number(order, tags.get(tag)) for tag in (_WIDTH, _LENGTH, _TILE_WIDTH, _TILE_LENGTH)}
    width, length, across, down = numbers.values()
    if min(width, length, across, down) < 1:
        return
    needed = ceil(width / across) * ceil(length / down)
    # Some writers list tiles as if they were strips, and libtiff reads them, as it reads tiles whose bytes are not told.
    places = tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS)
    sizes = tags.get(_TILE_BYTES) or tags.get(_STRIP_BYTES)
    for listed in (places.values if places else 0, sizes.values if sizes else needed):
        if listed < needed:
            raise _damaged(
                path,
                f"{width} x {length} pixels are {needed:,} tiles of {across} x {down}, found {listed:,} in its list",
            )
    if sizes is None:
        return
    size = file.seek(0, 2)
    type_of_one = np.dtype(order + _NUMBERS.get(sizes.kind, "I"))
    if needed * type_of_one.itemsize > size:
        raise _damaged(path, f"the list of {needed:,} tiles is longer than the file")
    if sizes.values * type_of_one.itemsize <= len(sizes.held):
        listed_bytes = sizes.held
    else:
        file.seek(struct.unpack(order + layout.place, sizes.held)[0])
        listed_bytes = file.read(needed * type_of_one.itemsize)
    whole = len(listed_bytes) // type_of_one.itemsize
    longest = int(np.frombuffer(listed_bytes, type_of_one, min(whole, needed)).max(initial=0))
    if longest > size:
        raise _damaged(path, f"a tile has {longest:,} bytes, the whole file {size:,}")


def _number(order: str, field: _Field | None) -> int:
    if field is None or field.kind not in _NUMBERS:
        return 0
    number: int = struct.unpack_from(order + _NUMBERS[field.kind], field.held)[0]
    return number


def _directories(file: BinaryIO) -> Iterator[tuple[str, _Layout, dict[int, _Field]]]:
    """Of each picture of a TIFF the order of bytes, the layout and the fields by tag."""
    start = file.read(16)
    order = ">" if start[:2] == b"MM" else "<"
    is_big = start[2:4] in (b"+\0", b"\0+")
    layout = _BIG if is_big else _CLASSIC
    (place,) = struct.unpack(order + layout.place, start[8:16] if is_big else start[4:8])
    seen: set[int] = set()
    while place and place not in seen and len(seen) < _MOST_DIRECTORIES:
        seen.add(place)
        file.seek(place)
        (count,) = _read(file, order + layout.length)
        entries = [_read(file, order + layout.entry) for _ in range(min(count, _MOST_FIELDS))]
        (place,) = _read(file, order + layout.place)
        yield order, layout, {tag: _Field(*field) for tag, *field in entries}


def _read(file: BinaryIO, code: str) -> tuple:
    return struct.unpack(code, file.read(struct.calcsize(code)))


def _damaged(path: str, found: str) -> DataError:
    return DataError(f"{path}: {found}; the slide is damaged, or no slide: copy it again, or leave it out")
