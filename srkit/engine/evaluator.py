"""Measures a network on sets of pictures; validation and test.py share it, so their numbers are the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal
from typing import Protocol as TypingProtocol

import numpy as np
from tqdm import tqdm

from srkit.data.forms import form_of
from srkit.data.loader import eval_samples
from srkit.data.sample import Sample
from srkit.engine.distributed import Group
from srkit.engine.log import logger
from srkit.engine.restorer import Restorer
from srkit.engine.timing import Stopwatch, Timing
from srkit.errors import DataError, DivergedError, StorageError
from srkit.metrics.protocol import Protocol
from srkit.metrics.summary import mean, summarize

_QUICK_VALUES = 12_000_000  # a picture larger than this is never too small for a metric


class MetricFunction(TypingProtocol):
    """One that can be measured inside a mask has `inside(sr, gt, data_range, mask)` too, mask (*S) bool. One whose
    attribute `compares` is "lq" gets sr made small again, and lq in place of gt. One that cannot work here has a text
    `unavailable`, which says what is missing; it is left out of rows, and tables write n/a."""

    better: str

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float: ...


@dataclass(frozen=True)
class NamedMetric:
    """A metric under the name the option file gives it, the protocol that prepares its pictures, and where it looks.

    Args:
        told: Type and options in words: of two values, what besides the protocol must be alike.
    """

    name: str
    metric: MetricFunction
    protocol: Protocol
    better: str
    region: Literal["whole", "mask"] = "whole"
    erode: int = 0
    told: str = ""

    @property
    def is_of_lq(self) -> bool:
        """Whether it compares with lq."""
        return getattr(self.metric, "compares", "") == "lq"

    @property
    def unavailable(self) -> str:
        """Why it cannot be measured here; empty when it can."""
        return str(getattr(self.metric, "unavailable", ""))

    def __call__(
        self, sr: np.ndarray, gt: np.ndarray, scale: Sequence[int], span: float, mask: np.ndarray | None
    ) -> float:
        """The value of file values `sr` and `gt` (*S, C); `mask` (*S) bool, or None. DataError for what cannot be measured."""
        prepared = self.protocol.prepare(sr, gt, scale, span)
        if self.region == "whole":
            return float(self.metric(*prepared))
        if mask is None:
            raise DataError("measured inside a mask, and there is none; give mask_root, or leave region: mask out")
        if self.erode:
            from scipy.ndimage import binary_erosion

            mask = binary_erosion(mask, iterations=self.erode)
        return float(self.metric.inside(*prepared, self.protocol.prepare_mask(mask, scale)))  # type: ignore[attr-defined]


@dataclass(frozen=True)
class EvalSet:
    """Pictures to measure on, and their scale per axis. Without metrics (or without gt) they are only restored and saved."""

    name: str
    dataset: Any
    metrics: tuple[NamedMetric, ...]
    scale: tuple[int, ...]
    num_workers: int = 0


@dataclass(frozen=True)
class Row:
    """One value: which picture, made by which method, measured how."""

    image: str
    method: str
    metric: str
    protocol: str
    value: float
    group: str


@dataclass
class SetResult:
    """All rows of one set; means are taken from these and from nothing else.

    Args:
        baselines: The interpolation rows among the methods.
        previews: By picture: what its form shows of lq, sr and gt.
        jpeg_gt: Pictures whose gt is a JPEG file: figures of those are no measure of what a network restores.
        timings: By method; networks only, and only where pictures were restored.
    """

    name: str
    metrics: tuple[NamedMetric, ...]
    rows: list[Row]
    images: int
    baselines: tuple[str, ...] = ()
    previews: list[dict[str, np.ndarray]] = field(default_factory=list)
    jpeg_gt: int = 0
    timings: dict[str, Timing] = field(default_factory=dict)
    _summaries: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict, init=False, repr=False)

    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows))

    def measured(self) -> list[NamedMetric]:
        """The metrics that could be measured."""
        found = {row.metric for row in self.rows}
        return [m for m in self.metrics if m.name in found]

    def joined(self, other: SetResult) -> SetResult:
        """With the rows of another network of the same set; interpolation stays this one's."""
        more = [row for row in other.rows if row.method not in self.baselines]
        return replace(self, rows=[*self.rows, *more], timings={**self.timings, **other.timings})

    def summary(self, method: str, metric: str) -> dict[str, Any]:
        """Worked out once: its interval takes as long as thousands of means."""
        if (method, metric) not in self._summaries:
            rows = [r for r in self.rows if r.method == method and r.metric == metric]
            self._summaries[method, metric] = summarize([r.value for r in rows], [r.group for r in rows])
        return self._summaries[method, metric]

    def mean(self, method: str, metric: str) -> float:
        """Mean over images; infinite when every image is identical to its gt."""
        return mean([r.value for r in self.rows if r.method == method and r.metric == metric])

    def bar(self, metric: NamedMetric) -> tuple[str, float] | None:
        """The interpolation with the best mean, and that: what a network has to beat. None without such rows, and for a
        metric that compares with lq, in which interpolation can be perfect."""
        if metric.is_of_lq:
            return None
        found = [
            (name, self.mean(name, metric.name))
            for name in self.methods()
            if name in self.baselines and metric in self.measured()
        ]
        if not found:
            return None
        return (max if metric.better == "higher" else min)(found, key=lambda item: item[1])


