"""From options to finished parts: the only file that knows option names and constructors."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import srkit.archs
import srkit.data
import srkit.losses
import srkit.metrics  # noqa: F401 - these four fill the registries
from srkit.data.loader import HostBatch, train_batches
from srkit.data.order import sample_rng
from srkit.engine.distributed import Group
from srkit.engine.evaluator import EvalSet, NamedMetric, check_metrics
from srkit.engine.optim import OptimizerStep
from srkit.engine.precision import Precision
from srkit.engine.recipes import Recipe, RecipeParts, WeightedLoss
from srkit.engine.schedules import Schedule, constant, cosine_restart, multi_step, with_warmup
from srkit.engine.transfer import Batch, Normalization, in_background, on_side_stream, to_device
from srkit.errors import DataError, OptionError, RefusedError, did_you_mean
from srkit.metrics.protocol import custom_protocol, protocol_named
from srkit.options import DatasetOptions, Options
from srkit.options.schema import LossOptions
from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS, RECIPES, Registry

_log = logging.getLogger("srkit")

RUNTIME_ARCH_OPTIONS = frozenset({"use_checkpoint"})
"""Options that change how a network computes, not what: never compared with a model file."""


def construct(registry: Registry, name: str, given: Mapping[str, Any], filled: Mapping[str, Any]) -> Any:
    """Builds a registered class.

    Args:
        given: Options as the user wrote them.
        filled: What srkit knows (scale, upscale, ...); passed when the constructor takes it and the user did not.

    Raises: RefusedError for an option the constructor does not take or a required one that is missing.
    """
    cls = registry.get(name)
    parameters = inspect.signature(cls).parameters
    known = [p for p in parameters if p not in filled]
    for key in given:
        if key not in parameters:
            raise RefusedError(f"{name} takes no option '{key}'{did_you_mean(key, known)}")
    arguments = {**{k: v for k, v in filled.items() if k in parameters}, **given}
    missing = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and n not in arguments
    ]
    if missing:
        raise RefusedError(f"{name} needs the option {', '.join(missing)}")
    return cls(**arguments)


def scale_arguments(scale: tuple[int, ...]) -> dict[str, Any]:
    """What `scale` and `upscale` of a constructor are filled with."""
    return {"scale": scale, "upscale": scale[0] if len(set(scale)) == 1 else scale}


def full_arch_options(name: str, given: Mapping[str, Any], scale: tuple[int, ...]) -> dict[str, Any]:
    """Every constructor argument of an arch with its value, as plain numbers, texts and lists."""
    parameters = inspect.signature(ARCHS.get(name)).parameters
    values = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    values.update({k: v for k, v in scale_arguments(scale).items() if k in parameters})
    values.update(given)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, in the memory layout its class was measured to be faster in."""
    network = network.to(device)
    if getattr(network, "prefers_channels_last", False):
        for weight in network.parameters():  # not buffers: DDP cannot broadcast those in this layout
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


def compiled(network: nn.Module) -> nn.Module:
    """A compiled module over the same weights. The bare one stays to be saved and validated: `_orig_mod.` then reaches no
    file, and pictures of many sizes do not compile anew."""
    module: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return module


def build_network(name: str, given: Mapping[str, Any], scale: tuple[int, ...]) -> nn.Module:
    network: nn.Module = construct(ARCHS, name, given, scale_arguments(scale))
    return network


def build_dataset(item: DatasetOptions, scale: tuple[int, ...], color: str | None = None) -> Any:
    """The dataset of one section. `io_backend`, and `color` unless the section says it, are handed over when taken."""
    filled: dict[str, Any] = {"scale": scale, "io_backend": item.io_backend.type if item.io_backend else "disk"}
    if color is not None:
        filled["color"] = color
    return construct(DATASETS, item.type, item.options, filled)


def check_dataset(dataset: Any) -> None:
    """Runs the dataset's own checks, if it has any. Raises DataError with all problems."""
    if hasattr(dataset, "check"):
        dataset.check()


def describe_dataset(dataset: Any) -> str:
    return dataset.describe() if hasattr(dataset, "describe") else f"{len(dataset)} samples of {type(dataset).__name__}"


def fingerprint(dataset: Any) -> str:
    """Hash of names and sizes; a dataset without one of its own is known by its length."""
    return dataset.fingerprint() if hasattr(dataset, "fingerprint") else f"{len(dataset)} samples"


