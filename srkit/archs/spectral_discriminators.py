"""Discriminators with spectral normalisation that answer for every place of a picture: by patches, or by pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, refuse, require_sides
from srkit.archs.spectral import SpectralConv2d
from srkit.registry import ARCHS


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


@ARCHS.register()
class SNPatchDiscriminator(nn.Module):
    """Judges overlapping patches of 70x70 pixels.

    Args:
        num_in_ch: Channels it is shown: 3 for pictures, 4 for pictures with their edge map.
        num_feat: Channels of the first layer; they double three times.

    Shape: (B, num_in_ch, H, W), sides from 24 -> logits (B, 1, H // 8 - 2, W // 8 - 2); with `return_features` also five
        maps, the last being the logits.
    Raises: RefusedError for smaller pictures, and naming every argument that does not fit.
    Source: Isola et al. 2017, arXiv:1611.07004, section 3.2.2; with spectral normalisation in every layer as in Nazeri et
        al. 2019, arXiv:1909.05305, section 3.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        refuse("SNPatchDiscriminator", below_one(num_in_ch=num_in_ch, num_feat=num_feat))
        channels = (num_in_ch, num_feat, 2 * num_feat, 4 * num_feat, 8 * num_feat, 1)
        self.body = nn.ModuleList(
            SpectralConv2d(before, after, 4, stride=2 if place < 3 else 1, padding=1, bias=False)
            for place, (before, after) in enumerate(pairwise(channels))
        )

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        require_sides("SNPatchDiscriminator", x, 24)
        features: list[Tensor] = []
        for conv in self.body[:-1]:
            x = _leaky(conv(x))
            features.append(x)
        logits = self.body[-1](x)
        return (logits, [*features, logits]) if return_features else logits


@ARCHS.register()
class UNetDiscriminatorSN(nn.Module):
    """Judges every pixel, with the picture's coarse content in view.

    Args:
        num_in_ch: Channels of the pictures.
        num_feat: Channels at full size; they double with each of three halvings.
        skip_connection: Whether maps on the way down are added to those of their size on the way up.

    Shape: (B, num_in_ch, H, W), sides from 8 -> logits (B, 1, H, W); with `return_features` also the map of every
        convolution before the last.
    Raises: RefusedError for smaller pictures, and naming every argument that does not fit.
    Source: Wang et al. 2021, arXiv:2107.10833, section 3.3; layers and names are those of BasicSR 1.4.2, whose files load.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        refuse("UNetDiscriminatorSN", below_one(num_in_ch=num_in_ch, num_feat=num_feat))
        n = num_feat
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, n, 3, padding=1)
        self.conv1 = SpectralConv2d(n, 2 * n, 4, stride=2, padding=1, bias=False)
        self.conv2 = SpectralConv2d(2 * n, 4 * n, 4, stride=2, padding=1, bias=False)
        self.conv3 = SpectralConv2d(4 * n, 8 * n, 4, stride=2, padding=1, bias=False)
        self.conv4 = SpectralConv2d(8 * n, 4 * n, 3, padding=1, bias=False)
        self.conv5 = SpectralConv2d(4 * n, 2 * n, 3, padding=1, bias=False)
        self.conv6 = SpectralConv2d(2 * n, n, 3, padding=1, bias=False)
        self.conv7 = SpectralConv2d(n, n, 3, padding=1, bias=False)
        self.conv8 = SpectralConv2d(n, n, 3, padding=1, bias=False)
        self.conv9 = nn.Conv2d(n, 1, 3, padding=1)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        require_sides("UNetDiscriminatorSN", x, 8)
        features: list[Tensor] = []
        for conv in (self.conv0, self.conv1, self.conv2, self.conv3):
            x = _leaky(conv(x))
            features.append(x)
        for conv, beside in zip((self.conv4, self.conv5, self.conv6), features[2::-1]):
            # To the size it had, which for odd sizes is not twice the half.
            x = F.interpolate(x, size=beside.shape[2:], mode="bilinear", align_corners=False)
            x = _leaky(conv(x))
            features.append(x)
            if self.skip_connection:
                x = x + beside
        for conv in (self.conv7, self.conv8):
            x = _leaky(conv(x))
            features.append(x)
        logits = self.conv9(x)
        return (logits, features) if return_features else logits
