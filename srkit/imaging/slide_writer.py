"""Whole slides written row by row: a tiled pyramid that grows while the finest level arrives, in memory of a few strips."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Literal

import cv2
import numpy as np

from srkit.errors import RefusedError, StorageError
from srkit.imaging.tiff_container import Directory, Tag, TiffContainer

_TEXT, _SHORT, _LONG, _RATIONAL, _LONG8 = 2, 3, 4, 5, 16
_JPEG, _DEFLATE = 7, 8  # TIFF's Compression
_RGB, _YCBCR = 2, 6  # its PhotometricInterpretation
_DEFLATE_LEVEL = 1  # higher ones make stained tissue 0.2 % smaller and take twice as long
_LARGEST_NUMBER = 4_000_000_000  # of a TIFF rational, nearly


class SlideWriter:
    """A slide that is written from top to bottom: `with SlideWriter(...) as writer: writer.append(rows)`, again and again.

    The file appears under its name when the last row is in and the block ends without an error; else nothing stays. Each
    level below is the means of 2 x 2 pixels (odd ends repeated), rounded half up, until one fits in a tile. Memory: two
    strips of width x tile pixels (all levels together), about as much again while one is reduced and encoded.

    Args:
        path: The file, .tif or .tiff; one that exists is replaced. Missing folders are made.
        width: Of level 0, in pixels.
        height: The same.
        mpp: Microns per pixel; None writes none.
        tile: Side of the tiles, a multiple of 16.
        compression: "deflate" loses nothing.
        quality: Of JPEG, 1 to 100. Colour is not subsampled: at equal size of file that is nearer to the picture.
        ome: Write an OME-TIFF: QuPath, Bio-Formats and tifffile see all levels, OpenSlide the finest alone. Otherwise a
            flat pyramid, which all of them see whole.
        description: Text about the slide (OpenSlide's "openslide.comment"), such as what restored it.

    Raises: RefusedError for numbers that make no slide; StorageError when the disk refuses, in any method.
    Source: TIFF 6.0 (levels are flagged as reduced pictures), OME-TIFF specification 6 (levels in SubIFDs).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        *,
        mpp: float | None,
        tile: int = 256,
        compression: Literal["jpeg", "deflate"] = "jpeg",
        quality: int = 90,
        ome: bool = False,
        description: str = "",
    ) -> None:
        self.path, self.width, self.height, self.mpp = Path(path), width, height, mpp
        problems = [
            text
            for wrong, text in (
                (self.path.suffix.lower() not in (".tif", ".tiff"), f"name {self.path.name}, expected .tif or .tiff"),
                (min(width, height) < 1, f"size {width}x{height}, expected 1 or more"),
                (mpp is not None and mpp <= 0, f"mpp {mpp}, expected above 0"),
                (tile < 16 or tile % 16 > 0, f"tile {tile}, expected a multiple of 16"),
                (not 1 <= quality <= 100, f"quality {quality}, expected 1 to 100"),
            )
            if wrong
        ]
        if problems:
            raise RefusedError(f"{self.path} cannot be written as a slide: found " + "; ".join(problems))
        self.tile, self.compression, self.quality = tile, compression, quality
        self.ome, self.description = ome, description
        self.rows = 0
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")

    def __enter__(self) -> SlideWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
            self._container = TiffContainer(self._file)
        except OSError as error:
            raise self._refused(error) from error
        self._threads = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="srkit-encode")
        self._levels = [_Level(self.width, self.height, self.tile, self._put)]
        while max(self._levels[-1].width, self._levels[-1].height) > self.tile:
            self._levels.append(self._levels[-1].halved())
        return self

    def append(self, rows: np.ndarray) -> None:
        """The next rows of level 0, (any number, width, 3) uint8 RGB. ValueError for others, or for too many."""
        if rows.dtype != np.uint8 or rows.shape[1:] != (self.width, 3) or self.rows + len(rows) > self.height:
            left = f"{self.height - self.rows} rows of {self.width} pixels"
            raise ValueError(f"{self.path}: expected up to {left}, uint8 RGB; found {rows.dtype} {rows.shape}")
        self.rows += len(rows)
        try:
            self._levels[0].append(rows)
        except OSError as error:
            raise self._refused(error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        try:
            if kind is None:
                self._finish()
        except OSError as problem:
            raise self._refused(problem) from problem
        finally:
            with suppress(OSError):  # a full disk refuses what is still buffered; the file is going to be removed
                self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self.rows < self.height:
            raise ValueError(f"{self.path}: {self.rows} of {self.height} rows were given")
        self._container.finish([self._directory(k) for k in range(len(self._levels))], nested=self.ome)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def _refused(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path}: cannot be written ({error.strerror})")

    def _put(self, tiles: list[np.ndarray]) -> list[tuple[int, int]]:
        """Where a row of tiles begins in the file, and their lengths. Encoders release the interpreter's lock."""
        encode = self._jpeg if self.compression == "jpeg" else _deflated
        return [(self._container.append(data), len(data)) for data in self._threads.map(encode, tiles)]

    def _jpeg(self, tile: np.ndarray) -> bytes:
        flags = [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        return cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), flags)[1].tobytes()

    def _directory(self, number: int) -> Directory:
        level = self._levels[number]
        places, lengths = zip(*level.tiles)
        tags = {
            254: Tag(_LONG, [int(number > 0)]),  # NewSubfileType: 1 is a reduced picture
            256: Tag(_LONG, [level.width]),
            257: Tag(_LONG, [level.height]),
            258: Tag(_SHORT, [8, 8, 8]),  # BitsPerSample
            259: Tag(_SHORT, [_JPEG if self.compression == "jpeg" else _DEFLATE]),
            262: Tag(_SHORT, [_YCBCR if self.compression == "jpeg" else _RGB]),
            277: Tag(_SHORT, [3]),  # SamplesPerPixel
            284: Tag(_SHORT, [1]),  # PlanarConfiguration: RGBRGB
            305: Tag(_TEXT, b"srkit\0"),
            322: Tag(_LONG, [self.tile]),
            323: Tag(_LONG, [self.tile]),
            324: Tag(_LONG8, places),
            325: Tag(_LONG, lengths),
        }
        if self.mpp is not None:
            per_cm = Fraction(10_000) / (Fraction(repr(float(self.mpp))) * 2**number)
            ratio = per_cm.limit_denominator(max(1, int(_LARGEST_NUMBER / max(1, per_cm))))
            tags |= dict.fromkeys((282, 283), Tag(_RATIONAL, [ratio.numerator, ratio.denominator]))
            tags[296] = Tag(_SHORT, [3])  # ResolutionUnit: centimetre
        if self.compression == "jpeg":
            tags[530] = Tag(_SHORT, [1, 1])  # YCbCrSubSampling: none
            tags[532] = Tag(_RATIONAL, [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1])  # full range, as in JPEG files
        else:
            tags[317] = Tag(_SHORT, [2])  # Predictor: differences along rows
        text = self._ome_xml() if self.ome else self.description
        if text and number == 0:
            tags[270] = Tag(_TEXT, text.encode() + b"\0")
        return tags

    def _ome_xml(self) -> str:
        unit = 'PhysicalSize{0}="{1!r}" PhysicalSize{0}Unit="µm"'
        sizes = "" if self.mpp is None else " ".join(unit.format(axis, float(self.mpp)) for axis in "XY")
        namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="{namespace}" '
            f'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="{namespace} {namespace}/ome.xsd">'
            f'<Image ID="Image:0" Name="{escape(self.path.stem)}"><Description>{escape(self.description)}</Description>'
            f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="{self.width}" SizeY="{self.height}" '
            f'SizeC="3" SizeZ="1" SizeT="1" Interleaved="true" {sizes}>'
            '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
        )


