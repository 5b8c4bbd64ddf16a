"""Pixel losses: absolute (also of luma), squared and Charbonnier difference."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.imaging.colour import LIMITED_WEIGHTS
from srkit.losses.common import reduced, require_known_reduction, require_same_shape
from srkit.registry import LOSSES


@LOSSES.register()
class L1Loss(nn.Module):
    """Mean (or sum) of |sr - gt|.

    Args:
        reduction: The mean over all values, or their sum.

    Shape: `sr` and `gt` (B, C, *S), equal. Returns a scalar.
    Raises: ValueError when the shapes differ.
    """

    def __init__(self, *, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        require_known_reduction("L1Loss", reduction)
        self.reduction = reduction

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        return F.l1_loss(sr, gt, reduction=self.reduction)


@LOSSES.register()
class LumaL1Loss(nn.Module):
    """Mean |Y(sr) - Y(gt)|, for colour networks that are judged by their luma: give it beside a loss on all channels.

    Alone it leaves colour free, and what is then clipped to 0 and 1 spoils the luma too.

    Shape: `sr` and `gt` (B, 3, *S), RGB, or (B, 1, *S), which is its own luma; equal. Returns a scalar.
    Raises: ValueError when the shapes differ.
    Source: luma of BT.601, limited range (65.481, 128.553, 24.966 of 255), as in Y-PSNR.
    """

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        if sr.shape[1] == 1:
            return F.l1_loss(sr, gt)
        # Channel by channel: weights in a tensor would be copied to the device, which a GPU is waited for.
        red, green, blue = ((sr - gt)[:, i] * weight for i, weight in enumerate(LIMITED_WEIGHTS))
        return (red + green + blue).abs().mean()


@LOSSES.register()
class MSELoss(nn.Module):
    """Mean (or sum) of (sr - gt)^2.

    Args:
        reduction: The mean over all values, or their sum.

    Shape: `sr` and `gt` (B, C, *S), equal. Returns a scalar.
    Raises: ValueError when the shapes differ.
    """

    def __init__(self, *, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        require_known_reduction("MSELoss", reduction)
        self.reduction = reduction

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        return F.mse_loss(sr, gt, reduction=self.reduction)


@LOSSES.register()
class CharbonnierLoss(nn.Module):
    """Mean (or sum) of sqrt((sr - gt)^2 + eps): L1 with a rounded tip.

    Args:
        reduction: The mean over all values, or their sum.
        eps: Square of the tip's half-width, in squared intensity units (images span 0 to 1), above 0.

    Shape: `sr` and `gt` (B, C, *S), equal. Returns a scalar.
    Raises: ValueError when the shapes differ.
    Source: Lai et al. 2017, arXiv:1704.03915, section 3.2, whose epsilon of 1e-3 is squared (here: 1e-6). The default
        is BasicSR's, so that its option files keep their meaning.
    """

    def __init__(self, *, reduction: Literal["mean", "sum"] = "mean", eps: float = 1e-12) -> None:
        super().__init__()
        require_known_reduction("CharbonnierLoss", reduction)
        if eps <= 0:
            raise RefusedError(f"CharbonnierLoss: eps is {eps}; it must be above 0, or equal pixels have no gradient")
        self.reduction, self.eps = reduction, eps

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        return reduced(torch.sqrt((sr - gt) ** 2 + self.eps), self.reduction)
