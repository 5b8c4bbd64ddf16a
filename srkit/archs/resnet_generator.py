"""ResnetGenerator: a residual network for volumes and slices that enlarges each axis by a factor of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, in_weight_precision, refuse
from srkit.errors import RefusedError
from srkit.registry import ARCHS

_SLOPE = 0.2
_CONV: dict[int, type[nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


class LeakyBlock(nn.Module):
    """`x + bn2(conv2(leaky(bn1(conv1(x)))))`, without an activation after the sum."""

    def __init__(self, num_feat: int, norm: str, axes: int) -> None:
        super().__init__()
        self.conv1 = _CONV[axes](num_feat, num_feat, 3, padding=1)
        self.bn1 = _norm(norm, num_feat, axes)
        self.conv2 = _CONV[axes](num_feat, num_feat, 3, padding=1)
        self.bn2 = _norm(norm, num_feat, axes)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(_leaky(self.bn1(self.conv1(x)))))


@ARCHS.register()
class ResnetGenerator(nn.Module):
    """Residual network for MRI volumes, and for slices, whose axes may be enlarged by different factors.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Feature channels.
        num_block: Residual blocks.
        scale: Enlargement of each axis, [1, 3, 1] for volumes or [1, 3] for slices; as many numbers as axes, each from 1.
        norm: Normalisation of the features. instance looks at the whole volume, so that tiles differ from it.
        residual: linear adds the output to the linear interpolation of the input on the same grid, at which training
            then starts (the last convolution begins at zero). The published network has no such path: none.
        img_range: The network works on intensities of this range; its input and output span 0 to 1. Published weights
            want 255.

    Attributes:
        receptive_radius_px: No output voxel depends on an lq voxel further away than this (in lq voxels, per axis), in
            eval mode; while training, batch normalisation mixes the whole batch.

    Shape: (B, num_in_ch, *S) -> (B, num_out_ch, *S * scale), any size; what lq voxel j becomes on an axis of factor k are
        the voxels from k * j to k * j + k - 1.
    Raises: RefusedError naming every argument that does not fit, and for an input of another number of axes.
    Source: easysr (2024), a generator after Ledig et al. 2017, arXiv:1609.04802, figure 4, with 3D convolutions and one
        transposed convolution that enlarges; adding to an interpolation is Kim et al. 2016, arXiv:1511.04587, section 3.
    """

    def __init__(
        self,
        num_in_ch: int = 1,
        num_out_ch: int = 1,
        num_feat: int = 32,
        num_block: int = 2,
        scale: Sequence[int] = (1, 3, 1),
        norm: Literal["batch", "instance", "none"] = "batch",
        residual: Literal["none", "linear"] = "none",
        img_range: float = 1.0,
    ) -> None:
        super().__init__()
        problems = below_one(num_in_ch=num_in_ch, num_out_ch=num_out_ch, num_feat=num_feat, num_block=num_block)
        if len(scale) not in _CONV or min(scale) < 1:
            problems.append(f"scale is {list(scale)}; it takes two or three whole numbers, each from 1")
        if residual == "linear" and num_in_ch != num_out_ch:
            problems.append(
                f"num_out_ch is {num_out_ch} but num_in_ch is {num_in_ch}; residual: linear needs them equal"
            )
        if img_range <= 0:
            problems.append(f"img_range is {img_range}; it must be above 0")
        refuse("ResnetGenerator", problems)
        axes = len(scale)
        self.scale, self.residual, self.img_range = tuple(scale), residual, float(img_range)
        # conv_first and conv_body 1 each, a block 2; conv_last, on the finer grid, reaches into the neighbouring lq voxel.
        self.receptive_radius_px = math.inf if norm == "instance" else 2 * num_block + 3

        self.conv_first = _CONV[axes](num_in_ch, num_feat, 3, padding=1)
        self.body = nn.Sequential(*(LeakyBlock(num_feat, norm, axes) for _ in range(num_block)))
        self.conv_body = _CONV[axes](num_feat, num_feat, 3, padding=1)
        self.bn_body = _norm(norm, num_feat, axes)
        self.upsample = nn.Sequential(
            _TRANSPOSED[axes](num_feat, num_feat, kernel_size=self.scale, stride=self.scale),
            nn.LeakyReLU(_SLOPE, inplace=True),
        )
        self.conv_last = _CONV[axes](num_feat, num_out_ch, 3, padding=1)
        if residual == "linear":
            for parameter in self.conv_last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, lq: Tensor) -> Tensor:
        if lq.ndim != len(self.scale) + 2:
            raise RefusedError(
                f"ResnetGenerator of scale {list(self.scale)} enlarges {len(self.scale)} axes and was shown a batch of shape "
                f"{tuple(lq.shape)}, which has {lq.ndim - 2}; give scale one number per axis of the data"
            )
        shallow = _leaky(self.conv_first(lq * self.img_range))
        deep = shallow + self.bn_body(self.conv_body(self.body(shallow)))
        made = in_weight_precision(self.conv_last, self.upsample(deep)) / self.img_range
        if self.residual == "none":
            return made
        size = [length * factor for length, factor in zip(lq.shape[2:], self.scale, strict=True)]
        return made + F.interpolate(lq, size, mode=_LINEAR[len(size)], align_corners=False)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, _SLOPE, inplace=True)


def _norm(norm: str, num_feat: int, axes: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    if norm == "batch":
        return nn.BatchNorm2d(num_feat) if axes == 2 else nn.BatchNorm3d(num_feat)
    return nn.InstanceNorm2d(num_feat, affine=True) if axes == 2 else nn.InstanceNorm3d(num_feat, affine=True)
