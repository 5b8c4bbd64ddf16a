"""When and how a training run is saved: snapshot on every rank, one writer, exported weights, patience with full disks."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from srkit.engine.checkpoint import CheckpointStore, Snapshot
from srkit.engine.distributed import Group
from srkit.engine.model_file import ModelInfo, write_model
from srkit.engine.optim import all_finite
from srkit.engine.seeding import random_states, restore_random_states
from srkit.errors import DivergedError, StorageError, WeightsError

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
    """

    store: CheckpointStore
    models: Path
    info: dict[str, ModelInfo]
    meta: dict[str, Any]
    group: Group
    freq: int
    prune_weights: bool = False
    max_failures: int = 3
    saved_at: int = -1
    last_duration_s: float = 0.0
    failures: int = 0

    def is_due(self, iteration: int, total_iter: int) -> bool:
        return iteration != self.saved_at and iteration > 0 and (iteration % self.freq == 0 or iteration == total_iter)

    def expected_s(self, trainer: Trainer) -> float:
        """How long a save is likely to take: as the last one, before the first as a disk of 100 MB/s would need.

        A save writes weights, their average and two moments, then both kinds of weights to two files for users.
        """
        if self.last_duration_s:
            return self.last_duration_s
        weights = sum(p.numel() * p.element_size() for net in trainer.networks.values() for p in net.parameters())
        return 8 * weights / 100e6

    def save(self, trainer: Trainer, required: bool) -> Path | None:
        """Commits a checkpoint and exports weights.

        Raises: StorageError when `required` or when too many saves in a row failed; DivergedError for non-finite weights.
        """
        began = time.monotonic()
        snapshot = take_snapshot(trainer, self.meta)
        error: StorageError | None = None
        if self.group.is_main:
            try:
                self.store.save(snapshot, trainer.validation.best_iteration())
                self.export(snapshot)
            except StorageError as problem:
                error = problem
        failed = self.group.gather(str(error) if error else None)[0]
        self.last_duration_s = time.monotonic() - began
        if failed is None:
            self.failures, self.saved_at = 0, snapshot.iteration
            return self.store.folder / f"iter_{snapshot.iteration}"
        self.failures += 1
        if required or self.failures >= self.max_failures:
            raise StorageError(f"{failed}\nmake room or permit writing, then run again with --auto_resume") from error
        logger.warning(
            "%s; training goes on, the next save tries again (%d of %d)", failed, self.failures, self.max_failures
        )
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
                for file in self.models.glob(f"{short}_[0-9]*.pth"):
                    if file.name not in kept:
                        file.unlink()

    def export_best(self, trainer: Trainer) -> None:
        """Writes models/net_g_best.pth: the weights of the best validation so far."""
        if not self.group.is_main:
            return
        networks = network_states(trainer)
        info = replace(self.info["network_g"], iteration=trainer.iteration)
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
        "optimizers": {name: step.optimizer.state_dict() for name, step in trainer.optimizers.items()},
        "precision": trainer.precision.state_dict(),
        "meter": trainer.meter.state_dict(),
        "best": {s: {m: list(v) for m, v in metrics.items()} for s, metrics in trainer.validation.best.items()},
        "validated_at": trainer.validation.done_at,
        "samples_drawn": trainer.samples_drawn,
    }
    return Snapshot(trainer.iteration, networks, training, trainer.group.gather(random_states()), dict(meta))


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
