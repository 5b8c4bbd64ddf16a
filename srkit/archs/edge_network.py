"""The edge network: from a small picture to the edges of the large one. Its layers also serve EdgeInformedSR."""

from __future__ import annotations

import math
import re
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, in_weight_precision, refuse
from srkit.archs.spectral import SpectralConv2d, SpectralConvTranspose2d, SpectralKernel
from srkit.errors import RefusedError
from srkit.imaging.edges import canny
from srkit.registry import ARCHS

_SHRINK = 4  # the middle layers work on a grid this much coarser than the output


def signed(x: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return x * 2 - 1


def unsigned(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (x + 1) / 2


class DilatedBlock(nn.Module):
    """`x` plus two 3x3 convolutions of it, the first dilated by 2, each reflected at the border and instance-normalised."""

    def __init__(self, num_ch: int, spectral: bool) -> None:
        super().__init__()
        conv = SpectralConv2d if spectral else nn.Conv2d
        self.conv1 = conv(num_ch, num_ch, 3, dilation=2, bias=not spectral)
        self.conv2 = conv(num_ch, num_ch, 3, bias=not spectral)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(F.instance_norm(self.conv1(F.pad(x, (2, 2, 2, 2), mode="reflect"))))
        return x + F.instance_norm(self.conv2(F.pad(inner, (1, 1, 1, 1), mode="reflect")))


class EdgeLayers(nn.Module):
    """Two halvings, dilated blocks, two doublings, all instance-normalised: what both networks of the family are made of.

    Args:
        out_ch: Channels of the last convolution, which has no activation here.
        spectral: Spectral normalisation on all convolutions but the last.

    Shape: `transformed` maps (B, 4, H, W), a picture and its edges, to (B, out_ch, H, W), H and W above 8. A size that is
        no multiple of 4 is filled up by repeating the last row and column.
    Source: Nazeri et al. 2019, arXiv:1909.05305, section 3. First weights: normal, standard deviation 0.02, biases 0.
    """

    finds_edges = True  # in pictures from 0 to 1: a normalised one would have others

    def __init__(self, out_ch: int, num_feat: int, num_block: int, spectral: bool) -> None:
        super().__init__()
        refuse(type(self).__name__, below_one(num_feat=num_feat, num_block=num_block))
        conv = SpectralConv2d if spectral else nn.Conv2d
        deconv = SpectralConvTranspose2d if spectral else nn.ConvTranspose2d
        narrow, middle, wide = num_feat, 2 * num_feat, 4 * num_feat
        # Places in the lists are part of the keys in published files.
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3), conv(4, narrow, 7), nn.InstanceNorm2d(narrow), nn.ReLU(True),
            conv(narrow, middle, 4, stride=2, padding=1), nn.InstanceNorm2d(middle), nn.ReLU(True),
            conv(middle, wide, 4, stride=2, padding=1), nn.InstanceNorm2d(wide), nn.ReLU(True),
        )  # fmt: skip
        self.body = nn.Sequential(*(DilatedBlock(wide, spectral) for _ in range(num_block)))
        self.decoder = nn.Sequential(
            deconv(wide, middle, 4, stride=2, padding=1), nn.InstanceNorm2d(middle), nn.ReLU(True),
            deconv(middle, narrow, 4, stride=2, padding=1), nn.InstanceNorm2d(narrow), nn.ReLU(True),
        )  # fmt: skip
        self.conv_last = nn.Conv2d(narrow, out_ch, 7)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, 0.0, 0.02)
        for layer in self.modules():
            if isinstance(layer, SpectralKernel):
                layer.settle()

    def transformed(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if min(height, width) <= 2 * _SHRINK:
            raise RefusedError(
                f"{type(self).__name__}: an output of {height}x{width} pixels is too small; it takes pictures whose output "
                f"has {2 * _SHRINK + 1} or more per side"
            )
        filled = F.pad(x, (0, -width % _SHRINK, 0, -height % _SHRINK), mode="replicate")
        deep = self.decoder(self.body(self.encoder(filled)))
        out = in_weight_precision(self.conv_last, F.pad(deep, (3, 3, 3, 3), mode="reflect"))
        return out[..., :height, :width]

    @staticmethod
    def own_name(published: str) -> str:
        """srkit's key for a published file's; srkit's own keys stay. Both styles of spectral normalisation are known."""
        name = re.sub(r"^middle\.(\d+)\.conv_block\.1\.", r"body.\1.conv1.", published)
        name = re.sub(r"^middle\.(\d+)\.conv_block\.5\.", r"body.\1.conv2.", name)
        name = re.sub(r"^decoder\.7\.", "conv_last.", name)
        name = re.sub(r"parametrizations\.weight\.original$", "weight_orig", name)
        return re.sub(r"parametrizations\.weight\.0\._([uv])$", r"weight_\1", name)


def enlarged(x: Tensor, scale: int) -> Tensor:
    """Every pixel repeated `scale` times along both axes."""
    return F.interpolate(x, scale_factor=scale, mode="nearest")


@ARCHS.register()
class EdgeGenerator(EdgeLayers):
    """Predicts the edge map of the large picture from the small one and its Canny edges, which it computes itself.

    Train it with `model_type: EdgeAdversarial`; EdgeSRGAN and EdgeInformedSR hold one as their part `edge`.

    Args:
        num_feat: Channels after the first layer; the coarsest layers have four times as many.
        num_block: Dilated residual blocks.
        upscale: Size of the map / size of the picture, per axis.
        input_range: Range of the picture inside the network: signed is -1 to 1 (Edge.SRGAN's weights), unit 0 to 1
            (those of edge-informed-sisr). Outside it is always 0 to 1.

    Attributes:
        makes_maps: The output is a map, not a picture.
        receptive_radius_px: Infinite: instance normalisation looks at the whole picture.

    Shape: (B, 3, H, W) RGB, 0 to 1, not normalised otherwise -> (B, 1, H * upscale, W * upscale), probabilities.
    Raises: RefusedError for a picture whose map has less than 9 pixels per side.
    Source: see EdgeLayers; 4 channels in, the picture and its edges with every pixel repeated.
    """

    makes_maps = True
    receptive_radius_px = math.inf

    def __init__(
        self,
        num_feat: int = 64,
        num_block: int = 8,
        upscale: Literal[2, 4, 8] = 4,
        input_range: Literal["signed", "unit"] = "signed",
    ) -> None:
        super().__init__(1, num_feat, num_block, spectral=True)
        self.upscale = upscale
        self.input_range = input_range
        self.is_frozen = False

    def freeze(self) -> None:
        """From now on it stays as it is: no gradients, and eval mode also when the network it is a part of trains."""
        self.is_frozen = True
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EdgeGenerator:
        super().train(mode and not self.is_frozen)
        return self

    def forward(self, lq: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            picture = signed(lq) if self.input_range == "signed" else lq
            seen = torch.cat([picture, canny(lq)], dim=1)
            return torch.sigmoid(self.transformed(enlarged(seen, self.upscale)))
