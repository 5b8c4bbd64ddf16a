"""From checked parts to a Trainer: devices, precision, averaging, validation, saving, batches."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srkit import __version__, build
from srkit.engine.captured import CapturedUpdate, CudaRecorder
from srkit.engine.checkpoint import CheckpointStore, Snapshot
from srkit.engine.distributed import Group
from srkit.engine.ema import EMA
from srkit.engine.evaluator import EvalSet, Evaluator
from srkit.engine.experiment import Experiment
from srkit.engine.log import TrainingLog, start_wandb
from srkit.engine.model_file import ModelFile, ModelInfo, load_weights, read_model
from srkit.engine.precision import Precision, choose_precision
from srkit.engine.restorer import Restorer
from srkit.engine.saving import Saver, restore_snapshot
from srkit.engine.stopping import StopRequest
from srkit.engine.sync_batchnorm import share_batchnorm
from srkit.engine.trainer import Trainer
from srkit.engine.transfer import Normalization
from srkit.engine.validation import Validation
from srkit.errors import DataError, RefusedError, did_you_mean
from srkit.options import Options, TrainSection
from srkit.trial import try_parts

logger = logging.getLogger("srkit")


@dataclass
class Parts:
    """Built and found usable before anything is written."""

    options: Options
    train: TrainSection
    dataset: Any
    eval_sets: list[EvalSet]
    networks: dict[str, nn.Module]
    losses: build.Losses
    normalization: Normalization


def build_parts(options: Options, group: Group) -> Parts:
    """Builds data and networks. Raises DataError, WeightsError, RefusedError for what cannot work."""
    assert options.train is not None
    item = options.datasets["train"]
    if options.train.compile:
        build.require_compiler(group.device)
    build.build_metrics(options)  # a wrong name is said before pictures are decoded
    dataset = build.build_dataset(item, options.scale)
    per_update = item.batch_size_per_gpu * group.world_size
    processes = f" ({item.batch_size_per_gpu} for each of {group.world_size} processes)" if group.is_distributed else ""
    if build.epoch_length(dataset, item) < per_update:
        raise DataError(
            f"datasets.train: {len(dataset)} pictures x dataset_enlarge_ratio {item.dataset_enlarge_ratio} are fewer than "
            f"one batch of {per_update}{processes}; add pictures, raise dataset_enlarge_ratio or lower batch_size_per_gpu"
            + (" or the number of processes" if processes else "")
        )
    build.seed_networks(options.manual_seed)
    networks = {
        name: build.build_network(part.type, part.options, options.scale) for name, part in options.networks.items()
    }
    if options.train.cuda_graph:
        precision = choose_precision(options.train.precision, options.train.use_amp, group.device)[0]
        build.require_cuda_graphs(networks, group, precision)
    losses, normalization = build.build_losses(options), build.build_normalization(options)
    try_parts(options, dataset, losses, normalization)
    eval_sets = build.build_eval_sets(options, build.read_as(item))
    part = options.networks["network_g"]
    if not normalization.is_identity and any(
        build.full_arch_options(part.type, part.options, options.scale).get("rgb_mean", ())
    ):
        logger.warning(
            "datasets.train.mean and std normalise the pictures, and network_g.rgb_mean is then taken off normalised values; "
            "rgb_mean: [0, 0, 0] switches it off"
        )
    return Parts(options, options.train, dataset, eval_sets, networks, losses, normalization)


def choose_kernels(parts: Parts) -> None:
    """Which of several kernels for the same operation CUDA uses: always the same one with `deterministic`, which costs speed;
    else, for crops of one size, the fastest, which cuDNN finds by trying all in the first iteration."""
    if parts.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(parts.train.deterministic)
    torch.backends.cudnn.benchmark = not parts.train.deterministic and build.has_one_size(
        parts.options.datasets["train"]
    )


def load_pretrained(
    parts: Parts, *, promised: Mapping[Path, nn.Module] | None = None, only: Collection[str] | None = None
) -> None:
    """Starts networks from path.pretrain_network_g and _d, and parts of network_g from path.pretrain_parts, where given.

    Args:
        promised: Files that need not exist yet, each with a network whose keys and shapes it will have.
        only: Networks to start, all by default.

    Raises: WeightsError; RefusedError for a part that network_g does not have.
    """
    promised = promised or {}
    path, network = parts.options.path, parts.networks["network_g"]
    inner = dict(network.named_children())
    for name in path.pretrain_parts:
        if name not in inner:
            text = f"{type(network).__name__} has no part '{name}'{did_you_mean(name, inner)}"
            raise RefusedError(f"path.pretrain_parts: {text}")
    for name, learner, given, key, strict in (
        ("network_g", network, path.pretrain_network_g, path.param_key_g, path.strict_load_g),
        *((f"network_g.{n}", inner[n], given, None, True) for n, given in path.pretrain_parts.items()),
        ("network_d", parts.networks.get("network_d"), path.pretrain_network_d, path.param_key_d, path.strict_load_d),
    ):
        file = build.model_path(given, promised)
        if file is None or learner is None or (only is not None and name.partition(".")[0] not in only):
            continue
        if file in promised and not file.exists():
            load_weights(learner, ModelFile(file, "params", promised[file].state_dict(), None), strict)
            continue
        model = read_model(file, key)
        notes = load_weights(learner, model, strict)
        logger.info("%s starts from '%s' of %s%s", name, model.key, model.path, "".join(f"\n  {n}" for n in notes))
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    if frozen and not path.pretrain_network_g and not path.pretrain_parts:
        logger.warning(
            "network_g: %s parameters are not trained and stay random; give their weights by path.pretrain_parts",
            f"{frozen:,}",
        )


def model_info(parts: Parts, name: str) -> ModelInfo:
    """What the exported file of a network says about itself."""
    part, options = parts.options.networks[name], parts.options
    read_as = build.read_as(options.datasets["train"])
    return ModelInfo(
        arch=part.type,
        arch_options=build.full_arch_options(part.type, part.options, options.scale),
        scale=options.scale,
        normalization=parts.normalization,
        color=read_as.get("color", ""),
        intensity=read_as.get("normalization", ""),
        iteration=0,
        experiment=options.name,
    )


def manifest_meta(parts: Parts, group: Group) -> dict[str, Any]:
    """What checkpoints say of their run; `identity` and `data` must be equal to resume, the rest may differ."""
    options = parts.options
    networks = {
        f"{name}.{key}": value
        for name, part in options.networks.items()
        for key, value in {"type": part.type, **build.full_arch_options(part.type, part.options, options.scale)}.items()
        if key not in build.RUNTIME_ARCH_OPTIONS
    }
    return {
        "identity": {
            "model_type": options.model_type,
            "scale": list(options.scale),
            "manual_seed": options.manual_seed,
            **{
                f"train.{name.replace('network', 'optim')}.type": item.type
                for name, item in parts.train.optimizers().items()
            },
            "mean": list(parts.normalization.mean),
            "std": list(parts.normalization.std),
            **networks,
        },
        "data": build.fingerprint(parts.dataset),
        "options": options.model_dump(mode="json", exclude={"source", "warnings"}),
        "machine": {
            "world_size": group.world_size,
            "device": group.device.type,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "srkit": __version__,
        },
    }


def assemble(
    parts: Parts,
    group: Group,
    stop: StopRequest,
    experiment: Experiment,
    meta: dict[str, Any],
    snapshot: Snapshot | None,
    ignored: Collection[str] = (),
) -> Trainer:
    """The trainer, at iteration 0 or where `snapshot` left it; `ignored` networks are not taken from it."""
    options, train, item = parts.options, parts.train, parts.options.datasets["train"]
    networks = {name: build.place(network, group.device) for name, network in parts.networks.items()}
    if train.sync_batchnorm and group.is_distributed and not sum(map(share_batchnorm, networks.values())):
        logger.warning("train.sync_batchnorm: has no effect, for no network has batch normalisation")
    name, note = choose_precision(train.precision, train.use_amp, group.device)
    if note:
        logger.warning(note)
    if len(options.scale) == 3 and (group.device.type, name, item.batch_size_per_gpu) == ("cpu", "fp32", 1):
        logger.warning(
            "one fp32 volume at a time takes torch's slow convolution on a CPU: two take half the time of one; set "
            "batch_size_per_gpu: 2 (halving train.accum_iter if there is one), or train.precision: bf16"
        )
    ema = EMA(networks["network_g"], train.ema_decay) if train.ema_decay > 0 else None
    log = TrainingLog(
        options.name,
        experiment.records,
        experiment.tb_logger if options.logger.use_tb_logger else None,
        total_iter=train.total_iter,
        start_iteration=snapshot.iteration if snapshot else 0,
        is_main=group.is_main,
    )
    if group.is_main and options.logger.wandb and options.logger.wandb.project:
        start_wandb(options.logger.wandb.project, options.logger.wandb.resume_id, options.name, meta["options"])
    saver = Saver(
        CheckpointStore(experiment.training_states, options.logger.keep_last, options.logger.keep_every),
        experiment.models,
        {network: model_info(parts, network) for network in networks},
        meta,
        group,
        options.logger.save_checkpoint_freq,
        options.logger.prune_weights,
        is_async=options.logger.async_save,
    )
    learners = {n: build.compiled(net, train.compile) if train.compile else net for n, net in networks.items()}
    # Only the generator: DDP expects one forward a step, and a discriminator judges twice.
    learners["network_g"] = group.wrap(learners["network_g"])
    precision = Precision(name, group.device)
    per_iteration = item.batch_size_per_gpu * group.world_size * train.accum_iter
    drawn = snapshot.training.get("samples_drawn", snapshot.iteration * per_iteration) if snapshot else 0
    trainer = Trainer(
        networks=networks,
        recipe=build.build_recipe(options, learners, parts.losses.to(group.device), precision),
        optimizers={key: build.build_optimizer(options, key, networks[key]) for key in train.optimizers()},
        precision=precision,
        ema=ema,
        # Several processes stop together or unsaved: one that gave up its workers alone would end the others as well.
        batches=build.build_batches(
            options,
            parts.dataset,
            group,
            parts.normalization,
            drawn,
            may_wait=lambda: group.is_distributed or not stop.is_overdue(),
        ),
        group=group,
        log=log,
        validation=build_validation(parts, networks["network_g"], ema, group, log, stop, experiment),
        saver=saver,
        stop=stop,
        total_iter=train.total_iter,
        samples_per_iteration=per_iteration,
        samples_drawn=drawn,
        epoch_length=build.epoch_length(parts.dataset, item),
        accum_iter=train.accum_iter,
        print_freq=options.logger.print_freq,
        max_nonfinite=train.max_nonfinite,
        captured=CapturedUpdate(CudaRecorder(group.device)) if train.cuda_graph else None,
    )
    trainer.validation.on_best = lambda iteration: saver.export_best(trainer)
    if snapshot:
        restore_snapshot(trainer, snapshot, tuple(ignored))
        if group.is_main and snapshot.meta and not saver.is_exported(snapshot.iteration):
            saver.export(snapshot)  # the start before ended between the checkpoint and its weights for users
    return trainer


def build_validation(
    parts: Parts,
    network: nn.Module,
    ema: EMA | None,
    group: Group,
    log: TrainingLog,
    stop: StopRequest,
    experiment: Experiment,
) -> Validation:
    """Validates the averaged weights when there are any, in fp32, exactly as test.py would."""
    options = parts.options
    tile, overlap = build.tile_of(options)
    return Validation(
        evaluator=Evaluator(parts.eval_sets, group, progress=options.val.pbar),
        restorer=Restorer(
            ema.network if ema else network,
            normalization=parts.normalization,
            scale=options.scale,
            device=group.device,
            precision=Precision("fp32", group.device),
            tile=tile,
            overlap=overlap,
        ),
        weights="params_ema" if ema else "params",
        freq=options.val.val_freq,
        log=log,
        stop=stop,
        save_folder=experiment.visualization if options.val.save_img else None,
    )
