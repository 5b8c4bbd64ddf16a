"""Loss sums and skip counters that stay on the device until somebody asks for them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from srkit.engine.distributed import Group


class LossMeter:
    """Means of each loss over the finite iterations since the last reading; counts of skipped ones.

    `iteration_s` is how long an iteration took on average up to the last reading. Nothing here synchronises with the device except `read`, `worst_streak` and `state_dict`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._skipped = torch.zeros((), device=device)
        self._streak = torch.zeros((), device=device)
        self._worst = torch.zeros((), device=device)
        self.iterations = 0
        self.iteration_s = 0.0
        self._since = time.perf_counter()
        self._data_s = 0.0

    def end_of_iteration(self, losses: Mapping[str, Tensor], found_inf: Tensor) -> None:
        """Adds one iteration's weighted losses, unless the 0-d tensor `found_inf` says that it was skipped."""
        is_skipped = found_inf > 0
        for name, value in losses.items():
            kept = torch.where(is_skipped, 0.0, value)  # not a product: nan * 0 is nan
            self._sums[name] = self._sums[name] + kept if name in self._sums else kept
            # Counted by name: not every loss counts, nor every network learns, in every iteration.
            self._counts[name] = self._counts[name] + 1 - found_inf if name in self._counts else 1 - found_inf
        self._skipped += found_inf
        self._streak = (self._streak + 1) * found_inf
        self._worst = torch.maximum(self._worst, self._streak)
        self.iterations += 1

    @contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._data_s += time.perf_counter() - began

    def read(self, group: Group) -> tuple[dict[str, float], float, float]:
        """Mean losses over ranks, seconds per iteration, seconds of it waiting for data; starts anew."""
        names = sorted(self._sums)
        values = [self._sums[n] for n in names] + [self._counts[n] for n in names]
        both = group.mean(torch.stack(values)).tolist() if values else []
        sums, counts = both[: len(names)], both[len(names) :]
        means = {n: total / k if k else float("nan") for n, total, k in zip(names, sums, counts, strict=True)}
        now, count = time.perf_counter(), max(1, self.iterations)
        self.iteration_s = (now - self._since) / count
        timing = self.iteration_s, self._data_s / count
        self._sums, self._counts, self.iterations, self._since, self._data_s = {}, {}, 0, now, 0.0
        return means, *timing

    def skipped(self) -> int:
        return int(self._skipped.item())

    def worst_streak(self) -> int:
        """Longest run of skipped iterations since the last call."""
        worst = int(self._worst.item())
        self._worst = self._streak.clone()
        return worst

    def state_dict(self) -> dict[str, Any]:
        counters = {"skipped": self._skipped, "streak": self._streak, "worst": self._worst}
        return {
            "sums": {name: value.cpu() for name, value in self._sums.items()},
            "counts": {name: value.cpu() for name, value in self._counts.items()},
            "counters": {name: value.cpu().clone() for name, value in counters.items()},
            "iterations": self.iterations,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sums = {name: value.to(self._device) for name, value in state["sums"].items()}
        self._counts = {name: value.to(self._device) for name, value in state["counts"].items()}
        counters = {name: value.to(self._device) for name, value in state["counters"].items()}
        self._skipped, self._streak, self._worst = counters["skipped"], counters["streak"], counters["worst"]
        self.iterations = state["iterations"]
