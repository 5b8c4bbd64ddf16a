"""Blur kernels of blind super-resolution: bell-shaped ones, round or slanted, and the sinc filter that rings."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Profile = Literal["gaussian", "plateau"]


def bell_kernel(
    size: int, sigma: tuple[float, float], theta: float = 0.0, *, profile: Profile = "gaussian", beta: float = 1.0
) -> np.ndarray:
    """A kernel that falls off from its centre, with elliptic contours; sums to 1.

    With d the squared distance from the centre in units of sigma along the two axes of the ellipse:
    gaussian exp(-d**beta / 2), which is the Gaussian for beta 1, flatter above and more pointed below;
    plateau 1 / (1 + d**beta).

    Args:
        size: Side in pixels, odd.
        sigma: Extent along the first and the second axis of the ellipse, in pixels, above 0.
        theta: Angle of the first axis in radians, from the columns' direction towards the rows'.

    Shape: returns (size, size) float64.
    Source: Liu et al. 2020, arXiv:2003.01280 (generalised Gaussian); Wang et al. 2021, arXiv:2107.10833, section 3.1.
    """
    _require_odd(size)
    rows, columns = _grid(size)
    along = columns * math.cos(theta) + rows * math.sin(theta)
    across = rows * math.cos(theta) - columns * math.sin(theta)
    d = (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2
    kernel = np.exp(-0.5 * d**beta) if profile == "gaussian" else 1.0 / (1.0 + d**beta)
    return np.asarray(kernel / kernel.sum())


def sinc_kernel(size: int, cutoff: float) -> np.ndarray:
    """The ideal circular low-pass filter cut to a square; sums to 1. It rings at edges, as oversharpened pictures do.

    Args:
        size: Side in pixels, odd.
        cutoff: Highest angular frequency that passes, in radians per pixel: pi passes all that a row can hold.

    Shape: returns (size, size) float64.
    Source: Wang et al. 2021, arXiv:2107.10833, section 3.3: cutoff J1(cutoff r) / (2 pi r), and cutoff**2 / (4 pi) at r = 0.
    """
    from scipy.special import j1  # comes with scikit-image

    _require_odd(size)
    rows, columns = _grid(size)
    radius = np.hypot(rows, columns)
    centre = size // 2
    radius[centre, centre] = 1.0  # not used: the limit at 0 is put there below
    kernel = cutoff * j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[centre, centre] = cutoff**2 / (4 * math.pi)
    return np.asarray(kernel / kernel.sum())


def _require_odd(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"a kernel needs an odd side, so that it has a centre; got {size}")


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.arange(size, dtype=np.float64) - size // 2
    return offsets[:, None], offsets[None, :]
