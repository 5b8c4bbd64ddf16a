"""The face network of a course work, saved as a pickled module, of which only the eight tensors are taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from srkit.errors import WeightsError
from srkit.foreign.weights.found import Content, Found

HOLDS = "the face network SR_model_Faces_5.0.ml (conv1 to conv4, 7x7)"

_MODULE = "__main__.SuperResolution"
_NAMES = (_MODULE, "torch.nn.modules.conv.Conv2d", "torch.nn.modules.upsampling.Upsample")
_LAYERS = ("conv1", "conv2", "conv3", "conv4")


class _Pickled:
    """Takes the place of every class the pickle names: it keeps what it is given and does nothing."""


def is_pickled_module(path: Path) -> bool:
    """Whether the file names the face network's class. Read from the pickle as text; nothing of it runs."""
    return _MODULE in _named_in(path)


def tensors(path: Path) -> dict[str, Tensor]:
    """The eight tensors of the pickled module, by name.

    Raises: WeightsError for a pickle that names anything else than such a module needs, or lacks a tensor.
    """
    others = sorted(_named_in(path) - set(_NAMES))
    if others:
        raise WeightsError(
            f"{path}: is no face network: its pickle also names {', '.join(others)}, which could run code; refused"
        )
    try:
        with safe_globals([(_Pickled, name) for name in _NAMES]):
            module = torch.load(path, map_location="cpu", weights_only=True)
        layers = vars(module)["_modules"]
        return {
            f"{layer}.{kind}": _plain(vars(layers[layer])["_parameters"][kind])
            for layer in _LAYERS
            for kind in ("weight", "bias")
        }
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: is no face network with the layers {', '.join(_LAYERS)} ({text})") from error


def _plain(parameter: Any) -> Tensor:
    if not isinstance(parameter, Tensor):
        raise TypeError(f"found a {type(parameter).__name__}, expected a tensor")
    return parameter.detach()


def _named_in(path: Path) -> set[str]:
    """Everything the pickle names that torch does not load by itself."""
    try:
        return set(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # noqa: BLE001 - no file of torch.save's: the plain loader says what is wrong with it
        return set()


def read(content: Content) -> list[Found]:
    """The network; nothing when the file is another's."""
    state: Mapping[str, Tensor] = content.main
    keys = {f"{layer}.{kind}" for layer in _LAYERS for kind in ("weight", "bias")}
    if state.keys() != keys or tuple(state["conv1.weight"].shape) != (8, 1, 7, 7):
        return []
    return [
        Found(
            arch="FacesSR",
            assumed={"scale": 2, "padding": "zeros"},
            parts={"": state},
            color="y_full",
            origin=f"juanse77 Super-Resolution: {content.path.name}; no licence stated",
        )
    ]
