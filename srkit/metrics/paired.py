"""Two methods on the same pictures: the differences, how sure they are, and in how many groups they hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from srkit.errors import DataError
from srkit.metrics.summary import MIN_GROUPS, interval


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """First minus second, averaged within each group (slide, person, animal), then over groups.

    Attributes:
        n_images: Pictures compared; `n_identical` more have an infinite value in one method and are left out.
        groups: By group: its mean difference.
        ci95: Bootstrap over groups. None below 6 groups, as are p and effect.
        p: Wilcoxon signed-rank, two-sided; `test` says whether exact.
        effect: Rank-biserial correlation, -1 to 1: the share of ranks for the first minus that against it, so that above 0
            means the first is better, whichever way the metric points.
        better, worse: Groups in which the first is better, or worse; the rest are equal.
    """

    n_images: int
    n_identical: int
    groups: dict[str, float]
    mean: float
    ci95: list[float] | None
    p: float | None
    test: str
    effect: float | None
    better: int
    worse: int


def compare(
    first: Mapping[str, float],
    second: Mapping[str, float],
    group_of: Mapping[str, str],
    better: Literal["higher", "lower"],
) -> Comparison:
    """Compares two methods' values by picture.

    Pictures whose two values are both infinite are equal.

    Raises: DataError when the methods were measured on different pictures, or no difference is finite.
    Source: Wilcoxon 1945; effect: Kerby 2014, "The simple difference formula".
    """
    if first.keys() != second.keys():
        only = sorted(first.keys() ^ second.keys())
        raise DataError(
            f"the two were measured on different pictures: {len(only)} are in one only (first: {only[0]}); "
            "a paired comparison needs the same ones"
        )
    differences = {name: 0.0 if first[name] == second[name] else first[name] - second[name] for name in first}
    finite = {name: value for name, value in differences.items() if math.isfinite(value)}
    if not finite:
        raise DataError("no picture has a finite difference")
    members: dict[str, list[float]] = {}
    for name, value in finite.items():
        members.setdefault(group_of[name], []).append(value)
    groups = {group: float(np.mean(values)) for group, values in members.items()}
    means = np.array(list(groups.values()))
    gains = means if better == "higher" else -means
    enough = len(groups) >= MIN_GROUPS
    p, test = _wilcoxon(means) if enough else (None, f"none below {MIN_GROUPS} groups")
    return Comparison(
        n_images=len(finite),
        n_identical=len(differences) - len(finite),
        groups=groups,
        mean=float(means.mean()),
        ci95=interval(list(means), list(groups)) if enough else None,
        p=p,
        test=test,
        effect=rank_biserial(gains) if enough else None,
        better=int((gains > 0).sum()),
        worse=int((gains < 0).sum()),
    )


def rank_biserial(differences: np.ndarray) -> float:
    """(W+ - W-) / (W+ + W-) of the signed ranks of what is not 0; 0 when everything is."""
    from scipy.stats import rankdata

    kept = differences[differences != 0]
    if not kept.size:
        return 0.0
    ranks = rankdata(np.abs(kept))
    return float((ranks * np.sign(kept)).sum() / ranks.sum())


def _wilcoxon(differences: np.ndarray) -> tuple[float, str]:
    """Two-sided p. Exact without ties up to 50 differences other than 0; else the normal approximation."""
    from scipy.stats import wilcoxon

    kept = differences[differences != 0]
    if not kept.size:
        return 1.0, "no difference anywhere"
    is_exact = kept.size <= 50 and len(np.unique(np.abs(kept))) == kept.size
    method: Literal["exact", "approx"] = "exact" if is_exact else "approx"
    p = float(wilcoxon(kept, method=method).pvalue)
    return p, "Wilcoxon signed-rank, " + ("exact" if is_exact else "normal approximation")
