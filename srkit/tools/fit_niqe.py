"""`srkit fit-niqe`: NIQE's model of good pictures, fitted to a folder of them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from srkit.data.folders import Folders
from srkit.errors import DataError, RefusedError
from srkit.metrics.niqe import PATCH_PX, SHARPNESS, NiqeModel, brightness, fit


def fit_niqe(
    folder: Path, out: Path, patch_px: int = PATCH_PX, sharpness: float = SHARPNESS, recursive: bool = False
) -> NiqeModel:
    """Fits to every picture below `folder` and writes the model. Raises DataError, RefusedError."""
    if out.exists():
        raise RefusedError(f"{out} exists; remove it or give another name")
    if patch_px < 16 or patch_px % 2:
        raise RefusedError(f"--patch: found {patch_px}, expected an even number from 16 on; it is halved once")
    if not 0 <= sharpness < 1:
        raise RefusedError(f"--sharpness: found {sharpness}, expected a number from 0 to below 1")
    source, problems = Folders(recursive=recursive).open("folder", str(folder))
    if problems:
        raise DataError("; ".join(problems))
    pictures = (source.read(index) for index in range(len(source.names)))
    model = fit((brightness(p, float(np.iinfo(p.dtype).max)) for p in pictures), patch_px, sharpness)
    model.save(out)
    return model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="good pictures of your own kind, a hundred or more")
    parser.add_argument("-o", "--out", type=Path, required=True, help="model file (.npz)")
    parser.add_argument("--patch", type=int, default=PATCH_PX, help=f"side of a patch in pixels, {PATCH_PX}")
    parser.add_argument(
        "--sharpness", type=float, default=SHARPNESS, help=f"share of a picture's sharpest patch, {SHARPNESS}"
    )
    parser.add_argument("--recursive", action="store_true", help="folders below it too")


def run(flags: argparse.Namespace) -> None:
    model = fit_niqe(flags.folder, flags.out, flags.patch, flags.sharpness, flags.recursive)
    print(
        f"wrote {flags.out}: {model.patches} patches of {model.patch_px} pixels from {model.pictures} pictures; "
        f"use it as val.metrics.niqe: {{type: NIQE, model: {flags.out}}}"
    )