def build_metrics(options: Options) -> tuple[NamedMetric, ...]:
    """The metrics of `val`, each with the protocol its options spell out or `val.protocol` names."""
    if options.val.protocol is not None:
        try:
            protocol = protocol_named(options.val.protocol)
        except RefusedError as error:
            raise OptionError(str(options.source), [f"val.protocol: {error}"]) from None
        chosen = [(name, construct(METRICS, name, {}, {})) for name in ("PSNR", "SSIM")]
        return tuple(NamedMetric(name.lower(), metric, protocol, metric.better) for name, metric in chosen)
    named = []
    for name, item in options.val.metrics.items():
        metric = construct(METRICS, item.type, item.options, {})
        protocol = custom_protocol(item.crop_border, item.test_y_channel)
        better = str(item.better or getattr(metric, "better", "higher"))
        named.append(NamedMetric(name, metric, protocol, better))
    return tuple(named)


def build_eval_sets(options: Options, color: str | None = None) -> list[EvalSet]:
    """Every val*/test* dataset of the file, checked; `color` is what the network was trained on. Raises DataError."""
    metrics = build_metrics(options)
    sets = []
    for phase, item in options.datasets.items():
        if phase.startswith(("val", "test")):
            dataset = build_dataset(item, options.scale, color)
            check_dataset(dataset)
            sets.append(EvalSet(item.name or phase, dataset, metrics, item.num_worker_per_gpu))
            check_metrics(sets[-1], options.scale)
    return sets


@dataclass(frozen=True)
class Losses:
    """All losses of a training, built: those of pictures by name, and the discriminator's."""

    image: Mapping[str, WeightedLoss]
    adversarial: WeightedLoss | None
    feature_matching: WeightedLoss | None

    def to(self, device: torch.device) -> Losses:
        """Moves what networks and constants the losses hold."""
        for item in (*self.image.values(), self.adversarial, self.feature_matching):
            if item is not None and isinstance(item.loss, nn.Module):
                item.loss.to(device)
        return self


def build_losses(options: Options) -> Losses:
    """The losses of `train`. Raises RefusedError for one in the wrong place, WeightsError for missing weights."""
    train = options.train
    assert train is not None
    return Losses(
        {name: _loss(f"train: {item.type}", item, "image") for name, item in train.image_losses().items()},
        _loss("train.gan_opt", train.gan_opt, "adversarial") if train.gan_opt else None,
        _loss("train.feature_matching_opt", train.feature_matching_opt, "features")
        if train.feature_matching_opt
        else None,
    )


def _loss(place: str, item: LossOptions, kind: str) -> WeightedLoss:
    loss = construct(LOSSES, item.type, item.options, {})
    compares = getattr(loss, "compares", "image")
    if compares != kind:
        raise RefusedError(
            f"{place}: {item.type} is a loss on {_COMPARES[compares]}, expected one on {_COMPARES[kind]}"
        )
    return WeightedLoss(loss, item.loss_weight, item.start_iter, item.stop_iter)


_COMPARES = {"image": "pictures", "adversarial": "logits (gan_opt)", "features": "feature maps (feature_matching_opt)"}


def build_recipe(options: Options, networks: Mapping[str, nn.Module], losses: Losses, precision: Precision) -> Recipe:
    assert options.train is not None
    parts = RecipeParts(
        networks=networks,
        losses=losses.image,
        adversarial=losses.adversarial,
        feature_matching=losses.feature_matching,
        net_d_iters=options.train.net_d_iters,
        net_d_init_iters=options.train.net_d_init_iters,
        autocast=precision.autocast,
    )
    recipe: Recipe = RECIPES.get(options.model_type)(parts)
    return recipe


def build_schedule(base_lr: float, item: Any, warmup_iter: int) -> Schedule:
    """Learning rate of one optimizer from `train.scheduler` and `train.warmup_iter`."""
    if item is None:
        schedule = constant(base_lr)
    else:
        settings = item.model_dump(exclude={"type"})
        schedule = (multi_step if item.type == "MultiStepLR" else cosine_restart)(base_lr, **settings)
    return with_warmup(schedule, base_lr, warmup_iter)


