"""RRDBNet: ESRGAN's generator, dense blocks in residual blocks without normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, conv3, in_weight_precision, kaiming_normal, one_scale, refuse, run_blocks
from srkit.registry import ARCHS

_RESIDUAL = 0.2  # Wang et al. 2018, section 3.1: factor on every residual branch
_FIRST_WEIGHTS = 0.1  # same section: factor on the body's first weights


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


class DenseBlock(nn.Module):
    """Five convolutions, each fed with the input and what all before it made; 0.2 of the last is added to the input."""

    def __init__(self, num_feat: int, num_grow_ch: int, init: str) -> None:
        super().__init__()
        self.conv1 = conv3(num_feat, num_grow_ch)
        self.conv2 = conv3(num_feat + num_grow_ch, num_grow_ch)
        self.conv3 = conv3(num_feat + 2 * num_grow_ch, num_grow_ch)
        self.conv4 = conv3(num_feat + 3 * num_grow_ch, num_grow_ch)
        self.conv5 = conv3(num_feat + 4 * num_grow_ch, num_feat)
        if init == "kaiming":
            kaiming_normal((self.conv1, self.conv2, self.conv3, self.conv4, self.conv5), _FIRST_WEIGHTS)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen = torch.cat((seen, _leaky(conv(seen))), dim=1)
        # Factor and sum are two roundings, not one as in torch.add: published networks are met to the last bit.
        return self.conv5(seen) * _RESIDUAL + x


class RRDB(nn.Module):
    """Three dense blocks in a row, 0.2 of which is added to the input."""

    def __init__(self, num_feat: int, num_grow_ch: int, init: str) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(num_feat, num_grow_ch, init)
        self.rdb2 = DenseBlock(num_feat, num_grow_ch, init)
        self.rdb3 = DenseBlock(num_feat, num_grow_ch, init)

    def forward(self, x: Tensor) -> Tensor:
        return self.rdb3(self.rdb2(self.rdb1(x))) * _RESIDUAL + x


@ARCHS.register()
class RRDBNet(nn.Module):
    """Residual-in-residual dense network, the generator of ESRGAN and Real-ESRGAN.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        scale: Enlargement of both axes: 1, 2, 4 or 8.
        num_feat: Feature channels.
        num_block: Residual-in-residual blocks; 23 and 16 are in use.
        num_grow_ch: Channels each convolution of a dense block adds.
        upsampler: How one factor of 2 is made: `nearest` repeats pixels and convolves, `pixelshuffle` convolves to four
            times the channels and spreads them.
        unshuffle_input: At scale 2 and 1 first turn 2x2 or 4x4 pixels into channels and enlarge by 4 afterwards, as
            published networks of these scales do; false enlarges by the scale alone. No effect at 4 and 8.
        init: First weights of the body: `kaiming` times 0.1 as in the paper, or `torch`'s default.
        use_checkpoint: Recompute each block in the backward pass instead of keeping its activations: equal gradients,
            less memory, about a third more time.

    Attributes:
        receptive_radius_px: No output pixel depends on an lq pixel further away than this (in lq pixels, per axis).
        tile_step: Tiles equal the whole only if they also start at multiples of this: 2 or 4 where input is unshuffled.

    Shape: (B, num_in_ch, H, W) -> (B, num_out_ch, H * scale, W * scale), any H and W. Where input is unshuffled, edge
        pixels are repeated up to the next multiple of 2 or 4, and what comes of them is cut off.
    Raises: RefusedError naming every argument that does not fit.
    Source: Wang et al. 2018, arXiv:1809.00219, section 3.1; unshuffled input: Wang et al. 2021, arXiv:2107.10833,
        section 3.3. Parameter names are those of BasicSR, whose files load.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        scale: int | Sequence[int] = 4,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
        upsampler: Literal["nearest", "pixelshuffle"] = "nearest",
        unshuffle_input: bool = True,
        init: Literal["kaiming", "torch"] = "kaiming",
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.scale = one_scale("RRDBNet", scale)
        counts = {"num_in_ch": num_in_ch, "num_out_ch": num_out_ch, "num_feat": num_feat, "num_block": num_block}
        wrong_scale = [] if self.scale in (1, 2, 4, 8) else [f"scale is {self.scale}; it enlarges by 1, 2, 4 or 8"]
        refuse("RRDBNet", wrong_scale + below_one(**counts, num_grow_ch=num_grow_ch))
        self.upsampler, self.use_checkpoint = upsampler, use_checkpoint
        self.unshuffle = max(1, 4 // self.scale) if unshuffle_input else 1
        self.tile_step = self.unshuffle
        self.num_up = (self.scale * self.unshuffle).bit_length() - 1
        # conv_first and conv_body 1 each, a block 15. All that follows on finer grids reaches 2 pixels of the coarse one.
        self.receptive_radius_px = self.unshuffle * (15 * num_block + 4)

        self.conv_first = conv3(num_in_ch * self.unshuffle**2, num_feat)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow_ch, init) for _ in range(num_block)))
        self.conv_body = conv3(num_feat, num_feat)
        for step in range(1, self.num_up + 1):
            self.add_module(f"conv_up{step}", conv3(num_feat, num_feat * (4 if upsampler == "pixelshuffle" else 1)))
        self.conv_hr = conv3(num_feat, num_feat)
        self.conv_last = conv3(num_feat, num_out_ch)

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.conv_first(self._unshuffled(lq))
        fine = shallow + self.conv_body(run_blocks(self.body, shallow, self.use_checkpoint))
        for step in range(1, self.num_up + 1):
            fine = self._enlarged(self.get_submodule(f"conv_up{step}"), fine)
        sr = in_weight_precision(self.conv_last, _leaky(self.conv_hr(fine)))
        return sr[..., : lq.shape[2] * self.scale, : lq.shape[3] * self.scale]

    def _unshuffled(self, lq: Tensor) -> Tensor:
        if self.unshuffle == 1:
            return lq
        missing = [-n % self.unshuffle for n in lq.shape[2:]]
        return F.pixel_unshuffle(F.pad(lq, (0, missing[1], 0, missing[0]), mode="replicate"), self.unshuffle)

    def _enlarged(self, conv: nn.Module, x: Tensor) -> Tensor:
        if self.upsampler == "pixelshuffle":
            return _leaky(F.pixel_shuffle(conv(x), 2))
        return _leaky(conv(F.interpolate(x, scale_factor=2, mode="nearest")))
