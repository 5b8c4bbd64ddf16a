"""Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from srkit.errors import DataError
from srkit.metrics.checks import require_number, require_pair
from srkit.metrics.ssim import SSIM_WINDOW, WINDOW_SIZE, channel_pairs, ssim_and_contrast
from srkit.registry import METRICS

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Four halvings, odd sizes rounded up, must leave a window: 161, 81, 41, 21, 11.
SMALLEST = (WINDOW_SIZE - 1) * 2 ** (len(WEIGHTS) - 1) + 1
MSSSIM_WINDOW = f"weights {WEIGHTS}, 2 x 2 means, {SSIM_WINDOW}"


@METRICS.register()
class MSSSIM:
    """MS-SSIM over five scales with the published weights, per channel, then averaged; 1 for identical images.

    The next scale is the mean of 2 x 2 pixels; an odd last row or column counts twice, as in the authors' code. A mean
    contrast below 0 (a negative of the picture) counts as 0, since its power is not a real number.

    Shape: `sr` and `gt` (H, W, C), equal, at least 161 x 161: smaller images have no fifth scale, and a plain SSIM
        under this name would be another number.
    Raises: DataError for smaller images, volumes or differing shapes, DivergedError when sr is not finite.
    """

    better: Literal["higher", "lower"] = "higher"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        if gt.ndim != 3:
            raise DataError(f"MSSSIM is defined for pictures (H, W, C), got {gt.shape}")
        require_pair(sr, gt, SMALLEST, "MSSSIM")
        value = float(np.mean([_msssim(*planes, data_range) for planes in channel_pairs(sr, gt)]))
        return require_number(value, sr, gt, "MSSSIM")


def _msssim(sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
    product = 1.0
    for weight in WEIGHTS[:-1]:
        product *= np.maximum(ssim_and_contrast(sr, gt, data_range)[1], 0.0) ** weight  # NaN stays NaN, unlike max()
        sr, gt = _half(sr), _half(gt)
    return product * np.maximum(ssim_and_contrast(sr, gt, data_range)[0], 0.0) ** WEIGHTS[-1]


def _half(plane: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, odd sizes rounded up."""
    plane = np.pad(plane, [(0, n % 2) for n in plane.shape], mode="edge")
    rows = plane[::2] + plane[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) / 4
