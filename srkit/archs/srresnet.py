"""SRResNet: SRGAN's generator, residual blocks with batch normalisation."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, conv3, in_weight_precision, refuse
from srkit.registry import ARCHS


class NormalisedBlock(nn.Module):
    """`x + bn2(conv2(act(bn1(conv1(x)))))`; the activation is one PReLU of one parameter."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = conv3(num_feat, num_feat)
        self.bn1 = nn.BatchNorm2d(num_feat)
        self.act = nn.PReLU()
        self.conv2 = conv3(num_feat, num_feat)
        self.bn2 = nn.BatchNorm2d(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))


class ShuffleUp(nn.Module):
    """Twice the size: convolution to four times the channels, pixel shuffle, PReLU."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv = conv3(num_feat, 4 * num_feat)
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(F.pixel_shuffle(self.conv(x), 2))


@ARCHS.register()
class SRResNet(nn.Module):
    """The generator of SRGAN.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Feature channels.
        num_block: Residual blocks.
        upscale: Enlargement per axis, a power of two.

    Attributes:
        receptive_radius_px: No output pixel depends on an lq pixel further away than this (in lq pixels, per axis), in
            eval mode; while training, batch normalisation mixes the whole batch.

    Shape: (B, num_in_ch, H, W) -> (B, num_out_ch, H * upscale, W * upscale), any H and W.
    Raises: RefusedError naming every argument that does not fit.
    Source: Ledig et al. 2017, arXiv:1609.04802, figure 4 and section 3.2: 9x9 convolutions at both ends, input in 0 to 1,
        last layer in -1 to 1 (turned to 0 to 1 here). The paper leaves open whether convolutions before a normalisation have
        a bias and how many parameters a PReLU has; here they have one, and it has one.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: Literal[1, 2, 4, 8, 16] = 4,
    ) -> None:
        super().__init__()
        problems = below_one(num_in_ch=num_in_ch, num_out_ch=num_out_ch, num_feat=num_feat, num_block=num_block)
        if upscale < 1 or upscale & (upscale - 1):
            problems.append(f"upscale is {upscale}; SRResNet enlarges by a power of two (1, 2, 4, 8, ...)")
        refuse("SRResNet", problems)
        # conv_first 4, a block 2, conv_body 1; all that follows, on finer grids, 3; at scale 1 conv_last's 4.
        self.receptive_radius_px = 2 * num_block + (9 if upscale == 1 else 8)

        self.conv_first = nn.Conv2d(num_in_ch, num_feat, kernel_size=9, padding=4)
        self.act = nn.PReLU()
        self.body = nn.Sequential(*(NormalisedBlock(num_feat) for _ in range(num_block)))
        self.conv_body = conv3(num_feat, num_feat)
        self.bn_body = nn.BatchNorm2d(num_feat)
        self.upsample = nn.Sequential(*(ShuffleUp(num_feat) for _ in range(upscale.bit_length() - 1)))
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, kernel_size=9, padding=4)

    def forward(self, lq: Tensor) -> Tensor:
        shallow = self.act(self.conv_first(lq))
        deep = shallow + self.bn_body(self.conv_body(self.body(shallow)))
        return (in_weight_precision(self.conv_last, self.upsample(deep)) + 1) / 2
