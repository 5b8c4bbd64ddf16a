"""`srkit example-data`: real pictures for a first training, from the ones scikit-image installs. No download."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import numpy as np

from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize, mod_crop

SCALE = 2
TRAIN = ("hubble_deep_field", "motorcycle_left", "motorcycle_right", "retina", "rocket")
"""Pictures shipped inside scikit-image, whose documentation names their sources; the motorcycles are one stereo pair."""
GREY = ("brick", "camera", "cell", "coins", "grass", "gravel", "moon", "page", "text")
HELD_OUT = ("astronaut", "chelsea", "coffee")
HISTOLOGY = "ihc"  # immunohistochemistry of colon: left two thirds for training, the rest held out


def load(stem: str) -> np.ndarray:
    """(H, W, 3) uint8 picture that lies in scikit-image's wheel. Raises DataError when this version ships without it."""
    from skimage import data

    from srkit.imaging.files import read_image

    folder = Path(data.__file__).parent
    found = next((p for p in (folder / f"{stem}.png", folder / f"{stem}.jpg") if p.exists()), folder / f"{stem}.png")
    return read_image(found)


def make_example_data(folder: str | Path, with_grey: bool = False) -> None:
    """Writes folder/{train,test}/{gt,lq}: lq is gt shrunk by the exact bicubic. What exists is written again.

    Args:
        with_grey: Also the grey photographs, for training.
    """
    root = Path(folder)
    tissue = load(HISTOLOGY)
    cut = tissue.shape[1] * 2 // 3 // SCALE * SCALE
    names = (*TRAIN, *GREY) if with_grey else TRAIN
    train = {**{name: load(name) for name in names}, "histology_left": tissue[:, :cut]}
    test = {**{name: load(name) for name in HELD_OUT}, "histology_right": tissue[:, cut:]}
    for part, pictures in (("train", train), ("test", test)):
        for name, picture in pictures.items():
            gt = mod_crop(np.ascontiguousarray(picture), SCALE)
            write_image(root / part / "gt" / f"{name}.png", gt)
            write_image(root / part / "lq" / f"{name}.png", imresize(gt, Fraction(1, SCALE)))
    print(f"{len(train)} pictures to train on and {len(test)} held out in {root.resolve()}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="datasets/quickstart")
    parser.add_argument("--with_grey", action="store_true", help="nine grey photographs more to train on")


def run(flags: argparse.Namespace) -> None:
    make_example_data(flags.folder, flags.with_grey)
