"""VDSR: a plain chain of convolutions that corrects a bicubic enlargement, one network for several scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, in_weight_precision, one_scale, refuse
from srkit.imaging.enlarge import enlarge_bicubic
from srkit.registry import ARCHS


@ARCHS.register()
class VDSR(nn.Module):
    """Very deep network for the residual between a bicubic enlargement and the picture.

    The weights know no scale: trained on several, one network serves them all.

    Args:
        num_ch: Channels of input and output: 1 (luma, as in the paper; `color: y` of the datasets) or 3 (RGB).
        num_feat: Feature channels.
        num_block: Convolutions between the first and the last; 18 make the paper's 20 layers.
        scale: Enlargement of both axes where the call does not say another.
        bias: Whether convolutions have a bias; published files have none.
        enlarge_input: false when lq is enlarged already and has gt's size; `scale` is then without effect.
        last_init: First weights of the last convolution: `kaiming` like all others, or `zero`, which starts at the
            bicubic enlargement itself.

    Attributes:
        receptive_radius_px: At its own scale no output pixel depends on an lq pixel further away than this (in lq pixels,
            per axis).

    Shape: (B, num_ch, H, W) -> (B, num_ch, H * scale, W * scale), any H and W; intensities 0 to 1. With
        `enlarge_input: false` the size stays.
    Raises: RefusedError naming every argument that does not fit.
    Source: Kim et al. 2016, arXiv:1511.04587, section 3; first weights: He et al. 2015, arXiv:1502.01852 (fan-out), biases 0.
        The enlargement is the evaluation's row bicubic-matlab: for luma equal after rounding to 8 bits, except that float32
        lets one pixel in 100,000 fall to the other side. RGB rows are rounded and clipped between their two passes too,
        which this network is not (0.005 dB at scale 2).
    """

    def __init__(
        self,
        num_ch: Literal[1, 3] = 1,
        num_feat: int = 64,
        num_block: int = 18,
        scale: int | Sequence[int] = 2,
        bias: bool = True,
        enlarge_input: bool = True,
        last_init: Literal["kaiming", "zero"] = "kaiming",
    ) -> None:
        super().__init__()
        self.scale = one_scale("VDSR", scale)
        wrong_ch = [] if num_ch in (1, 3) else [f"num_ch is {num_ch}; VDSR takes 1 (luma) or 3 (RGB)"]
        refuse("VDSR", wrong_ch + below_one(num_feat=num_feat, num_block=num_block))
        self.enlarge_input = enlarge_input
        self.receptive_radius_px = _reach(num_block + 2, self.scale if enlarge_input else 1)

        self.conv_first = nn.Conv2d(num_ch, num_feat, kernel_size=3, padding=1, bias=bias)
        self.body = nn.ModuleList(
            nn.Conv2d(num_feat, num_feat, kernel_size=3, padding=1, bias=bias) for _ in range(num_block)
        )
        self.conv_last = nn.Conv2d(num_feat, num_ch, kernel_size=3, padding=1, bias=bias)
        for conv in (self.conv_first, *self.body, self.conv_last):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if bias:
                nn.init.zeros_(conv.bias)
        if last_init == "zero":
            nn.init.zeros_(self.conv_last.weight)

    def forward(self, lq: Tensor, scale: int | None = None) -> Tensor:
        """`scale` of this batch; None is the network's own."""
        large = enlarge_bicubic(lq, scale or self.scale) if self.enlarge_input else lq
        x = F.relu(self.conv_first(large), inplace=True)
        for conv in self.body:
            x = F.relu(conv(x), inplace=True)
        return large + in_weight_precision(self.conv_last, x)


def _reach(radius: int, scale: int) -> int:
    """Lq pixels that `radius` pixels on the enlarged grid and the bicubic kernel (less than 2 lq pixels) touch at most."""
    if scale == 1:
        return radius
    # The first pixel that lq pixel 0 becomes stands at (1 / scale - 1) / 2; from `radius` further left, the kernel takes
    # lq pixels nearer than 2.
    return (2 * radius + 5 * scale - 2) // (2 * scale)
