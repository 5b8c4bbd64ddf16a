"""Metrics of edge maps: how many predicted edge pixels are edges of gt, and how many of those were found."""

from __future__ import annotations

from typing import Literal

import numpy as np

from srkit.metrics.checks import require_pair
from srkit.registry import METRICS

_THRESHOLD = 0.5


class _EdgeMetric:
    """Counts of pixels above 0.5; pixels must agree exactly, without tolerance for shifts.

    The protocol brings pictures to maps: of gt and of enlarged pictures Canny's, and a network's map as it is. A picture
    without edges of gt where none are predicted counts as 1, one of the two without the other as 0.

    Shape: `sr` and `gt` (H, W, 1), equal, 0 to 1. Raises: DataError when shapes differ.
    """

    compares = "edges"
    better: Literal["higher", "lower"] = "higher"

    def _counts(self, sr: np.ndarray, gt: np.ndarray) -> tuple[int, int, int]:
        """Pixels predicted and right, predicted, and right to predict."""
        require_pair(sr, gt, metric=type(self).__name__)
        predicted, wanted = sr > _THRESHOLD, gt > _THRESHOLD
        return int((predicted & wanted).sum()), int(predicted.sum()), int(wanted.sum())


def _share(part: int, whole: int, both_empty: bool) -> float:
    return part / whole if whole else float(both_empty)


@METRICS.register()
class EdgePrecision(_EdgeMetric):
    """Share of predicted edge pixels that are edges of gt."""

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        right, predicted, wanted = self._counts(sr, gt)
        return _share(right, predicted, both_empty=wanted == 0)


@METRICS.register()
class EdgeRecall(_EdgeMetric):
    """Share of gt's edge pixels that were predicted."""

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        right, predicted, wanted = self._counts(sr, gt)
        return _share(right, wanted, both_empty=predicted == 0)


@METRICS.register()
class EdgeF1(_EdgeMetric):
    """Harmonic mean of precision and recall: 2 right / (predicted + wanted)."""

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        right, predicted, wanted = self._counts(sr, gt)
        return _share(2 * right, predicted + wanted, both_empty=True)
