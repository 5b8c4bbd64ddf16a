"""Learning rate as a pure function of the iteration: nothing to save, nothing to step."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]
"""Maps updates already made (0 for the first one) to a learning rate."""


def constant(base_lr: float) -> Schedule:
    return lambda done: base_lr


def multi_step(
    base_lr: float,
    milestones: Sequence[int],
    gamma: float = 0.1,
    restarts: Sequence[int] = (),
    restart_weights: Sequence[float] = (),
) -> Schedule:
    """base_lr * gamma^(milestones passed since the last restart) * weight of that restart.

    A milestone is passed once that many updates are done, as in torch's MultiStepLR.
    """
    steps = sorted(milestones)

    def lr(done: int) -> float:
        index = bisect_right(restarts, done) - 1
        since = restarts[index] if index >= 0 else -1
        weight = restart_weights[index] if index >= 0 else 1.0
        return base_lr * weight * gamma ** sum(since < m <= done for m in steps)

    return lr


def cosine_restart(
    base_lr: float, periods: Sequence[int], restart_weights: Sequence[float] = (1.0,), eta_min: float = 0.0
) -> Schedule:
    """eta_min + w/2 * (base - eta_min) * (1 + cos(pi t / T)), t counted from the last restart.

    The end of a period still belongs to it. Past the last period the rate stays at its end value.
    """
    ends = [sum(periods[: i + 1]) for i in range(len(periods))]

    def lr(done: int) -> float:
        index = next((i for i, end in enumerate(ends) if done <= end), len(ends) - 1)
        t = min(done, ends[-1]) - (ends[index] - periods[index])
        return eta_min + restart_weights[index] / 2 * (base_lr - eta_min) * (1 + math.cos(math.pi * t / periods[index]))

    return lr


def with_warmup(schedule: Schedule, base_lr: float, warmup_iter: int) -> Schedule:
    """Linear from 0: attempt c (counted from 1) below `warmup_iter` runs at base_lr * c / warmup_iter."""
    if warmup_iter <= 0:
        return schedule
    return lambda done: base_lr * (done + 1) / warmup_iter if done + 1 < warmup_iter else schedule(done)
