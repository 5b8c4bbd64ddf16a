"""A TIFF put together from encoded tiles, in whatever order they come; classic below 4 GB, BigTIFF above.

Not tifffile: that writes one level after another, so that all smaller ones would have to be kept somewhere first, and
takes JPEG tiles only where imagecodecs (80 MB) is installed, even when they are encoded already. Directories stand at the
end here, so which of the two kinds the file must be is known before its first byte is.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

SUB_IFDS = 330
_IFD, _IFD8, _LONG, _LONG8 = 13, 18, 4, 16
_CODES = {2: "B", 3: "H", 4: "I", 5: "I", 13: "I", 16: "Q", 18: "Q"}  # struct code of one number by TIFF type
_CLASSIC_END = 1 << 32
_HEADER = 16  # room for either kind's


class Tag(NamedTuple):
    """A value of a directory: TIFF type (2 text, 3 short, 4 long, 5 rational, as two numbers each) and numbers.

    Type 16 (long8) is written as type 4 where offsets have 32 bit.
    """

    kind: int
    values: Sequence[int]


Directory = Mapping[int, Tag]


class TiffContainer:
    """Appends data to an open empty file and writes the directories at the end. OSError when the disk refuses."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.place = file.write(bytes(_HEADER))

    def append(self, data: bytes) -> int:
        """Where the data begins."""
        begin = self.place
        self.place += self.file.write(data)
        return begin

    def finish(self, pictures: Sequence[Directory], *, nested: bool) -> None:
        """Write directories and header.

        Args:
            pictures: The main one first; the others follow it, or (`nested`) are its sub-directories.
        """
        tables = sum(16 * len(tag.values) + 32 for picture in pictures for tag in picture.values())
        big = self.place + tables + _HEADER >= _CLASSIC_END
        if nested and len(pictures) > 1:
            below = [self._directory(picture, 0, big) for picture in pictures[1:]]
            first = self._directory({**pictures[0], SUB_IFDS: Tag(_IFD8 if big else _IFD, below)}, 0, big)
        else:
            first = 0
            for picture in reversed(pictures):  # backwards, so that each knows where the next one is
                first = self._directory(picture, first, big)
        self.file.seek(0)
        self.file.write(
            struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)
        )

    def _directory(self, tags: Directory, following: int, big: bool) -> int:
        """Writes one, after those of its values that have no room in it; returns its place."""
        room, long, count = (8, "Q", "Q") if big else (4, "I", "H")
        entries = b""
        for code, (kind, values) in sorted(tags.items()):
            kind = _LONG if kind == _LONG8 and not big else kind
            data = struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
            if len(data) > room:
                self._align()
                data = struct.pack(f"<{long}", self.append(data))
            number = len(values) // 2 if kind == 5 else len(values)
            entries += struct.pack(f"<HH{long}", code, kind, number) + data.ljust(room, b"\0")
        self._align()
        return self.append(struct.pack(f"<{count}", len(tags)) + entries + struct.pack(f"<{long}", following))

    def _align(self) -> None:
        self.append(bytes(-self.place % 8))
