"""Brightness, contrast, saturation and hue, changed alike in lq and gt."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from srkit.data.ranges import require_within

_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as torchvision weighs


@dataclass(frozen=True, kw_only=True)
class ColourChange:
    """Settings in the notation of torchvision's ColorJitter; the defaults change nothing.

    Args:
        prob: Probability of each of the four changes by itself.
        brightness: The factor on intensities is uniform in 1 +- this.
        contrast: The same for the distance from the crop's mean grey (lq's, for both halves).
        saturation: The same for the distance from each pixel's own grey.
        hue: The turn of the hue is uniform in +- this part of the colour wheel, at most 0.5.

    Raises: RefusedError for a value out of its range.
    """

    prob: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        require_within("color_change_prob", self.prob)
        for name in ("brightness", "contrast", "saturation"):
            require_within(name, getattr(self, name))
        require_within("hue", self.hue, 0.5, "the whole wheel")

    @property
    def is_on(self) -> bool:
        """Whether it can do anything."""
        return self.prob > 0 and max(self.brightness, self.contrast, self.saturation, self.hue) > 0

    def draw(self, rng: np.random.Generator) -> ColourFactors | None:
        """What chance decides for one sample; None changes nothing."""
        chosen = rng.random(4) < self.prob
        amounts = rng.uniform(-1, 1, 4) * [self.brightness, self.contrast, self.saturation, self.hue] * chosen
        if not amounts.any():
            return None
        brightness, contrast, saturation = (1 + amounts[:3]).tolist()
        return ColourFactors(brightness, contrast, saturation, float(amounts[3]))


@dataclass(frozen=True)
class ColourFactors:
    """One sample's changes: three factors (1 changes nothing) and the turn of the hue in parts of the wheel."""

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0

    def pivot(self, lq: np.ndarray, white: float) -> float:
        """The mean grey, 0 to 1, that contrast leaves where it is, of lq (*S, C) after its change of brightness."""
        return float(_grey(np.clip(_unit(lq, white) * self.brightness, 0, 1)).mean())

    def __call__(self, image: np.ndarray, white: float, pivot: float) -> np.ndarray:
        """(H, W, 3 or 1) integers 0 to `white`, changed in that order, each step clipped. Grey takes the first two."""
        x = np.clip(_unit(image, white) * self.brightness, 0, 1)
        if self.contrast != 1:
            x = np.clip(pivot + (x - pivot) * self.contrast, 0, 1)
        if x.shape[-1] == 3 and self.saturation != 1:
            grey = _grey(x)[..., None]
            x = np.clip(grey + (x - grey) * self.saturation, 0, 1)
        if x.shape[-1] == 3 and self.hue != 0:
            hsv = cv2.cvtColor(np.ascontiguousarray(x, np.float32), cv2.COLOR_RGB2HSV)  # hue in degrees
            hsv[..., 0] = (hsv[..., 0] + 360 * self.hue) % 360
            x = np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0, 1)
        return np.rint(x * white).astype(image.dtype)


def _unit(image: np.ndarray, white: float) -> np.ndarray:
    return image.astype(np.float32) / np.float32(white)


def _grey(x: np.ndarray) -> np.ndarray:
    return x @ _GREY if x.shape[-1] == 3 else x[..., 0]
