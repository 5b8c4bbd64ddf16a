"""When and how a training run is saved: snapshot on every rank, one writer, exported weights, patience with full disks.

Training waits for the snapshot alone, a copy of the state in memory; a thread writes it to disk meanwhile, unless asked
to be waited for.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from srkit.disk import free_disk_bytes
from srkit.engine.checkpoint import CheckpointStore, Snapshot, megabytes, tensor_bytes
from srkit.engine.distributed import Group
from srkit.engine.faults import fault
from srkit.engine.model_file import ModelInfo, write_model
from srkit.engine.optim import all_finite
from srkit.engine.seeding import random_states, restore_random_states
from srkit.errors import DivergedError, RefusedError, StorageError, WeightsError

if TYPE_CHECKING:
    from srkit.engine.trainer import Trainer

logger = logging.getLogger("srkit")


@dataclass
class Saver:
    """Saves every `freq` iterations and at the end.

    Args:
        store: Where checkpoints go.
        models: Folder of the exported `net_g_N.pth`.
        info: Says how to rebuild each exported network, by option name.
        meta: Copied into every manifest: option and data digests, versions.
        prune_weights: Whether exported weights go when their checkpoint does.
        max_failures: Saves in a row that may fail before the run ends.
        is_async: Whether training goes on while a checkpoint is written.
    """

    store: CheckpointStore
    models: Path
    info: dict[str, ModelInfo]
    meta: dict[str, Any]
    group: Group
    freq: int
    prune_weights: bool = False
    max_failures: int = 3
    is_async: bool = True
    saved_at: int = -1
    last_duration_s: float = 0.0
    failures: int = 0
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "srkit-save"), init=False)
    _saving: Future[str | None] | None = field(default=None, init=False)
    _best: Future[None] | None = field(default=None, init=False)
    _is_unfinished: bool = field(default=False, init=False)

    def is_due(self, iteration: int, total_iter: int) -> bool:
        return iteration != self.saved_at and iteration > 0 and (iteration % self.freq == 0 or iteration == total_iter)

    def expected_s(self, trainer: Trainer) -> float:
        """How long a save is likely to take: as the last one, before the first as a disk of 100 MB/s would need.

        A save writes weights, their average and two moments, then both kinds of weights to two files for users.
        """
        if not self.last_duration_s:  # worked out once, for it is asked for in every iteration
            weights = sum(p.numel() * p.element_size() for net in trainer.networks.values() for p in net.parameters())
            self.last_duration_s = 8 * weights / 100e6
        return self.last_duration_s

    def require_room(self, trainer: Trainer) -> None:
        """Compares what the run will write with what is free: a warning when it will not do. Collective.

        Raises: RefusedError when not even one checkpoint fits.
        """
        parameters = sum(tensor_bytes(list(net.parameters())) for net in trainer.networks.values())
        states = [net.state_dict() for net in trainer.networks.values()]
        models = tensor_bytes(states) + (tensor_bytes(trainer.ema.network.state_dict()) if trainer.ema else 0)
        checkpoint = models + 2 * parameters  # Adam's moments
        folder = self.store.folder
        # Rank 0 writes; the disk may not even be there on other machines.
        free = self.group.gather(free_disk_bytes(folder) if self.group.is_main else 0)[0]
        if free < models:
            raise RefusedError(
                f"{folder}: {megabytes(free)} are free on that disk, the weights of one checkpoint take {megabytes(models)}; "
                "make room, or set path.experiments_root to another place"
            )
        kept = max(1, self.store.keep_last + 1 - len(self.store.folders()))
        if self.store.keep_every:
            step = math.lcm(self.store.keep_every, self.freq)
            kept += trainer.total_iter // step - trainer.iteration // step
        saves = math.ceil((trainer.total_iter - trainer.iteration) / self.freq)
        exported = (kept if self.prune_weights else saves) + 2  # latest, best
        needed = kept * checkpoint + exported * models
        if free < needed:
            logger.warning(
                "%s: %s are free on that disk; this training will write about %s: %d checkpoints of %s, and weights of %s %d "
                "times. Make room%s, or save less often (logger.save_checkpoint_freq)",
                folder, megabytes(free), megabytes(needed), kept, megabytes(checkpoint), megabytes(models), exported,
                "" if self.prune_weights else ", set logger.prune_weights: true",
            )  # fmt: skip

    def save(self, trainer: Trainer, required: bool) -> None:
        """Takes a snapshot and has it written: while training goes on, or, unless async or when `required`, before this returns.

        An earlier snapshot that is still being written is waited for, so that one at most lies in memory.

        Raises: StorageError when `required` or when too many saves in a row failed; DivergedError for non-finite weights.
        """
        began = time.monotonic()
        self.finish()
        snapshot = take_snapshot(trainer, self.meta)
        if self.group.is_main:
            best = trainer.validation.best_iteration()
            self._saving = self._writer.submit(self._write, snapshot, best, began, required)
        self._is_unfinished, self.saved_at = True, snapshot.iteration
        if required or not self.is_async:
            self.finish(required)

    def finish(self, required: bool = False) -> None:
        """Waits until all is written. Collective, like `save`, whose errors of writing come to light here."""
        if self._best:
            self._best.result()
        if not self._is_unfinished:
            return
        self._is_unfinished = False
        failed = self.group.gather(self._saving.result() if self._saving else None)[0]
        if failed is None:
            self.failures = 0
            return
        self.failures, self.saved_at = self.failures + 1, -1
        if required or self.failures >= self.max_failures:
            raise StorageError(f"{failed}\nmake room or permit writing, then run again with --auto_resume")

    def close(self) -> None:
        """Lets the writer end what it is at; nothing can be saved afterwards."""
        self._writer.shutdown()

    def _write(self, snapshot: Snapshot, best: int | None, began: float, required: bool) -> str | None:
        """Commits a checkpoint and exports weights; returns what went wrong."""
        try:
            self.store.save(snapshot, best)
            fault("save.before_export")
            self.export(snapshot)
        except (StorageError, OSError) as problem:
            tries = self.failures + 1
            if not required and tries < self.max_failures:
                logger.warning(
                    "%s; training goes on, the next save tries again (%d of %d)", problem, tries, self.max_failures
                )
            return str(problem)
        finally:
            self.last_duration_s = time.monotonic() - began
        return None

    def is_exported(self, iteration: int) -> bool:
        """Whether every model file of that iteration was written; `latest` is written first."""
        files = (f"{name.replace('network_', 'net_')}_{iteration}.pth" for name in self.info)
        return all((self.models / file).exists() for file in files)

    def export(self, snapshot: Snapshot) -> None:
        """Writes models/net_X_<iteration>.pth and net_X_latest.pth; with `prune_weights` drops those without checkpoint."""
        for option_name, info in self.info.items():
            short = option_name.replace("network_", "net_")
            weights, averaged = snapshot.networks[short], snapshot.networks.get(f"{short}_ema")
            info = replace(info, iteration=snapshot.iteration)
            for suffix in ("latest", str(snapshot.iteration)):
                write_model(self.models / f"{short}_{suffix}.pth", weights, averaged, info)
            if self.prune_weights:
                kept = {f"{short}_{f.name.removeprefix('iter_')}.pth" for f in self.store.folders()}
                for file in self.models.iterdir():
                    if re.fullmatch(rf"{short}_\d+\.pth", file.name) and file.name not in kept:
                        file.unlink()

    def export_best(self, trainer: Trainer) -> None:
        """Has models/net_g_best.pth written: the weights of the best validation so far."""
        if self.group.is_main:
            info = replace(self.info["network_g"], iteration=trainer.iteration)
            self._best = self._writer.submit(self._write_best, network_states(trainer), info)

    def _write_best(self, networks: Mapping[str, dict[str, Any]], info: ModelInfo) -> None:
        try:
            write_model(self.models / "net_g_best.pth", networks["net_g"], networks.get("net_g_ema"), info)
        except StorageError as error:
            logger.warning("%s; training goes on", error)


def network_states(trainer: Trainer) -> dict[str, dict[str, Any]]:
    """CPU copies of all weights: net_g, net_g_ema, ..."""
    modules = {name.replace("network_", "net_"): network for name, network in trainer.networks.items()}
    if trainer.ema:
        modules["net_g_ema"] = trainer.ema.network
    return {
        name: {
            key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for key, value in module.state_dict().items()
        }
        for name, module in modules.items()
    }


def take_snapshot(trainer: Trainer, meta: dict[str, Any]) -> Snapshot:
    """The whole state, copied to the CPU; collective, because every rank adds its random states.

    Raises: DivergedError rather than keep non-finite weights.
    """
    networks = network_states(trainer)
    for name, state in networks.items():
        if not all_finite(state.values()):
            raise DivergedError(
                f"weights of {name} are not finite at iteration {trainer.iteration:,}; nothing was saved over the last "
                "checkpoint. Lower train.optim_g.lr, use train.grad_clip, or precision bf16/fp32"
            )
    training = {
        "optimizers": {name: copied(step.optimizer.state_dict()) for name, step in trainer.optimizers.items()},
        "precision": trainer.precision.state_dict(),
        "meter": copied(trainer.meter.state_dict()),
        "best": {s: {m: list(v) for m, v in metrics.items()} for s, metrics in trainer.validation.best.items()},
        "validated_at": trainer.validation.done_at,
        "samples_drawn": trainer.samples_drawn,
    }
    return Snapshot(trainer.iteration, networks, training, trainer.group.gather(random_states()), dict(meta))


def copied(value: Any) -> Any:
    """The same with every tensor copied to the CPU: training goes on changing the first while this is written."""
    if isinstance(value, Tensor):
        return value.detach().clone() if value.device.type == "cpu" else value.detach().cpu()
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item) for item in value)
    return value


def restore_snapshot(trainer: Trainer, snapshot: Snapshot, ignore: tuple[str, ...] = ()) -> None:
    """Puts a snapshot back into freshly built parts. Data go on where the trainer was built to.

    Raises: WeightsError when a network is missing or does not fit.
    """
    for option_name, network in trainer.networks.items():
        if option_name in ignore:
            continue
        short = option_name.replace("network_", "net_")
        try:
            network.load_state_dict(snapshot.networks[short])
            if trainer.ema and short == "net_g":
                averaged = snapshot.networks.get("net_g_ema", snapshot.networks[short])
                trainer.ema.network.load_state_dict(averaged)
        except (KeyError, RuntimeError) as error:
            raise WeightsError(
                f"the checkpoint of iteration {snapshot.iteration} does not fit {option_name}: {error}"
            ) from error
    training = snapshot.training
    for name, step in trainer.optimizers.items():
        try:
            step.load_state(training["optimizers"][name])
        except (KeyError, ValueError) as error:
            raise WeightsError(
                f"the optimizer state of iteration {snapshot.iteration} does not fit {name}: {error}"
            ) from error
    trainer.iteration = snapshot.iteration
    if not snapshot.meta:  # another program's: nothing more is in it
        return
    trainer.precision.load_state_dict(training["precision"])
    trainer.meter.load_state_dict(training["meter"])
    trainer.validation.best = {s: {m: (v[0], v[1]) for m, v in ms.items()} for s, ms in training["best"].items()}
    trainer.validation.done_at = training["validated_at"]
    trainer.saver.saved_at = snapshot.iteration
    if trainer.group.rank < len(snapshot.random):
        restore_random_states(snapshot.random[trainer.group.rank])
