"""SwishDiscriminator: convolutions with swish, a logit for each place, and their mean."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs.common import below_one, refuse
from srkit.registry import ARCHS


class SwishConv(nn.Module):
    """3x3 convolution, batch normalisation, x * sigmoid(x)."""

    def __init__(self, in_ch: int, out_ch: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_ch, out_ch, 3, stride, padding=1)
        self.bn = nn.BatchNorm2d(out_ch)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


@ARCHS.register()
class SwishDiscriminator(nn.Module):
    """Fully convolutional discriminator for pictures of any size.

    Args:
        num_in_ch: Channels of the pictures.
        num_feat: Channels of the first layer; they double three times.

    Shape: (B, num_in_ch, H, W), any size -> logits (B, 1), means over the picture; with `return_features` also the map of
        every convolution before the last.
    Raises: RefusedError naming every argument that does not fit.
    Source: Ledig et al. 2017, arXiv:1609.04802, section 2.1.1, whose convolutions it has, with swish (Ramachandran et al.
        2017, arXiv:1710.05941) and without linear layers. The last convolution is 1x1 with a frame of zeros, so the frame's
        places answer its bias.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        refuse("SwishDiscriminator", below_one(num_in_ch=num_in_ch, num_feat=num_feat))
        n = num_feat
        self.conv_first = nn.Conv2d(num_in_ch, n, 3, padding=1)
        self.body = nn.ModuleList(
            SwishConv(before, after, stride)
            for before, after, stride in (
                (n, n, 2),
                (n, 2 * n, 1),
                (2 * n, 2 * n, 2),
                (2 * n, 4 * n, 1),
                (4 * n, 4 * n, 2),
                (4 * n, 8 * n, 1),
                (8 * n, 8 * n, 2),
            )
        )
        self.conv_last = nn.Conv2d(8 * n, 1, 1, padding=1)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        x = F.silu(self.conv_first(x))
        features = [x]
        for layer in self.body:
            x = layer(x)
            features.append(x)
        logits = self.conv_last(x).mean(dim=(2, 3))
        return (logits, features) if return_features else logits
