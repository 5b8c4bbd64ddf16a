"""Losses: image losses `(sr, gt) -> scalar`, unweighted; importing this package registers them in `LOSSES`."""

from srkit.losses.adversarial import FeatureMatchingLoss, GANLoss
from srkit.losses.edge import EdgeLoss
from srkit.losses.gradient_difference import GradientDifferenceLoss
from srkit.losses.perceptual import PerceptualLoss
from srkit.losses.pixel import CharbonnierLoss, L1Loss, MSELoss
from srkit.losses.structural import MSSSIMLoss, SSIMLoss
from srkit.losses.total_variation import WeightedTVLoss

__all__ = [
    "CharbonnierLoss",
    "EdgeLoss",
    "FeatureMatchingLoss",
    "GANLoss",
    "GradientDifferenceLoss",
    "L1Loss",
    "MSELoss",
    "MSSSIMLoss",
    "PerceptualLoss",
    "SSIMLoss",
    "WeightedTVLoss",
]
