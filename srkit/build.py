"""From options to finished parts: the only file that knows option names and constructors."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import logging
import os
import shutil
import traceback
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import srkit.archs
import srkit.data
import srkit.losses
import srkit.metrics  # noqa: F401 - these four fill the registries
from srkit.data.loader import HostBatch, train_batches
from srkit.data.mixed_scales import MixedScales
from srkit.engine.distributed import Group
from srkit.engine.evaluator import EvalSet, NamedMetric, check_metrics
from srkit.engine.memory import free_bytes
from srkit.engine.optim import OptimizerStep
from srkit.engine.precision import Precision, PrecisionName
from srkit.engine.recipes import Recipe, RecipeParts, WeightedLoss
from srkit.engine.schedules import Schedule, constant, cosine_restart, multi_step, with_warmup
from srkit.engine.transfer import Batch, Finish, Normalization, in_background, on_side_stream, to_device
from srkit.errors import OptionError, RefusedError, SrkitError, did_you_mean
from srkit.metrics.protocol import custom_protocol, protocol_named
from srkit.models import found
from srkit.options import DatasetOptions, LossOptions, Options
from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS, RECIPES, Registry

_log = logging.getLogger("srkit")

RUNTIME_ARCH_OPTIONS = frozenset({"use_checkpoint"})
"""Options that change how a network computes, not what: never compared with a model file."""

INITIAL_ARCH_OPTIONS = frozenset({"init", "last_init"})
"""Options that say what weights begin as: without meaning for trained ones."""


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
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters.values())  # a class of another project; warned about
    for key in given:
        if key not in parameters and not is_open:
            raise RefusedError(f"{name} takes no option '{key}'{did_you_mean(key, known)}")
    arguments = {**{k: v for k, v in filled.items() if k in parameters}, **given}
    missing = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and n not in arguments
    ]
    if missing:
        raise RefusedError(f"{name} needs the option {', '.join(missing)}")
    try:
        return cls(**arguments)
    except SrkitError:
        raise
    except Exception as error:
        if not hasattr(cls, "scale_options"):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]  # another project's class: it knows no RefusedError
        text = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
        raise RefusedError(f"{name} cannot be built with these options: {text}") from error


def scale_arguments(cls: type, scale: tuple[int, ...]) -> dict[str, Any]:
    """What `scale` and `upscale` of a constructor are filled with; classes of other projects name their own."""
    number = scale[0] if len(set(scale)) == 1 else scale
    foreign: tuple[str, ...] | None = getattr(cls, "scale_options", None)
    return {"scale": scale, "upscale": number} if foreign is None else dict.fromkeys(foreign, number)


def full_arch_options(name: str, given: Mapping[str, Any], scale: tuple[int, ...]) -> dict[str, Any]:
    """Every constructor argument of an arch with its value, as plain numbers, texts and lists."""
    cls = ARCHS.get(name)
    parameters = inspect.signature(cls).parameters
    values = {n: p.default for n, p in parameters.items() if p.default is not p.empty}
    values.update({k: v for k, v in scale_arguments(cls, scale).items() if k in parameters})
    values.update(given)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By the axes of a kernel."""


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on its device, in the memory layout its class was measured to be faster in."""
    network = network.to(device)
    if getattr(network, "prefers_channels_last", False):
        for weight in network.parameters():  # not buffers: DDP cannot broadcast those in this layout
            if weight.ndim in _CHANNELS_LAST:
                weight.data = weight.data.contiguous(memory_format=_CHANNELS_LAST[weight.ndim])
    return network


def compiled(network: nn.Module, mode: Literal["default", "max-autotune"]) -> nn.Module:
    """A compiled module over the same weights. The bare one stays to be saved and validated: `_orig_mod.` then reaches no
    file, and pictures of many sizes do not compile anew."""
    from torch._functorch import config  # not a part of `import torch`

    # Two turns walk back through one forward pass, so what it saved must outlive the first of them.
    config.donated_buffer = False
    # The plain max-autotune also records CUDA graphs, whose buffers the discriminator's pass would overwrite.
    modes = {"default": "default", "max-autotune": "max-autotune-no-cudagraphs"}
    module: nn.Module = torch.compile(network, mode=modes[mode])  # type: ignore[assignment]
    return module


def require_compiler(device: torch.device) -> None:
    """RefusedError when torch.compile has nothing to compile with here; torch itself would say so in the first iteration."""
    wish = "train.compile: torch.compile on this device needs"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < (7, 0):
            found = ".".join(map(str, capability))
            raise RefusedError(f"{wish} compute capability 7.0, found {found}; set train.compile: false")
        if importlib.util.find_spec("triton") is None:
            raise RefusedError(
                f"{wish} the package triton, which is not installed; install it, or set train.compile: false"
            )
    elif not any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++", "cl") if name):
        raise RefusedError(
            f"{wish} a C++ compiler, found none (g++, clang++, $CXX); install one, or set train.compile: false, which costs "
            "next to nothing on a CPU"
        )


def require_cuda_graphs(networks: Mapping[str, nn.Module], group: Group, precision: PrecisionName) -> None:
    """RefusedError where `train.cuda_graph` cannot be: what the option file alone does not show."""
    wish = "train.cuda_graph: a CUDA graph"
    if group.device.type != "cuda":
        raise RefusedError(
            f"{wish} needs a CUDA device, found {group.device.type} (num_gpu, or no GPU is visible); set train.cuda_graph: false"
        )
    if group.is_distributed:
        raise RefusedError(
            f"{wish} is for one process, found {group.world_size}; set train.cuda_graph: false, or start without --launcher"
        )
    if precision == "fp16":
        raise RefusedError(
            f"{wish} takes fp32 or bf16, found fp16, as use_amp chose for this GPU; set train.precision: fp32, or "
            "train.cuda_graph: false"
        )
    for name, network in networks.items():
        if any(getattr(part, "finds_edges", False) for part in network.modules()):
            raise RefusedError(
                f"{wish} cannot hold {name}: {type(network).__name__} finds edges by reading values back; set "
                "train.cuda_graph: false"
            )


def has_one_size(item: DatasetOptions) -> bool:
    """Whether all training batches of this section have one size."""
    return bool(item.options.get("gt_size")) and not item.options.get("gt_size_max") and item.scales is None


def build_network(name: str, given: Mapping[str, Any], scale: tuple[int, ...]) -> nn.Module:
    network: nn.Module = construct(ARCHS, name, given, scale_arguments(ARCHS.get(name), scale))
    return network


def build_dataset(item: DatasetOptions, scale: tuple[int, ...], known: Mapping[str, str] | None = None) -> Any:
    """The dataset of one section, checked. `io_backend`, and of `known` what the section leaves open, go to it when taken.

    Raises: RefusedError (DataError among them) naming the section, with all that its own check finds.
    """
    try:
        dataset = _dataset(item, scale, known or {})
        if hasattr(dataset, "check"):
            dataset.check()
    except OptionError:
        raise  # names its place itself
    except RefusedError as error:
        raise type(error)(f"datasets.{item.phase}: {error}") from None
    return dataset


def _dataset(item: DatasetOptions, scale: tuple[int, ...], known: Mapping[str, str]) -> Any:
    if item.scales is None:
        return _one_dataset(item, item.options, scale, known)
    parts = {s: _one_dataset(item, _with_scale(item.options, s), (s,) * len(scale), known) for s in item.scales}
    if finish_of(parts[item.scales[0]]) is not None:
        raise RefusedError(
            f"scales: {item.type} finishes its batches on the device, at one scale; remove scales, or train on "
            "PairedImageDataset"
        )
    if any(getattr(part, "variants", 1) > 1 for part in parts.values()):
        raise RefusedError("gt_size_max: a batch draws its scale, found scales, or its crop size, not both; remove one")
    return MixedScales(parts)


READ_AS = ("color", "normalization")
"""Options of a dataset that decide what a network sees: it is evaluated with those it was trained with."""


def read_as(item: DatasetOptions) -> dict[str, str]:
    """Those of READ_AS that the section's class knows."""
    takes = inspect.signature(DATASETS.get(item.type)).parameters
    return {key: str(item.options.get(key, takes[key].default)) for key in READ_AS if key in takes}


