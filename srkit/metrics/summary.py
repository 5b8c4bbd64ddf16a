"""One line about many per-image values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from srkit.errors import DataError


def summarize(values: Sequence[float]) -> dict[str, int | float | None]:
    """Count, mean, spread and extremes of per-image values, ready for JSON.

    Infinite values are the PSNR of identical images: counted as `n_identical` and left out of everything else. `sd`
    divides by n - 1. What is undefined (mean of identical images only, sd of one image) is None.

    Returns: n, n_identical, mean, sd, median, min, max.
    Raises: DataError for an empty set or NaN, which would otherwise pass for a result.
    """
    if len(values) == 0:
        raise DataError("no images, so no mean: the set is empty")
    if any(math.isnan(v) or v == -math.inf for v in values):
        raise DataError(f"values that are no numbers among {len(values)} results")
    finite = [float(v) for v in values if v != math.inf]
    return {
        "n": len(values),
        "n_identical": len(values) - len(finite),
        "mean": statistics.fmean(finite) if finite else None,
        "sd": statistics.stdev(finite) if len(finite) > 1 else None,
        "median": statistics.median(finite) if finite else None,
        "min": min(finite, default=None),
        "max": max(finite, default=None),
    }
