"""Where pictures come from: a numbered list of files, or of lq pictures made from gt. One protocol for all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import numpy as np

from srkit.data.names import NameList, stem
from srkit.errors import DataError
from srkit.imaging.files import image_size, read_image
from srkit.imaging.resize import as_fraction, imresize, mod_crop

Shape = tuple[int, int, int]  # height, width, channels
T = TypeVar("T")
_IN_FLIGHT = 64  # pictures decoded at a time: bounds memory


class Source(Protocol):
    """Pictures 0 to len - 1.

    `names` are relative to the root and stand in fingerprint and cache; `identity` tells one root and recipe from
    another.
    """

    names: NameList
    identity: str

    def label(self, index: int) -> str:
        """Full path, for people."""

    def stats(self) -> np.ndarray:
        """(N, 2) int64: size in bytes and modification time in ns; -1 where the file is missing."""

    def shape(self, index: int) -> Shape:
        """Size from the header, without decoding. DataError when unreadable."""

    def read(self, index: int) -> np.ndarray:
        """Decoded (H, W, C) uint8 or uint16, perhaps read-only. DataError when unreadable."""

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        """Shape and type, proven by decoding. DataError when unreadable."""


class StoredSource(Source, Protocol):
    """Pictures as they were encoded: files, or copies of them in a database or an archive."""

    def encoded(self, index: int) -> bytes:
        """The picture file's own bytes. DataError when they cannot be read."""


class FileSource:
    """Picture files below one root.

    Args:
        root: Folder the names are relative to; "" for the working directory.
        origin: What else picked the names (a list file), so that two lists over one root have caches of their own.
    """

    def __init__(self, root: str, names: NameList, *, origin: str = "", max_pixels: int = 100_000_000) -> None:
        self.root, self.names, self.max_pixels = root, names, max_pixels
        self.identity = f"files {os.path.realpath(root or '.')} {origin and os.path.realpath(origin)}"
        self._stats: np.ndarray | None = None

    def label(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}" if self.root else self.names[index]

    def stats(self) -> np.ndarray:
        if self._stats is None:
            found = [_stat(self.label(k)) for k in range(len(self.names))]
            self._stats = np.array(found, np.int64).reshape(-1, 2)
        return self._stats

    def shape(self, index: int) -> Shape:
        header = image_size(self.label(index))
        return header.height, header.width, header.channels or 3

    def read(self, index: int) -> np.ndarray:
        return read_image(self.label(index), max_pixels=self.max_pixels)

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        return described(self.read(index))

    def encoded(self, index: int) -> bytes:
        try:
            return Path(self.label(index)).read_bytes()
        except OSError as error:
            raise DataError(f"{self.label(index)}: cannot be read ({error.strerror})") from error


def described(image: np.ndarray) -> tuple[Shape, np.dtype]:
    """What `inspect` says of a decoded picture."""
    height, width, channels = image.shape
    return (height, width, channels), image.dtype


def _stat(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - pathlib takes several times as long, for every file
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


class ScaledSource:
    """Every picture of a source at several sizes: scale augmentation (Dong et al. 2016, FSRCNN, section 4.1).

    All pictures at the first factor come before all at the second. A shrunk one carries its factor in its name.

    Args:
        inner: Where the pictures come from.
        factors: Sizes relative to the original, above 0 and at most 1; shrunk by the exact bicubic.
    """

    def __init__(self, inner: Source, factors: Sequence[float]) -> None:
        self.inner, self.factors = inner, tuple(factors)
        self.names = NameList(_name_at(name, factor) for factor in self.factors for name in inner.names)
        self.identity = f"bicubic-uint8 symmetric x{self.factors} of {inner.identity}"

    def label(self, index: int) -> str:
        picture, factor = self._at(index)
        return self.inner.label(picture) + ("" if factor == 1 else f" shrunk to {factor:g}")

    def stats(self) -> np.ndarray:
        return np.tile(self.inner.stats(), (len(self.factors), 1))

    def shape(self, index: int) -> Shape:
        picture, factor = self._at(index)
        return _shape_at(self.inner.shape(picture), factor)

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        picture, factor = self._at(index)
        shape, dtype = self.inner.inspect(picture)
        return _shape_at(shape, factor), dtype

    def read(self, index: int) -> np.ndarray:
        picture, factor = self._at(index)
        image = self.inner.read(picture)
        return image if factor == 1 else imresize(image, factor)

    def _at(self, index: int) -> tuple[int, float]:
        which, picture = divmod(index, len(self.inner.names))
        return picture, self.factors[which]


def _name_at(name: str, factor: float) -> str:
    base = stem(name)
    return name if factor == 1 else f"{base}@{factor:g}{name[len(base) :]}"


def _shape_at(shape: Shape, factor: float) -> Shape:
    exact = as_fraction(factor)
    return ceil(shape[0] * exact), ceil(shape[1] * exact), shape[2]


class ShrunkSource:
    """lq made from gt: gt cut at bottom and right to a multiple of the scale, then shrunk by the exact bicubic.

    Args:
        gt: Where the pictures come from.
        scale: Factor to shrink by, one per axis.
        recipe: Rounding between the passes as published sets have it ("bicubic-uint8"), or once at the end.
    """

    def __init__(
        self, gt: Source, scale: tuple[int, ...], recipe: Literal["bicubic-uint8", "bicubic-float"] = "bicubic-uint8"
    ) -> None:
        self.gt, self.scale, self.recipe = gt, scale, recipe
        self.names = gt.names
        self.identity = f"{recipe} symmetric 1/{scale} of {gt.identity}"

    def label(self, index: int) -> str:
        return self.gt.label(index)

    def stats(self) -> np.ndarray:
        return self.gt.stats()

    def shape(self, index: int) -> Shape:
        return self._shrunk(self.gt.shape(index))

    def inspect(self, index: int) -> tuple[Shape, np.dtype]:
        shape, dtype = self.gt.inspect(index)
        return self._shrunk(shape), dtype

    def _shrunk(self, shape: Shape) -> Shape:
        return shape[0] // self.scale[0], shape[1] // self.scale[1], shape[2]

    def read(self, index: int) -> np.ndarray:
        gt = self.gt.read(index)
        if any(n < s for n, s in zip(gt.shape, self.scale)):
            raise DataError(f"{self.label(index)}: {gt.shape[:2]} is smaller than scale {self.scale}")
        factors = [Fraction(1, s) for s in self.scale]
        cut = mod_crop(gt, self.scale)
        return imresize(cut, factors, intermediate="uint8" if self.recipe == "bicubic-uint8" else "float")


def in_threads(work: Callable[[int], T], indices: Sequence[int]) -> Iterator[T]:
    """`work` of each index, in order; decoding releases the interpreter's lock, so threads run beside each other."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="srkit-decode") as pool:
        for start in range(0, len(indices), _IN_FLIGHT):
            yield from pool.map(work, indices[start : start + _IN_FLIGHT])
