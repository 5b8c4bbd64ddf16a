"""Structural similarity (Wang et al. 2004) with the window that papers and BasicSR use."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import cv2
import numpy as np
import torch

from srkit.errors import DataError
from srkit.metrics.checks import require_mask, require_number, require_pair
from srkit.registry import METRICS

WINDOW_SIZE = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03
SSIM_WINDOW = f"gaussian {WINDOW_SIZE}, sigma {SIGMA}, K {K1} {K2}, population covariance, valid region"
_HALF = WINDOW_SIZE // 2
_STRIP = 64  # rows worked on at a time: the dozen planes of a strip stay in cache


def gaussian_window() -> np.ndarray:
    """The 11 weights of one axis, summing to 1."""
    x = np.arange(-_HALF, _HALF + 1)
    weights = np.exp(-0.5 * (x / SIGMA) ** 2)
    return weights / weights.sum()


@METRICS.register()
class SSIM:
    """Mean structural similarity, per channel, then averaged; 1 for identical images.

    Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03, population covariance, float64, mean over the valid region. Equal
    to scikit-image with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False` (which does the volumes).

    Shape: `sr` and `gt` (H, W, C) or (I, J, K, C), equal, 11 or more along every spatial axis.
    Raises: DataError when shapes differ or an axis is shorter than the window, DivergedError when sr is not finite.
    """

    better: Literal["higher", "lower"] = "higher"

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        require_pair(sr, gt, WINDOW_SIZE, "SSIM")
        if gt.ndim == 3:
            value = float(np.mean([ssim_and_contrast(*planes, data_range)[0] for planes in channel_pairs(sr, gt)]))
        else:
            value = float(ssim_map(sr, gt, data_range).mean())
        return require_number(value, sr, gt, "SSIM")

    def inside(self, sr: np.ndarray, gt: np.ndarray, data_range: float, mask: np.ndarray) -> float:
        """The mean of the SSIM map over the places of the valid region where `mask` (*S) is true."""
        require_pair(sr, gt, WINDOW_SIZE, "SSIM")
        kept = mask[(slice(_HALF, -_HALF),) * mask.ndim]
        require_mask(kept, "SSIM")
        return require_number(float(ssim_map(sr, gt, data_range)[kept].mean()), sr, gt, "SSIM")


@METRICS.register()
class SliceSSIM:
    """Mean SSIM of a volume's slices across one axis, for comparison with papers that measure slices.

    The window lies in the slice; the range is the one given, never the slice's. Slices whose gt is one value throughout are
    left out.

    Args:
        axis: Voxel axis the slices are stacked along, 0 to 2.

    Shape: `sr` and `gt` (I, J, K, C), equal, 11 or more along the other two axes.
    Raises: DataError when shapes do not fit or every slice is constant, DivergedError when sr is not finite.
    """

    better: Literal["higher", "lower"] = "higher"

    def __init__(self, *, axis: Literal[0, 1, 2]) -> None:
        self.axis, self._ssim = axis, SSIM()

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        if gt.ndim != 4:
            raise DataError(f"SliceSSIM is for volumes (I, J, K, C), got {gt.shape}")
        slices = zip(np.moveaxis(sr, self.axis, 0), np.moveaxis(gt, self.axis, 0), strict=True)
        values = [self._ssim(a, b, data_range) for a, b in slices if b.min() < b.max()]
        if not values:
            raise DataError(f"SliceSSIM: every slice of gt across axis {self.axis} is constant")
        return float(np.mean(values))


def ssim_map(sr: np.ndarray, gt: np.ndarray, data_range: float) -> np.ndarray:
    """SSIM at every place of the valid region of (*S, C) arrays: (*S - 10, C), by scikit-image."""
    from skimage.metrics import structural_similarity

    _, values = structural_similarity(
        *(np.asarray(image, np.float64) for image in (sr, gt)),
        data_range=data_range,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=SIGMA,
        use_sample_covariance=False,
        K1=K1,
        K2=K2,
        full=True,
    )
    return np.asarray(values[(slice(_HALF, -_HALF),) * (gt.ndim - 1)])


def channel_pairs(sr: np.ndarray, gt: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(H, W) float64 planes of sr and gt, channel by channel."""
    for channel in range(gt.shape[-1]):
        planes = [np.ascontiguousarray(image[..., channel], np.float64) for image in (sr, gt)]
        yield planes[0], planes[1]


def ssim_and_contrast(sr: np.ndarray, gt: np.ndarray, data_range: float) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two (H, W) float64 planes, over the valid region."""
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    height, width = (side - 2 * _HALF for side in gt.shape)

    def sums(top: int) -> tuple[float, float]:
        rows = slice(top, min(top + _STRIP, height) + 2 * _HALF)
        a, b = sr[rows], gt[rows]
        mean_a, mean_b, mean_ab = _blur(a), _blur(b), _blur(a * b)
        mean_squares = _blur(a * a + b * b)  # only the sum of the two variances is needed
        mean_product = mean_a * mean_b
        mean_a *= mean_a
        mean_b *= mean_b
        mean_a += mean_b
        contrast = (2 * (mean_ab - mean_product) + c2) / (mean_squares - mean_a + c2)
        contrast_total = float(contrast.sum())
        contrast *= (2 * mean_product + c1) / (mean_a + c1)
        return float(contrast.sum()), contrast_total

    # In threads, for numpy and cv2 let others run; the strips are added up in order all the same.
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        strips = list(threads.map(sums, range(0, height, _STRIP)))
    total, contrast_total = (sum(values) for values in zip(*strips, strict=True))
    return total / (height * width), contrast_total / (height * width)


def _blur(plane: np.ndarray) -> np.ndarray:
    """Gaussian mean at every place where the window fits."""
    weights = gaussian_window()
    blurred = cv2.sepFilter2D(plane, cv2.CV_64F, weights, weights, borderType=cv2.BORDER_REPLICATE)
    return blurred[_HALF:-_HALF, _HALF:-_HALF]
