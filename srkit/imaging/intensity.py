"""Which intensities of a volume count as 0 and 1, and which of its voxels belong to the body."""

from __future__ import annotations

from typing import Literal

import numpy as np

from srkit.errors import DataError

Normalization = Literal["percentiles", "zscore", "easysr_g1", "easysr_g2"]
_PERCENTILES = (0.5, 99.5)
_EASYSR_SDS = 2.58
_STRIPPED_SHARE = 0.2  # of exact zeros: scanners and rounding write fewer, masks more


def intensity_range(lq: np.ndarray, method: Normalization) -> tuple[float, float]:
    """(black, white) of a scan, in its units: unit intensity is (x - black) / (white - black).

    Training, evaluation and inference all ask here, with the low-resolution volume, for nothing else is known at
    inference. Scaling the scan scales both numbers, so that a network's output scales too.

    Args:
        lq: (I, J, K), finite.
        method: "percentiles": 0.5 and 99.5 of the voxels that are not exactly 0, which is what masks and padding
            write. "zscore": mean, and mean plus standard deviation, of those. "easysr_g1": minimum and maximum of all
            voxels. "easysr_g2": those of all voxels after clipping at 2.58 standard deviations from the mean (`to_unit`
            then has to clip).

    Raises: DataError for a volume whose intensities cannot be told apart.
    """
    if method in ("easysr_g1", "easysr_g2"):
        black, white = float(lq.min()), float(lq.max())
        if method == "easysr_g2":
            mean, sd = lq.mean(dtype=np.float64), lq.std(dtype=np.float64)
            black, white = max(black, float(mean - _EASYSR_SDS * sd)), min(white, float(mean + _EASYSR_SDS * sd))
    else:
        signal = lq[lq != 0]
        if not signal.size:
            raise DataError("every voxel is 0; a volume needs different intensities")
        if method == "percentiles":
            low, high = np.percentile(signal, _PERCENTILES)
            black, white = float(low), float(high)
        else:
            black = float(signal.mean(dtype=np.float64))
            white = black + float(signal.std(dtype=np.float64))
    if not white > black:
        raise DataError(f"its intensities cannot be told apart: {method} gives black {black:g} and white {white:g}")
    return black, white


def to_unit(volume: np.ndarray, black: float, white: float, *, clip: bool = False) -> np.ndarray:
    """float32 with black at 0 and white at 1; `clip` cuts at both."""
    unit = (volume - np.float32(black)) * np.float32(1 / (white - black))
    return np.clip(unit, 0, 1, out=unit) if clip else unit


def body_mask(volume: np.ndarray, threshold: float) -> np.ndarray:
    """Which voxels of (I, J, K) are not background: bool.

    A volume with a fifth or more of exact zeros was masked before, and all others are its body. Else the body is what
    exceeds `threshold` of the way from the 0.5th to the 99.5th percentile.

    Raises: DataError as `intensity_range` does.
    """
    signal = volume != 0
    if np.count_nonzero(signal) <= (1 - _STRIPPED_SHARE) * volume.size:
        return signal
    black, white = intensity_range(volume, "percentiles")
    return volume > black + threshold * (white - black)
