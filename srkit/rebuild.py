"""The network that a model file holds, with its weights: what test and inference begin with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from srkit import build
from srkit.engine.log import logger
from srkit.engine.model_file import ModelFile, ModelInfo, load_weights
from srkit.errors import RefusedError
from srkit.registry import ARCHS


def rebuilt(
    model: ModelFile,
    arch: str,
    options: Mapping[str, Any],
    scale: tuple[int, ...],
    device: torch.device,
    strict: bool = True,
) -> nn.Module:
    """The network on its device; without `strict`, what the file lacks stays as it began and is warned about.

    Raises: RefusedError for options that the arch does not take, WeightsError for weights that do not fit it.
    """
    network = build.build_network(arch, options, scale)
    for note in load_weights(network, model, strict):
        logger.warning("%s: %s", model.path, note)
    return build.place(network, device)


def require_known_arch(model: ModelFile, info: ModelInfo) -> None:
    """RefusedError when nobody registered the class of that name."""
    if info.arch not in ARCHS and not ARCHS.is_of_family(info.arch):
        raise RefusedError(
            f"{model.path} holds a network of type {info.arch}, which is none of srkit's; name the file that defines it under "
            "imports, as its training did"
        )
