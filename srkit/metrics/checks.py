"""What every metric asks of its input and its own result."""

from __future__ import annotations

import math

import numpy as np

from srkit.errors import DataError, DivergedError


def require_pair(sr: np.ndarray, gt: np.ndarray, smallest: int = 1, metric: str = "metric") -> None:
    """Raise DataError unless sr and gt are equal (*S, C) with at least `smallest` pixels along every axis."""
    if sr.shape != gt.shape:
        raise DataError(f"{metric}: sr {sr.shape} and gt {gt.shape} differ; broadcasting would hide a wrong crop")
    if min(gt.shape[:-1]) < smallest:
        raise DataError(
            f"{metric} needs at least {smallest} pixels along every axis after the border, got {gt.shape[:-1]}"
            + ("; volumes with few slices need a slice-wise protocol" if gt.ndim == 4 else "")
        )


def require_mask(mask: np.ndarray, metric: str) -> None:
    """Raise DataError for a mask without a single place."""
    if not mask.any():
        raise DataError(f"{metric}: the mask is empty, so there is nothing to measure inside it")


def require_number(value: float, sr: np.ndarray, gt: np.ndarray, metric: str) -> float:
    """`value`, if finite: else DataError when gt holds the culprit, DivergedError when sr does."""
    if not math.isfinite(value):
        if not np.isfinite(gt).all():
            raise DataError(f"{metric}: gt holds values that are not finite")
        raise DivergedError(f"{metric}: {np.count_nonzero(~np.isfinite(sr))} of {sr.size} values of sr are not finite")
    return value
