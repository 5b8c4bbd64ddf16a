"""What the tests of inference share: networks whose results are known without running them, and their files. No tests."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

import srkit.archs  # noqa: F401  (registers srkit's own)
from srkit.build import build_network, full_arch_options
from srkit.engine.model_file import ModelInfo, write_model
from srkit.engine.transfer import Normalization
from srkit.infer import main
from srkit.registry import ARCHS


class RepeatingNet(nn.Module):
    """Every pixel `scale` times: exact at any size, in tiles, and seen from any side."""

    receptive_radius_px = 0

    def __init__(self, num_in_ch: int = 3, scale: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.scale = tuple(scale)
        conv = nn.Conv2d if len(self.scale) == 2 else nn.Conv3d
        self.conv = conv(num_in_ch, num_in_ch, 1, bias=False)  # tells how many channels it takes
        nn.init.dirac_(self.conv.weight)

    def forward(self, lq):
        for axis, factor in enumerate(self.scale):
            lq = lq.repeat_interleave(factor, dim=2 + axis)
        return lq


class BoxNet(nn.Module):
    """Every pixel `scale` times, then random 3 x 3 (x 3) convolutions, with a bias that zero padding shows: other results in
    each corner, and a reach of 2 lq pixels."""

    receptive_radius_px = 2

    def __init__(self, num_in_ch: int = 3, scale: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.scale = tuple(scale)
        conv = nn.Conv2d if len(self.scale) == 2 else nn.Conv3d
        self.conv1 = conv(num_in_ch, 6, 3, padding=1)
        self.conv2 = conv(6, num_in_ch, 3, padding=1)

    def forward(self, lq):
        x = torch.tanh(self.conv1(lq))
        for axis, factor in enumerate(self.scale):
            x = x.repeat_interleave(factor, dim=2 + axis)
        return 0.5 + 0.2 * self.conv2(x)


class MeanNet(nn.Module):
    """Repeats pixels and adds the mean of what it sees: no two tiles agree."""

    receptive_radius_px = math.inf

    def __init__(self, num_in_ch: int = 3, scale: tuple[int, ...] = (2, 2)) -> None:
        super().__init__()
        self.scale = tuple(scale)
        self.conv = nn.Conv2d(num_in_ch, num_in_ch, 1)

    def forward(self, lq):
        repeated = lq.repeat_interleave(self.scale[0], dim=2).repeat_interleave(self.scale[1], dim=3)
        return repeated + lq.mean(dim=(2, 3), keepdim=True)


@pytest.fixture(autouse=True, scope="module")
def made_archs():
    """Model files may name these networks while the tests that import this fixture run; no other test sees them."""
    made = (RepeatingNet, BoxNet, MeanNet)
    for cls in made:
        ARCHS.register()(cls)
    yield
    for cls in made:
        del ARCHS._classes[cls.__name__]


def model_file(
    path: Path,
    arch: str = "RepeatingNet",
    scale: tuple[int, ...] = (2, 2),
    color: str = "rgb",
    intensity: str = "",
    normalization: Normalization = Normalization(),
    **options,
) -> Path:
    """A model file of seeded weights."""
    torch.manual_seed(0)
    network = build_network(arch, options, scale)
    info = ModelInfo(
        arch, full_arch_options(arch, options, scale), scale, normalization, color, 0, "made", "", intensity
    )
    write_model(path, network.state_dict(), None, info)
    return path


def infer(*words) -> int:
    """The command in this process."""
    return int(main([str(word) for word in words]))


def picture(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def repeated(image: np.ndarray, *factors: int) -> np.ndarray:
    for axis, factor in enumerate(factors):
        image = np.repeat(image, factor, axis)
    return image


def scan(*shape: int, seed: int = 0) -> np.ndarray:
    """A bright, textured ball on a dim background, in units of thousands."""
    draw = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    ball = np.sqrt(sum(g**2 for g in grid)) < 0.7
    return (200 + 3000 * ball + draw.normal(0, 100, shape)).astype(np.float32)


OBLIQUE = np.array([[0.1, -0.02, 0.01, -4.0], [0.02, 0.45, -0.01, 7.0], [-0.005, 0.04, 0.1, 2.0], [0, 0, 0, 1.0]])
"""Voxels of about 0.1 x 0.45 x 0.1 mm, not along the scanner's axes; the middle one is thick."""


def nifti(path: Path, volume: np.ndarray, spacing=(0.15, 0.45, 0.15), affine: np.ndarray | None = None) -> Path:
    """Written by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume, np.diag([*spacing, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """By nibabel: values, affine."""
    image = nibabel.load(path)
    return image.get_fdata(), image.affine
