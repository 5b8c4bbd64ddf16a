"""PatchDiscriminator3D: four halvings of a volume, then a logit for every place, or one for a volume of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, refuse
from srkit.errors import RefusedError
from srkit.registry import ARCHS

_LEAST = 32  # four halvings leave 2, of which the last convolution makes 1


class HalvingConv(nn.Module):
    """4x4x4 convolution of stride 2, batch normalisation, LeakyReLU 0.2."""

    def __init__(self, in_ch: int, out_ch: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_ch, out_ch, 4, stride=2, padding=1)
        self.bn = nn.BatchNorm3d(out_ch)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.bn(self.conv(x)), 0.2, inplace=True)


@ARCHS.register()
class PatchDiscriminator3D(nn.Module):
    """Discriminator of volumes.

    Args:
        num_in_ch: Channels of the volumes.
        num_feat: Channels of the first layer; they double three times.
        fixed_size: The only size in voxels, [I, J, K], that it then takes: a linear layer judges the last map as a whole,
            as in published files. Without it, it takes any size.
        last_ch: Channels of the last convolution, for fixed_size alone; published files have 1 (num_feat 16) or 24 (3).

    Shape: (B, num_in_ch, I, J, K), each from 32 -> logits (B, 1, I // 16 - 1, J // 16 - 1, K // 16 - 1), with fixed_size
        (B, 1); with `return_features` also the maps of the four halvings.
    Raises: RefusedError for volumes of other sizes, and naming every argument that does not fit.
    Source: easysr (2024); convolutions of Isola et al. 2017, arXiv:1611.07004, section 3.2.2. The original ends in a sigmoid;
        here the loss has it.
    """

    def __init__(
        self, num_in_ch: int = 1, num_feat: int = 16, fixed_size: Sequence[int] | None = None, last_ch: int = 1
    ) -> None:
        super().__init__()
        problems = below_one(num_in_ch=num_in_ch, num_feat=num_feat, last_ch=last_ch)
        if fixed_size is None and last_ch != 1:
            problems.append(
                f"last_ch is {last_ch}; without fixed_size the last convolution makes the logit, so it is 1"
            )
        if fixed_size is not None and (len(fixed_size) != 3 or min(fixed_size) < _LEAST):
            problems.append(f"fixed_size is {list(fixed_size)}; it takes three numbers of voxels, each from {_LEAST}")
        refuse("PatchDiscriminator3D", problems)
        self.fixed_size = None if fixed_size is None else tuple(fixed_size)

        channels = (num_in_ch, num_feat, 2 * num_feat, 4 * num_feat, 8 * num_feat)
        self.body = nn.ModuleList(HalvingConv(before, after) for before, after in pairwise(channels))
        self.conv_last = nn.Conv3d(channels[-1], last_ch, 4, padding=1)
        if fixed_size is not None:
            self.fc = nn.Linear(last_ch * math.prod(side // 16 - 1 for side in fixed_size), 1)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        self._require_size(x)
        features: list[Tensor] = []
        for halving in self.body:
            x = halving(x)
            features.append(x)
        logits = self.conv_last(x)
        if self.fixed_size is not None:
            logits = self.fc(logits.flatten(1))
        return (logits, features) if return_features else logits

    def _require_size(self, x: Tensor) -> None:
        size = tuple(x.shape[2:])
        shown = "x".join(map(str, size))
        if self.fixed_size is not None and size != self.fixed_size:
            raise RefusedError(
                f"PatchDiscriminator3D of fixed_size {list(self.fixed_size)} was shown {shown}; set gt_size to fixed_size, or "
                "leave fixed_size out to judge volumes of any size"
            )
        if len(size) != 3 or min(size) < _LEAST:
            raise RefusedError(
                f"PatchDiscriminator3D was shown {shown} and needs a volume of at least {_LEAST} voxels along every axis; "
                "enlarge gt_size"
            )