def _one_dataset(
    item: DatasetOptions, given: Mapping[str, Any], scale: tuple[int, ...], known: Mapping[str, str]
) -> Any:
    filled: dict[str, Any] = {"scale": scale, "io_backend": item.io_backend.type if item.io_backend else "disk"}
    return construct(DATASETS, item.type, given, filled | dict(known))


def _with_scale(given: Mapping[str, Any], scale: int) -> dict[str, Any]:
    return {
        key: value.replace("{scale}", str(scale)) if isinstance(value, str) else value for key, value in given.items()
    }


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
        inside = protocol.mask == "whole-and-inside"
        chosen = [(name, construct(METRICS, name, {}, {})) for name in ("PSNR", "SSIM", *(["NRMSE"] if inside else []))]
        whole = [NamedMetric(name.lower(), m, protocol, m.better, told=_metric_told(m, {})) for name, m in chosen]
        masked = [replace(m, name=f"{m.name}_mask", region="mask") for m in whole] if inside else []
        return (*whole, *masked)
    named, problems = [], []
    for name, item in options.val.metrics.items():
        metric = construct(METRICS, item.type, item.options, {})
        compares = getattr(metric, "compares", "pictures")
        axes: Literal[2, 3] = 3 if len(options.scale) == 3 else 2
        if item.region == "mask" and (compares == "lq" or not hasattr(metric, "inside")):
            problems.append(f"val.metrics.{name}.region: {item.type} cannot be measured inside a mask; remove it")
        try:
            protocol = custom_protocol(item.crop_border, item.test_y_channel, compares == "edges", axes)
        except RefusedError as error:
            problems.append(f"val.metrics.{name}: {error}")
            continue
        better = str(item.better or getattr(metric, "better", "higher"))
        told = _metric_told(metric, item.options)
        named.append(NamedMetric(name, metric, protocol, better, item.region, item.erode, told))
    if problems:
        raise OptionError(str(options.source), problems)
    return tuple(named)


