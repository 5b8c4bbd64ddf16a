"""Where on a slide there is tissue: a small mask, and the share of tissue in any box of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from srkit.errors import DataError
from srkit.imaging.slides import Slide

CELL_UM = 8.0
_CELL_PX = 32  # of slides without microns per pixel: 8 um at 40x
_THRESHOLDS = (8, 24)  # of saturation, 0 to 255
_MEDIAN = 3  # cells; CLAM's 7, on cells twice as large, loses strands of 100 um
_CLOSING = 5
_SMALLEST = 64  # cells of a piece of tissue: 64 um by 64 um
_BLOCK_BYTES = 16 << 20
_MOST_CELLS = 1 << 28  # a glass slide of 76 mm x 26 mm has 31 million of 8 um, one of 125 mm x 100 mm 195 million
_LARGEST_BLOCK_BYTES = 256 << 20


@dataclass(frozen=True)
class TissueMask:
    """Cells (h, w) bool over a slide, each `cell_px` level-0 pixels wide and high."""

    cells: np.ndarray
    cell_px: int

    @cached_property
    def _sums(self) -> np.ndarray:
        """(h + 1, w + 1): tissue cells above and left of each corner."""
        return cv2.integral(self.cells.astype(np.uint8))

    def share(
        self, x: float | np.ndarray, y: float | np.ndarray, width: float, height: float
    ) -> np.ndarray | np.floating:
        """Part of a box that is tissue, 0 to 1, for boxes at (x, y) in level-0 pixels; x and y broadcast.

        Cells count by the part of them inside the box; what lies beyond the slide is no tissue.
        """
        right, below = np.add(x, width), np.add(y, height)
        inside = self._up_to(right, below) - self._up_to(x, below) - self._up_to(right, y) + self._up_to(x, y)
        return inside * self.cell_px**2 / (width * height)

    def _up_to(self, x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
        """Tissue, in cells, above and left of (x, y): between corners the sums are bilinear, because cells are even."""
        rows, columns = self.cells.shape
        v, u = (np.clip(np.asarray(p) / self.cell_px, 0, n) for p, n in ((y, rows), (x, columns)))
        i, j = np.minimum(v.astype(int), rows - 1), np.minimum(u.astype(int), columns - 1)
        v, u, sums = v - i, u - j, self._sums
        upper = sums[i, j] * (1 - u) + sums[i, j + 1] * u
        lower = sums[i + 1, j] * (1 - u) + sums[i + 1, j + 1] * u
        return upper * (1 - v) + lower * v


def find_tissue(slide: Slide) -> TissueMask:
    """The mask of a slide, in cells of 8 microns (of 32 pixels where microns are unknown).

    Raises: DataError when the slide cannot be decoded.
    """
    cell = _CELL_PX if slide.mpp is None else max(1, round(CELL_UM / slide.mpp))
    return TissueMask(tissue_cells(shrunk(slide, cell)), cell)


def tissue_cells(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB at about 8 microns per pixel -> (H, W) bool.

    Glass has no colour: tissue is where the saturation (HSV), smoothed by a median, is above Otsu's threshold; gaps are
    closed and specks dropped. The threshold is kept between 8, so that glass alone has no tissue, and 24, so that a slide
    that is all tissue is not parted into pale and dark. Pen marks are coloured and count as tissue.

    Source: Lu et al. 2021 (CLAM), Nature Biomedical Engineering 5:555, Methods "Segmentation": saturation, median, fixed
        threshold 8 or Otsu's, closing, smallest area.
    """
    saturation = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2HSV)[..., 1]
    smooth = cv2.medianBlur(np.ascontiguousarray(saturation), _MEDIAN)
    otsu, _ = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    found = (smooth > min(max(otsu, _THRESHOLDS[0]), _THRESHOLDS[1])).astype(np.uint8)
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_CLOSING, _CLOSING))
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(cv2.morphologyEx(found, cv2.MORPH_CLOSE, shape))
    large = facts[:, cv2.CC_STAT_AREA] >= _SMALLEST
    large[0] = False  # everything that is not tissue
    return large[pieces]


def shrunk(slide: Slide, cell: int) -> np.ndarray:
    """The slide with one pixel for every `cell` x `cell` of level 0: (h, w, 3) uint8 RGB.

    By area means of the coarsest level that is fine enough, block after block. Cells that reach beyond the slide see its
    outermost pixels repeated there.

    Raises: DataError when the slide cannot be decoded, or is too large to be looked over.
    """
    fine = [k for k, item in enumerate(slide.levels) if item.downsample <= cell]
    view = slide.view(level=max(fine, key=lambda k: slide.levels[k].downsample))
    rows, columns = -(-slide.height // cell), -(-slide.width // cell)
    small = np.empty((rows, columns, 3), np.uint8)
    per_cell = cell / view.downsample
    if rows * columns > _MOST_CELLS or 4 * view.width * per_cell > _LARGEST_BLOCK_BYTES:
        raise DataError(
            f"{slide.path}: {slide.width} x {slide.height} pixels, of which the smallest fitting level has {view.width} x "
            f"{view.height}, are too many to be looked over in squares of {cell} pixels; the slide is damaged, its microns per "
            "pixel are wrong, or it lacks smaller levels: write it anew as a pyramid"
        )
    right = round(columns * per_cell)
    step = max(1, int(_BLOCK_BYTES / (4 * view.width * per_cell)))
    for row in range(0, rows, step):
        top = min(round(row * per_cell), view.height - 1)
        here = small[row : row + step]
        end = max(round((row + len(here)) * per_cell), top + 1)
        block = view.read(0, top, min(right, view.width), min(end, view.height) - top)
        beyond = (0, end - top - block.shape[0], 0, right - block.shape[1])
        block = cv2.copyMakeBorder(block, *beyond, cv2.BORDER_REPLICATE)
        here[:] = cv2.resize(block, (columns, len(here)), interpolation=cv2.INTER_AREA)
    return small
