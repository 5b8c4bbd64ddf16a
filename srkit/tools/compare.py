"""`srkit compare`: one picture that shows what a network did, beside nearest, bicubic and the truth."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from srkit.imaging.files import read_image, write_image
from srkit.imaging.montage import strip
from srkit.imaging.resize import imresize, nearest_upscale


def compare(lq: str, sr: str, gt: str, out: str, crop: Sequence[int] | None = None, magnify: int = 2) -> None:
    """Writes the strip: lq (pixels repeated), bicubic, sr, gt.

    Args:
        crop: top, left, height, width in gt pixels; the whole picture when absent.
    """
    images = {"lq": read_image(lq), "sr": read_image(sr), "gt": read_image(gt)}
    small, target = images["lq"], images["gt"]
    scale = (images["sr"].shape[0] // small.shape[0], images["sr"].shape[1] // small.shape[1])
    panels = {
        "low resolution": nearest_upscale(small, scale),
        "bicubic": imresize(small, scale),
        "srkit": images["sr"],
        "ground truth": target[: images["sr"].shape[0], : images["sr"].shape[1]],
    }
    top, left, height, width = crop or (0, 0, *target.shape[:2])
    cut = {name: np.ascontiguousarray(p[top : top + height, left : left + width]) for name, p in panels.items()}
    write_image(out, strip({name: np.repeat(p, 3, 2) if p.shape[2] == 1 else p for name, p in cut.items()}, magnify))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for name in ("lq", "sr", "gt", "out"):
        parser.add_argument(name)
    parser.add_argument("--crop", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="in gt pixels")


def run(flags: argparse.Namespace) -> None:
    compare(flags.lq, flags.sr, flags.gt, flags.out, flags.crop)
