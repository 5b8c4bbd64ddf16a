"""Where voxels lie in the scanner: affines of enlarged, permuted and re-spaced grids, all block-centred.

An affine is (4, 4) and maps a voxel index (i, j, k) to millimetres; integers are voxel centres, so the grid's outer
corners lie at -1/2 and n - 1/2. Axes are the file's own voxel axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from srkit.errors import RefusedError

ISOTROPIC_WITHIN = 0.1  # spacings this near to each other count as equal: 0.98, 0.98 and 1.00 mm are isotropic


def scaled_affine(affine: np.ndarray, scale: Sequence[float]) -> np.ndarray:
    """Affine of a grid with `scale[a]` times as many voxels along axis a, its outer corners where they were.

    Index i' of the new grid is index (i' + 1/2) / s - 1/2 of the old one: column a becomes A_a / s_a, the origin
    moves by the sum of A_a (1/s_a - 1) / 2.

    Args:
        affine: (4, 4).
        scale: One factor above 0 per axis; below 1 for a coarser grid.

    Raises: RefusedError for another number of factors, or one that is not above 0.
    """
    factors = _three_positive("scale", scale)
    columns = affine[:3, :3].astype(np.float64)
    return _affine(columns / factors, affine[:3, 3] + columns @ ((1 / factors - 1) / 2))


def permuted_affine(affine: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """Affine of `volume.transpose(axes)`: every voxel stays at its place.

    Raises: RefusedError when `axes` is no order of 0, 1, 2.
    """
    if sorted(axes) != [0, 1, 2]:
        raise RefusedError(f"axes {tuple(axes)} is no order of the voxel axes 0, 1, 2")
    return _affine(affine[:3, list(axes)], affine[:3, 3])


def respaced_affine(affine: np.ndarray, shape: Sequence[int], spacing_mm: Sequence[float]) -> np.ndarray:
    """The same directions and centre of a grid of `shape`, but this distance between voxels.

    Raises: RefusedError unless there are three spacings above 0.
    """
    wanted = _three_positive("spacing_mm", spacing_mm)
    columns = affine[:3, :3] * (wanted / _lengths(affine))
    middle = (np.array(shape) - 1) / 2
    return _affine(columns, world(affine, middle) - columns @ middle)


def world(affine: np.ndarray, index: np.ndarray | Sequence[float]) -> np.ndarray:
    """Millimetres of voxel indices: (..., 3) to (..., 3), fractions allowed."""
    return np.asarray(index, np.float64) @ affine[:3, :3].T + affine[:3, 3]


def corners(shape: Sequence[int]) -> np.ndarray:
    """(8, 3) indices of a grid's outer corners, half a voxel beyond the centres of its corner voxels."""
    ends = [(-0.5, n - 0.5) for n in shape]
    return np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(8, 3)


def spacing_mm(affine: np.ndarray) -> tuple[float, float, float]:
    """Distance between neighbouring voxels along each axis."""
    i, j, k = _lengths(affine).tolist()
    return i, j, k


def thick_axis(spacing_mm: Sequence[float], within: float = ISOTROPIC_WITHIN) -> int | None:
    """The axis whose spacing is above both others by more than that part of theirs; None where there is none, as in an
    isotropic scan."""
    _, middle, high = np.argsort(spacing_mm, kind="stable").tolist()
    return high if spacing_mm[high] > spacing_mm[middle] * (1 + within) else None


def shear_mm(affine: np.ndarray, shape: Sequence[int]) -> float:
    """How far a corner of the grid lies from where the nearest grid of right angles and equal spacing puts it."""
    size = _lengths(affine)
    left, _, right = np.linalg.svd(affine[:3, :3] / size)
    return float(np.linalg.norm(corners(shape) @ (left @ right * size - affine[:3, :3]).T, axis=1).max())


def orientation(affine: np.ndarray) -> str:
    """Where each voxel axis points, nearest letters: "RAS" grows to the right, front and top."""
    from nibabel.orientations import aff2axcodes

    return "".join(map(str, aff2axcodes(affine)))


def _lengths(affine: np.ndarray) -> np.ndarray:
    """(3,)"""
    return np.linalg.norm(affine[:3, :3].astype(np.float64), axis=0)


def _affine(columns: np.ndarray, origin: np.ndarray) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = columns, origin
    return result


def _three_positive(name: str, values: Sequence[float]) -> np.ndarray:
    numbers = np.array(values, np.float64)
    if numbers.shape != (3,) or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise RefusedError(f"{name} {tuple(values)}: expected one number above 0 for each of the three voxel axes")
    return numbers
