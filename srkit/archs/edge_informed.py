"""EdgeInformedSR: fills in a large picture of which every few pixels are known, along a map of its edges."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from srkit.archs.edge_network import EdgeGenerator, EdgeLayers, enlarged, unsigned
from srkit.imaging.edges import canny
from srkit.registry import ARCHS


@ARCHS.register()
class EdgeInformedSR(EdgeLayers):
    """Super-resolution as inpainting: the pixels of lq stand alone in a black large picture, the edges show what to fill in.

    Args:
        num_feat: Channels after the first layer; the coarsest layers have four times as many.
        num_block: Dilated residual blocks.
        upscale: Enlargement per axis.
        edges: Which map guides: lq's own Canny edges with every pixel repeated, or the one predicted by an EdgeGenerator
            inside, whose trained weights come by `path.pretrain_parts: {edge: FILE}`.
        train_edge: Train that edge network too. Without it, it stays as it is: in eval mode, without gradients.

    Attributes:
        receptive_radius_px: Infinite: instance normalisation looks at the whole picture.

    Shape: (B, 3, H, W) RGB, 0 to 1, not normalised otherwise -> (B, 3, H * upscale, W * upscale), 0 to 1.
    Raises: RefusedError for a picture whose output has less than 9 pixels per side.
    Source: Nazeri et al. 2019, arXiv:1909.05305, section 3.
    """

    receptive_radius_px = math.inf

    def __init__(
        self,
        num_feat: int = 64,
        num_block: int = 8,
        upscale: Literal[2, 4, 8] = 4,
        edges: Literal["lq", "predicted"] = "lq",
        train_edge: bool = False,
    ) -> None:
        super().__init__(3, num_feat, num_block, spectral=False)
        self.upscale = upscale
        predicted = edges == "predicted"
        self.edge = EdgeGenerator(num_feat, num_block, upscale, input_range="unit") if predicted else None
        if self.edge is not None and not train_edge:
            self.edge.freeze()

    def guide(self, lq: Tensor) -> Tensor:
        """(B, 1, H * upscale, W * upscale): the edge map, 0 to 1. Tiled restoration makes it once."""
        if self.edge is None:
            return enlarged(canny(lq), self.upscale)
        edges: Tensor = self.edge(lq)
        return edges

    def forward(self, lq: Tensor, guide: Tensor | None = None) -> Tensor:
        edges = self.guide(lq) if guide is None else guide
        known = lq.new_zeros(*lq.shape[:2], *edges.shape[2:])
        known[..., :: self.upscale, :: self.upscale] = lq
        return unsigned(torch.tanh(self.transformed(torch.cat([known, edges], dim=1))))
