"""One line about many per-image values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from srkit.errors import DataError

MIN_GROUPS = 6  # below, an interval would promise more than so few subjects can tell
_DRAWS, _SEED = 10_000, 0


def summarize(values: Sequence[float], groups: Sequence[str] | None = None) -> dict[str, Any]:
    """Count, mean, spread and extremes of per-image values, ready for JSON.

    Args:
        groups: The slide, person or animal of each value; None takes every image for itself.

    Infinite values are the PSNR of identical images: counted as `n_identical` and left out of everything else. `sd`
    divides by n - 1. What is undefined (mean of identical images only, sd of one image) is None.

    Returns: n, n_groups, n_identical, mean, sd, median, min, max, ci95 (see `interval`).
    Raises: DataError for an empty set or NaN, which would otherwise pass for a result.
    """
    if len(values) == 0:
        raise DataError("no images, so no mean: the set is empty")
    if any(math.isnan(v) or v == -math.inf for v in values):
        raise DataError(f"values that are no numbers among {len(values)} results")
    names = [str(k) for k in range(len(values))] if groups is None else list(groups)
    kept = [(float(v), name) for v, name in zip(values, names, strict=True) if v != math.inf]
    finite = [value for value, _ in kept]
    return {
        "n": len(values),
        "n_groups": len(set(names)),
        "n_identical": len(values) - len(finite),
        "mean": statistics.fmean(finite) if finite else None,
        "sd": statistics.stdev(finite) if len(finite) > 1 else None,
        "median": statistics.median(finite) if finite else None,
        "min": min(finite, default=None),
        "max": max(finite, default=None),
        "ci95": interval(finite, [name for _, name in kept]),
    }


def interval(values: Sequence[float], groups: Sequence[str]) -> list[float] | None:
    """95 % interval of the mean: 10,000 bootstrap draws of groups, percentiles, seed 0. None below `MIN_GROUPS` groups.

    Groups are drawn, not values, for values of one subject are not independent.
    """
    _, of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(of.max()) + 1 if len(values) else 0
    if count < MIN_GROUPS:
        return None
    drawn = np.random.default_rng(_SEED).integers(0, count, (_DRAWS, count))
    sums, sizes = np.bincount(of, values), np.bincount(of)
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return [float(edge) for edge in np.percentile(means, [2.5, 97.5])]
