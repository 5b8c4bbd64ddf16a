"""MSRResNet: SRResNet without normalisation that adds details to a bilinear enlargement."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, conv3, in_weight_precision, kaiming_normal, refuse
from srkit.registry import ARCHS


class PlainResidualBlock(nn.Module):
    """`x + conv2(relu(conv1(x)))`, starting with a tenth of Kaiming's weights."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = conv3(num_feat, num_feat)
        self.conv2 = conv3(num_feat, num_feat)
        kaiming_normal((self.conv1, self.conv2), 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


@ARCHS.register()
class MSRResNet(nn.Module):
    """Residual network of BasicSR's first options: no normalisation, pixel shuffle, bilinear enlargement added.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output; equal to `num_in_ch`, because the enlarged input is added.
        num_feat: Feature channels.
        num_block: Residual blocks.
        upscale: Enlargement per axis.

    Attributes:
        receptive_radius_px: No output pixel depends on an lq pixel further away than this (in lq pixels, per axis).

    Shape: (B, num_in_ch, H, W) -> (B, num_out_ch, H * upscale, W * upscale), any H and W.
    Raises: RefusedError naming every argument that does not fit.
    Source: Wang et al. 2018, arXiv:1809.00219, who train it as ESRGAN's smaller relative; layers, names, first weights and
        slope are those of BasicSR 1.4.2, whose files load.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: Literal[2, 3, 4] = 4,
    ) -> None:
        super().__init__()
        _refuse_misfits(num_in_ch, num_out_ch, num_feat, num_block, upscale)
        self.upscale = upscale
        # conv_first 1, a block 2; all that follows, on finer grids, 2.
        self.receptive_radius_px = 2 * num_block + 3
        self.step = 2 if upscale == 4 else upscale

        self.conv_first = conv3(num_in_ch, num_feat)
        self.body = nn.Sequential(*(PlainResidualBlock(num_feat) for _ in range(num_block)))
        self.upconv1 = conv3(num_feat, num_feat * self.step**2)
        if upscale == 4:
            self.upconv2 = conv3(num_feat, num_feat * self.step**2)
        self.conv_hr = conv3(num_feat, num_feat)
        self.conv_last = conv3(num_feat, num_out_ch)
        kaiming_normal((self.conv_first, self.upconv1, self.conv_hr, self.conv_last), 0.1)
        if upscale == 4:
            kaiming_normal((self.upconv2,), 0.1)

    def forward(self, lq: Tensor) -> Tensor:
        fine = self.body(_leaky(self.conv_first(lq)))
        fine = _leaky(F.pixel_shuffle(self.upconv1(fine), self.step))
        if self.upscale == 4:
            fine = _leaky(F.pixel_shuffle(self.upconv2(fine), self.step))
        detail = in_weight_precision(self.conv_last, _leaky(self.conv_hr(fine)))
        return detail + F.interpolate(lq, scale_factor=self.upscale, mode="bilinear", align_corners=False)


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1, inplace=True)


def _refuse_misfits(num_in_ch: int, num_out_ch: int, num_feat: int, num_block: int, upscale: int) -> None:
    problems = below_one(num_in_ch=num_in_ch, num_feat=num_feat, num_block=num_block)
    if num_in_ch != num_out_ch:
        problems.append(f"num_out_ch is {num_out_ch} but num_in_ch is {num_in_ch}; MSRResNet needs them equal")
    if upscale not in (2, 3, 4):
        problems.append(f"upscale is {upscale}; MSRResNet enlarges by 2, 3 or 4")
    refuse("MSRResNet", problems)
