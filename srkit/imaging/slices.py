"""Thick slices out of thin ones, and volumes on finer grids. One grid throughout: voxels are blocks of space.

Index i' of a grid with s times as many voxels lies at index (i' + 1/2) / s - 1/2, so the outer faces of both grids are
the same. Everything but `spline_zoom` is one small matrix per axis, applied in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from srkit.errors import DataError, RefusedError

Profile = Literal["box", "gaussian"]
_SIGMAS_PER_FWHM = 1 / (2 * math.sqrt(2 * math.log(2)))
_GAUSSIAN_END = 4.0  # sigma


def thicken(
    volume: np.ndarray, factors: Sequence[int], *, profile: Profile = "box", thickness: float = 1.0
) -> np.ndarray:
    """What a scanner with slices `factors` times as far apart sees: weighted means along each thickened axis.

    Voxels at the far end that fill no whole block are left out first. Beyond the volume nothing is known, so profiles
    that reach there weigh what is inside: a constant stays constant.

    Args:
        volume: (I, J, K).
        factors: Old voxels per new voxel, for each axis; 1 leaves an axis alone, whatever the profile.
        profile: Sensitivity along the axis. "box" weighs partly covered voxels by their covered part; "gaussian" has its
            full width at half maximum where the box has its width, and is cut at four sigma.
        thickness: Width of the profile over the distance of the slices: 0.8 leaves a gap of a fifth, 1.2 overlaps.

    Shape: returns (I // f, J // f, K // f) float32.
    Raises: DataError when the volume is smaller than a block; RefusedError for a thickness outside 0 to 2.
    """
    require_thickness(thickness)
    cut = whole_blocks(volume, factors)
    for axis, factor in enumerate(factors):
        if factor > 1:
            cut = _along(_slice_weights(cut.shape[axis], factor, profile, thickness), cut, axis)
    return np.ascontiguousarray(cut, np.float32)


def whole_blocks(volume: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """View of (I, J, K) without the voxels at the far end that fill no whole block. DataError when nothing is left."""
    if len(factors) != volume.ndim or min(factors) < 1:
        raise ValueError(f"factors {tuple(factors)}: one whole number from 1 is needed for each of {volume.ndim} axes")
    if any(n < f for n, f in zip(volume.shape, factors)):
        raise DataError(f"a volume of {volume.shape} is smaller than one block of scale {tuple(factors)}")
    return volume[tuple(slice(n - n % f) for n, f in zip(volume.shape, factors))]


def profile_reach(profile: Profile, thickness: float) -> int:
    """How many slices to either side of its own a slice takes part in: what a patch needs around it."""
    half = thickness / 2 if profile == "box" else _GAUSSIAN_END * _SIGMAS_PER_FWHM * thickness
    return max(0, math.ceil(half - 0.5))


def require_thickness(thickness: float) -> None:
    """RefusedError outside 0 (excluded) to 2."""
    if not 0 < thickness <= 2:
        raise RefusedError(f"thickness: found {thickness}, expected above 0 and at most 2 (1 is slices without gaps)")


def enlarge(volume: np.ndarray, factors: Sequence[float], order: Literal[0, 1, 3]) -> np.ndarray:
    """Nearest (0), linear (1) or cubic spline (3) enlargement; the outer voxels continue unchanged beyond the volume.

    Args:
        factors: New voxels per old one along each axis; fractions are met as nearly as whole voxels allow.

    Shape: (I, J, K) to (round(I * f), ...) float32.
    """
    return resample(volume, [round(n * f) for n, f in zip(volume.shape, factors, strict=True)], order)


def resample(volume: np.ndarray, shape: Sequence[int], order: Literal[0, 1, 3]) -> np.ndarray:
    """`enlarge` to so many voxels along each axis, which cover the same space."""
    for axis, size in enumerate(shape):
        if size != volume.shape[axis]:
            volume = _along(_spline_weights(volume.shape[axis], size, order), volume, axis)
    return np.ascontiguousarray(volume, np.float32)


def onto_grid(volume: np.ndarray, affine: np.ndarray, there: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Cubic spline samples of a volume at the voxels of another grid; the outer voxels continue beyond the volume.

    Nothing is averaged: the other grid is to be about as fine as the volume's.

    Args:
        affine: (4, 4), from voxels of `volume` (I, J, K) to millimetres.
        there: (4, 4), from voxels of the other grid, of `shape`, to millimetres.

    Returns: `shape`, float32.
    """
    from scipy.ndimage import affine_transform

    places = np.linalg.inv(affine) @ there
    sampled: np.ndarray = affine_transform(
        volume.astype(np.float32, copy=False), places[:3, :3], places[:3, 3], tuple(shape), order=3, mode="nearest"
    )
    return sampled


def spline_zoom(volume: np.ndarray, shape: Sequence[int], order: Literal[1, 3]) -> np.ndarray:
    """Spline samples at places whose first and last are the outer voxels' centres; nothing is averaged.

    Another grid than everything else here: it exists to repeat what easysr's networks were trained on.

    Shape: (I, J, K) to `shape`, float32.
    """
    from scipy.ndimage import zoom

    zoomed: np.ndarray = zoom(
        volume.astype(np.float32, copy=False), [m / n for m, n in zip(shape, volume.shape)], order=order
    )
    return zoomed


def _along(weights: np.ndarray, volume: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(weights, volume, axes=(1, axis)), 0, axis)


@lru_cache(maxsize=64)
def _slice_weights(length: int, factor: int, profile: Profile, thickness: float) -> np.ndarray:
    """(length / factor, length): row i weighs the old voxels for new voxel i."""
    voxel = np.arange(length)
    centre = (np.arange(length // factor)[:, None] + 0.5) * factor - 0.5
    width = thickness * factor
    if profile == "box":
        low = np.maximum(voxel - 0.5, centre - width / 2)
        weights = np.clip(np.minimum(voxel + 0.5, centre + width / 2) - low, 0, None)
    else:
        distance = np.abs(voxel - centre) / (width * _SIGMAS_PER_FWHM)
        weights = np.where(distance <= _GAUSSIAN_END, np.exp(-0.5 * distance**2), 0)
    return weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=64)
def _spline_weights(length: int, size: int, order: int) -> np.ndarray:
    """(size, length): what scipy makes of `length` unit vectors."""
    from scipy.ndimage import zoom

    weights: np.ndarray = zoom(np.eye(length), (size / length, 1), order=order, mode="nearest", grid_mode=True)
    return weights
