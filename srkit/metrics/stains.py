"""PSNR and SSIM of single stains in haematoxylin-and-eosin slides: what a pathologist reads, apart from the colours."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np

from srkit.errors import DataError
from srkit.metrics.checks import require_pair
from srkit.metrics.errors import PSNR
from srkit.metrics.ssim import SSIM
from srkit.registry import METRICS

Stain = Literal["haematoxylin", "eosin"]
_COLUMN = {"haematoxylin": 0, "eosin": 1}
_DARKEST = 1 / 255  # black would have an infinite density: one grey level of 8 bits stands for it


def stain_range(stain: Stain) -> float:
    """The largest value of `stain_density`: 0.753 of haematoxylin, 0.455 of eosin (the smallest is 0)."""
    from skimage.color.colorconv import hed_from_rgb

    densest = math.log(_DARKEST) / math.log(1e-6)  # scikit-image counts densities in units of that of 1e-6
    return float(np.maximum(hed_from_rgb[:, _COLUMN[stain]], 0).sum() * densest)


def stain_density(image: np.ndarray, data_range: float, stain: Stain) -> np.ndarray:
    """(H, W, 3) RGB to (H, W, 1): how much of the stain lies there, from 0 to `stain_range`.

    scikit-image's `rgb2hed` of intensities that are at least 1/255.

    Raises: DataError for pictures without colour.
    Source: Ruifrok and Johnston 2001, "Quantification of histochemical staining by color deconvolution".
    """
    from skimage.color import rgb2hed

    if image.ndim != 3 or image.shape[-1] != 3:
        raise DataError(
            f"stains need RGB pictures, got {image.shape}; leave test_y_channel out, or use an rgb protocol"
        )
    return np.asarray(rgb2hed(np.clip(image / data_range, _DARKEST, 1))[..., [_COLUMN[stain]]])


class _OfStain:
    """Two pictures' densities of one stain, compared by another metric.

    Args:
        stain: haematoxylin (nuclei) or eosin (the rest).
    """

    better: Literal["higher", "lower"] = "higher"
    _metric: ClassVar[type[PSNR] | type[SSIM]]

    def __init__(self, stain: Stain) -> None:
        self.stain: Stain = stain

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, metric=f"{type(self).__name__}({self.stain})")
        ours, truth = (stain_density(image, data_range, self.stain) for image in (sr, gt))
        return self._metric()(ours, truth, stain_range(self.stain))


@METRICS.register()
class StainPSNR(_OfStain):
    """PSNR in dB of one stain's density; the range is the largest density a picture can hold (see `stain_range`).

    Args:
        stain: haematoxylin (nuclei) or eosin (the rest).

    Shape: `sr` and `gt` (H, W, 3), equal. Raises: DataError for other shapes.
    """

    _metric = PSNR


@METRICS.register()
class StainSSIM(_OfStain):
    """SSIM of one stain's density, window and constants as SSIM, range as StainPSNR.

    Args:
        stain: haematoxylin (nuclei) or eosin (the rest).

    Shape: `sr` and `gt` (H, W, 3), equal, 11 or more along both axes. Raises: DataError for other shapes.
    """

    _metric = SSIM