def _metric_told(metric: Any, given: Mapping[str, Any]) -> str:
    """Its type and every option; of an option that names a file, what is in the file."""
    defaults = {n: p.default for n, p in inspect.signature(type(metric)).parameters.items()}
    values = {}
    for name, value in {**defaults, **given}.items():
        file = Path(value).expanduser() if isinstance(value, str) else None
        values[name] = hashlib.sha256(file.read_bytes()).hexdigest()[:16] if file and file.is_file() else value
    return f"{type(metric).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"


def build_eval_sets(options: Options, known: Mapping[str, str] | None = None) -> list[EvalSet]:
    """Every val*/test* dataset of the file, checked; `known` is how the network's training pictures were read (READ_AS).

    Raises: DataError; OptionError for a dataset that says otherwise.
    """
    metrics = build_metrics(options)
    evaluated = [phase for phase in options.datasets if phase.startswith(("val", "test"))]
    problems = [
        f"datasets.{phase}.{key}: found '{own}', but the network was trained on '{value}'; remove it"
        for phase in evaluated
        for key, value in (known or {}).items()
        if (own := options.datasets[phase].options.get(key, value)) != value
    ]
    if problems:
        raise OptionError(str(options.source), problems)
    sets = []
    for phase, item in options.datasets.items():
        if phase.startswith(("val", "test")):
            dataset, name = build_dataset(item, options.scale, known), item.name or phase
            single = {options.scale: (name, dataset)}
            if isinstance(dataset, MixedScales):
                single = {
                    (s,) * len(options.scale): (f"{name}_x{s}", part)
                    for s, part in zip(dataset.scales, dataset.datasets, strict=True)
                }
            for scale, (label, part) in single.items():
                sets.append(EvalSet(label, part, metrics, scale, item.num_worker_per_gpu))
                check_metrics(sets[-1])
    return sets


