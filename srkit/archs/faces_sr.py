"""FacesSR: four wide convolutions with tanh on luma, the smallest network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import in_weight_precision, one_scale
from srkit.errors import RefusedError
from srkit.registry import ARCHS

_RADIUS = 3  # of a 7x7 convolution


@ARCHS.register()
class FacesSR(nn.Module):
    """Luma network for faces: pixels are repeated, then four 7x7 convolutions with tanh smooth and sharpen them.

    Args:
        scale: Enlargement of both axes.
        padding: What convolutions see outside the picture: `zeros` as published, which is mid-grey in the network's range
            and darkens or brightens a frame of 12 pixels; or `reflect`, which mirrors the picture and leaves no frame.

    Attributes:
        receptive_radius_px: No output pixel depends on an lq pixel further away than this (in lq pixels, per axis).

    Shape: (B, 1, H, W) -> (B, 1, H * scale, W * scale), intensities 0 to 1 (-1 to 1 inside, where tanh ends). Any H and W;
        with `reflect` at least 4 / scale.
    Raises: RefusedError for a scale that does not fit, and when called with a picture too small for `reflect`.
    Source: a course work on FFHQ faces (2021), which builds on Kim et al. 2016, arXiv:1511.04587; parameter names are its
        own.
    """

    def __init__(self, scale: int | Sequence[int] = 2, padding: Literal["zeros", "reflect"] = "zeros") -> None:
        super().__init__()
        self.scale, self.padding = one_scale("FacesSR", scale), padding
        self.receptive_radius_px = -(-4 * _RADIUS // self.scale)
        self.conv1 = self._conv7(1, 8)
        self.conv2 = self._conv7(8, 16)
        self.conv3 = self._conv7(16, 8)
        self.conv4 = self._conv7(8, 1)

    def _conv7(self, in_ch: int, out_ch: int) -> nn.Conv2d:
        return nn.Conv2d(in_ch, out_ch, kernel_size=2 * _RADIUS + 1, padding=_RADIUS, padding_mode=self.padding)

    def forward(self, lq: Tensor) -> Tensor:
        if self.padding == "reflect" and min(lq.shape[2:]) * self.scale <= _RADIUS:
            raise RefusedError(
                f"FacesSR: a picture of {lq.shape[3]}x{lq.shape[2]} pixels is too small for padding: reflect, which needs "
                f"{_RADIUS // self.scale + 1} on each side at scale {self.scale}"
            )
        x = F.interpolate(lq * 2 - 1, scale_factor=self.scale, mode="nearest")
        for conv in (self.conv1, self.conv2, self.conv3):
            x = torch.tanh(conv(x))
        return (torch.tanh(in_weight_precision(self.conv4, x)) + 1) / 2
