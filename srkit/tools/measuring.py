"""How long an iteration takes: loading alone, computing alone, both together; and the memory computing peaks at."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from srkit.assemble import Parts, assemble, build_parts, choose_kernels, manifest_meta
from srkit.engine.distributed import Group, join_group
from srkit.engine.experiment import Experiment
from srkit.engine.stopping import StopRequest
from srkit.engine.trainer import Trainer
from srkit.engine.transfer import Batch
from srkit.options import Options

_WARM_UP = 2
_MOST = 200  # iterations of one measurement
PREFETCHED = 4  # batches that a worker may have ready


@dataclass(frozen=True)
class Speed:
    """Seconds per iteration, accumulation included.

    Attributes:
        loader_s: Of batches on the device, with nothing else to do.
        step_s: Of an iteration on one batch that is there already.
        both_s: Of an iteration as training has it.
    """

    loader_s: float
    step_s: float
    both_s: float

    def verdict(self, workers: int) -> str:
        """Which of the two holds the other up, in words."""
        if self.loader_s > self.step_s:
            factor = self.loader_s / max(self.step_s, 1e-9)
            more = f"num_worker_per_gpu: {max(1, workers * 2)} (now {workers})"
            return (
                f"loading is the bottleneck: it takes {factor:.1f} times as long as computing; raise datasets.train."
                f"{more}, keep cache on, or put the files on a faster disk"
            )
        waits = max(0.0, self.both_s - self.step_s) / self.step_s
        if waits > 0.1:
            cure = (
                "workers and step share the cores: more workers help only where cores are idle"
                if workers
                else "loading waits its turn in the same process: datasets.train.num_worker_per_gpu: 2 (now 0) lets it run beside"
            )
            return f"computing is the bottleneck, but an iteration is {waits:.0%} longer than it need be; {cure}"
        return "computing is the bottleneck, loading keeps up; a faster device, a smaller network or bf16 is what helps"


@contextmanager
def trial(options: Options) -> Iterator[tuple[Parts, Trainer]]:
    """A trainer of these options that writes nothing outside a folder which goes away, and the parts it was made of.
    Raises what building does."""
    group: Group = join_group("none", options.num_gpu, backend=None, port=0, timeout_s=0)[0]
    logger = options.logger.model_copy(update={"wandb": None, "use_tb_logger": False})
    parts = build_parts(options.model_copy(update={"logger": logger}), group)
    choose_kernels(parts)
    if hasattr(parts.dataset, "prepare"):
        parts.dataset.prepare(progress=True)
    with tempfile.TemporaryDirectory(prefix="srkit-trial-") as folder:
        experiment = Experiment(Path(folder), options.name)
        experiment.records.parent.mkdir(parents=True)
        trainer = assemble(parts, group, StopRequest(), experiment, manifest_meta(parts, group), None)
        trainer.log.bar.leave = False  # a bar that never moves goes away again
        try:
            yield parts, trainer
        finally:
            trainer.close()
            trainer.log.close()


@contextmanager
def trial_trainer(options: Options) -> Iterator[Trainer]:
    """The trainer alone."""
    with trial(options) as (_, trainer):
        yield trainer


def measure_speed(options: Options, seconds: float) -> Speed:
    """Each of the three for about so many seconds."""
    item = options.datasets["train"]
    with trial_trainer(options) as trainer:
        device, batches = trainer.group.device, trainer.batches

        def load() -> None:
            for _ in range(trainer.accum_iter):
                next(batches)

        ready = _WARM_UP + PREFETCHED * item.num_worker_per_gpu
        loader_s = per_iteration(load, device, seconds, warm_up=ready)
        trainer.batches = repeated(next(batches))
        step_s = per_iteration(trainer.train_step, device, seconds)
        trainer.batches = batches
        both_s = per_iteration(trainer.train_step, device, seconds, warm_up=ready)
    return Speed(loader_s, step_s, both_s)


def measure_step(options: Options, seconds: float) -> tuple[float, float | None]:
    """Seconds of an iteration on a batch that is there, and the most memory in bytes that the process then held.

    On the CPU that is of the whole process, None where the system does not tell it.
    """
    with trial_trainer(options) as trainer:
        trainer.batches = repeated(next(trainer.batches))
        device = trainer.group.device
        reset_peak(device)
        step_s = per_iteration(trainer.train_step, device, seconds, warm_up=1)
        return step_s, peak(device)


def repeated(batch: Batch) -> Generator[Batch]:
    """The same batch without end."""
    while True:
        yield batch


def per_iteration(work: Callable[[], None], device: torch.device, seconds: float, warm_up: int = _WARM_UP) -> float:
    """Mean seconds of a call, over about `seconds`; the device is waited for at both ends only."""
    for _ in range(warm_up):
        work()
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    first = time.perf_counter() - began
    count = max(2, min(_MOST, int(seconds / max(first, 1e-6))))
    began = time.perf_counter()
    for _ in range(count):
        work()
    wait(device)
    return (time.perf_counter() - began) / count


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what an earlier trial left reserved is not this one's
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):  # not Linux, or not allowed: `peak` then tells the highest since the start
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: torch.device) -> float | None:
    """The most bytes since `reset_peak`: reserved on CUDA, resident on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = next((line.split() for line in lines if line.startswith("VmHWM")), None)
    return None if found is None else float(found[1]) * 1024


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
