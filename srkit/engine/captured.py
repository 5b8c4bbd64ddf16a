"""A whole update as one CUDA graph: recorded once for each combination of turns and losses, then started by one call."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from srkit.engine.memory import is_out_of_memory
from srkit.engine.transfer import Batch
from srkit.errors import RefusedError

logger = logging.getLogger("srkit")

Outcome = tuple[dict[str, Tensor], Tensor]
"""Losses of an iteration by name, and whether it was skipped: 0-d tensors on the device."""

REHEARSALS = 3
"""Updates that run as usual before one is recorded: libraries load, optimizers make their state, kernels are chosen."""


class Recorder(Protocol):
    """How work on a device is recorded. Tests put another in its place, since there are CUDA graphs on CUDA alone."""

    def rehearse(self, work: Callable[[], Outcome]) -> Outcome:
        """Does the work now, where it will later be recorded."""

    def record(self, work: Callable[[], Outcome]) -> Callable[[], Outcome]:
        """Notes what the work would do, without doing it; each call of what is returned does it."""


class CudaRecorder:
    """CUDA graphs of one device. They share one pool of memory, for never two of them run at a time.

    What a graph makes lies in that pool and lasts until the next one runs. Nothing that has to last longer may be made
    for the first time while recording.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def rehearse(self, work: Callable[[], Outcome]) -> Outcome:
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True.*")  # torch does not know what comes next
            outcome = work()
        current.wait_stream(self.stream)
        return outcome

    def record(self, work: Callable[[], Outcome]) -> Callable[[], Outcome]:
        gc.collect()  # a pass that is still referred to would keep its streams in the gradients' way
        graph = torch.cuda.CUDAGraph()
        # "thread_local": the loader's threads go on allocating page-locked memory meanwhile, which "global" forbids.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            outcome = work()

        def replay() -> Outcome:
            graph.replay()
            return outcome

        return replay


@dataclass
class CapturedUpdate:
    """Carries out updates, from the fourth of each kind on as a graph.

    The first three of a kind are real updates of the training, done as usual. So nothing has to be undone afterwards, and
    losses are those of a training without graphs. The work only ever sees the same tensors, which every batch is copied
    into: a graph knows addresses, not values.
    """

    recorder: Recorder
    _inputs: list[Batch] = field(default_factory=list, init=False)
    _rehearsed: dict[Hashable, int] = field(default_factory=dict, init=False)
    _recorded: dict[Hashable, Callable[[], Outcome]] = field(default_factory=dict, init=False)

    def prepare(
        self, kind: Hashable, batches: Sequence[Batch], work: Callable[[Sequence[Batch]], Outcome]
    ) -> Callable[[], Outcome]:
        """What carries out one update with these batches. The networks do not change before it is called.

        Args:
            kind: Equal for updates that do the same with other numbers.
            work: One update, as it is done without graphs.

        Raises: RefusedError for batches of another size than the first, and for work that cannot be recorded.
        """
        self._take(batches)
        if kind in self._recorded:
            return self._recorded[kind]
        done = self._rehearsed.get(kind, 0)
        if done < REHEARSALS:
            self._rehearsed[kind] = done + 1
            return lambda: self.recorder.rehearse(lambda: work(self._inputs))
        try:
            self._recorded[kind] = self.recorder.record(lambda: work(self._inputs))
        except Exception as error:
            if is_out_of_memory(error):
                raise
            first = str(error).partition("\n")[0]
            raise RefusedError(
                f"train.cuda_graph: this iteration could not be recorded as a CUDA graph ({type(error).__name__}: {first}). "
                "A network or loss that reads a value back (.item(), `if` on a tensor) or copies from the host stops the "
                "recording. Nothing is lost: set train.cuda_graph: false and go on with --auto_resume"
            ) from error
        logger.info("iterations of this kind are now one CUDA graph (%d so far)", len(self._recorded))
        return self._recorded[kind]

    def _take(self, batches: Sequence[Batch]) -> None:
        """Copies the batches into the tensors that the graphs read."""
        if not self._inputs:
            self._inputs = [
                replace(b, lq=b.lq.clone(), gt=b.gt.clone(), extras={n: t.clone() for n, t in b.extras.items()})
                for b in batches
            ]
            return
        for ours, theirs in zip(self._inputs, batches, strict=True):
            kept, new = _tensors(ours), _tensors(theirs)
            shapes = {name: (tuple(t.shape), t.dtype) for name, t in kept.items()}
            found = {name: (tuple(t.shape), t.dtype) for name, t in new.items()}
            if shapes != found:
                raise RefusedError(
                    f"train.cuda_graph: batches must all have one size; the first had {_told(shapes)}, this one has "
                    f"{_told(found)}. Set datasets.train.gt_size and leave out gt_size_max and scales, or set "
                    "train.cuda_graph: false"
                )
            torch._foreach_copy_(list(kept.values()), [new[name] for name in kept])


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {"lq": batch.lq, "gt": batch.gt, **batch.extras}


def _told(shapes: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, (shape, _) in shapes.items())