@contextmanager
def _writer(behind: bool) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does what it is given: at once, or `behind`: on a thread, while the next picture is read and restored. What a write
    raises there comes up with the next one, or at the end; the thread ends with the block in any case."""
    if not behind:
        yield lambda write: write()
        return
    with ThreadPoolExecutor(1, "srkit-picture") as pool:
        jobs: list[Future[None]] = []

        def later(write: Callable[[], None]) -> None:
            if jobs:
                jobs.pop().result()
            jobs.append(pool.submit(write))

        yield later
        if jobs:
            jobs.pop().result()


class Evaluator:
    """Runs a restorer over sets, with interpolation rows beside it.

    Args:
        sets: What to measure on.
        group: Pictures are dealt out over its ranks; every rank gets all rows.
        baselines: Whether to measure interpolation too (computed once, then remembered).
        progress: Whether to draw a bar on a terminal.
    """

    def __init__(
        self,
        sets: Sequence[EvalSet],
        group: Group,
        baselines: bool = True,
        progress: bool = False,
    ) -> None:
        self.sets = list(sets)
        self.group = group
        self.baselines = baselines
        self.progress = progress and group.is_main and sys.stdout.isatty()
        self._baseline_rows: dict[str, list[Row]] = {}

    def evaluate(
        self,
        item: EvalSet,
        restorer: Restorer,
        method: str = "model",
        save_as: Callable[[str], Path] | None = None,
        previews: int = 0,
        tick: Callable[[], None] = lambda: None,
        on_unwritten: Callable[[StorageError], None] | None = None,
        known: Iterable[Row] = (),
        keep: Callable[[Sequence[Row]], None] = lambda rows: None,
        stopwatch: Stopwatch | None = None,
        may_wait: Callable[[], bool] = lambda: True,
    ) -> SetResult:
        """Rows of one set.

        Args:
            method: Name of the network's rows.
            save_as: Maps a picture's name to the path, without suffix, its sr is written to.
            previews: Pictures of which a preview is kept (on rank 0).
            tick: Called after every picture; may raise to give up.
            on_unwritten: Told of each sr that could not be written; None raises that StorageError instead.
            known: Rows measured before: a picture whose rows are complete, and whose file is there where one is wanted, is
                neither restored nor saved again.
            keep: Called with the new rows of each picture.
            stopwatch: Times the network.
            may_wait: Asked while a loader worker is silent; False gives it up.

        Raises: DataError for an empty set; DivergedError when an output is not finite.
        """
        count = len(item.dataset)
        if count == 0:
            raise DataError(f"{item.name}: no pictures to evaluate")
        mine = range(self.group.rank, count, self.group.world_size)
        rows: list[Row] = []
        kept: list[dict[str, np.ndarray]] = []
        want_baselines = self.baselines and item.name not in self._baseline_rows
        baseline_rows: list[Row] = []
        baselines: tuple[str, ...] = ()
        samples = eval_samples(item.dataset, mine, item.num_workers, may_wait=may_wait)
        earlier = _complete(known, {m.name for m in item.metrics if not m.unavailable})
        jpegs = 0
        # Beside a network that is timed nothing else runs.
        with _writer(behind=stopwatch is None) as writing:
            for sample in tqdm(samples, item.name, len(mine), leave=False, disable=not self.progress):
                form, new, has_gt = form_of(sample), [], "gt" in sample.images
                jpegs += has_gt and sample.paths.get("gt", "").lower().endswith((".jpg", ".jpeg"))
                place = None if save_as is None else save_as(sample.name)
                found = earlier.get((method, sample.name))
                if found is None or (place is not None and not form.path(place).is_file()):
                    restored = self._restore(restorer.at_scale(item.scale), sample, item.name, stopwatch)
                    sr = form.values(restored)
                    if place is not None:
                        writing(partial(_write, partial(form.write, place, restored, sample, item.scale), on_unwritten))
                    found = list(self.measure(item, sample, method, sr))
                    new += found
                    if len(kept) < previews:
                        kept.append(form.preview({**sample.images, "sr": sr}))
                rows.extend(found)
                baselines = form.baselines
                for name in baselines if want_baselines and has_gt else ():
                    found = earlier.get((name, sample.name))
                    if found is None:
                        enlarged = form.enlarged(name, sample.images["lq"], item.scale)
                        found = list(self.measure(item, sample, name, enlarged))
                        new += found
                    baseline_rows.extend(found)
                keep(new)
                tick()
        gathered = self.group.gather((rows, baseline_rows, jpegs))
        if want_baselines:
            self._baseline_rows[item.name] = _interleave([part[1] for part in gathered])
        rows = self._baseline_rows.get(item.name, []) + _interleave([part[0] for part in gathered])
        timing = stopwatch.timing() if stopwatch else None
        return SetResult(
            item.name,
            item.metrics,
            rows,
            count,
            baselines,
            kept,
            sum(part[2] for part in gathered),
            {} if timing is None else {method: timing},
        )

    @staticmethod
    def _restore(restorer: Restorer, sample: Sample, set_name: str, stopwatch: Stopwatch | None) -> np.ndarray:
        """sr, 1.0 is white, not clipped."""
        given = (sample.images["lq"], sample.white, sample.black)
        sr = restorer(*given) if stopwatch is None else stopwatch(restorer, *given)
        if not np.isfinite(sr).all():
            raise DivergedError(f"{set_name}/{sample.name}: the network's output is not finite; use earlier weights")
        return sr

    @staticmethod
    def measure(item: EvalSet, sample: Sample, method: str, sr: np.ndarray) -> Iterator[Row]:
        """A row for each metric of the set that can be measured here; none without gt."""
        gt = sample.images.get("gt")
        if gt is None:
            return
        if sr.shape[:-1] != gt.shape[:-1]:
            raise DataError(
                f"{item.name}/{sample.name}: sr is {sr.shape[:-1]}, gt is {gt.shape[:-1]} ({sample.paths.get('gt')}); "
                f"lq and gt do not differ by scale {item.scale}"
            )
        mask, form = _mask(sample), form_of(sample)
        for named in item.metrics:
            if named.unavailable:
                continue
            pair = (sr, gt) if not named.is_of_lq else (form.reduced(sr, item.scale), form.low(sample.images["lq"]))
            value = named(*pair, item.scale, form.data_range, mask)
            protocol = f"{named.protocol.name}#{named.protocol.hash}"
            yield Row(sample.name, method, named.name, protocol, value, sample.group or sample.name)


def _write(write: Callable[[], None], on_unwritten: Callable[[StorageError], None] | None) -> None:
    try:
        write()
    except StorageError as error:
        if on_unwritten is None:
            raise
        on_unwritten(error)


def _mask(sample: Sample) -> np.ndarray | None:
    mask = sample.images.get("mask")
    return None if mask is None else mask[..., 0] > 0


def _complete(known: Iterable[Row], metrics: set[str]) -> dict[tuple[str, str], list[Row]]:
    """By method and picture: rows of exactly these metrics, the latest of each."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in known:
        found.setdefault((row.method, row.image), {})[row.metric] = row
    return {key: list(rows.values()) for key, rows in found.items() if metrics and rows.keys() == metrics}


