"""Patches of a scan's sharp slices, and the same made as thick along one of their axes as the scan is across them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srkit.data.slice_geometry import ThickSlices
from srkit.data.volume_augment import flipped
from srkit.data.volume_pairs import VolumePair
from srkit.errors import DataError
from srkit.imaging.intensity import to_unit
from srkit.imaging.slices import Profile, profile_reach, thicken


@dataclass(frozen=True, kw_only=True)
class SliceCuts:
    """How patches are drawn; `SelfSupervisedSlices` explains the settings."""

    factor: int
    gt_size: int
    profile: Profile
    foreground_prob: float
    use_flip: bool

    def draw(self, scan: VolumePair, slices: ThickSlices, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """ "lq" (H / factor, W) and "gt" (H, W) of one patch, float32, 0 is black and 1 white.

        Raises: DataError for slices smaller than it.
        """
        self.require_room(scan.gt.shape, slices)
        choice, which, *place, swap, mirror, turn = rng.random(8).tolist()
        mirrored = [self.use_flip and x < 0.5 for x in (mirror, turn)]
        one, other = (axis for axis in range(3) if axis != slices.axis)
        order = (other, one, slices.axis) if swap < 0.5 else (one, other, slices.axis)
        volume = scan.gt.transpose(order)
        room = [n - size for n, size in zip(volume.shape, (self.gt_size, self.gt_size, 1))]
        if choice < self.foreground_prob:
            voxel = np.unravel_index(int(scan.body[int(which * scan.body.size)]), scan.gt.shape)
            middle = [int(voxel[axis]) - size // 2 for axis, size in zip(order, (self.gt_size, self.gt_size, 1))]
            corner = [min(max(m, 0), r) for m, r in zip(middle, room)]
        else:
            corner = [int(x * (r + 1)) for x, r in zip(place, room)]
        patches = self.cut(volume[..., corner[2]], corner[:2], slices.thickness)
        return {
            role: np.ascontiguousarray(flipped(to_unit(patch, *scan.facts.lq_range), mirrored))
            for role, patch in patches.items()
        }

    def require_room(self, shape: Sequence[int], slices: ThickSlices) -> None:
        """DataError for slices smaller than a patch; `shape` is the scan's."""
        sides = [n for axis, n in enumerate(shape) if axis != slices.axis]
        if min(sides) < self.gt_size:
            raise DataError(f"its slices of {sides[0]} x {sides[1]} voxels are smaller than gt_size {self.gt_size}")

    def cut(self, plane: np.ndarray, corner: Sequence[int], thickness: float) -> dict[str, np.ndarray]:
        """The patch of (H, W) `plane` at `corner` as "gt", and as "lq" with rows as thick as the scan's slices.

        Rows around the patch take part where the profile reaches them, as far as the plane has them.
        """
        (row, column), size, k = corner, self.gt_size, self.factor
        reach = profile_reach(self.profile, thickness)
        before, after = min(reach, row // k), min(reach, (plane.shape[0] - row - size) // k)
        block = plane[row - before * k : row + size + after * k, column : column + size]
        lq = thicken(block, (k, 1), profile=self.profile, thickness=thickness)
        return {"lq": lq[before : before + size // k], "gt": plane[row : row + size, column : column + size]}
