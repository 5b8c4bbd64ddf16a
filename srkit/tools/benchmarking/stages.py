"""Where the time of an iteration goes: named stages, each moment counted for the innermost one that is open.

Every time comes twice: by the clock, and as CPU time of all threads of this process. On a machine with other work the second
is the one to compare; on a GPU it is what the host spends on launching, and close to the first where that is the limit.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from srkit.tools.measuring import wait

OTHER = "other"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a figure, in its own unit, over `count` values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median, low, high, len(values))


@dataclass(frozen=True)
class Time:
    """Seconds by the clock, and of the CPU, of one figure in several repetitions."""

    wall_s: Spread
    cpu_s: Spread

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, float]]) -> Time:
        return cls(Spread.of([wall for wall, _ in pairs]), Spread.of([cpu for _, cpu in pairs]))


def timed(work: Callable[[], object], count: int, device: torch.device) -> tuple[float, float]:
    """Mean seconds of a call, by the clock and of the CPU; the device is waited for at both ends only."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        work()
    wait(device)
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def ratio(ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> dict[str, Spread]:
    """Of pairs that were timed one after the other."""
    both = list(zip(ours, theirs, strict=True))
    return {kind: Spread.of([a[k] / b[k] for a, b in both]) for k, kind in enumerate(("wall", "cpu"))}


class StageClock:
    """Times of each stage in each iteration.

    On CUDA a stage is what lies between two events on the stream, read once at the end, so that measuring never makes the
    device wait; a device that waits for the host to launch its work is counted for the stage that it waits in. A stage of
    `on_host` (waiting for data) is timed by the host's clock everywhere.

    Args:
        on_host: Stages that the device takes no part in.
    """

    def __init__(self, device: torch.device, on_host: Sequence[str] = ()) -> None:
        self.device, self.on_host = device, frozenset(on_host)
        self.is_on = False
        self._open: list[str] = []
        self._since: Any = None
        self._pieces: list[list[tuple[str, Any, Any]]] = []

    @contextmanager
    def iteration(self) -> Iterator[None]:
        """One iteration; what no stage claims is counted as "other"."""
        self._pieces.append([])
        self.is_on = True
        try:
            with self.stage(OTHER):
                yield
        finally:
            self.is_on = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Counts for `name` until it ends, but for stages inside it. Without effect outside an iteration."""
        if not self.is_on:
            yield
            return
        self._turn_to(name)
        try:
            yield
        finally:
            self._turn_to(None)

    def around(self, owner: Any, method: str, name: str) -> None:
        """From now on calls of that method of that object are the stage `name`."""
        inner: Callable[..., Any] = getattr(owner, method)

        def staged(*args: Any, **kwargs: Any) -> Any:
            with self.stage(name):
                return inner(*args, **kwargs)

        object.__setattr__(owner, method, staged)  # a frozen dataclass too: it is the trial's own copy

    def _turn_to(self, name: str | None) -> None:
        """Ends the piece that runs, and begins one of the stage that is open now."""
        mark = self._mark()
        if self._open:
            self._pieces[-1].append((self._open[-1], self._since, mark))
        if name is None:
            self._open.pop()
        else:
            self._open.append(name)
        self._since = mark

    def _mark(self) -> tuple[float, float, Any]:
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
        return time.perf_counter(), time.process_time(), event

    def read(self) -> dict[str, list[tuple[float, float]]]:
        """Stage -> seconds by the clock and of the CPU in each iteration so far, 0 where it did not occur; begins anew."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        names = list(dict.fromkeys(name for pieces in self._pieces for name, _, _ in pieces))
        table: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for pieces in self._pieces:
            walls: dict[str, float] = defaultdict(float)
            cpus: dict[str, float] = defaultdict(float)
            for name, (host_from, cpu_from, event_from), (host_to, cpu_to, event_to) in pieces:
                is_host = event_from is None or name in self.on_host
                walls[name] += host_to - host_from if is_host else event_from.elapsed_time(event_to) / 1000
                cpus[name] += cpu_to - cpu_from
            for name in names:
                table[name].append((walls[name], cpus[name]))
        self._pieces = []
        return table


def shares(times: Mapping[str, Time], kind: str) -> dict[str, float]:
    """Each stage's part of the sum of medians, from 0 to 1; `kind` is "wall_s" or "cpu_s"."""
    medians = {name: float(getattr(value, kind).median) for name, value in times.items()}
    total = sum(medians.values())
    return {name: value / total if total else 0.0 for name, value in medians.items()}
