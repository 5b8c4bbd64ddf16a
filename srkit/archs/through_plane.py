"""ThroughPlane: a network of slices that enlarges the thick axis of volumes, seen from both directions across it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from srkit.archs.resnet_generator import ResnetGenerator
from srkit.errors import RefusedError
from srkit.registry import ARCHS

_PIXELS_AT_ONCE = 1 << 18
"""Of output, whose feature maps are then 64 MB each at 64 channels: more at once gain nothing, even on a GPU."""


@ARCHS.register()
class ThroughPlane(nn.Module):
    """A 2D ResnetGenerator for volumes with one thick axis, where only pictures of slices can be trained on.

    Slices (B, 1, H, W) are enlarged along H: what training shows, out of `SelfSupervisedSlices`. A volume is taken apart
    into the slices spanned by its thick axis and one of the others, which go through the same network, and put together
    again; once for each of the others, and the two volumes are averaged.

    Args:
        num_feat: Feature channels.
        num_block: Residual blocks.
        scale: Enlargement of each voxel axis; above 1 for the thick one alone: [1, 1, 6].
        norm: Normalisation of the features, as in ResnetGenerator.
        residual: linear adds the output to the linear interpolation of the input, at which training then starts.
        img_range: The network works on intensities of this range; its input and output span 0 to 1.

    Attributes:
        receptive_radius_px: No output voxel depends on an lq voxel further away than this (in lq voxels, per axis).

    Shape: (B, 1, H, W) -> (B, 1, H * k, W); (B, 1, I, J, K) -> the same with k times as many voxels along the thick axis.
    Raises: RefusedError for another scale, and for inputs of another number of axes.
    Source: Zhao et al. 2020 (SMORE), doi:10.1109/TMI.2020.3037187, learns on in-plane slices what it does through the
        planes; here the directions are averaged in space instead of by the larger Fourier coefficients.
    """

    def __init__(
        self,
        num_feat: int = 32,
        num_block: int = 4,
        scale: Sequence[int] = (1, 1, 3),
        norm: Literal["batch", "instance", "none"] = "none",
        residual: Literal["none", "linear"] = "linear",
        img_range: float = 1.0,
    ) -> None:
        super().__init__()
        if len(scale) != 3 or sorted(scale)[:2] != [1, 1] or max(scale) < 2:
            raise RefusedError(
                f"ThroughPlane: scale is {list(scale)}; it takes three numbers, above 1 for the thick axis alone: [1, 1, 3]"
            )
        self.axis, factor = max(enumerate(scale), key=lambda item: item[1])
        self.slices = ResnetGenerator(1, 1, num_feat, num_block, (factor, 1), norm, residual, img_range)
        self.receptive_radius_px = self.slices.receptive_radius_px

    def forward(self, lq: Tensor) -> Tensor:
        if lq.ndim == 4:
            return self._enlarged(lq)
        if lq.ndim != 5:
            raise RefusedError(
                f"ThroughPlane was shown a batch of shape {tuple(lq.shape)}; it takes slices (B, 1, H, W) and volumes "
                "(B, 1, I, J, K)"
            )
        one, other = (axis + 2 for axis in range(3) if axis != self.axis)
        return (self._across(lq, one) + self._across(lq, other)) / 2

    def _across(self, lq: Tensor, axis: int) -> Tensor:
        """The volume restored as a stack along `axis`: every slice for itself."""
        stack = lq.movedim((axis, self.axis + 2), (1, 3))  # (B, N, 1, thick, the other axis)
        slices = self._in_parts(stack.flatten(0, 1))
        return slices.unflatten(0, stack.shape[:2]).movedim((1, 3), (axis, self.axis + 2))

    def _in_parts(self, slices: Tensor) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            return self._enlarged(slices)  # a recorded graph has one number of parts, whatever the volume's size
        factor = self.slices.scale[0]
        count = max(1, _PIXELS_AT_ONCE // (factor * slices.shape[2] * slices.shape[3]))
        return torch.cat([self._enlarged(part) for part in slices.split(count)])

    def _enlarged(self, slices: Tensor) -> Tensor:
        enlarged: Tensor = self.slices(slices)
        return enlarged