def reading(options: Options, item: EvalSet) -> str:
    """Hash of how a set is read: its section of the option file, and names and sizes of its files."""
    names = {section.name or phase: section for phase, section in options.datasets.items()}
    section = names[item.name] if item.name in names else names[item.name.rpartition("_x")[0]]  # one of its scales
    told = json.dumps([section.model_dump(mode="json"), item.scale, fingerprint(item.dataset)], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Losses:
    """All losses of a training, built: those of pictures by name, and the discriminator's."""

    image: Mapping[str, WeightedLoss]
    adversarial: WeightedLoss | None
    feature_matching: WeightedLoss | None

    def all(self) -> tuple[WeightedLoss, ...]:
        """Every one that there is."""
        every = (*self.image.values(), self.adversarial, self.feature_matching)
        return tuple(item for item in every if item is not None)

    def to(self, device: torch.device) -> Losses:
        """Moves what networks and constants the losses hold."""
        for item in self.all():
            if isinstance(item.loss, nn.Module):
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
    return WeightedLoss(loss, item.loss_weight, item.start_iter, item.stop_iter, item.target)


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
        mixed_scales=options.datasets["train"].scales is not None,
    )
    recipe: Recipe = RECIPES.get(options.model_type)(parts)
    recipe.weighted = losses.all()
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
        captured=options.train.cuda_graph,
    )


def build_normalization(options: Options) -> Normalization:
    item = options.datasets.get("train")
    if item is None or item.mean is None or item.std is None:
        return Normalization()
    return Normalization(tuple(item.mean), tuple(item.std))


def finish_of(dataset: Any) -> Finish | None:
    """What the dataset still does with a batch on the device, if anything."""
    finish: Finish | None = getattr(dataset, "on_device", None)
    return finish


def epoch_length(dataset: Any, item: DatasetOptions) -> int:
    return len(dataset) * item.dataset_enlarge_ratio


def hold(item: DatasetOptions, dataset: Any, group: Group) -> bool:
    """Puts a training set with `cache: device` into the device's memory. False, and a line, where that cannot be."""
    if item.options.get("cache") != "device":
        return False
    room = free_bytes(group.device) / 2 / (group.world_size if group.device.type == "cpu" else 1)
    why = (
        dataset.hold(group.device, room) if hasattr(dataset, "hold") else "of several scales (scales) none can be held"
    )
    if why:
        _log.warning("datasets.train.cache: device is not possible here: %s; crops are read as with cache: auto", why)
    else:
        _log.info("datasets.train: the whole set lies in the memory of %s", group.device)
    return not why


def build_batches(
    options: Options,
    dataset: Any,
    group: Group,
    normalization: Normalization,
    start_sample: int,
    moving: Callable[[], AbstractContextManager[Any]] = nullcontext,
    may_wait: Callable[[], bool] = lambda: True,
) -> Generator[Batch]:
    """Endless micro-batches on the device, from global sample `start_sample` on; each is moved there inside `moving()`.

    `may_wait` is asked while a loader worker is silent.
    """
    item = options.datasets["train"]
    is_resident = hold(item, dataset, group)
    host: Generator[HostBatch] = train_batches(
        dataset,
        seed=options.manual_seed,
        batch_size=item.batch_size_per_gpu,
        enlarge_ratio=item.dataset_enlarge_ratio,
        shuffle=item.use_shuffle,
        start_sample=start_sample,
        rank=group.rank,
        world_size=group.world_size,
        num_workers=0 if is_resident else item.num_worker_per_gpu,  # nothing is left for them to read
        pin_memory=item.pin_memory and group.device.type == "cuda",
        persistent_workers=item.persistent_workers,
        may_wait=may_wait,
        on_error=getattr(dataset, "on_error", "raise"),
    )
    if item.prefetch_mode == "cuda" and group.device.type != "cuda":
        _log.info("datasets.train.prefetch_mode: cuda needs a GPU; batches are loaded plainly")
    if item.prefetch_mode == "cpu":
        host = in_background(host, item.num_prefetch_queue or 1)

    def move(batch: HostBatch) -> Batch:
        with moving():
            return to_device(batch, group.device, normalization, finish_of(dataset))

    with closing(host):
        if item.prefetch_mode == "cuda" and group.device.type == "cuda":
            yield from on_side_stream(host, move, group.device)
        for batch in host:
            yield move(batch)


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


def model_path(path: str | None, promised: Container[Path] = ()) -> Path | None:
    """Where a model file lies: `absolute`, or inside srkit for the name of a model that comes with it.

    Args:
        promised: Files that will be there when they are needed.

    Raises: WeightsError for a bare word that is neither a file nor such a name.
    """
    full = absolute(path)
    return full if path is None or full in promised else found(Path(path).expanduser()).resolve()
