"""Where a training iteration spends its time: stages, a bare loop of the same networks, resident against loaded batches."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from srkit import build
from srkit.assemble import Parts
from srkit.engine.precision import Precision
from srkit.engine.recipes import Scene, in_full_precision
from srkit.engine.trainer import Trainer
from srkit.engine.transfer import Batch
from srkit.options import Options
from srkit.registry import ARCHS
from srkit.tools.benchmarking.ceiling import matmul_flops
from srkit.tools.benchmarking.stages import OTHER, StageClock, Time, ratio, shares, timed
from srkit.tools.measuring import PREFETCHED, Speed, peak, repeated, reset_peak, trial, wait

DATA, TRANSFER, GRAPH = "data wait", "transfer", "CUDA graph"
STAGES = (DATA, TRANSFER, GRAPH, "forward", "losses", "backward", "step", "EMA", "log", OTHER)
"""In the order of an iteration. "losses" includes a discriminator's forward passes; a CUDA graph holds all to the EMA."""

BARE, RESIDENT, LOADED, LOADING = "bare loop", "resident batch", "loaded batches", "loading alone"

_ROUNDS = 6
_WARM_UP = {"cuda": 20, "cpu": 2}
_NEVER = 10**9


def measure_training(
    options: Options, seconds: float, trace: Path | None, channels_last: bool | None = None
) -> dict[str, Any]:
    """Everything about the training of this option file that `srkit benchmark train` tells.

    Args:
        seconds: About how long the three loops run in all.
        trace: Where a trace of three iterations by torch's profiler goes, for chrome://tracing or Perfetto.
        channels_last: Layout of the networks in memory; None leaves it to their classes.
    """
    with _laid_out(options, channels_last), trial(_undisturbed(options)) as (parts, trainer):
        device, item = trainer.group.device, options.datasets["train"]
        clock = StageClock(device, on_host=(DATA,))
        trainer.batches.close()
        trainer.batches = build.build_batches(
            parts.options,
            parts.dataset,
            trainer.group,
            parts.normalization,
            0,
            moving=lambda: clock.stage(TRANSFER),
        )
        trainer.iteration = _all_losses_on(parts)
        _instrument(trainer, clock)
        loops = _Loops(parts, trainer, clock)
        flops = loops.count_flops()
        drawn = PREFETCHED * item.num_worker_per_gpu + (item.num_prefetch_queue or 0)
        loops.run(seconds, drawn)
        memory = loops.peak_of_training()
        host_syncs = loops.count_host_syncs()
        if trace is not None:
            loops.profile(trace)
        ceiling = matmul_flops(device, trainer.precision.dtype)
        stages = loops.stages
        workers = item.num_worker_per_gpu
    iteration = {name: Time.of(pairs) for name, pairs in loops.times.items()}
    loaded_s = iteration[LOADED].wall_s.median
    busy_s = loaded_s if device.type == "cuda" else iteration[LOADED].cpu_s.median
    stage_times = {name: Time.of(stages[name]) for name in STAGES if name in stages}
    return {
        "stages": stage_times,
        "shares": {kind: shares(stage_times, kind) for kind in ("wall_s", "cpu_s")},
        "iteration": iteration,
        "ratios": {
            "srkit / bare loop, both on a resident batch": ratio(loops.times[RESIDENT], loops.times[BARE]),
            "loaded batches / resident batch": ratio(loops.times[LOADED], loops.times[RESIDENT]),
        },
        "flop_per_iteration": flops,
        "flop_per_s": flops / busy_s,
        "matmul_ceiling_flop_per_s": ceiling,
        "second": "of the device" if device.type == "cuda" else "of CPU time, all threads",
        "part_of_ceiling": flops / busy_s / ceiling,
        "peak_memory_bytes": memory,
        "host_syncs_per_iteration": host_syncs,
        "precision": str(trainer.precision.name),
        "samples_per_s": trainer.samples_per_iteration / loaded_s,
        "verdict": Speed(iteration[LOADING].wall_s.median, iteration[RESIDENT].wall_s.median, loaded_s).verdict(
            workers
        ),
    }


