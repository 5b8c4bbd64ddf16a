"""`srkit export`: a trained network for other programs, as ONNX, TorchScript, safetensors or BasicSR's plain .pth."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from srkit.disk import nearest_existing
from srkit.engine import graphs
from srkit.engine.checkpoint import write_atomically
from srkit.engine.model_file import ModelFile, ModelInfo, read_model
from srkit.errors import OptionError, RefusedError, StorageError
from srkit.options.live import import_all
from srkit.options.problems import Places
from srkit.rebuild import rebuilt, require_known_arch

FORMATS = {
    "onnx": (".onnx",),
    "torchscript": (".pt", ".ts", ".torchscript"),
    "safetensors": (".safetensors",),
    "basicsr": (".pth",),
}
"""Name on the command line -> suffixes that mean it."""

_OF_BASICSR = ("EDSR", "RRDBNet", "MSRResNet", "VGGStyleDiscriminator", "UNetDiscriminatorSN")
"""Architectures that BasicSR has too, under the same keys."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-m", "--model", type=Path, required=True, help="model file of srkit: .pth or .safetensors")
    parser.add_argument("-o", "--out", type=Path, required=True, help="new file; its suffix decides the format")
    parser.add_argument("--to", choices=FORMATS, help="format, where the suffix of the new file does not say it")
    parser.add_argument(
        "--weights",
        choices=("params", "params_ema"),
        help="default: params_ema (averages over the training) where the file has them, else params",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of weights and arithmetic in an ONNX file; pictures go in and come out in float32 either way",
    )
    parser.add_argument(
        "--imports",
        nargs="+",
        default=[],
        metavar="FILE",
        help="modules or .py files that define the network, if not srkit",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")


def run(flags: argparse.Namespace) -> None:
    kind = format_of(flags.out, flags.to)
    if flags.precision == "fp16" and kind != "onnx":
        raise RefusedError(f"--precision fp16 is for onnx; found {kind}")
    require_place(flags.out, flags.model, flags.overwrite)
    problems = import_all(flags.imports, Path.cwd())
    if problems:
        raise OptionError("--imports", Places().sentences(problems))
    model = read_model(flags.model, flags.weights)
    if model.info is None:
        raise RefusedError(
            f"{flags.model} does not say which network it holds (it is not srkit's); turn it into a model file first: "
            f"srkit import {flags.model} -o NEW.pth --arch TYPE KEY=VALUE --scale N"
        )
    content, note = exported(model, model.info, kind, flags.precision)
    write_atomically(flags.out, content)
    scale = model.info.scale[0] if len(set(model.info.scale)) == 1 else list(model.info.scale)
    print(f"wrote {flags.out}: {model.info.arch}, scale {scale}, '{model.key}' of {flags.model}; {note}")


def format_of(out: Path, to: str | None) -> str:
    """The format, by name or by suffix. Raises RefusedError when there is none, or when they contradict each other."""
    suffix = out.suffix.lower()
    meant = next((kind for kind, suffixes in FORMATS.items() if suffix in suffixes), None)
    known = "; ".join(f"{kind}: {', '.join(suffixes)}" for kind, suffixes in FORMATS.items())
    if to is None and meant is None:
        raise RefusedError(f"{out}: found the suffix '{suffix}', which is no format ({known}); give one, or --to")
    if to is not None and meant not in (None, to):
        raise RefusedError(f"{out}: its suffix means {meant}, --to says {to} ({known})")
    return to or str(meant)


def require_place(out: Path, model: Path, overwrite: bool) -> None:
    """Raises RefusedError or StorageError for a file that could not be written in the end, before the work begins."""
    if out.is_dir():
        raise RefusedError(f"{out}: is a folder, expected the name of a new file")
    if out.exists() and model.exists() and out.samefile(model):
        raise RefusedError(f"{out}: is the model file itself; give another name")
    if out.exists() and not overwrite:
        raise RefusedError(f"{out} exists; give another name, or --overwrite")
    nearest = nearest_existing(out.parent)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise StorageError(f"{out}: cannot be written, {nearest} is no folder that takes files")


def exported(model: ModelFile, info: ModelInfo, kind: str, precision: graphs.Precision) -> tuple[Any, str]:
    """What to write (bytes, or what torch.save takes), and a note about it. Raises RefusedError, WeightsError."""
    if kind == "basicsr":
        known = "keys of BasicSR" if is_of_basicsr(info) else "BasicSR has no such network; keys of srkit"
        return {model.key: model.state}, known
    about = {
        **info.to_plain(),
        "weights": model.key,
        "source": model.path.name,
        "source_sha256": hashlib.sha256(model.path.read_bytes()).hexdigest(),
    }
    if kind == "safetensors":
        return safetensors_of(model, json.dumps(about)), "with all that srkit knows of it"
    require_known_arch(model, info)
    network = rebuilt(model, info.arch, info.arch_options, info.scale, torch.device("cpu")).eval()
    channels = channels_of(info)
    require_enlarging(network, model, info, channels)
    about |= reach_of(network)
    axes = len(info.scale)
    if kind == "torchscript":
        content = graphs.torchscript_graph(network, channels, axes, json.dumps(about))
        run, note = graphs.run_torchscript(content), "traced on the CPU; PyTorch calls TorchScript deprecated"
    else:
        about["precision"] = precision
        content = graphs.onnx_graph(network, channels, axes, precision, json.dumps(about))
        run, note = graphs.run_onnx(content), f"opset {graphs.OPSET}, {precision}"
    shown = (channels, axes, info.normalization.apply)
    found = graphs.largest_difference(network, run, *shown)
    if precision == "fp16":
        # On the CPU onnxruntime computes a float16 graph in float32; what a GPU will round, torch rounds here (slowly).
        found = max(found, graphs.largest_difference(network, graphs.HalfNetwork(network), *shown, batches=1))
    limit = graphs.LARGEST_DIFFERENCE[precision]
    if not found <= limit:
        raise RefusedError(
            f"{info.arch} as {kind} differs from the network itself by {found:.1e} of the intensity range, more than "
            f"{limit:.1e}; nothing was written"
        )
    return content, f"{note}; differs from the network by {found:.1e} of the intensity range (limit {limit:.1e})"


def is_of_basicsr(info: ModelInfo) -> bool:
    """Whether BasicSR builds this network, under the same keys."""
    if info.arch != "RRDBNet":
        return info.arch in _OF_BASICSR
    scale, options = max(info.scale), info.arch_options
    is_unshuffled = scale == 4 or options.get("unshuffle_input", True)
    return scale <= 4 and is_unshuffled and options.get("upsampler", "nearest") == "nearest"


def safetensors_of(model: ModelFile, about: str) -> bytes:
    """A .safetensors file whose metadata rebuild the network. Raises RefusedError without the package."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise RefusedError(f"safetensors need the package {error.name}; pip install safetensors") from None
    content: bytes = save({k: v.clone().contiguous() for k, v in model.state.items()}, {"srkit": about})
    return content


def channels_of(info: ModelInfo) -> int:
    """Channels of a batch for this network."""
    own = info.arch_options.get("num_in_ch")
    is_single = len(info.scale) == 3 or info.color in ("y", "y_full")
    return int(own) if own else 1 if is_single else 3


@torch.no_grad()
def require_enlarging(network: nn.Module, model: ModelFile, info: ModelInfo, channels: int) -> None:
    """Raises RefusedError for a network that makes anything but enlarged pictures of pictures."""
    lq = info.normalization.apply(graphs.pictures(channels, 2, (20, 18, 14)[: len(info.scale)]))
    try:
        found = tuple(network(lq).shape)
    except Exception as error:  # a network of the user's may raise anything
        raise RefusedError(
            f"{model.path}: {info.arch} makes no picture of a batch of {tuple(lq.shape)}: {error}"
        ) from error
    wanted = tuple(n * s for n, s in zip(lq.shape[2:], info.scale))
    if len(found) != lq.ndim or found[2:] != wanted:
        raise RefusedError(
            f"{model.path}: {info.arch} makes {found} of a batch of {tuple(lq.shape)}; only networks that enlarge it (here "
            f"to {'x'.join(map(str, wanted))}) become graphs"
        )


def reach_of(network: nn.Module) -> dict[str, Any]:
    """What tiled restoration has to know. A network that makes its guide itself looks at the whole picture."""
    reach = math.inf if hasattr(network, "guide") else getattr(network, "receptive_radius_px", None)
    return {
        "receptive_radius_px": "inf" if reach == math.inf else reach,
        "tile_step": getattr(network, "tile_step", 1),
    }