def check_metrics(item: EvalSet) -> None:
    """Measures gt of the first picture against itself, to refuse at once what no picture of the set can be measured with.
    A metric that is not available here is said, and refuses nothing.

    Raises: DataError naming set and metric.
    """
    if not item.metrics or len(item.dataset) == 0:
        return
    sample = item.dataset.sample(0, None)
    gt, channels = sample.images.get("gt"), sample.images["lq"].shape[-1]
    if gt is None:
        return
    form = form_of(sample)
    given = (form.ideal(gt, channels), gt, item.scale, form.data_range)
    for named in item.metrics:
        if named.unavailable:
            logger.warning("%s, metric %s: n/a; %s", item.name, named.name, named.unavailable)
        if named.unavailable or named.is_of_lq:
            continue
        try:
            if gt.size <= _QUICK_VALUES:
                named(*given, _mask(sample))
            else:
                named.protocol.prepare(*given)
        except DataError as error:
            raise DataError(f"{item.name}, metric {named.name}: {error}") from None


def _interleave(parts: Sequence[Sequence[Row]]) -> list[Row]:
    """Rows of all ranks in picture order, as one process would have made them."""
    if len(parts) == 1:
        return list(parts[0])
    blocks: list[list[list[Row]]] = []
    for part in parts:
        per_image: dict[str, list[Row]] = {}
        for row in part:
            per_image.setdefault(row.image, []).append(row)
        blocks.append(list(per_image.values()))
    longest = max(len(block) for block in blocks)
    return [row for i in range(longest) for block in blocks if i < len(block) for row in block[i]]


def is_better(value: float, best: float, better: str) -> bool:
    """NaN is never better."""
    return value > best if better == "higher" else value < best
