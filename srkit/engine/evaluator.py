"""Measures a network on sets of pictures; validation and test.py share it, so their numbers are the same numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from typing import Protocol as TypingProtocol

import numpy as np
from tqdm import tqdm

from srkit.data.loader import eval_samples
from srkit.data.sample import Sample
from srkit.engine.distributed import Group
from srkit.engine.restorer import Restorer
from srkit.errors import DataError, DivergedError
from srkit.imaging.colour import full_from_limited, limited_from_full, luma, quantize, with_chroma
from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize, nearest_upscale
from srkit.metrics.protocol import Protocol
from srkit.metrics.summary import summarize

_QUICK_VALUES = 12_000_000  # a picture larger than this is never too small for a metric

BASELINES: Mapping[str, Callable[[np.ndarray, tuple[int, ...]], np.ndarray]] = {
    "nearest": nearest_upscale,
    "bicubic-matlab": imresize,
}


class MetricFunction(TypingProtocol):
    better: str

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float: ...


@dataclass(frozen=True)
class NamedMetric:
    """A metric under the name the option file gives it, and the protocol that prepares its pictures."""

    name: str
    metric: MetricFunction
    protocol: Protocol
    better: str


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


@dataclass
class SetResult:
    """All rows of one set; means are taken from these and from nothing else."""

    name: str
    metrics: tuple[NamedMetric, ...]
    rows: list[Row]
    images: int
    examples: list[dict[str, np.ndarray]] = field(default_factory=list)

    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows))

    def summary(self, method: str, metric: str) -> dict[str, Any]:
        return summarize([r.value for r in self.rows if r.method == method and r.metric == metric])

    def mean(self, method: str, metric: str) -> float:
        """Mean over images; infinite when every image is identical to its gt."""
        mean = self.summary(method, metric)["mean"]
        return math.inf if mean is None else float(mean)


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
        examples: int = 0,
        tick: Callable[[], None] = lambda: None,
    ) -> SetResult:
        """Rows of one set.

        Args:
            method: Name of the network's rows.
            save_as: Maps a picture's name to the file its sr is written to.
            examples: Pictures kept as lq/sr/gt triples (on rank 0).
            tick: Called after every picture; may raise to give up.

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
        samples = eval_samples(item.dataset, mine, item.num_workers)
        for sample in tqdm(samples, item.name, len(mine), leave=False, disable=not self.progress):
            restored = self._restore(restorer.at_scale(item.scale), sample, item.name)
            sr = quantize(restored, _file_type(sample), sample.white)
            if save_as is not None:
                write_image(save_as(sample.name), _in_colour(restored, sample, item.scale))
            rows.extend(self._measure(item, sample, method, sr))
            if want_baselines and "gt" in sample.images:
                for name, enlarge in BASELINES.items():
                    enlarged = enlarge(sample.images["lq"], item.scale)
                    if sample.luma == "full":
                        enlarged = limited_from_full(enlarged, sample.white)
                    baseline_rows.extend(self._measure(item, sample, name, _as_file(enlarged, sample)))
            if len(kept) < examples:
                kept.append({**sample.images, "sr": sr})
            tick()
        gathered = self.group.gather((rows, baseline_rows))
        if want_baselines:
            self._baseline_rows[item.name] = _interleave([part[1] for part in gathered])
        rows = self._baseline_rows.get(item.name, []) + _interleave([part[0] for part in gathered])
        return SetResult(item.name, item.metrics, rows, count, kept)

    @staticmethod
    def _restore(restorer: Restorer, sample: Sample, set_name: str) -> np.ndarray:
        """sr, 1.0 is white, not clipped; luma in limited range."""
        sr = restorer(sample.images["lq"], sample.white)
        if not np.isfinite(sr).all():
            raise DivergedError(f"{set_name}/{sample.name}: the network's output is not finite; use earlier weights")
        if sample.luma == "full":
            sr = limited_from_full(sr)
        return sr

    def _measure(self, item: EvalSet, sample: Sample, method: str, sr: np.ndarray) -> Iterator[Row]:
        gt = sample.images.get("gt")
        if gt is None:
            return
        if sr.shape[:-1] != gt.shape[:-1]:
            raise DataError(
                f"{item.name}/{sample.name}: sr is {sr.shape[:-1]}, gt is {gt.shape[:-1]} ({sample.paths.get('gt')}); "
                f"lq and gt do not differ by scale {item.scale}"
            )
        for named in item.metrics:
            prepared = named.protocol.prepare(sr, gt, item.scale, sample.white)
            value = named.metric(prepared.sr, prepared.gt, prepared.data_range)
            yield Row(sample.name, method, named.name, f"{named.protocol.name}#{named.protocol.hash}", float(value))


def _file_type(sample: Sample) -> np.dtype:
    """Integer type of the sample's files; luma that was made from them is float32."""
    types = [image.dtype for image in sample.images.values() if np.issubdtype(image.dtype, np.integer)]
    return types[0] if types else np.dtype(np.uint8 if sample.white == 255 else np.uint16)


def _as_file(image: np.ndarray, sample: Sample) -> np.ndarray:
    """Intensities in the file's units as the file would hold them."""
    if np.issubdtype(image.dtype, np.integer):
        return image
    return quantize(image / sample.white, _file_type(sample), sample.white)


def _in_colour(restored: np.ndarray, sample: Sample, scale: tuple[int, ...]) -> np.ndarray:
    """What is written: luma gets the bicubic enlargement of lq's chroma, all else is itself."""
    if sample.chroma is not None:
        restored = with_chroma(full_from_limited(restored), imresize(sample.chroma / sample.white, scale))
    return quantize(restored, _file_type(sample), sample.white)


def check_metrics(item: EvalSet) -> None:
    """Measures gt of the first picture against itself, to refuse at once what no picture of the set can be measured with.

    Raises: DataError naming set and metric.
    """
    if not item.metrics or len(item.dataset) == 0:
        return
    sample = item.dataset.sample(0, None)
    gt, channels = sample.images.get("gt"), sample.images["lq"].shape[-1]
    if gt is None:
        return
    sr = quantize(luma(gt, sample.white) / sample.white, gt.dtype, sample.white) if channels < gt.shape[-1] else gt
    for named in item.metrics:
        try:
            prepared = named.protocol.prepare(sr, gt, item.scale, sample.white)
            if prepared.gt.size <= _QUICK_VALUES:
                named.metric(prepared.sr, prepared.gt, prepared.data_range)
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
