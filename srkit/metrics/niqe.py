"""NIQE: how far a picture's local statistics lie from those of good pictures of its kind. It asks for no gt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from srkit.errors import DataError, RefusedError
from srkit.imaging.colour import luma
from srkit.imaging.resize import imresize
from srkit.registry import METRICS

PATCH_PX = 96
SHARPNESS = 0.75
_WINDOW, _SIGMA = 7, 7 / 6
_FEATURES = 36  # 18 at each of two scales
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below, and both diagonals below


@dataclass(frozen=True)
class NiqeModel:
    """A Gaussian over the 36 features of good patches.

    Args:
        mean: (36,). covariance: (36, 36). patch_px: Side of a patch. pictures, patches: What it was fitted to.
    """

    mean: np.ndarray
    covariance: np.ndarray
    patch_px: int
    pictures: int
    patches: int

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            np.savez(
                file,
                mean=self.mean,
                covariance=self.covariance,
                counts=np.array([self.patch_px, self.pictures, self.patches]),
            )

    @classmethod
    def load(cls, path: Path) -> NiqeModel:
        """Raises RefusedError for a file that `srkit fit-niqe` did not write."""
        try:
            with np.load(path, allow_pickle=False) as content:
                mean, covariance, counts = content["mean"], content["covariance"], content["counts"]
        except FileNotFoundError:
            raise RefusedError(
                f"NIQE, model: no such file: {path.resolve()}; `srkit fit-niqe FOLDER -o {path}` makes one"
            ) from None
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise RefusedError(f"NIQE, model: {path} is no model of `srkit fit-niqe` ({error})") from error
        if mean.shape != (_FEATURES,) or covariance.shape != (_FEATURES, _FEATURES) or counts.shape != (3,):
            raise RefusedError(f"NIQE, model: {path} holds arrays of {mean.shape} and {covariance.shape}; fit it again")
        return cls(mean, covariance, *(int(n) for n in counts))


def brightness(image: np.ndarray, white: float) -> np.ndarray:
    """(H, W, 3) RGB or (H, W, 1) to (H, W), 0 to 255: limited-range luma of colour; grey, or luma already, as it is."""
    return np.asarray(luma(image, white)[..., 0] * (255 / white), np.float64)


def fit(pictures: Iterable[np.ndarray], patch_px: int = PATCH_PX, sharpness: float = SHARPNESS) -> NiqeModel:
    """The model of good pictures.

    Args:
        pictures: (H, W) as `brightness` gives them.
        patch_px: Side of a patch, an even number; smaller patches suit smaller pictures, and models of two sizes do not
            compare.
        sharpness: Of each picture patches count whose mean local deviation is above this share of its largest.

    Raises: DataError when fewer patches than features are found.
    """
    found, count = [], 0
    for picture in pictures:
        features, sharp = _patches(picture, patch_px)
        if len(features):
            found.append(features[sharp > sharpness * sharp.max()])
        count += 1
    patches = np.concatenate(found) if found else np.empty((0, _FEATURES))
    if len(patches) <= _FEATURES:
        raise DataError(
            f"{len(patches)} sharp patches of {patch_px} pixels in {count} pictures are too few, expected more than "
            f"{_FEATURES} (a hundred pictures give a model that lasts); add pictures, or make the patches smaller"
        )
    return NiqeModel(patches.mean(0), np.cov(patches, rowvar=False), patch_px, count, len(patches))


def niqe(picture: np.ndarray, model: NiqeModel) -> float:
    """Distance of a picture's patches (H, W) from the model; 0 where mean and covariance are equal."""
    features, _ = _patches(picture, model.patch_px)
    if not len(features):
        raise DataError(
            f"NIQE needs a patch of {model.patch_px} pixels that is not flat, got a picture of {picture.shape}"
        )
    # One patch has no covariance: the model's counts alone then.
    own = np.cov(features, rowvar=False) if len(features) > 1 else np.zeros_like(model.covariance)
    difference = model.mean - features.mean(0)
    inverse = np.linalg.pinv((model.covariance + own) / 2)
    return float(np.sqrt(max(0.0, difference @ inverse @ difference)))


