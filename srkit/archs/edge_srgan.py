"""EdgeSRGAN's generator: a residual network that is shown a predicted edge map of the large picture after enlarging."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor, nn

from srkit.archs.common import below_one, conv3, in_weight_precision, refuse
from srkit.archs.edge_network import EdgeGenerator, signed, unsigned
from srkit.archs.srresnet import NormalisedBlock, ShuffleUp
from srkit.imaging.enlarge import enlarge_bicubic
from srkit.registry import ARCHS


class EdgeGuidedSRResNet(nn.Module):
    """SRResNet whose last blocks work at full size, on features and edge map together.

    Args:
        num_feat: Feature channels; twice as many after the edge map has joined.
        num_block: Residual blocks at the small size; a quarter as many follow at the large one.
        upscale: Enlargement per axis.

    Attributes:
        receptive_radius_px: No output pixel depends on an lq pixel further away than this.

    Shape: `lq` (B, 3, H, W) and `edges` (B, 1, H * upscale, W * upscale), both -1 to 1 -> (B, 3, H * upscale,
        W * upscale), -1 to 1.
    Source: Ledig et al. 2017, arXiv:1609.04802, section 2.1, for the part before the edge map joins.
    """

    def __init__(self, num_feat: int, num_block: int, upscale: int) -> None:
        super().__init__()
        refuse("EdgeSRGAN", below_one(num_feat=num_feat, num_block=num_block))
        num_detail, wide = num_block // 4, 2 * num_feat
        self.conv_first = nn.Conv2d(3, num_feat, 9, padding=4)
        self.act = nn.PReLU()  # serves conv_first and conv_merge
        self.body = nn.Sequential(*(NormalisedBlock(num_feat) for _ in range(num_block)))
        self.conv_body, self.bn_body = conv3(num_feat, num_feat), nn.BatchNorm2d(num_feat)
        self.upsample = nn.Sequential(*(ShuffleUp(num_feat) for _ in range(upscale.bit_length() - 1)))
        self.conv_merge = conv3(num_feat + 1, wide)
        self.detail = nn.Sequential(*(NormalisedBlock(wide) for _ in range(num_detail)))
        self.conv_detail, self.bn_detail = conv3(wide, wide), nn.BatchNorm2d(wide)
        self.conv_last = nn.Conv2d(wide, 3, 9, padding=4)
        # At the large size conv_last sees 4 pixels far, a block 2, conv_detail and conv_merge 1 each; each doubling halves
        # what was seen so far and its convolution adds 1; then 2 a block, 1 for conv_body, 4 for conv_first.
        reach = 6 + 2 * num_detail
        for _ in self.upsample:
            reach = (reach + 1) // 2 + 1
        self.receptive_radius_px = reach + 2 * num_block + 5

    def forward(self, lq: Tensor, edges: Tensor) -> Tensor:
        shallow = self.act(self.conv_first(lq))
        large = self.upsample(self.bn_body(self.conv_body(self.body(shallow))) + shallow)
        merged = self.act(self.conv_merge(torch.cat([large, edges.to(large.dtype)], dim=1)))
        detail = self.bn_detail(self.conv_detail(self.detail(merged))) + merged
        return torch.tanh(in_weight_precision(self.conv_last, detail))

    @staticmethod
    def own_name(published: str) -> str:
        """srkit's key for one of Edge.SRGAN's generator; srkit's own keys stay."""
        if numbered := re.fullmatch(r"(residual_block_edges|residual_block|upsample)(\d+)\.(.*)", published):
            group, number, rest = numbered.groups()
            return f"{_NUMBERED[group]}.{int(number) - 1}.{rest.replace('prelu', 'act')}"
        layer, _, rest = published.partition(".")
        return f"{_SINGLE.get(layer, layer)}.{rest}"


_NUMBERED = {"residual_block": "body", "residual_block_edges": "detail", "upsample": "upsample"}
_SINGLE = {
    "conv1": "conv_first",
    "prelu": "act",
    "conv2": "conv_body",
    "bn2": "bn_body",
    "conv3": "conv_merge",
    "conv4": "conv_detail",
    "bn4": "bn_detail",
    "conv5": "conv_last",
}


@ARCHS.register()
class EdgeSRGAN(nn.Module):
    """Edge-guided generator with its edge network inside: it finds the edges of lq, predicts those of the large picture,
    and restores the picture with their help.

    Trained weights for the edge network come by `path.pretrain_parts: {edge: FILE}`, from a training with
    `model_type: EdgeAdversarial`.

    Args:
        num_feat: Feature channels; twice as many after the edge map has joined.
        num_block: Residual blocks at the small size; a quarter as many follow at the large one.
        upscale: Enlargement per axis.
        edge_num_feat: `num_feat` of the edge network.
        edge_num_block: `num_block` of the edge network.
        train_edge: Train the edge network too. Without it, it stays as it is: in eval mode, without gradients.
        global_skip: Add the network's output to the bicubic enlargement of lq, at which training then starts (the last
            convolution begins at zero). The published network has no such path.

    Attributes:
        receptive_radius_px: Of what follows the edge map. With `guide` computed once on the whole picture, tiles with this
            much context equal the whole; the edge network itself looks at the whole picture.

    Shape: (B, 3, H, W) RGB, 0 to 1, not normalised otherwise -> (B, 3, H * upscale, W * upscale), 0 to 1.
    Raises: RefusedError for numbers below 1, and for a picture whose output has less than 9 pixels per side.
    Source: Edge.SRGAN (2021), an SRGAN generator guided by the edge network of arXiv:1909.05305.
    """

    finds_edges = True

    def __init__(
        self,
        num_feat: int = 64,
        num_block: int = 20,
        upscale: Literal[2, 4, 8] = 4,
        edge_num_feat: int = 64,
        edge_num_block: int = 8,
        train_edge: bool = False,
        global_skip: bool = False,
    ) -> None:
        super().__init__()
        self.upscale, self.global_skip = upscale, global_skip
        self.edge = EdgeGenerator(edge_num_feat, edge_num_block, upscale)
        self.generator = EdgeGuidedSRResNet(num_feat, num_block, upscale)
        self.receptive_radius_px = self.generator.receptive_radius_px
        if not train_edge:
            self.edge.freeze()
        if global_skip:
            nn.init.zeros_(self.generator.conv_last.weight)
            nn.init.zeros_(self.generator.conv_last.bias)  # type: ignore[arg-type]

    def guide(self, lq: Tensor) -> Tensor:
        """(B, 1, H * upscale, W * upscale): the predicted edge map, 0 to 1. Tiled restoration makes it once."""
        edges: Tensor = self.edge(lq)
        return edges

    def forward(self, lq: Tensor, guide: Tensor | None = None) -> Tensor:
        edges = self.guide(lq) if guide is None else guide
        made = self.generator(signed(lq), signed(edges))
        return enlarge_bicubic(lq, self.upscale) + made if self.global_skip else unsigned(made)
