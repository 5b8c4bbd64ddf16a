"""Discriminators built like VGG: convolutions that halve the size while channels double, then two linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, refuse
from srkit.errors import RefusedError
from srkit.registry import ARCHS

_MOST = 8  # channels grow up to this multiple of num_feat


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


def _averaged(x: Tensor, side: int) -> Tensor:
    """`F.adaptive_avg_pool2d`, whose gradient CUDA adds up in any order, and refuses to where that must not be."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return averaged_in_order(x, side)
    return F.adaptive_avg_pool2d(x, side)


def averaged_in_order(x: Tensor, side: int) -> Tensor:
    """The same means, of rows and then of columns, with a gradient of plain sums. Shape: (B, C, H, W) -> (B, C, side, side)."""
    for axis in (2, 3):
        length = x.shape[axis]
        ends = [(k * length // side, -(-(k + 1) * length // side)) for k in range(side)]
        x = torch.stack([x.narrow(axis, first, last - first).mean(axis) for first, last in ends], axis)
    return x


@ARCHS.register()
class VGGStyleDiscriminator(nn.Module):
    """BasicSR's discriminator for pictures of one size, 128x128 or 256x256.

    Args:
        num_in_ch: Channels of the pictures.
        num_feat: Channels of the first layer.
        input_size: Side of the pictures in pixels; gt_size must equal it.

    Shape: (B, num_in_ch, input_size, input_size) -> logits (B, 1); with `return_features` also what every convolution
        gives, two maps for each halving.
    Raises: RefusedError for other sizes, and naming every argument that does not fit.
    Source: Ledig et al. 2017, arXiv:1609.04802, section 2.1.1, with the 4x4 convolutions and the names of BasicSR 1.4.2, whose
        files load.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, input_size: Literal[128, 256] = 128) -> None:
        super().__init__()
        problems = below_one(num_in_ch=num_in_ch, num_feat=num_feat)
        if input_size not in (128, 256):
            problems.append(f"input_size is {input_size}; it takes 128 or 256, VGGAdaptiveDiscriminator any")
        refuse("VGGStyleDiscriminator", problems)
        self.input_size = input_size
        self.num_halving = (input_size // 4).bit_length() - 1  # down to 4x4

        before = num_in_ch
        for stage in range(self.num_halving):
            channels = num_feat * min(2**stage, _MOST)
            self.add_module(f"conv{stage}_0", nn.Conv2d(before, channels, 3, padding=1, bias=stage == 0))
            if stage > 0:
                self.add_module(f"bn{stage}_0", nn.BatchNorm2d(channels))
            self.add_module(f"conv{stage}_1", nn.Conv2d(channels, channels, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{stage}_1", nn.BatchNorm2d(channels))
            before = channels
        self.linear1 = nn.Linear(before * 4 * 4, 100)
        self.linear2 = nn.Linear(100, 1)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        if tuple(x.shape[2:]) != (self.input_size, self.input_size):
            raise RefusedError(
                f"VGGStyleDiscriminator of input_size {self.input_size} was shown {x.shape[3]}x{x.shape[2]} pixels; set "
                f"gt_size to {self.input_size}, input_size to 128 or 256, or take VGGAdaptiveDiscriminator for other sizes"
            )
        features: list[Tensor] = []
        for stage in range(self.num_halving):
            for place in (f"{stage}_0", f"{stage}_1"):
                x = self.get_submodule(f"conv{place}")(x)
                x = _leaky(x if place == "0_0" else self.get_submodule(f"bn{place}")(x))
                features.append(x)
        logits = self.linear2(_leaky(self.linear1(x.flatten(1))))
        return (logits, features) if return_features else logits


class NormalisedConv(nn.Module):
    """3x3 convolution, batch normalisation (except in the first layer, which has a bias instead), LeakyReLU 0.2."""

    def __init__(self, in_ch: int, out_ch: int, stride: int, is_first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_ch, out_ch, 3, stride, padding=1, bias=is_first)
        self.bn = None if is_first else nn.BatchNorm2d(out_ch)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return _leaky(x if self.bn is None else self.bn(x))


@ARCHS.register()
class VGGAdaptiveDiscriminator(nn.Module):
    """SRGAN's discriminator for pictures of any size: the last map is averaged to 7x7.

    Args:
        num_in_ch: Channels of the pictures.
        channels: Of each convolution; one that repeats the count before it halves the size.
        fc_features: Width of each linear layer before the last.

    Shape: (B, num_in_ch, H, W), any size -> logits (B, 1); with `return_features` also the map of every convolution.
    Raises: RefusedError naming every argument that does not fit.
    Source: Ledig et al. 2017, arXiv:1609.04802, section 2.1.1; the linear layer of 100 is ESRGAN's (Wang et al. 2018,
        arXiv:1809.00219), the averaging torchvision's VGG's.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        channels: Sequence[int] = (64, 64, 128, 128, 256, 256, 512, 512),
        fc_features: Sequence[int] = (100,),
    ) -> None:
        super().__init__()
        problems = below_one(num_in_ch=num_in_ch)
        if not channels or min((*channels, *fc_features)) < 1:
            problems.append(
                "channels must name one convolution or more, and all of channels and fc_features be at least 1"
            )
        refuse("VGGAdaptiveDiscriminator", problems)
        steps = pairwise((num_in_ch, *channels))
        self.body = nn.ModuleList(
            NormalisedConv(before, after, 2 if after == before and place else 1, is_first=place == 0)
            for place, (before, after) in enumerate(steps)
        )
        widths = (channels[-1] * 7 * 7, *fc_features)
        self.fc = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(widths))
        self.fc_last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        features: list[Tensor] = []
        for layer in self.body:
            x = layer(x)
            features.append(x)
        flat = _averaged(x, 7).flatten(1)
        for linear in self.fc:
            flat = _leaky(linear(flat))
        logits = self.fc_last(flat)
        return (logits, features) if return_features else logits
