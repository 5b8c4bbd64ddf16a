"""What SimpleITK does for volumes: taking out slow changes of brightness, and laying one scan on another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from srkit.errors import DataError, RefusedError

Placed = tuple[np.ndarray, np.ndarray]
"""A volume (I, J, K) and its affine (4, 4)."""

Move = Callable[[np.ndarray, Literal[0, 1]], np.ndarray]
"""Puts a volume on the reference's grid: nearest (0) or linear (1)."""

_SHRINK = 4  # N4 fits a smooth field, for which every fourth voxel is enough
_BINS = 50  # of the joint histogram
_LEVELS = (4, 2, 1)
_SAMPLED = 0.2  # share of the voxels that the measure looks at
_SEED = 1


def require_simpleitk(flag: str) -> None:
    """Raises RefusedError where the package is missing."""
    try:
        import SimpleITK  # noqa: F401
    except ImportError:
        raise RefusedError(f"{flag} needs the package SimpleITK; pip install SimpleITK") from None


def bias_corrected(volume: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """(I, J, K) float32 without the smooth field that N4 finds in it, inside Otsu's mask; the axes' directions do not matter.

    Source: Tustison et al. 2010, doi:10.1109/TMI.2010.2046908.
    """
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0)))
    image.SetSpacing([float(mm) for mm in spacing_mm])
    factors = [min(_SHRINK, max(1, n // 8)) for n in volume.shape]
    small = sitk.Shrink(image, factors)
    finder = sitk.N4BiasFieldCorrectionImageFilter()
    finder.Execute(small, sitk.OtsuThreshold(small, 0, 1))
    field = sitk.GetArrayFromImage(finder.GetLogBiasFieldAsImage(image)).transpose(2, 1, 0)
    return (volume / np.exp(field)).astype(np.float32)


def transform_between(moving: Placed, fixed: Placed, kind: Literal["rigid", "affine"]) -> Move:
    """The movement that lays `moving` on `fixed`, found by mutual information, as a function that carries it out.

    It starts with the centres of mass on each other, so that scans of different coordinates meet. What lies outside
    `moving` becomes 0. The same volumes give the same result.

    Raises: DataError when they have nothing in common.
    Source: Mattes et al. 2003, doi:10.1109/TMI.2003.809072.
    """
    import SimpleITK as sitk

    start = sitk.Euler3DTransform() if kind == "rigid" else sitk.AffineTransform(3)
    still, loose = _image(*fixed), _image(*moving)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(_SAMPLED, _SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_LEVELS)
    method.SetSmoothingSigmasPerLevel([float(level // 2) for level in _LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    # One thread: with more, sums run in another order each time.
    method.SetNumberOfThreads(1)
    try:
        centred = sitk.CenteredTransformInitializer(
            still, loose, start, sitk.CenteredTransformInitializerFilter.MOMENTS
        )
        method.SetInitialTransform(centred, inPlace=False)
        found = method.Execute(still, loose)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"--register: the volumes could not be laid on each other ({reason})") from error

    def move(volume: np.ndarray, order: Literal[0, 1]) -> np.ndarray:
        interpolator = sitk.sitkLinear if order else sitk.sitkNearestNeighbor
        moved = sitk.Resample(_image(volume, moving[1]), still, found, interpolator, 0.0)
        result: np.ndarray = sitk.GetArrayFromImage(moved).transpose(2, 1, 0)
        return np.ascontiguousarray(result)

    return move


def _image(volume: np.ndarray, affine: np.ndarray) -> Any:
    """In the coordinates of the affine. SimpleITK's own have the first two axes reversed, which cancels out between two."""
    import SimpleITK as sitk

    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.transpose(2, 1, 0), np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image
