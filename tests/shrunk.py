"""Option files made small: tiny pictures where a file looks for its own, and words that shrink what it trains. No tests."""

from __future__ import annotations

import inspect
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
from tiny import ROOT

from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize
from srkit.imaging.slices import resample
from srkit.imaging.volumes import write_volume
from srkit.options import Options
from srkit.options.components import DatasetOptions, NetworkOptions
from srkit.registry import ARCHS

ITERATIONS, PICTURES = 2, 3
_VOLUME = 36
SMALL = {
    "num_feat": 8, "num_block": 1, "num_grow_ch": 4, "edge_num_feat": 8, "edge_num_block": 1, "channels": "[8, 8, 8, 8]",
}  # fmt: skip


def training_words(options: Options) -> tuple[str, ...]:
    """--force_yml words that make a training take a second and leave its data, losses and schedule alone."""
    item, train = options.datasets["train"], options.train
    assert train is not None
    words: dict[str, object] = {
        "num_gpu": 0,
        "datasets:train:batch_size_per_gpu": 2,
        "datasets:train:num_worker_per_gpu": 0,
        "train:total_iter": ITERATIONS,
        "val:val_freq": ITERATIONS,
        "val:pbar": "false",
        "logger:print_freq": 1,
        "logger:use_tb_logger": "false",
    }
    if item.options.get("gt_size") and not has_fixed_size(options):
        step = math.lcm(*(item.scales or options.scale))
        side = 32 // step * step
        words["datasets:train:gt_size"] = side
        if item.type == "VolumeDataset":
            judged = "network_d" in options.networks
            words["datasets:train:gt_size"] = (_VOLUME if judged else 12) // step * step  # a discriminator wants 32
        if item.options.get("gt_size_max"):
            words["datasets:train:gt_size_max"] = 40 // step * step
    for key, loss in {
        "perceptual_opt": train.perceptual_opt,
        **{f"losses:{n}": x for n, x in train.losses.items()},
    }.items():
        if loss and loss.type == "PerceptualLoss":
            words[f"train:{key}:weights"] = "random"
            words[f"train:{key}:trunk"] = "torchvision"
    for name, part in options.networks.items():
        words |= {f"{name}:{key}": value for key, value in width_of(part).items()}
    return tuple(f"{key}={value}" for key, value in words.items())


def has_fixed_size(options: Options) -> bool:
    """Whether a network takes pictures of one size only."""
    return any("input_size" in taken_by(part) for part in options.networks.values())


def taken_by(part: NetworkOptions) -> set[str]:
    return set(inspect.signature(ARCHS.get(part.type)).parameters)


def width_of(part: NetworkOptions) -> dict[str, object]:
    """Options that make a network small, of those it takes."""
    return {key: value for key, value in SMALL.items() if key in taken_by(part)}


def make_pictures(options: Options, folder: Path) -> None:
    """Smooth noise in every folder a file names; a list file is cut down to pictures that are made for it."""
    side = 144 if has_fixed_size(options) else 72  # half of it still holds a crop of 32
    for item in options.datasets.values():
        if len(options.scale) == 3:
            _make_volumes(item, options.scale, folder)
            continue
        for scale in item.scales or options.scale[:1]:
            _make_set(item, scale, folder, side)


def _make_set(item: DatasetOptions, scale: int, folder: Path, side: int) -> None:
    def place(key: str) -> Path | None:
        given = item.options.get(key)
        return folder / given.replace("{scale}", str(scale)) if given else None

    gt, lq, listed = place("dataroot_gt"), place("dataroot_lq"), place("meta_info_file")
    names = [f"p{n}.png" for n in range(PICTURES)]
    if listed:
        names = _shorten(listed, ROOT / listed.relative_to(folder), names)
    draw = np.random.default_rng(0)
    for name in names:
        picture = imresize(draw.integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8), 8)
        if gt:
            write_image(gt / name, picture)
        if lq:
            stem, suffix = os.path.splitext(name)
            named = item.options.get("filename_tmpl", "{}").replace("{scale}", str(scale)).format(stem)
            write_image(lq / f"{named}{suffix}", imresize(picture, Fraction(1, scale)))


def _make_volumes(item: DatasetOptions, scale: tuple[int, ...], folder: Path) -> None:
    """Smooth noise in nothing: isotropic, or for what learns from thick slices with these along the enlarged axis."""
    thick = item.type == "SelfSupervisedSlices"
    shape = [_VOLUME + 4 if s == 1 or not thick else 16 for s in scale]
    affine = np.diag([*(0.15 * (s if thick else 1) for s in scale), 1.0])
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = draw.random([n // 4 for n in shape]).astype(np.float32) * 1000
        values = resample(coarse, shape, 1)
        values[:2], values[-2:], values[:, :, :6] = 0, 0, 0
        name = f"rat_tp3_{number}_x.nii.gz"
        write_volume(folder / item.options["dataroot_gt"] / name, values, affine, like=None)


def _shorten(listed: Path, shipped: Path, names: list[str]) -> list[str]:
    """Writes a list of some lines of srkit's own of that name, or of `names` if there is none; returns its names."""
    lines = shipped.read_text().splitlines() if shipped.exists() else [f"{name} (48,48,3)" for name in names]
    lines = lines[:: len(lines) // PICTURES][:PICTURES]
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("\n".join(lines))
    return [line.split()[0] for line in lines]
