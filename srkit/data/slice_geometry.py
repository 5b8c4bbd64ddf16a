"""How a scan's slices lie: which axis runs across them, how thick they are, and whether a factor makes them isotropic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srkit.errors import DataError, RefusedError
from srkit.imaging.geometry import ISOTROPIC_WITHIN, thick_axis
from srkit.imaging.slices import require_thickness

_SUM_WITHIN = 0.01  # of the distance: headers and protocols round


@dataclass(frozen=True)
class ThickSlices:
    """Which voxel axis of a scan runs across its slices, and their thickness over their distance."""

    axis: int
    thickness: float


@dataclass(frozen=True, kw_only=True)
class SliceGeometry:
    """What is known of the slices of all scans; `SelfSupervisedSlices` explains the settings."""

    factor: int
    thick_axis: int | None
    ignore_spacing: bool
    slice_thickness_mm: float | None
    slice_gap_mm: float | None

    def of(self, spacing_mm: Sequence[float]) -> ThickSlices:
        """Of a scan with that distance between voxels along each axis. DataError when it does not fit the settings."""
        text = " x ".join(f"{mm:.4g}" for mm in spacing_mm)
        axis = thick_axis(spacing_mm) if self.thick_axis is None else self.thick_axis
        if axis is None:
            raise DataError(
                f"its spacing of {text} mm has no thick axis; where the header is wrong, give spacing_mm or thick_axis"
            )
        one, other = (mm for k, mm in enumerate(spacing_mm) if k != axis)
        if not self.ignore_spacing:
            if max(one, other) > min(one, other) * (1 + ISOTROPIC_WITHIN):
                raise DataError(
                    f"its slices have voxels of {one:.4g} x {other:.4g} mm, which is not the same both ways; resample them, or "
                    "set ignore_spacing: true"
                )
            ratio = spacing_mm[axis] / ((one + other) / 2)
            if abs(ratio / self.factor - 1) > ISOTROPIC_WITHIN:
                raise DataError(
                    f"its slices are {ratio:.3g} times as far apart as their voxels ({text} mm), but scale is {self.factor}; "
                    f"set scale to {max(2, round(ratio))}, or ignore_spacing: true"
                )
        return ThickSlices(axis, self._thickness(spacing_mm[axis]))

    def _thickness(self, distance: float) -> float:
        """Over the distance of the slices."""
        width, gap = self.slice_thickness_mm, self.slice_gap_mm
        if width is not None and gap is not None and abs(width + gap - distance) > _SUM_WITHIN * distance:
            raise DataError(
                f"its slices are {distance:.4g} mm apart, but slice_thickness_mm {width:.4g} and slice_gap_mm {gap:.4g} make "
                f"{width + gap:.4g}; correct one, or leave it out"
            )
        if width is None:
            width = distance - (gap or 0)
        share = round(width / distance, 6)  # what float32 of a header can say
        try:
            require_thickness(share)
        except RefusedError as error:
            raise DataError(f"slices of {share * distance:.4g} mm that are {distance:.4g} mm apart: {error}") from None
        return share
