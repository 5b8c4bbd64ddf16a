"""Whole slides read by region, at a wanted size of pixels.

OpenSlide takes regions in level-0 pixels and divides by a level's "downsample", which it computes from the levels' sizes:
4443 / 2221 columns give 2.0005. Where that is no whole number its regions lie between the stored pixels and come back
interpolated, each by another fraction (up to 43 grey levels off on a real slide). So a view reads whole-numbered levels
only, and does the rest of the reduction itself; then any region equals that part of the whole, to the last bit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil
from pathlib import Path

import numpy as np

from srkit.errors import DataError, RefusedError
from srkit.imaging.resize import imresize
from srkit.imaging.slide_claims import require_possible
from srkit.imaging.slide_handles import decode, handle_of

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".czi", ".svslide", ".vms", ".vmu")
SAME_SIZE = 0.02
"""A level whose pixels are so near to the wanted size, relatively, is taken as it is: scanners differ by as much."""

_LARGEST_MPP = 20.0  # above it stand printing resolutions: 300 dots per inch are 85 um
# Largest denominator of a reduction, and for strong ones largest denominator in pixels of the result: at most 1 % off. Regions
# are read from multiples of it, so larger ones would cost reading.
_DENOMINATOR, _DENOMINATOR_REDUCED = 64, 4


@dataclass(frozen=True)
class Level:
    """One stored size. `downsample` is OpenSlide's: level-0 pixels per pixel."""

    width: int
    height: int
    downsample: float


@dataclass(frozen=True)
class Slide:
    """A whole slide's facts; pixels are read through `view`. It may be pickled and used after a fork.

    Attributes:
        path: Of the file.
        levels: Finest first.
        mpp: Microns per pixel of level 0; None when the file does not say, says above 20 (a printing resolution), or says
            that pixels are not square.
        vendor: OpenSlide's name of the format: "aperio", "generic-tiff", ...
        objective: Magnification that the file names.
        background: RGB that shows where the slide has no pixels.
    """

    path: str
    levels: tuple[Level, ...]
    mpp: float | None
    vendor: str
    objective: float | None
    background: tuple[int, int, int]

    @property
    def width(self) -> int:
        return self.levels[0].width

    @property
    def height(self) -> int:
        return self.levels[0].height

    def view(self, *, mpp: float | None = None, level: int | None = None) -> SlideView:
        """The whole slide at a wanted size of pixels, at a stored level as it is, or (neither) at level 0.

        With `mpp` the coarsest level that is fine enough and can be read exactly is reduced by `imresize`. Regions of a
        view by `level` are OpenSlide's own: exact where `downsample` is a whole number.

        Raises: DataError when the slide's microns per pixel are unknown, or it is coarser than asked.
        """
        if mpp is None:
            chosen = level or 0
            return SlideView(self, chosen, Fraction(1), self._mpp_of(self.levels[chosen]))
        if level is not None:
            raise ValueError("a view has mpp or level, not both")
        if mpp <= 0:
            raise RefusedError(f"mpp: found {mpp}, expected microns per pixel above 0")
        if self.mpp is None:
            scanned = (
                f" (its objective of {self.objective:g}x suggests {10 / self.objective:g})" if self.objective else ""
            )
            raise DataError(
                f"{self.path} does not say its microns per pixel{scanned}; give them (slide_mpp), or leave mpp out to take "
                "level 0 as it is"
            )
        if self.mpp > mpp * (1 + SAME_SIZE):
            raise DataError(
                f"{self.path} has {self.mpp:g} microns per pixel, coarser than the {mpp:g} asked for: its detail cannot be "
                "had; ask for a larger mpp, or leave the slide out"
            )
        exact = [k for k, item in enumerate(self.levels) if item.downsample.is_integer()]
        fine = [k for k in exact if self.mpp * self.levels[k].downsample <= mpp * (1 + SAME_SIZE)]
        chosen = max(fine, key=lambda k: self.levels[k].downsample)
        found = self.mpp * self.levels[chosen].downsample
        if abs(found / mpp - 1) <= SAME_SIZE:
            return SlideView(self, chosen, Fraction(1), found)
        factor = Fraction(found / mpp).limit_denominator(max(_DENOMINATOR, round(_DENOMINATOR_REDUCED * mpp / found)))
        return SlideView(self, chosen, factor, found / float(factor))

    def _mpp_of(self, level: Level) -> float | None:
        return None if self.mpp is None else self.mpp * level.downsample

    def region(
        self, x: int, y: int, width: int, height: int, *, mpp: float | None = None, level: int | None = None
    ) -> np.ndarray:
        """A part of `view`, given by its place and size in level-0 pixels: (H, W, 3) uint8 RGB. Raises as `view`, `read`."""
        view = self.view(mpp=mpp, level=level)
        left, top = int(x / view.downsample), int(y / view.downsample)
        columns, rows = (max(1, round(n / view.downsample)) for n in (width, height))
        return view.read(left, top, min(columns, view.width - left), min(rows, view.height - top))