def _patches(picture: np.ndarray, patch_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, 36) of the patches that have any, and their sharpness (N,). Patches do not overlap; what is left at
    bottom and right is not looked at."""
    rows, columns = (n // patch_px for n in picture.shape)
    if not rows or not columns:
        return np.empty((0, _FEATURES)), np.empty(0)
    image = picture[: rows * patch_px, : columns * patch_px]
    halves: list[np.ndarray] = []
    sharpness = np.empty(0)
    for scale in (1, 2):
        if scale == 2:
            image = imresize(image[..., None], Fraction(1, 2))[..., 0]
        normalized, deviation = _normalized(image)
        cells = [_cells(plane, patch_px // scale) for plane in (normalized, deviation)]
        halves.append(np.array([_features(patch) for patch in cells[0]]))
        if scale == 1:
            sharpness = cells[1].mean((1, 2))
    features = np.concatenate(halves, axis=1)
    whole = np.isfinite(features).all(1)
    return features[whole], sharpness[whole]


def _cells(plane: np.ndarray, side: int) -> np.ndarray:
    rows, columns = (n // side for n in plane.shape)
    return plane.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(-1, side, side)


def _normalized(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture without local mean and contrast, and the local deviation (equations 1 to 3)."""
    weights = cv2.getGaussianKernel(_WINDOW, _SIGMA)

    def blur(plane: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(plane, cv2.CV_64F, weights, weights, borderType=cv2.BORDER_REPLICATE)

    image = np.ascontiguousarray(image, np.float64)
    mean = blur(image)
    deviation = np.sqrt(np.abs(blur(image * image) - mean * mean))
    return (image - mean) / (deviation + 1), deviation


def _features(patch: np.ndarray) -> list[float]:
    """18 numbers: shape and width of the values, and shape, mean and two widths of four neighbours' products."""
    alpha, left, right = _asymmetric_gaussian(patch)
    features = [alpha, (left + right) / 2]
    for shift in _NEIGHBOURS:
        alpha, left, right = _asymmetric_gaussian(patch * np.roll(patch, shift, axis=(0, 1)))
        features += [alpha, (right - left) * _gamma_ratio(alpha), left, right]
    return features


def _asymmetric_gaussian(values: np.ndarray) -> tuple[float, float, float]:
    """Shape and the two widths of the generalised Gaussian with these moments; NaN where one side is empty.

    Source: Lasmar, Stitou and Berthoumieu 2009, as NIQE's section 3.3 takes it.
    """
    below, above = values[values < 0], values[values > 0]
    if not below.size or not above.size:
        return (float("nan"),) * 3
    left, right = np.sqrt(np.mean(below**2)), np.sqrt(np.mean(above**2))
    ratio = left / right
    moment = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    wanted = moment * (ratio**3 + 1) * (ratio + 1) / (ratio**2 + 1) ** 2
    shapes, moments = _shape_table()
    alpha = float(shapes[np.argmin((moments - wanted) ** 2)])
    from scipy.special import gamma

    width = float(np.sqrt(gamma(1 / alpha) / gamma(3 / alpha)))
    return alpha, float(left) * width, float(right) * width


def _gamma_ratio(alpha: float) -> float:
    from scipy.special import gamma

    return float(gamma(2 / alpha) / gamma(1 / alpha))


@cache
def _shape_table() -> tuple[np.ndarray, np.ndarray]:
    """Shapes from 0.2 to 10 in thousandths, and (mean of |x|)^2 / mean of x^2 of a Gaussian of each."""
    from scipy.special import gamma

    shapes = np.arange(0.2, 10.001, 0.001)
    return shapes, gamma(2 / shapes) ** 2 / (gamma(1 / shapes) * gamma(3 / shapes))


@METRICS.register()
class NIQE:
    """How unlike good pictures of its kind sr is; lower is better. gt plays no part, and sharp inventions please it.

    There is no model for all pictures: `srkit fit-niqe FOLDER -o model.npz` fits one to pictures of your own domain, and
    values under two models do not compare. Patches of 96 pixels (unless fitted otherwise) and their halves, window 7 with
    sigma 7/6; of colour, limited-range luma.

    Args:
        model: File that `srkit fit-niqe` wrote.

    Shape: `sr` (H, W, 3) or (H, W, 1), a patch or more along both axes. Raises: DataError for smaller or flat pictures.
    Source: Mittal, Soundararajan and Bovik 2013, "Making a completely blind image quality analyzer", sections 3.1 to 3.5.
    """

    better: Literal["higher", "lower"] = "lower"

    def __init__(self, model: str) -> None:
        self.model = NiqeModel.load(Path(model).expanduser())

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        if sr.ndim != 3:
            raise DataError(f"NIQE is for pictures, got a volume of {sr.shape[:-1]}")
        return niqe(brightness(sr, data_range), self.model)
