"""Batches out of a dataset, in an order that depends on the seed alone: no worker, rank or resume changes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from srkit.data.order import SampleOrder, sample_rng, skip_limit, variant_of
from srkit.data.sample import Sample
from srkit.data.workers import in_workers, note_sample
from srkit.errors import DataError, LoadingError

T = TypeVar("T")
OnError = Literal["raise", "skip"]
_log = logging.getLogger("srkit")
_LOOK_AHEAD = 100  # files tried in place of an unreadable one


class Dataset(Protocol):
    """What the loader needs of a dataset.

    One more method is optional: `on_device(images, draws)` finishes a training batch after its transfer. It is given
    the arrays as (B, C, *S) floats in [0, 1] and the samples' `draw`, and returns the arrays of the batch, lq and gt
    among them. All chance belongs into `sample`, so that batches depend on neither device nor workers.
    """

    def __len__(self) -> int: ...

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample: ...


@dataclass
class HostBatch:
    """B samples of training, on the host, in the file's integers.

    Attributes:
        images: Name -> (B, *S, C), uint8 or uint16; float32 in the file's units for luma.
        names: One per sample.
        white: Intensity of 1.0.
        epoch: Of the first sample.
        skipped: Samples of this batch that stand in for unreadable ones.
        draws: One per sample: its `draw`.
    """

    images: dict[str, Tensor]
    names: list[str]
    white: float
    epoch: int
    skipped: int = 0
    draws: list[Any] = field(default_factory=list)

    def pin_memory(self) -> HostBatch:
        """A copy in page-locked memory; torch's loader calls this."""
        pinned = {name: tensor.pin_memory() for name, tensor in self.images.items()}
        return replace(self, images=pinned)


def collate(samples: Sequence[Sample], epoch: int = 0, skipped: int = 0) -> HostBatch:
    """Stack samples. Raises LoadingError naming two samples that differ in arrays, shape, type or white."""
    first = samples[0]
    for sample in samples[1:]:
        if sample.white != first.white or sample.images.keys() != first.images.keys():
            raise LoadingError(f"a batch cannot mix {_brief(first)} and {_brief(sample)}")
    images = {}
    for name, image in first.images.items():
        stacked = np.empty((len(samples), *image.shape), image.dtype)
        for row, sample in zip(stacked, samples):
            other = sample.images[name]
            if other.shape != image.shape or other.dtype != image.dtype:
                raise LoadingError(
                    f"a batch needs equal shapes: {_brief(first)}, {_brief(sample)}; set gt_size for crops of one size"
                )
            row[...] = other
        images[name] = torch.from_numpy(stacked)
    return HostBatch(images, [s.name for s in samples], first.white, epoch, skipped, [s.draw for s in samples])


def _brief(sample: Sample) -> str:
    arrays = ", ".join(f"{name} {image.shape} {image.dtype}" for name, image in sample.images.items())
    return f"'{sample.name}' ({arrays}, white {sample.white:g})"


class _TrainFetch:
    """(epoch, position) pairs to a batch and the file indices it could not read; runs in the workers.

    A dataset with `variants` takes the number of one with each sample; a batch has one, drawn from its first place.
    """

    def __init__(self, dataset: Dataset, seed: int, on_error: OnError) -> None:
        self.dataset, self.seed, self.on_error = dataset, seed, on_error
        self.variants: int = getattr(dataset, "variants", 1)

    def __call__(self, places: Sequence[tuple[int, int]]) -> tuple[HostBatch, dict[int, str]]:
        samples, bad = [], {}
        skipped = 0
        choice = () if self.variants == 1 else (variant_of(self.seed, *places[0], self.variants),)
        for epoch, position in places:
            sample, failed = self._sample(epoch, position, choice)
            samples.append(sample)
            bad.update(failed)
            skipped += bool(failed)
        return collate(samples, places[0][0], skipped), bad

    def _sample(self, epoch: int, position: int, choice: tuple[int, ...]) -> tuple[Sample, dict[int, str]]:
        """The sample, or under "skip" that of the next readable file with the same draws, and why the others failed."""
        failed: dict[int, str] = {}
        files = len(self.dataset)
        for step in range(min(files, _LOOK_AHEAD)):
            index = (position + step) % files
            note_sample(index)
            try:
                return self.dataset.sample(index, sample_rng(self.seed, epoch, position), *choice), failed
            except (DataError, OSError) as error:
                failed[index] = str(error)
                if self.on_error == "raise":
                    break
        raise LoadingError(f"sample {index} cannot be read: {failed[index]}")


