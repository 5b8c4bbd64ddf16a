"""The convolutional part of the VGG networks: from a picture to the activations of named layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from srkit.errors import RefusedError, did_you_mean

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {"vgg11": (1, 1, 2, 2, 2), "vgg13": (2, 2, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks; types ending in _bn have as many."""


def layer_names(vgg_type: str) -> list[str]:
    """conv1_1, (bn1_1,) relu1_1, ... pool5; the place of a name is its number in torchvision's `features`."""
    names = []
    for block, count in enumerate(CONVOLUTIONS[vgg_type.removesuffix("_bn")], 1):
        for number in range(1, count + 1):
            kinds = ("conv", "bn", "relu") if vgg_type.endswith("_bn") else ("conv", "relu")
            names += [f"{kind}{block}_{number}" for kind in kinds]
        names.append(f"pool{block}")
    return names


class VGGFeatures(nn.Module):
    """Activations of a frozen VGG, which always is in eval mode and ends at the deepest layer asked for.

    Weights are random until loaded: He's normal distribution, which keeps activations alike in size at every depth,
    drawn from a seed of their own, so that a resumed training meets the same ones. State keys are torchvision's.

    Args:
        vgg_type: vgg11, vgg13, vgg16 or vgg19, with or without _bn.
        layers: Names as `layer_names` lists them.
        ceil_mode: Pooling of odd sizes rounds up (TensorFlow's "same"), not down.

    Shape: (B, 3, H, W), normalised as the weights want it -> {layer: (B, channels, H', W')}.
    Raises: RefusedError for a layer that does not exist.
    Source: Simonyan and Zisserman 2015, arXiv:1409.1556, table 1 (columns A, B, D, E).
    """

    def __init__(self, vgg_type: str, layers: Iterable[str], *, ceil_mode: bool = False) -> None:
        super().__init__()
        self.layers = tuple(layers)
        known = layer_names(vgg_type)
        for name in self.layers:
            if name not in known:
                raise RefusedError(f"PerceptualLoss: {vgg_type} has no layer '{name}'{did_you_mean(name, known)}")
        self.names = known[: 1 + max(map(known.index, self.layers))]
        self.features = nn.Sequential()
        channels = 3
        for name in self.names:
            kind = name.rstrip("_0123456789")
            width = WIDTHS[int(name[len(kind)]) - 1]
            match kind:
                case "conv":
                    self.features.append(nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1))
                    channels = width
                case "bn":
                    self.features.append(nn.BatchNorm2d(width))
                case "relu":
                    self.features.append(nn.ReLU())
                case "pool":
                    self.features.append(nn.MaxPool2d(2, ceil_mode=ceil_mode))
        self._draw_weights()
        self.requires_grad_(False)
        self.eval()

    @property
    def smallest(self) -> int:
        """Smallest side of a picture: every pooling needs two pixels."""
        return 2 ** sum(name.startswith("pool") for name in self.names)

    def _draw_weights(self) -> None:
        generator = torch.Generator().manual_seed(0)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def train(self, mode: bool = True) -> VGGFeatures:
        """Stays in eval mode whatever its owner does: the running statistics of _bn types are part of the weights."""
        return super().train(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        activations = {}
        for name, module in zip(self.names, self.features, strict=True):
            x = module(x)
            if name in self.layers:
                activations[name] = x
        return activations
