"""Structural similarity as something to minimise: 1 - SSIM and 1 - MS-SSIM, the numbers of the metrics of those names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.losses.common import require_same_shape
from srkit.registry import LOSSES

_SIZE, _SIGMA = 11, 1.5
_GAUSS = [math.exp(-0.5 * ((i - _SIZE // 2) / _SIGMA) ** 2) for i in range(_SIZE)]
WINDOW = tuple(value / sum(_GAUSS) for value in _GAUSS)
C1, C2 = 0.01**2, 0.03**2  # (K1 x data range)^2 and (K2 x data range)^2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SMALLEST = (_SIZE - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1  # the fifth scale must hold a window: 161, 81, 41, 21, 11


@LOSSES.register()
class SSIMLoss(nn.Module):
    """1 - SSIM of intensities in 0 to 1: 0 for equal pictures, at most 2.

    Gaussian window 11, sigma 1.5, K1 0.01, K2 0.03, population covariance, mean over the places where the window fits.

    Shape: `sr` and `gt` (B, C, *S), equal, every spatial axis at least 11 long. Returns a scalar.
    Raises: ValueError when the shapes differ, RefusedError for an axis below 11 pixels.
    Source: Wang et al. 2004, IEEE TIP 13(4), section III-B and C.
    """

    needs_unit_range = True

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        _require_size("SSIMLoss", gt, len(WINDOW))
        return 1 - similarity(sr, gt)[0].mean()


@LOSSES.register()
class MSSSIMLoss(nn.Module):
    """1 - MS-SSIM of intensities in 0 to 1, over five scales with the published weights.

    Each scale is the mean of 2 x 2 pixels of the one before; an odd last row or column counts twice. A mean contrast
    below 0 counts as 0: that picture's channel then costs 1 and has no gradient, so begin with a loss on pixels.

    Shape: `sr` and `gt` (B, C, H, W), equal, at least 161 x 161. Returns a scalar.
    Raises: ValueError when the shapes differ, RefusedError for volumes and pictures below 161 pixels.
    Source: Wang, Simoncelli, Bovik 2003, Asilomar, section 3.
    """

    needs_unit_range = True

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        require_same_shape(sr, gt)
        if gt.ndim != 4:
            raise RefusedError(f"MSSSIMLoss is defined for pictures (B, C, H, W), got {tuple(gt.shape)}; use SSIMLoss")
        _require_size("MSSSIMLoss", gt, SMALLEST)
        product = sr.new_ones(sr.shape[:2])
        for weight in SCALE_WEIGHTS[:-1]:
            product = product * similarity(sr, gt)[1].clamp(min=0) ** weight
            sr, gt = _half(sr), _half(gt)
        return 1 - (product * similarity(sr, gt)[0].clamp(min=0) ** SCALE_WEIGHTS[-1]).mean()


def similarity(sr: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM and mean contrast-structure term of every channel, (B, C) each; `sr` and `gt` (B, C, *S)."""
    maps = torch.cat([sr, gt, sr * sr + gt * gt, sr * gt], dim=1)
    mean_sr, mean_gt, mean_squares, mean_both = _blur(maps).chunk(4, dim=1)
    squares, both = mean_sr * mean_sr + mean_gt * mean_gt, mean_sr * mean_gt
    contrast = (2 * (mean_both - both) + C2) / (mean_squares - squares + C2)
    whole = contrast * (2 * both + C1) / (squares + C1)
    return whole.flatten(2).mean(2), contrast.flatten(2).mean(2)


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean at every place where the window fits, axis by axis."""
    for axis in range(2, x.ndim):
        places = x.shape[axis] - len(WINDOW) + 1
        # Sums of slices and no convolution, which GPUs round to TF32: too coarse for variances, differences of means.
        total = x.narrow(axis, 0, places) * WINDOW[0]
        for shift, weight in enumerate(WINDOW[1:], 1):
            total = torch.add(total, x.narrow(axis, shift, places), alpha=weight)
        x = total
    return x


def _half(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, odd sizes rounded up."""
    return F.avg_pool2d(F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate"), 2)


def _require_size(loss: str, gt: Tensor, smallest: int) -> None:
    short = [str(axis) for axis, length in enumerate(gt.shape[2:]) if length < smallest]
    if short:
        sides = " x ".join(map(str, gt.shape[2:]))
        raise RefusedError(
            f"{loss} needs at least {smallest} pixels along every axis, got {sides} (too short: axis {', '.join(short)}); "
            "raise gt_size"
        )
