"""EDSR: a plain residual network without normalisation, enlarging by pixel shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import conv3, in_weight_precision, run_blocks
from srkit.errors import RefusedError
from srkit.registry import ARCHS


class ResidualBlock(nn.Module):
    """`x + res_scale * conv2(relu(conv1(x)))`; both convolutions start with torch's default values."""

    def __init__(self, num_feat: int, res_scale: float) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = conv3(num_feat, num_feat)
        self.conv2 = conv3(num_feat, num_feat)

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv2(F.relu(self.conv1(x), inplace=True))
        return torch.add(x, change, alpha=self.res_scale)


@ARCHS.register()
class EDSR(nn.Module):
    """Enhanced deep residual network for single-image super-resolution.

    Args:
        num_in_ch: Channels of the input: 3 (RGB) or 1 (grey).
        num_out_ch: Channels of the output; equal to `num_in_ch`, because the mean taken off the input is added again.
        num_feat: Feature channels.
        num_block: Residual blocks.
        upscale: Enlargement per axis: a power of two, or 3.
        res_scale: Factor on each residual branch; wide networks (256 features) need 0.1 to train stably.
        img_range: The network works on intensities of this range; its input and output span 0 to 1.
        rgb_mean: Mean removed inside, for intensities in 0 to 1. Three values for RGB; for grey one value, or three
            that are averaged. The default is DIV2K's.
        use_checkpoint: Recompute each residual block in the backward pass instead of keeping its activations: equal
            gradients, less memory, about a third more time.

    Attributes:
        prefers_channels_last: Measured to train faster in that layout on the CPU; a GPU's tensor cores take it as it is.
        receptive_radius_px: No output pixel depends on an lq pixel further away than this (in lq pixels, per axis), so
            tiles with at least this much context on every inner side equal the whole picture.

    Shape: (B, num_in_ch, H, W) -> (B, num_out_ch, H * upscale, W * upscale), any H and W.
    Raises: RefusedError naming every argument that does not fit.
    Source: Lim et al. 2017, arXiv:1707.02921, section 3; parameter names are those of BasicSR, whose files load.
    """

    prefers_channels_last = True

    if TYPE_CHECKING:  # the buffer's type; TorchScript cannot read a class annotation that is text
        mean: Tensor

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: Literal[1, 2, 3, 4, 8, 16] = 4,
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        _refuse_misfits(num_in_ch, num_out_ch, num_feat, num_block, upscale, img_range, rgb_mean)
        self.img_range = float(img_range)
        self.use_checkpoint = use_checkpoint
        # conv_first and conv_after_body 1 each, a block 2, the first upsampling convolution 1, and all that follows on
        # finer grids (1/2 + 1/4 + ..., or 1/3) less than 1; at scale 1 only conv_last's 1 follows.
        self.receptive_radius_px = 2 * num_block + (3 if upscale == 1 else 4)
        # Not in the state dict: published files hold no such key.
        self.register_buffer("mean", _channel_mean(rgb_mean, num_in_ch), persistent=False)

        self.conv_first = conv3(num_in_ch, num_feat)
        self.body = nn.Sequential(*(ResidualBlock(num_feat, float(res_scale)) for _ in range(num_block)))
        self.conv_after_body = conv3(num_feat, num_feat)
        self.upsample = nn.Sequential(*_upsample_layers(num_feat, upscale))
        self.conv_last = conv3(num_feat, num_out_ch)

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.conv_first((lq - self.mean) * self.img_range)
        if torch.jit.is_scripting():  # TorchScript knows neither checkpointing nor autocast; it skips the other branch
            deep = self.body(shallow)
            residual = self.conv_last(self.upsample(self.conv_after_body(deep) + shallow))
        else:
            deep = run_blocks(self.body, shallow, self.use_checkpoint)
            residual = in_weight_precision(self.conv_last, self.upsample(self.conv_after_body(deep) + shallow))
        return residual / self.img_range + self.mean


def _upsample_layers(num_feat: int, upscale: int) -> list[nn.Module]:
    steps = [3] if upscale == 3 else [2] * (upscale.bit_length() - 1)
    layers: list[nn.Module] = []
    for step in steps:
        layers += [conv3(num_feat, step * step * num_feat), nn.PixelShuffle(step)]
    return layers


def _channel_mean(rgb_mean: Sequence[float], num_in_ch: int) -> Tensor:
    """(1, num_in_ch, 1, 1); a grey input takes the average of three given values."""
    mean = torch.tensor([float(v) for v in rgb_mean], dtype=torch.float64)
    if num_in_ch == 1:
        mean = mean.mean(dim=0, keepdim=True)
    return mean.to(torch.get_default_dtype()).view(1, -1, 1, 1)


def _refuse_misfits(
    num_in_ch: int,
    num_out_ch: int,
    num_feat: int,
    num_block: int,
    upscale: int,
    img_range: float,
    rgb_mean: Sequence[float],
) -> None:
    problems: list[str] = []
    if num_in_ch not in (1, 3):
        problems.append(f"num_in_ch is {num_in_ch}; EDSR takes 3 (RGB) or 1 (grey)")
    elif len(rgb_mean) not in (num_in_ch, 3):
        wanted = "three values (RGB)" if num_in_ch == 3 else "one value, or three to average"
        problems.append(f"rgb_mean has {len(rgb_mean)} values; num_in_ch {num_in_ch} needs {wanted}")
    if num_out_ch != num_in_ch:
        problems.append(f"num_out_ch is {num_out_ch} but num_in_ch is {num_in_ch}; EDSR needs them equal")
    if num_feat < 1 or num_block < 1:
        problems.append(f"num_feat {num_feat} and num_block {num_block} must be at least 1")
    if upscale != 3 and (upscale < 1 or upscale & (upscale - 1)):
        problems.append(f"upscale is {upscale}; EDSR enlarges by 3 or a power of two (2, 4, 8, ...)")
    if img_range <= 0:
        problems.append(f"img_range is {img_range}; it must be above 0")
    if problems:
        raise RefusedError("EDSR: " + "; ".join(problems))
