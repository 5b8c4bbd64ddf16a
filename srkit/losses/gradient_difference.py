"""A loss on sharpness: steps between neighbours in the output should be as high as in the target."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from srkit.errors import RefusedError
from srkit.losses.common import require_same_shape
from srkit.registry import LOSSES


@LOSSES.register()
class GradientDifferenceLoss(nn.Module):
    """Mean of | |step in gt| - |step in sr| |^alpha over all pairs of neighbours, then over the axes along which they lie.

    It goes beside a loss on intensities: it knows neither the level nor the direction of a step, and where sr is flat it
    has no slope.

    Args:
        alpha: Power of the difference.

    Shape: `sr` and `gt` (B, C, *S), equal; every spatial axis at least 2 long. Returns a scalar.
    Raises: ValueError when the shapes differ, RefusedError for an axis without neighbours.
    Source: Mathieu et al. 2016, arXiv:1511.05440, section 3.3, whose sum over places and axes is a mean here, so that
        weights keep their meaning from one patch size, or number of axes, to another.
    """

    def __init__(self, *, alpha: Literal[1, 2] = 1) -> None:
        super().__init__()
        if alpha not in (1, 2):
            raise RefusedError(f"GradientDifferenceLoss: alpha is {alpha}; it takes 1 or 2")
        self.alpha = alpha

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        axes = range(2, gt.ndim)
        if flat := [axis - 2 for axis in axes if gt.shape[axis] < 2]:
            sides = " x ".join(map(str, gt.shape[2:]))
            raise RefusedError(
                f"GradientDifferenceLoss: axis {flat[0]} of {sides} has no two neighbours; raise gt_size"
            )
        total = sr.new_zeros(())
        for axis in axes:
            error = (gt.diff(dim=axis).abs() - sr.diff(dim=axis).abs()).abs()
            total = total + (error if self.alpha == 1 else error.square()).mean()
        return total / len(axes)
