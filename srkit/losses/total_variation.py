"""Total variation of the output: a smoothness prior used beside a pixel loss."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from srkit.losses.common import reduced, require_known_reduction, require_same_shape
from srkit.registry import LOSSES


@LOSSES.register()
class WeightedTVLoss(nn.Module):
    """Sum over the spatial axes of the mean (or sum) absolute difference between neighbours in `sr`.

    `gt` is taken like every image loss takes it, and only its shape is used.

    Args:
        reduction: The mean over all neighbours, or the sum.

    Shape: `sr` and `gt` (B, C, *S), equal; every spatial axis at least 2 long. `weight`, when given, (B, 1 or C, *S):
        the weight of a difference is that of its first pixel, and the mean is over the weights. Returns a scalar.
    Raises: ValueError when the shapes differ.
    Source: Rudin, Osher, Fatemi 1992 (anisotropic form); weights as in BasicSR's loss of this name.
    """

    def __init__(self, *, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        require_known_reduction("WeightedTVLoss", reduction)
        self.reduction = reduction

    def forward(self, sr: Tensor, gt: Tensor, weight: Tensor | None = None) -> Tensor:
        require_same_shape(sr, gt)
        total = sr.new_zeros(())
        for axis in range(2, sr.ndim):
            steps = sr.diff(dim=axis).abs()
            if weight is None:
                total = total + reduced(steps, self.reduction)
                continue
            share = weight.narrow(axis, 0, steps.shape[axis]).expand_as(steps)
            weighted = (steps * share).sum()
            total = total + (weighted if self.reduction == "sum" else weighted / share.sum())
        return total