@contextmanager
def _laid_out(options: Options, channels_last: bool | None) -> Iterator[None]:
    """Context in which networks of these options are built in that layout."""
    classes: list[Any] = [] if channels_last is None else [ARCHS.get(part.type) for part in options.networks.values()]
    before = [getattr(cls, "prefers_channels_last", False) for cls in classes]
    try:
        for cls in classes:
            cls.prefers_channels_last = channels_last
        yield
    finally:
        for cls, preferred in zip(classes, before, strict=True):
            cls.prefers_channels_last = preferred


def _undisturbed(options: Options) -> Options:
    """Without validation, saving and end, which are no part of an iteration."""
    assert options.train is not None
    logger = options.logger.model_copy(update={"save_checkpoint_freq": _NEVER})
    return options.model_copy(
        update={
            "train": options.train.model_copy(update={"total_iter": _NEVER}),
            "datasets": {"train": options.datasets["train"]},
            "logger": logger,
        }
    )


def _all_losses_on(parts: Parts) -> int:
    """The first iteration from which every network learns, by every loss."""
    losses = (*parts.losses.image.values(), parts.losses.adversarial, parts.losses.feature_matching)
    return max(parts.train.net_d_init_iters, *(loss.start for loss in losses if loss is not None), 0)


def _instrument(trainer: Trainer, clock: StageClock) -> None:
    """Names the stages of `Trainer.train_step` and of what comes between two of them."""
    inner = trainer.batches

    def batches() -> Any:
        while True:
            with clock.stage(DATA):
                batch = next(inner)
            yield batch

    trainer.batches = batches()
    clock.around(trainer.recipe, "restore", "forward")
    clock.around(trainer.precision, "backward", "backward")
    trainer.recipe.turns = tuple(replace(turn) for turn in trainer.recipe.turns)
    for turn in trainer.recipe.turns:
        clock.around(turn, "terms", "losses")
    for step in trainer.optimizers.values():
        clock.around(step, "clip_gradients", "step")
        clock.around(step, "step", "step")
    if trainer.ema:
        clock.around(trainer.ema, "update", "EMA")
    if trainer.captured:
        clock.around(trainer, "_captured_update", GRAPH)
    for owner, method in (
        (trainer.meter, "end_of_iteration"),
        (trainer.log, "step"),
        (trainer, "between_iterations"),
    ):
        clock.around(owner, method, "log")


