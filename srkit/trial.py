"""Networks and losses tried on the shape of one training sample, so that what does not fit is said before anything runs."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from srkit import build
from srkit.data.loader import collate
from srkit.data.mixed_scales import MixedScales
from srkit.data.order import sample_rng
from srkit.engine.recipes import Recipe
from srkit.engine.transfer import Batch, Normalization, to_device
from srkit.errors import DataError, RefusedError, SrkitError
from srkit.options import Options
from srkit.registry import RECIPES

_log = logging.getLogger("srkit")


def try_parts(options: Options, dataset: Any, losses: build.Losses, normalization: Normalization) -> None:
    """Raises RefusedError when generator, discriminator or a loss does not take the training pictures."""
    try:
        choice = (dataset.scales.index(options.scale[0]),) if isinstance(dataset, MixedScales) else ()
        sample = dataset.sample(0, sample_rng(options.manual_seed, 0, 0), *choice)
    except (DataError, OSError) as error:
        _log.debug("nothing is tried on a sample, for the first cannot be read (%s)", error)
        return
    batch = to_device(collate([sample]), torch.device("cpu"), Normalization(), build.finish_of(dataset))
    target = try_generator(options, batch, normalization)
    if "network_d" in options.networks:
        try_discriminator(options, batch, has_features=losses.feature_matching is not None)
    try_losses(losses, target, normalization)


def try_generator(options: Options, batch: Batch, normalization: Normalization) -> Tensor:
    """A picture of the kind network_g makes, (1, C, *S); tried without computing (torch's meta device) where that can be."""
    part = options.networks["network_g"]
    lq, gt = _size(batch.lq), _size(batch.gt)
    if len(normalization.mean) not in (1, lq[0]):
        raise RefusedError(
            f"datasets.train.mean has {len(normalization.mean)} values, and the pictures {lq[0]} channel(s)"
        )
    network = _for_trial(options, "network_g")
    for phase, item in options.datasets.items():
        if item.scales is not None and "scale" not in inspect.signature(network.forward).parameters:
            raise RefusedError(f"datasets.{phase}.scales: {part.type} serves one scale; VDSR takes several")
    out = _on_meta("network_g", part.type, network, batch.lq)
    if getattr(network, "finds_edges", False) and not normalization.is_identity:
        raise RefusedError(f"datasets.train.mean and std: {part.type} finds edges in pictures from 0 to 1; remove them")
    target = batch.gt[:, :1] if getattr(network, "makes_maps", False) else batch.gt
    if isinstance(out, Tensor) and _size(out) != _size(target):
        raise RefusedError(
            f"network_g: {part.type} makes {_shape(_size(out))} out of lq {_shape(lq)}, and gt is {_shape(gt)} (channels x "
            "size); do scale, color and the network's channels agree?"
        )
    return target


def try_discriminator(options: Options, batch: Batch, has_features: bool) -> None:
    part = options.networks["network_d"]
    network = _for_trial(options, "network_d")
    recipe: type[Recipe] = RECIPES.get(options.model_type)
    shown = recipe.shown_like(batch.gt).to(_device(network))
    if has_features:
        try:
            network(shown, return_features=True)
        except TypeError as error:
            raise RefusedError(f"train.feature_matching_opt: {part.type} shows no feature maps ({error})") from None
        except Exception as error:  # noqa: BLE001 - said below, or not known without data
            _log.debug("network_d: not tried with feature maps (%s)", error)
    _on_meta("network_d", part.type, network, shown)


def try_losses(losses: build.Losses, target: Tensor, normalization: Normalization) -> None:
    """Image losses on two equal pictures of the target's size."""
    for name, item in losses.image.items():
        loss = item.loss
        if getattr(loss, "range_norm", False):
            if set(normalization.mean) != {0.5} or set(normalization.std) != {0.5}:
                raise RefusedError(
                    f"train: {type(loss).__name__} ({name}) with range_norm takes pictures from -1 to 1; they are so with "
                    "datasets.train.mean and std of 0.5. Without these remove range_norm"
                )
        elif getattr(loss, "needs_unit_range", False) and not normalization.is_identity:
            raise RefusedError(
                f"train: {type(loss).__name__} ({name}) compares pictures from 0 to 1; remove datasets.train.mean and std"
            )
        try:
            with torch.no_grad():
                deepcopy(loss)(target, target)  # a copy: some losses count their calls
        except (SrkitError, ValueError) as error:
            raise RefusedError(f"train: {type(loss).__name__} ({name}) on {_shape(_size(target))}: {error}") from None


def _for_trial(options: Options, name: str) -> nn.Module:
    """The network on the meta device; on the CPU when its constructor reads values back (other projects' classes do)."""
    part = options.networks[name]
    try:
        with torch.device("meta"):
            return build.build_network(part.type, part.options, options.scale)
    except Exception as error:  # noqa: BLE001 - a mistake in the options is raised again below
        _log.debug("%s: not built without data (%s)", name, error)
        return build.build_network(part.type, part.options, options.scale).eval()


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("meta"))


def _on_meta(name: str, kind: str, network: nn.Module, picture: Tensor) -> Any:
    try:
        with torch.no_grad():
            return network(picture.to(_device(network)))
    except SrkitError as error:
        raise RefusedError(f"{name}: {error}") from None
    except RuntimeError as error:
        if "channel" in str(error):
            text = f"{kind} does not take the training pictures, {_shape(_size(picture))} (channels x size): {error}"
            raise RefusedError(f"{name}: {text}") from None
        _log.debug("%s: not tried on a sample (%s)", name, error)
    except Exception as error:  # noqa: BLE001 - not every network runs without data, and then nothing is known
        _log.debug("%s: not tried on a sample (%s)", name, error)
    return None


def _size(picture: Tensor) -> tuple[int, ...]:
    return tuple(picture.shape[1:])


def _shape(numbers: Sequence[int]) -> str:
    return "x".join(map(str, numbers))
