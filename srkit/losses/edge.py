"""A loss on edges: the gradient of the restored picture's brightness should be that of the target's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.imaging.edges import canny, sobel_magnitude, torch_luma
from srkit.losses.common import require_same_shape
from srkit.registry import LOSSES


@LOSSES.register()
class EdgeLoss(nn.Module):
    """Mean length of the difference between the Sobel gradients of sr's and gt's brightness, in intensity per pixel.

    Canny's map is no function that could be followed downhill: it is 0 or 1. So `canny` only says where to look: the
    difference counts fully within `radius` pixels of gt's Canny edges, and by `elsewhere` in the rest, where sr would
    otherwise be free to invent edges. Gradients are subtracted as vectors: the lengths alone would not tell a reversed
    edge from the right one, and would give a flat sr no direction to go.

    Args:
        method: sobel weighs every pixel alike, canny as said above (pictures only, not volumes).
        radius: For canny: distance in pixels, along rows and columns, that still counts as near.
        elsewhere: For canny: weight of pixels that are not near, 0 to 1.

    Shape: `sr` and `gt` (B, 3, H, W) RGB, of which the BT.601 luma counts, or (B, 1, *S) with two or three axes, equal.
        Returns a scalar.
    Raises: ValueError when the shapes differ; RefusedError for canny on volumes, and for options outside their range.
    Source: gradient loss of Ma et al. 2020, arXiv:2003.13081, section 3.4, with Sobel's kernels and with vectors in place of
        their lengths; Canny as in arXiv:1909.05305.
    """

    needs_unit_range = True

    def __init__(self, *, method: Literal["sobel", "canny"] = "sobel", radius: int = 2, elsewhere: float = 0.1) -> None:
        super().__init__()
        if radius < 0 or not 0 <= elsewhere <= 1:
            raise RefusedError(
                f"EdgeLoss: radius is {radius}, expected 0 or more; elsewhere {elsewhere}, expected 0 to 1"
            )
        self.method, self.radius, self.elsewhere = method, radius, elsewhere

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        # Sobel's sums are linear: the gradient of the difference is the difference of the gradients.
        error = sobel_magnitude(torch_luma(sr) - torch_luma(gt))
        if self.method == "sobel":
            return error.mean()
        if gt.ndim != 4:
            raise RefusedError(
                f"EdgeLoss: method canny takes pictures, got shape {tuple(gt.shape)}; volumes need sobel"
            )
        near = F.max_pool2d(canny(gt), 2 * self.radius + 1, stride=1, padding=self.radius)
        return (torch.where(near > 0, 1.0, self.elsewhere) * error).mean()
