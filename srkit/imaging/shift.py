"""How far lq lies beside gt, to a fraction of a pixel: halves of a pair that were made by different reducers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from srkit.imaging.colour import luma_full
from srkit.imaging.resize import imresize

_STEPS = 20
_DONE_PX = 1e-3
_FLAT = 1e-8  # mean squared slope per pixel, in units of white, along the direction that has least of it


class Shift(NamedTuple):
    """lq's content lies `down` and `right` of gt's, in gt pixels; `correlation` of the two once that is undone."""

    down: float
    right: float
    correlation: float


def pair_shift(lq: np.ndarray, gt: np.ndarray, scale: Sequence[int]) -> Shift | None:
    """Shift of a pair, or None where the pictures are too flat or small to tell.

    Both become luma at gt's size, lq by bicubic about pixel centres, and are blurred until both lack what lq cannot hold.
    Then the shift is refined by Gauss-Newton steps on their difference, from strong blur to weak.

    Args:
        lq: (H, W, C), any range; C 1 or 3.
        gt: (H x scale, W x scale, C), of the same range, perhaps some pixels larger.

    Source: Lucas and Kanade 1981, An iterative image registration technique, section 4.
    """
    enlarged = imresize(luma_full(lq), scale)[..., 0]
    target = luma_full(gt)[: enlarged.shape[0], : enlarged.shape[1], 0]
    white = max(float(target.max()), float(enlarged.max()), 1e-9)
    coarse = float(max(scale))
    down, right = 0.0, 0.0
    result = None
    for sigma in (3 * coarse, coarse):
        a, b = (cv2.GaussianBlur(image / white, (0, 0), sigma) for image in (target, enlarged))
        margin = int(3 * coarse) + 2
        if min(a.shape) < 4 * margin:
            return None
        for _ in range(_STEPS):
            moved = _moved(b, down, right)
            inner = (slice(margin, -margin), slice(margin, -margin))
            mean = (a + moved) / 2
            rows, columns = (g[inner].ravel() for g in np.gradient(mean))
            difference = (a - moved)[inner].ravel()
            normal = np.array([[rows @ rows, rows @ columns], [rows @ columns, columns @ columns]])
            if np.linalg.eigvalsh(normal)[0] < _FLAT * rows.size:
                return None
            step = np.linalg.solve(normal, [rows @ difference, columns @ difference])
            down, right = down + float(step[0]), right + float(step[1])
            if np.abs(step).max() < _DONE_PX:
                break
        result = Shift(down, right, float(np.corrcoef(a[inner].ravel(), _moved(b, down, right)[inner].ravel())[0, 1]))
    return result


def _moved(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """The picture with its content that many pixels further up and left."""
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