def build_optimizer(options: Options, name: str, network: nn.Module) -> OptimizerStep:
    """The optimizer of the network of that option name."""
    assert options.train is not None
    item = options.train.optimizers()[name]
    clip = options.train.grad_clip
    return OptimizerStep(
        item.type,
        item.model_dump(exclude={"type"}),
        network,
        build_schedule(item.lr, options.train.scheduler, options.train.warmup_iter),
        (clip.type, clip.max) if clip else None,
    )


def check_network(options: Options, name: str, dataset: Any, normalization: Normalization) -> None:
    """Sends the shape of a training sample through network `name`, without computing (torch's meta device).

    Raises: RefusedError when channels or size of the pictures do not fit it.
    """
    part = options.networks[name]
    try:
        sample = dataset.sample(0, sample_rng(options.manual_seed, 0, 0))
    except (DataError, OSError) as error:
        _log.debug("%s: not tried on a sample, for the first cannot be read (%s)", name, error)
        return
    lq, gt = (np.moveaxis(sample.images[role], -1, 0).shape for role in ("lq", "gt"))
    if len(normalization.mean) not in (1, lq[0]):
        raise RefusedError(
            f"datasets.train.mean has {len(normalization.mean)} values, and the pictures {lq[0]} channel(s)"
        )
    try:
        with torch.device("meta"), torch.no_grad():
            out = build_network(part.type, part.options, options.scale)(torch.empty(1, *lq))
    except RuntimeError as error:
        if "channel" in str(error):
            raise RefusedError(
                f"{name}: {part.type} does not take the training pictures, lq of {lq[0]} channel(s): {error}"
            ) from None
        _log.debug("%s: not tried on a sample (%s)", name, error)
        return
    except Exception as error:  # noqa: BLE001 - not every network runs without data, and then nothing is known
        _log.debug("%s: not tried on a sample (%s)", name, error)
        return
    if isinstance(out, torch.Tensor) and tuple(out.shape[1:]) != gt:
        raise RefusedError(
            f"{name}: {part.type} makes {_shape(out.shape[1:])} out of lq {_shape(lq)}, and gt is {_shape(gt)} (channels x "
            "size); do scale, color and the network's channels agree?"
        )


def _shape(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))


def build_normalization(options: Options) -> Normalization:
    item = options.datasets.get("train")
    if item is None or item.mean is None or item.std is None:
        return Normalization()
    return Normalization(tuple(item.mean), tuple(item.std))


def epoch_length(dataset: Any, item: DatasetOptions) -> int:
    return len(dataset) * item.dataset_enlarge_ratio


def build_batches(
    options: Options, dataset: Any, group: Group, normalization: Normalization, start_sample: int
) -> Generator[Batch]:
    """Endless micro-batches on the device, from global sample `start_sample` on."""
    item = options.datasets["train"]
    host: Generator[HostBatch] = train_batches(
        dataset,
        seed=options.manual_seed,
        batch_size=item.batch_size_per_gpu,
        enlarge_ratio=item.dataset_enlarge_ratio,
        shuffle=item.use_shuffle,
        start_sample=start_sample,
        rank=group.rank,
        world_size=group.world_size,
        num_workers=item.num_worker_per_gpu,
        pin_memory=item.pin_memory and group.device.type == "cuda",
        persistent_workers=item.persistent_workers,
        on_error=getattr(dataset, "on_error", "raise"),
    )
    if item.prefetch_mode == "cuda" and group.device.type != "cuda":
        _log.info("datasets.train.prefetch_mode: cuda needs a GPU; batches are loaded plainly")
    if item.prefetch_mode == "cpu":
        host = in_background(host, item.num_prefetch_queue or 1)
    with closing(host):
        if item.prefetch_mode == "cuda" and group.device.type == "cuda":
            yield from on_side_stream(host, lambda batch: to_device(batch, group.device, normalization), group.device)
        for batch in host:
            yield to_device(batch, group.device, normalization)


def tile_of(options: Options) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Tile and overlap in lq pixels per axis, from `val`."""
    axes = len(options.scale)

    def per_axis(value: int | Sequence[int]) -> tuple[int, ...]:
        return (value,) * axes if isinstance(value, int) else tuple(value)

    tile = options.val.tile
    return (None if tile is None else per_axis(tile)), per_axis(options.val.tile_overlap)


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def seed_networks(seed: int) -> None:
    """Initial weights depend on the seed alone, not on what ran before."""
    torch.manual_seed(seed)


def absolute(path: str | None) -> Path | None:
    """Option paths are relative to the current directory."""
    return Path(path).expanduser().resolve() if path else None
