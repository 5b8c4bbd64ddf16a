"""Validation during training: the evaluator on schedule, best-so-far, pictures. Weights are the averaged ones if any."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from srkit.engine.evaluator import Evaluator, SetResult, is_better
from srkit.engine.faults import fault
from srkit.engine.log import TrainingLog
from srkit.engine.restorer import Restorer
from srkit.engine.stopping import StopRequest
from srkit.errors import StorageError

logger = logging.getLogger("srkit")
_PICTURES = 3  # validation pictures shown in TensorBoard as lq/sr/gt triples

Best = dict[str, dict[str, tuple[float, int]]]
"""Set name -> metric name -> (value, iteration)."""


class _Interrupted(Exception):
    """A stop was requested while pictures were being evaluated."""


@contextmanager
def _without_trials() -> Iterator[None]:
    """Without cuDNN's trying out of kernels, which would begin anew with every size of picture."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@dataclass
class Validation:
    """What is measured every `freq` iterations, and the best seen so far.

    Args:
        restorer: Runs the validated weights; `weights` is their name in log and records.
        save_folder: Where pictures go as <set>/<image>/<image>_<iteration>.png, or None.
        on_best: Called with the iteration when the first metric of the first set improves.
    """

    evaluator: Evaluator
    restorer: Restorer
    weights: str
    freq: int
    log: TrainingLog
    stop: StopRequest
    save_folder: Path | None = None
    on_best: Callable[[int], None] = lambda iteration: None
    best: Best = field(default_factory=dict)
    done_at: int = 0
    last_duration_s: float = 0.0

    def is_due(self, iteration: int, total_iter: int) -> bool:
        on_schedule = iteration % self.freq == 0 or iteration == total_iter
        return bool(self.evaluator.sets) and on_schedule and iteration > self.done_at

    def best_iteration(self) -> int | None:
        """Iteration of the best value of the first metric of the first set: what "best" means for files."""
        if not self.evaluator.sets or not self.evaluator.sets[0].metrics:
            return None
        first = self.evaluator.sets[0]
        found = self.best.get(first.name, {}).get(first.metrics[0].name)
        return found[1] if found else None

    def run(self, iteration: int) -> bool:
        """Measures every set. False when a stop request cut it short; nothing is recorded then."""
        began = time.monotonic()
        try:
            with _without_trials():
                results = [self._evaluate(index, iteration) for index in range(len(self.evaluator.sets))]
        except _Interrupted:
            return False
        before = self.best_iteration()
        for result in results:
            self._report(result, iteration)
        self.done_at = iteration
        self.last_duration_s = time.monotonic() - began
        if self.best_iteration() == iteration and before != iteration:
            self.on_best(iteration)
        return True

    def _evaluate(self, index: int, iteration: int) -> SetResult:
        item = self.evaluator.sets[index]

        unwritten: list[StorageError] = []

        def tick() -> None:
            fault("validation")
            # Peers wait for each other at the end of a set, so only a lone process may leave in the middle of one.
            if not self.evaluator.group.is_distributed and self.stop.is_requested():
                raise _Interrupted

        folder = self.save_folder

        def path(name: str) -> Path:
            return folder / item.name / name / f"{name}_{iteration}"  # type: ignore[operator]

        result = self.evaluator.evaluate(
            item,
            self.restorer,
            save_as=path if folder else None,
            previews=_PICTURES,
            tick=tick,
            on_unwritten=unwritten.append,
            may_wait=lambda: self.evaluator.group.is_distributed or not self.stop.is_overdue(),
        )
        if unwritten:
            logger.warning(
                "%s; %d of %d pictures of this validation are missing; training goes on, and the next validation tries again",
                unwritten[0],
                len(unwritten),
                len(item.dataset),
            )
        return result

    def _report(self, result: SetResult, iteration: int) -> None:
        measured = result.measured()
        values = {m.name: result.mean("model", m.name) for m in measured}
        best = self.best.setdefault(result.name, {})
        for named in measured:
            value = values[named.name]
            if named.name not in best or is_better(value, best[named.name][0], named.better):
                best[named.name] = (value, iteration)
        bars = {m.name: bar for m in measured if (bar := result.bar(m)) is not None}
        self.log.validation(iteration, result.name, self.weights, values, best, bars)
        for number, images in enumerate(result.previews, 1):
            self.log.pictures(iteration, f"{result.name}/picture_{number}", images)