class _Level:
    """One size of the picture: one row of tiles in memory, and the places of those in the file.

    `put` writes a row of tiles, (tile, tile, 3) each.
    """

    def __init__(
        self, width: int, height: int, tile: int, put: Callable[[list[np.ndarray]], list[tuple[int, int]]]
    ) -> None:
        self.width, self.height, self.tile, self.put = width, height, tile, put
        self.tiles: list[tuple[int, int]] = []
        self._strip = np.empty((tile, -(-width // tile) * tile, 3), np.uint8)
        self._filled = self._done = 0
        self._below: _Level | None = None

    def halved(self) -> _Level:
        """The next smaller level, which this one feeds from now on."""
        self._below = _Level(-(-self.width // 2), -(-self.height // 2), self.tile, self.put)
        return self._below

    def append(self, rows: np.ndarray) -> None:
        while len(rows):
            part = rows[: self.tile - self._filled]
            self._strip[self._filled : self._filled + len(part), : self.width] = part
            self._filled += len(part)
            self._done += len(part)
            rows = rows[len(part) :]
            if self._filled == self.tile or self._done == self.height:
                self._flush()

    def _flush(self) -> None:
        # Beyond the picture its edge goes on: JPEG blocks stay smooth, and odd ends are halved with themselves.
        self._strip[:, self.width :] = self._strip[:, self.width - 1 : self.width]
        self._strip[self._filled :] = self._strip[self._filled - 1]
        columns = range(0, self._strip.shape[1], self.tile)
        self.tiles += self.put([self._strip[:, x : x + self.tile] for x in columns])
        if self._below is not None:
            even_rows, even_columns = (n + n % 2 for n in (self._filled, self.width))
            self._below.append(_means(self._strip[:even_rows, :even_columns]))
        self._filled = 0


def _means(rows: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, rounded half up."""
    total = np.add(rows[0::2, 0::2], rows[1::2, 1::2], dtype=np.uint16)
    total += rows[0::2, 1::2]
    total += rows[1::2, 0::2]
    total += 2
    total >>= 2
    return total.astype(np.uint8)


def _deflated(tile: np.ndarray) -> bytes:
    differences = tile.copy()
    differences[:, 1:] -= tile[:, :-1]  # modulo 256, as TIFF's predictor 2 wants it
    return zlib.compress(differences.tobytes(), _DEFLATE_LEVEL)
