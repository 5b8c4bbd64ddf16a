"""One line about many per-image values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from srkit.errors import DataError

MIN_GROUPS = 6  # below, an interval would promise more than so few subjects can tell
_DRAWS, _SEED = 10_000, 0
_DRAWN_AT_ONCE = 1_000_000  # groups: of many thousand pictures all draws at once would fill gigabytes


def summarize(values: Sequence[float], groups: Sequence[str] | None = None) -> dict[str, Any]:
    """Count, mean, spread and extremes of per-image values, ready for JSON.

    Args:
        groups: The slide, person or animal of each value; None takes every image for itself.

    Infinite values are the PSNR of identical images: counted as `n_identical` and left out of everything else. `sd`
    divides by n - 1. What is undefined (mean of identical images only, sd of one image) is None.

    Returns: n, n_groups, n_identical, mean, sd, median, min, max, ci95 (see `interval`).
    Raises: DataError for an empty set or NaN, which would otherwise pass for a result.
    """
    _require_numbers(values)
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


def mean(values: Sequence[float]) -> float:
    """The mean that `summarize` tells, without the spread; infinite when every value is. Raises DataError as it does."""
    _require_numbers(values)
    finite = [float(v) for v in values if v != math.inf]
    return statistics.fmean(finite) if finite else math.inf


def places(means: Mapping[str, float], better: str, digits: int) -> dict[str, int]:
    """Method -> 0 for the best mean, 1 for the second, and so on.

    Means that are the same when printed with that many digits share a place, so a difference that a table does not show
    marks nobody.
    """
    printed = {method: round(value, digits) for method, value in means.items()}
    order = sorted(set(printed.values()), reverse=better == "higher")
    return {method: order.index(value) for method, value in printed.items()}


def shown(value: float, sign: str = "") -> str:
    """A value in a table: four decimals, or three digits where those would say nothing (an MSE of 2.5e-05)."""
    return f"{value:{sign}.3g}" if 0 < abs(value) < 1e-3 else f"{value:{sign}.4f}"


def decimals(values: Iterable[float]) -> int:
    """Decimals of a column of means: four, or as many as leave the largest three digits."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return 4 if largest == 0 or largest >= 1e-3 else 2 - math.floor(math.log10(largest))


def _require_numbers(values: Sequence[float]) -> None:
    if len(values) == 0:
        raise DataError("no images, so no mean: the set is empty")
    if any(math.isnan(v) or v == -math.inf for v in values):
        raise DataError(f"values that are no numbers among {len(values)} results")


def interval(values: Sequence[float], groups: Sequence[str]) -> list[float] | None:
    """95 % interval of the mean: 10,000 bootstrap draws of groups, percentiles, seed 0. None below `MIN_GROUPS` groups.

    Groups are drawn, not values, for values of one subject are not independent.
    """
    _, of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(of.max()) + 1 if len(values) else 0
    if count < MIN_GROUPS:
        return None
    draw, sums, sizes = np.random.default_rng(_SEED), np.bincount(of, values), np.bincount(of)
    means = np.empty(_DRAWS)
    step = max(1, _DRAWN_AT_ONCE // count)
    for start in range(0, _DRAWS, step):
        drawn = draw.integers(0, count, (min(step, _DRAWS - start), count))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return [float(edge) for edge in np.percentile(means, [2.5, 97.5])]