class _Loops:
    """The bare loop, srkit on a resident batch, and srkit on batches that are loaded, in turn."""

    def __init__(self, parts: Parts, trainer: Trainer, clock: StageClock) -> None:
        self.trainer, self.clock, self.device = trainer, clock, trainer.group.device
        self.loaded = trainer.batches
        self.batch: Batch = next(self.loaded)
        self.bare = BareLoop(parts, trainer)
        self.times: dict[str, list[tuple[float, float]]] = {BARE: [], RESIDENT: [], LOADED: [], LOADING: []}
        self.stages: dict[str, list[tuple[float, float]]] = {}

    def count_flops(self) -> int:
        """Floating-point operations of one iteration, a multiplication and an addition being two."""
        cycle = self.bare.parts.train.net_d_iters  # the generator learns in one of so many
        with FlopCounterMode(display=False) as counter:
            for _ in range(cycle):
                self.bare.iteration(self.batch)
        self.bare.compile()
        return int(counter.get_total_flops()) // cycle

    def run(self, seconds: float, ready: int) -> None:
        """Fills `times` and `stages`. `ready` batches may wait in queues; they are drawn before loading is timed."""
        for work in (lambda: self.bare.iteration(self.batch), self._resident, self._load):
            for _ in range(_WARM_UP.get(self.device.type, 2)):
                work()
        alone = timed(self._resident, 1, self.device)[0]
        chunk = max(1, int(seconds / _ROUNDS / 3 / max(alone, 1e-6)))
        self.clock.read()
        for _ in range(_ROUNDS):
            self.times[BARE].append(timed(lambda: self.bare.iteration(self.batch), chunk, self.device))
            self.times[RESIDENT].append(timed(self._resident, chunk, self.device))
            for _ in range(ready):
                next(self.loaded)
            self.times[LOADING].append(timed(self._load, chunk, self.device))
            for _ in range(2):  # workers refill while computing goes on, as they do in the middle of a training
                self._train()
            self.times[LOADED].append(timed(self._timed, chunk, self.device))
        self.stages = self.clock.read()

    def peak_of_training(self) -> float | None:
        """The most memory of some iterations, when the bare loop's networks are gone: it is not asked for afterwards."""
        del self.bare
        gc.collect()
        reset_peak(self.device)
        for _ in range(3):
            self._train()
        wait(self.device)
        return peak(self.device)

    def count_host_syncs(self) -> float | None:
        """How often the host waits for the GPU in an iteration on loaded batches; None on the CPU."""
        if self.device.type != "cuda":
            return None
        count = 5
        self.trainer.print_freq = _NEVER  # a log line reads values back, which is why it is written so seldom
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                for _ in range(count):
                    self._train()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing" in str(warning.message) for warning in told) / count

    def profile(self, path: Path) -> None:
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.device.type == "cuda" else [])]
        path.parent.mkdir(parents=True, exist_ok=True)
        with profile(activities=activities) as profiler:
            for _ in range(3):
                self._train()
            wait(self.device)
        profiler.export_chrome_trace(str(path))

    def _resident(self) -> None:
        self.trainer.batches = repeated(self.batch)
        self.trainer.train_step()

    def _load(self) -> None:
        for _ in range(self.trainer.accum_iter):
            next(self.loaded)

    def _train(self) -> None:
        self.trainer.batches = self.loaded
        self.trainer.train_step()
        self.trainer.log.step()
        self.trainer.between_iterations()

    def _timed(self) -> None:
        with self.clock.iteration():
            self._train()


class BareLoop:
    """What would be written by hand: copies of the same networks, the recipe's losses, torch's optimizers, and no more.

    No averaging, no finite check, no clipping, no schedule, no log.
    """

    def __init__(self, parts: Parts, trainer: Trainer) -> None:
        self.parts, self.accum, self.number = parts, trainer.accum_iter, trainer.iteration
        self.networks = {name: copy.deepcopy(network) for name, network in trainer.networks.items()}
        self.precision = Precision(trainer.precision.name, trainer.group.device)
        steps = {name: build.build_optimizer(parts.options, name, self.networks[name]) for name in trainer.optimizers}
        self.parameters = {name: step.parameters for name, step in steps.items()}
        self.optimizers = {name: step.optimizer for name, step in steps.items()}
        self.recipe = build.build_recipe(parts.options, self.networks, parts.losses, self.precision)

    def compile(self) -> None:
        """Compiles the networks where the option file does."""
        if mode := self.parts.train.compile:
            learners = {name: build.compiled(network, mode) for name, network in self.networks.items()}
            self.recipe = build.build_recipe(self.parts.options, learners, self.parts.losses, self.precision)

    def iteration(self, batch: Batch) -> None:
        """Forward and backward passes of all turns, then a step of every optimizer."""
        for _ in range(self.accum):
            with self.precision.autocast():
                sr = self.recipe.restore(batch)
            scene = Scene(batch, sr.float(), self.number)
            turns = self.recipe.turns_at(self.number)
            for turn in turns:
                terms = [term for term in in_full_precision(turn, scene).values() if term.requires_grad]
                loss = torch.stack(terms).sum() / self.accum
                self.precision.backward(loss, self.parameters[turn.network], retain_graph=turn is not turns[-1])
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.number += 1
