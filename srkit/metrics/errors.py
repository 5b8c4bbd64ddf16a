"""Metrics of the plain difference: PSNR, MSE, MAE."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from srkit.metrics.checks import require_number, require_pair
from srkit.registry import METRICS


def _mse(sr: np.ndarray, gt: np.ndarray) -> float:
    difference = np.subtract(sr, gt, dtype=np.float64).ravel()
    # a dot product needs no array of squares
    return float(difference @ difference) / difference.size


@METRICS.register()
class PSNR:
    """10 log10(data_range^2 / MSE) in dB over all pixels and channels; infinite for identical images, never capped.

    Shape: `sr` and `gt` (*S, C), equal, already prepared by a protocol.
    Raises: DataError when shapes differ or gt is not finite, DivergedError when sr is not.
    """

    better: Literal["higher", "lower"] = "higher"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="PSNR")
        mse = _mse(sr, gt)
        if mse == 0:
            return math.inf
        return 10 * math.log10(data_range**2 / require_number(mse, sr, gt, "PSNR"))


@METRICS.register()
class MSE:
    """Mean squared error of intensities in units of `data_range` (0 to 1 for pictures), so that bit depths compare.

    Shape and errors as PSNR.
    """

    better: Literal["higher", "lower"] = "lower"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="MSE")
        return require_number(_mse(sr, gt) / data_range**2, sr, gt, "MSE")


@METRICS.register()
class MAE:
    """Mean absolute error of intensities in units of `data_range` (0 to 1 for pictures).

    Shape and errors as PSNR.
    """

    better: Literal["higher", "lower"] = "lower"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="MAE")
        mean = float(np.abs(np.subtract(sr, gt, dtype=np.float64)).mean())
        return require_number(mean / data_range, sr, gt, "MAE")
