"""From a model file to the network and all that is known of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from pydantic import ValidationError
from torch import nn

from srkit.engine.log import logger
from srkit.engine.model_file import ModelFile, ModelInfo, read_model
from srkit.engine.transfer import Normalization
from srkit.errors import OptionError, RefusedError, WeightsError
from srkit.inference.settings import Color, Intensity, ModelSettings
from srkit.options import NetworkOptions
from srkit.options.catalog import Context, make_catalog
from srkit.options.hints import with_hint
from srkit.options.live import import_all
from srkit.options.problems import Places
from srkit.options.section import problems_of
from srkit.rebuild import rebuilt, require_known_arch


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A network ready to be called, and how what it sees is made.

    Attributes:
        info: What the file says about itself; None for files of others.
        key: Which weights these are.
        scale: Output size / input size per axis.
        channels: Of lq; None where nothing tells. Other than 1 and 3 they have no colours, and are given as they are.
        color: What pictures are read as: rgb, y (luma, limited range) or y_full. For volumes without meaning.
        intensity: How black and white of a volume are found.
    """

    path: Path
    network: nn.Module
    info: ModelInfo | None
    key: str
    scale: tuple[int, ...]
    channels: int | None
    color: str
    intensity: Intensity
    normalization: Normalization


def open_model(wanted: ModelSettings, device: torch.device) -> OpenModel:
    """Raises WeightsError for a file that cannot be used, RefusedError where it and the settings do not fit."""
    if problems := import_all(wanted.imports, Path.cwd()):
        raise OptionError("--imports", Places().sentences(problems))
    if wanted.path.suffix == ".onnx":
        return _onnx(wanted, device)
    model = read_model(wanted.path, wanted.weights)
    if model.info is not None:
        network, scale = _own(model, model.info, wanted, device)
    else:
        network, scale = _described(model, wanted, device)
    options = model.info.arch_options if model.info else wanted.arch_options
    return _opened(wanted, network, model.info, model.key, scale, _channels(network, options))


def _channels(network: nn.Module, options: Mapping[str, Any]) -> int | None:
    """Of lq. By its option where it has one: the first convolution of a network that folds pixels into channels sees more."""
    parameter = inspect.signature(type(network)).parameters.get("num_in_ch")
    told = options.get("num_in_ch", parameter.default if parameter else None)
    if isinstance(told, int):
        return told
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    return first.in_channels if first else None


def _opened(
    wanted: ModelSettings,
    network: nn.Module,
    info: ModelInfo | None,
    key: str,
    scale: tuple[int, ...],
    channels: int | None,
) -> OpenModel:
    """`channels` are those of lq; where nothing says more, one channel is luma, of limited range in this family."""
    color = _agreed(wanted.path, "color", info.color if info else "", wanted.color, get_args(Color))
    intensity = _agreed(wanted.path, "intensity", info.intensity if info else "", wanted.intensity, get_args(Intensity))
    return OpenModel(
        path=wanted.path,
        network=network,
        info=info,
        key=key,
        scale=scale,
        channels=channels,
        color=color or ("y" if channels == 1 else "rgb"),
        intensity=cast(Intensity, intensity or _likely_intensity(wanted.path, scale)),
        normalization=info.normalization if info else Normalization(),
    )


def _agreed(path: Path, name: str, told: str, said: str | None, known: Sequence[str]) -> str:
    """What file or user say; empty when neither does."""
    if told and told not in known:
        raise WeightsError(f"{path}: its {name} is '{told}', which this srkit does not know ({', '.join(known)})")
    if said and told and said != told:
        raise RefusedError(f"--{name} {said}: {path} says itself that it is '{told}'; leave it out")
    return told or said or ""


def _likely_intensity(path: Path, scale: tuple[int, ...]) -> str:
    if len(scale) == 3:
        logger.info("%s does not say how intensities were normalised: by percentiles; --intensity says otherwise", path)
    return "percentiles"


def _own(
    model: ModelFile, info: ModelInfo, wanted: ModelSettings, device: torch.device
) -> tuple[nn.Module, tuple[int, ...]]:
    """The network of a file that says what it holds."""
    if wanted.arch or wanted.arch_options:
        raise RefusedError(f"{model.path} says itself that it holds {info.arch}; leave --arch and --arch_opt out")
    require_known_arch(model, info)
    own = tuple(info.scale)
    network = rebuilt(model, info.arch, info.arch_options, own, device)
    scale = _per_axis(wanted.scale, len(own)) if wanted.scale else own
    if scale == own:
        return network, own
    if "scale" not in inspect.signature(network.forward).parameters:
        raise RefusedError(f"--scale {_text(scale)}: {model.path} enlarges by {_text(own)} and by nothing else")
    options: Mapping[str, Any] = {k: v for k, v in info.arch_options.items() if k not in ("scale", "upscale")}
    return rebuilt(model, info.arch, options, scale, device), scale


def _described(model: ModelFile, wanted: ModelSettings, device: torch.device) -> tuple[nn.Module, tuple[int, ...]]:
    """The network that the user says the weights are of."""
    missing = [name for name, value in (("--arch", wanted.arch), ("--scale", wanted.scale)) if not value]
    if missing or wanted.arch is None or wanted.scale is None:
        raise RefusedError(
            f"{model.path} does not say which network it holds (it is not srkit's); describe it, for example: "
            f"--arch RRDBNet --arch_opt num_block=23 --scale 4 (missing: {', '.join(missing)})"
        )
    scale = _per_axis(wanted.scale, 2) if len(wanted.scale) == 1 else wanted.scale
    raw, catalog = {"type": wanted.arch, **wanted.arch_options}, make_catalog()
    try:
        section = NetworkOptions.model_validate(raw, context=Context(catalog, scale))
    except ValidationError as error:
        problems = [with_hint(problem, catalog) for problem in problems_of(error, raw)]
        raise OptionError("--arch, --arch_opt", Places().sentences(problems)) from None
    return rebuilt(model, section.type, section.options, scale, device), scale


def _onnx(wanted: ModelSettings, device: torch.device) -> OpenModel:
    from srkit.engine.onnx_model import OnnxNetwork

    if wanted.arch or wanted.arch_options or wanted.weights:
        raise RefusedError(f"{wanted.path} is a whole network; leave --arch, --arch_opt and --weights out")
    scale = wanted.scale
    network = OnnxNetwork(wanted.path, device, scale=(scale * 2 if scale and len(scale) == 1 else scale))
    return _opened(wanted, network, network.info, network.weights, network.scale, network.num_in_ch)


def _per_axis(numbers: tuple[int, ...], axes: int) -> tuple[int, ...]:
    return numbers * axes if len(numbers) == 1 else numbers


def _text(scale: tuple[int, ...]) -> str:
    return ",".join(map(str, scale if len(set(scale)) > 1 else scale[:1]))
