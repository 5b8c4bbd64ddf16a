"""`srkit interpolate`: networks on the line between two trained ones, and the strip of what they make of one picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srkit import build
from srkit.engine.model_file import ModelFile, read_model, weights_keys, write_model
from srkit.errors import RefusedError, WeightsError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.montage import strip
from srkit.imaging.resize import imresize
from srkit.inference.settings import ModelSettings, RunSettings
from srkit.inference.upscaler import load

_WITHOUT_MEANING = build.RUNTIME_ARCH_OPTIONS | build.INITIAL_ARCH_OPTIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", type=Path, help="model file at alpha 0 (PSNR)")
    parser.add_argument("second", type=Path, help="model file at alpha 1 (GAN)")
    parser.add_argument("--alpha", type=float, nargs="+", default=[0.8], help="share of the second, 0 to 1")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of the new model files")
    parser.add_argument("--lq", type=Path, help="also draw a strip of what each makes of this picture")
    parser.add_argument(
        "--crop", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="of it, in lq pixels"
    )


def run(flags: argparse.Namespace) -> None:
    bad = [alpha for alpha in flags.alpha if not 0 <= alpha <= 1]
    if bad:
        raise RefusedError(f"--alpha: found {bad}, expected numbers from 0 to 1")
    files = write_between(flags.first, flags.second, flags.alpha, flags.out)
    if flags.lq:
        picture = draw_strip({f"alpha {alpha:g}": file for alpha, file in files.items()}, flags.lq, flags.crop)
        write_image(flags.out / f"{flags.lq.stem}_strip.png", picture)
        print(f"wrote {flags.out / flags.lq.stem}_strip.png")


def write_between(first: Path, second: Path, alphas: Sequence[float], out: Path) -> dict[float, Path]:
    """Writes out/<second's stem>_alpha_<alpha>.pth for each alpha, with every kind of weights both files have.

    Raises: WeightsError when the files are of different networks.
    """
    keys = [key for key in weights_keys(first) if key in weights_keys(second)]
    if not keys:
        raise WeightsError(
            f"{first} has weights {weights_keys(first)}, {second} {weights_keys(second)}; none in common; bare state dicts are converted by `srkit import`"
        )
    pairs = {key: (read_model(first, key), read_model(second, key)) for key in keys}
    for a, b in pairs.values():
        require_same_network(a, b)
    if any(name.endswith("running_mean") for name in pairs[keys[0]][1].state):
        print(
            "note: the networks have batch norm; means of two networks' statistics are not those of the network between"
        )
    info = pairs[keys[0]][1].info
    written = {}
    out.mkdir(parents=True, exist_ok=True)
    for alpha in alphas:
        weights = {key: between(a.state, b.state, alpha) for key, (a, b) in pairs.items()}
        written[alpha] = out / f"{second.stem}_alpha_{alpha:g}.pth"
        origin = f"(1 - {alpha:g}) x {first.name} + {alpha:g} x {second.name}"
        write_model(
            written[alpha],
            weights.get("params", weights[keys[0]]),
            weights.get("params_ema"),
            replace(info, origin=origin) if info else None,
        )
        print(f"wrote {written[alpha]}: {origin}, {' and '.join(keys)}")
    return written


def between(first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) first + alpha second, exactly first at 0 and second at 1; counters are the second's.

    Source: Wang et al. 2018, arXiv:1809.00219, section 3.4.
    """
    return {
        name: torch.lerp(first[name], value, alpha) if value.is_floating_point() else value
        for name, value in second.items()
    }


def require_same_network(a: ModelFile, b: ModelFile) -> None:
    """WeightsError naming the first difference."""
    for name in [*a.state, *b.state]:
        if name not in a.state or name not in b.state:
            holder, other = (a, b) if name in a.state else (b, a)
            raise WeightsError(f"{holder.path} has {name}, {other.path} has not: these are different networks")
        if a.state[name].shape != b.state[name].shape:
            shapes = f"{tuple(a.state[name].shape)} in {a.path}, {tuple(b.state[name].shape)} in {b.path}"
            raise WeightsError(f"{name} is {shapes}: these are different networks")
    if a.info and b.info:
        for what in ("arch", "scale", "normalization", "color", "intensity"):
            if getattr(a.info, what) != getattr(b.info, what):
                found = f"{getattr(a.info, what)!r} in {a.path}, {getattr(b.info, what)!r} in {b.path}"
                raise WeightsError(f"{what} is {found}: a mean of the two is no network")
        for key in sorted({*a.info.arch_options, *b.info.arch_options} - _WITHOUT_MEANING):
            ours, theirs = a.info.arch_options.get(key), b.info.arch_options.get(key)
            if ours != theirs:
                found = f"{ours!r} in {a.path}, {theirs!r} in {b.path}"
                raise WeightsError(f"network option {key} is {found}: these are different networks")


def draw_strip(files: Mapping[str, Path], lq: Path, crop: Sequence[int] | None) -> np.ndarray:
    """(H, W, 3) uint8: bicubic, then each network's picture, captioned."""
    image = read_image(lq)
    if crop:
        top, left, height, width = crop
        image = np.ascontiguousarray(image[top : top + height, left : left + width])
    panels: dict[str, np.ndarray] = {}
    for caption, file in files.items():
        upscaler = load(ModelSettings(path=file), RunSettings(device="cpu"))
        panels.setdefault("bicubic", imresize(image, upscaler.scale))
        panels[caption] = upscaler.picture(image)
    return strip({caption: np.repeat(p, 3, 2) if p.shape[2] == 1 else p for caption, p in panels.items()})
