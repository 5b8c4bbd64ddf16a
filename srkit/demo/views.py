"""Pictures that the page shows: before and after of one size, and the map of a slide. Nothing here is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from srkit.imaging.montage import middle_slice
from srkit.imaging.resize import imresize
from srkit.imaging.slices import enlarge
from srkit.imaging.slides import Slide
from srkit.imaging.tissue import TissueMask, find_tissue, shrunk

Pair = tuple[np.ndarray, np.ndarray]
"""Before and after, (H, W, 3) uint8 of one size."""

_SHOWN_PX = (1024, 1536)  # rows and columns of a result at most: a browser should not get 100 million pixels
_PLANE_PX = 420  # the longer side of a slice through a volume at least
_MAP_PX = 900
_REGION_PX = 512
_GREEN, _BLUE = (0, 150, 90), (20, 80, 230)


@dataclass(frozen=True)
class Box:
    """A part of a slide, in pixels of level 0."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class SlideMap:
    """A slide to look at.

    Attributes:
        picture: (h, w, 3) uint8 RGB with the tissue outlined.
        cell_px: Level-0 pixels per pixel of it.
        width, height: Of level 0.
        mpp: Microns per pixel of level 0, where the slide says them.
        start: A region in the midst of tissue.
    """

    picture: np.ndarray
    cell_px: int
    width: int
    height: int
    mpp: float | None
    start: Box

    def with_box(self, box: Box) -> np.ndarray:
        """The picture with a region marked."""
        shown = self.picture.copy()
        ends = [(box.x, box.y), (box.x + box.width - 1, box.y + box.height - 1)]
        (left, top), (right, bottom) = [(x // self.cell_px, y // self.cell_px) for x, y in ends]
        cv2.rectangle(shown, (left, top), (max(right, left + 2), max(bottom, top + 2)), _BLUE, 2)
        return shown

    def box_around(self, column: int, row: int, width: int, height: int) -> Box:
        """The region of that size around a pixel of the picture, moved inside the slide."""
        x, y = column * self.cell_px - width // 2, row * self.cell_px - height // 2
        return Box(max(0, min(x, self.width - width)), max(0, min(y, self.height - height)), width, height)


def slide_map(slide: Slide) -> SlideMap:
    """Raises DataError when the slide cannot be decoded."""
    cell = max(1, -(-max(slide.width, slide.height) // _MAP_PX))
    picture, tissue = shrunk(slide, cell), find_tissue(slide)
    size = (picture.shape[1], picture.shape[0])
    mask = cv2.resize(tissue.cells.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outlines, -1, _GREEN, 1)
    return SlideMap(picture, cell, slide.width, slide.height, slide.mpp, _fullest(slide, tissue))


def _fullest(slide: Slide, tissue: TissueMask) -> Box:
    """Where most tissue is, on a grid of half regions; the one nearest to the middle where several have as much."""
    width, height = min(_REGION_PX, slide.width), min(_REGION_PX, slide.height)
    xs = np.arange(0, slide.width - width + 1, max(1, width // 2))
    ys = np.arange(0, slide.height - height + 1, max(1, height // 2))
    share = tissue.share(xs[None], ys[:, None], width, height)
    off = np.hypot(xs[None] + width / 2 - slide.width / 2, ys[:, None] + height / 2 - slide.height / 2) / np.hypot(
        slide.width, slide.height
    )
    row, column = np.unravel_index(np.argmax(share - 1e-3 * off), off.shape)
    return Box(int(xs[column]), int(ys[row]), width, height)


def picture_pair(lq: np.ndarray, sr: np.ndarray, scale: Sequence[int]) -> Pair:
    """The middle of a picture: enlarged by bicubic interpolation, and restored.

    Args:
        lq: (H, W, 1 or 3), 8 or 16 bit.
        sr: (H * scale, W * scale, 1 or 3).
    """
    sides = [min(n, limit // s) for n, limit, s in zip(lq.shape, _SHOWN_PX, scale)]
    starts = [(n - side) // 2 for n, side in zip(lq.shape, sides)]
    small = lq[tuple(slice(start, start + side) for start, side in zip(starts, sides))]
    large = sr[tuple(slice(start * s, (start + side) * s) for start, side, s in zip(starts, sides, scale))]
    return _shown(imresize(np.ascontiguousarray(small), tuple(scale))), _shown(large)


def is_whole(lq: np.ndarray, scale: Sequence[int]) -> bool:
    """Whether `picture_pair` shows all of it."""
    return all(n * s <= limit for n, s, limit in zip(lq.shape, scale, _SHOWN_PX))


def volume_pairs(
    lq: np.ndarray, sr: np.ndarray, scale: Sequence[int], spacing_mm: Sequence[float], black: float, white: float
) -> list[Pair]:
    """The middle slices across the three axes, in true proportions; the voxels of `lq` stay visible.

    Args:
        lq, sr: (I, J, K) and (I, J, K) * scale.
        spacing_mm: Of `sr`.
        black, white: Intensities shown black and white.
    """
    before = enlarge(lq, tuple(scale), 0)
    pairs = []
    for axis in range(3):
        across, up = (mm for a, mm in enumerate(spacing_mm) if a != axis)
        planes = [middle_slice(volume, axis, black, white) for volume in (before, sr)]
        height, width = planes[0].shape[0] * up, planes[0].shape[1] * across
        per_mm = max(_PLANE_PX / max(height, width), 1 / min(spacing_mm))
        size = (max(1, round(width * per_mm)), max(1, round(height * per_mm)))
        before_plane, after_plane = (cv2.resize(p, size, interpolation=cv2.INTER_NEAREST) for p in planes)
        pairs.append((before_plane, after_plane))
    return pairs


def _shown(image: np.ndarray) -> np.ndarray:
    eight = (image >> 8).astype(np.uint8) if image.dtype == np.uint16 else image
    return np.ascontiguousarray(np.repeat(eight, 3, axis=-1) if eight.shape[-1] == 1 else eight)
