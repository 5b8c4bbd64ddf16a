"""Metrics of the plain difference: PSNR, MSE, MAE, NRMSE."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from srkit.errors import DataError
from srkit.metrics.checks import require_mask, require_number, require_pair
from srkit.registry import METRICS


def _mse(sr: np.ndarray, gt: np.ndarray) -> float:
    difference = np.subtract(sr, gt, dtype=np.float64).ravel()
    # a dot product needs no array of squares
    return float(difference @ difference) / difference.size


class _Pointwise(ABC):
    """What looks at each place by itself can look at some places alone."""

    @abstractmethod
    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        """The value over all places."""

    def inside(self, sr: np.ndarray, gt: np.ndarray, data_range: float, mask: np.ndarray) -> float:
        """The same over the places where `mask` (*S) is true. DataError when it is nowhere."""
        require_mask(mask, type(self).__name__)
        return self(sr[mask], gt[mask], data_range)


@METRICS.register()
class PSNR(_Pointwise):
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
class LRConsistency(PSNR):
    """PSNR of the output made small again against lq, in dB: whether what was added contradicts what was seen.

    Pictures shrink by the antialiased bicubic, rounded as files are; volumes by the slices that lq was
    made by. gt plays no part, and repeated pixels are perfect: this tells a network that invents, not one that is better.
    """

    compares = "lq"


@METRICS.register()
class MSE(_Pointwise):
    """Mean squared error of intensities in units of `data_range` (0 to 1 for pictures), so that bit depths compare.

    Shape and errors as PSNR.
    """

    better: Literal["higher", "lower"] = "lower"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="MSE")
        return require_number(_mse(sr, gt) / data_range**2, sr, gt, "MSE")


@METRICS.register()
class MAE(_Pointwise):
    """Mean absolute error of intensities in units of `data_range` (0 to 1 for pictures).

    Shape and errors as PSNR.
    """

    better: Literal["higher", "lower"] = "lower"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="MAE")
        mean = float(np.abs(np.subtract(sr, gt, dtype=np.float64)).mean())
        return require_number(mean / data_range, sr, gt, "MAE")


@METRICS.register()
class NRMSE(_Pointwise):
    """Root of the squared error's mean over the root of gt's mean square: needs no range, and 1 is what zeros would get.

    Equal to scikit-image's `normalized_root_mse`. Shape and errors as PSNR; DataError when gt is zero everywhere.
    """

    better: Literal["higher", "lower"] = "lower"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric="NRMSE")
        power = float(np.square(gt, dtype=np.float64).mean())
        if power == 0:
            raise DataError("NRMSE: gt is zero everywhere, so there is nothing to relate the error to")
        return require_number(math.sqrt(_mse(sr, gt) / power), sr, gt, "NRMSE")