def train_batches(
    dataset: Dataset,
    *,
    seed: int,
    batch_size: int,
    enlarge_ratio: int = 1,
    shuffle: bool = True,
    start_sample: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    persistent_workers: bool = True,
    timeout_s: float = 120.0,
    may_wait: Callable[[], bool] = lambda: True,
    on_error: OnError = "raise",
) -> Generator[HostBatch]:
    """Endless full batches; they straddle epochs.

    Batch k of rank r holds the global samples start_sample + (k * world_size + r) * batch_size + [0, batch_size), so
    the ranks' batches together are those of one rank with a batch world_size times as large.

    Args:
        seed: With the epoch it decides the order; with epoch and position the draws of a sample.
        batch_size: Samples per rank and batch.
        enlarge_ratio: How many times the list counts in an epoch; each time has its own draws.
        shuffle: New order every epoch, else the list's.
        start_sample: Samples all ranks have consumed before, when resuming.
        num_workers: Processes that load ahead; 0 loads in the caller. The batches are the same.
        pin_memory: Page-locked batches; ignored without CUDA.
        persistent_workers: Accepted for the option files' sake: an endless loader has one generation of workers.
        timeout_s: A worker silent for longer is taken to hang.
        may_wait: False while a worker is silent gives it up before `timeout_s`.
        on_error: "raise" stops at an unreadable sample, "skip" takes the next readable file, up to `skip_limit` files.

    Raises: LoadingError naming the file, the dead worker or the hanging worker and what it was loading.
    """
    order = SampleOrder(seed, len(dataset) * enlarge_ratio, shuffle)
    first = start_sample + rank * batch_size
    plan = ([order(n) for n in range(start, start + batch_size)] for start in count(first, world_size * batch_size))
    fetch = _TrainFetch(dataset, seed, on_error)
    pin = pin_memory and torch.cuda.is_available()
    bad: dict[int, str] = {}
    for batch, failed in in_workers(
        fetch, plan, num_workers=num_workers, timeout_s=timeout_s, pin_memory=pin, may_wait=may_wait
    ):
        for index in failed.keys() - bad.keys():
            bad[index] = failed[index]
            _log.warning("skipped an unreadable sample (%d so far): %s", len(bad), failed[index])
        if len(bad) > skip_limit(len(dataset)):
            reason = next(iter(bad.values()))
            raise LoadingError(
                f"{len(bad)} of {len(dataset)} samples are unreadable, too many to skip; first: {reason}"
            )
        yield batch.pin_memory() if pin and num_workers < 1 else batch


class _EvalFetch:
    """[index] to the whole sample; runs in the workers."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: Sequence[int]) -> Sample:
        note_sample(indices[0])
        try:
            return self.dataset.sample(indices[0], None)
        except (DataError, OSError) as error:
            raise LoadingError(f"sample {indices[0]} cannot be read: {error}") from error


def eval_samples(
    dataset: Dataset,
    indices: Sequence[int],
    num_workers: int = 0,
    timeout_s: float = 600.0,
    may_wait: Callable[[], bool] = lambda: True,
) -> Iterator[Sample]:
    """Whole samples, without augmentation, in the order of `indices`. Raises LoadingError as `train_batches` does."""
    workers = min(num_workers, len(indices))
    plan = ([i] for i in indices)
    yield from in_workers(_EvalFetch(dataset), plan, num_workers=workers, timeout_s=timeout_s, may_wait=may_wait)