@dataclass(frozen=True)
class SlideView:
    """A slide as one picture, never held whole.

    Attributes:
        level: Stored level it is read from.
        factor: Reduction of that level, 1 at most.
        mpp: Microns per pixel it truly has: within 2 % of what was asked, within 1 % where it is reduced.
    """

    slide: Slide
    level: int
    factor: Fraction
    mpp: float | None

    @cached_property
    def width(self) -> int:
        return ceil(self.slide.levels[self.level].width * self.factor)

    @cached_property
    def height(self) -> int:
        return ceil(self.slide.levels[self.level].height * self.factor)

    @property
    def downsample(self) -> float:
        """Level-0 pixels per pixel of the view."""
        return self.slide.levels[self.level].downsample / float(self.factor)

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Columns x to x + width and rows y to y + height of the view: (height, width, 3) uint8 RGB.

        Equals that part of the whole level reduced at once.

        Raises: DataError naming file and place when the region reaches beyond the slide or cannot be decoded.
        """
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
            raise DataError(
                f"{self.slide.path}: {width}x{height} pixels at ({x}, {y}) are not inside {self.width}x{self.height}"
            )
        if self.factor == 1:
            return self._stored(x, y, width, height)
        stored = self.slide.levels[self.level]
        left, right, skip_x = self._needed(x, width, stored.width)
        top, bottom, skip_y = self._needed(y, height, stored.height)
        reduced = imresize(self._stored(left, top, right - left, bottom - top), self.factor)
        return reduced[skip_y : skip_y + height, skip_x : skip_x + width]

    def _needed(self, start: int, count: int, length: int) -> tuple[int, int, int]:
        """First and last pixel of the level that `count` reduced ones come from, and how many reduced ones lie before.

        The first is a multiple of the factor's denominator: from there the reduced grid is the whole's.
        """
        reach = ceil(2 / self.factor) + 1  # half of the bicubic kernel, widened
        step = self.factor.denominator
        first = max(0, int(start / self.factor) - reach) // step * step
        last = min(length, ceil((start + count) / self.factor) + reach)
        return first, last, start - int(first * self.factor)

    def _stored(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        scale = self.slide.levels[self.level].downsample
        place = (round(x * scale), round(y * scale))
        return decode(self.slide.path, place, self.level, (width, height), self.slide.background)


def open_slide(path: str | os.PathLike[str], *, mpp: float | None = None) -> Slide:
    """A slide's facts from its header.

    Args:
        path: Anything OpenSlide reads: Aperio, Hamamatsu, MIRAX, Leica, Ventana, Zeiss, Philips, plain tiled TIFF.
        mpp: Microns per pixel of level 0, where the file does not say them.

    Raises: DataError naming the path and the reason: missing, empty, damaged, not a slide, of sizes that it cannot have.
        RefusedError when OpenSlide is not installed.
    """
    if mpp is not None and mpp <= 0:
        raise RefusedError(f"microns per pixel of a slide are above 0, found {mpp}")
    path = os.fspath(path)
    handle = handle_of(path, anew=True)
    facts = dict(handle.properties)
    require_possible(path, facts)
    levels = [Level(w, h, d) for (w, h), d in zip(handle.level_dimensions, handle.level_downsamples)]
    return Slide(
        path,
        tuple(levels),
        _mpp(facts) or mpp,
        facts.get("openslide.vendor", ""),
        _number(facts.get("openslide.objective-power")),
        tuple(bytes.fromhex(facts.get("openslide.background-color", "ffffff"))),  # type: ignore[arg-type]
    )


def find_slides(root: Path, *, recursive: bool = False) -> list[str]:
    """Sorted names, relative to `root`, of the files that may be slides by their suffix; hidden ones left out."""
    found = root.rglob("*") if recursive else root.iterdir()
    names = (path.relative_to(root).as_posix() for path in found if path.name.lower().endswith(SLIDE_SUFFIXES))
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _mpp(facts: dict[str, str]) -> float | None:
    across, down = (_number(facts.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if not across or not down or not 0 < across <= _LARGEST_MPP or abs(across / down - 1) > SAME_SIZE:
        return None
    return (across + down) / 2


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
