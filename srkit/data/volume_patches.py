"""Training patches out of volumes made ready: where they lie, what chance does to them, and their unit intensities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from srkit.data.volume_augment import VolumeAugment, Warp, flipped, shaded, warped, with_gamma
from srkit.data.volume_pairs import Making, VolumePair
from srkit.errors import DataError
from srkit.imaging.intensity import to_unit
from srkit.imaging.slices import profile_reach


@dataclass(frozen=True)
class VolumePatches:
    """Settings of patches.

    Args:
        gt_size: Voxels of gt, multiples of the scale; None takes whole volumes.
        foreground_prob: Share of patches whose centre is drawn from the mask.
    """

    making: Making
    augment: VolumeAugment
    gt_size: tuple[int, ...] | None
    foreground_prob: float

    def draw(self, pair: VolumePair, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """ "lq" and "gt" of one patch, (I, J, K) float32, 0 is black and 1 white. DataError for a volume smaller than it."""
        size = self.gt_size or pair.gt.shape
        if any(n < m for n, m in zip(pair.gt.shape, size)):
            raise DataError(f"{pair.gt.shape} is smaller than gt_size {size}")
        corner = self._corner(rng, pair, size)
        margin = self._margin()
        draw = self.augment.draw(rng, [n + 2 * m * s for n, m, s in zip(size, margin, self.making.scale)])
        if draw.warp is None:
            lq, gt = self._cut(pair, corner, size)
        else:
            lq, gt = self._warped(pair, corner, size, margin, draw.warp)
        begin = [c * s for c, s in zip(corner, self.making.scale)]
        facts, patches = pair.facts, {}
        for role, patch, place, whole, span in (
            ("lq", lq, corner, pair.lq, facts.lq_range),
            ("gt", gt, begin, pair.gt, facts.gt_range),
        ):
            if draw.bias is not None:
                patch = shaded(patch, draw.bias, place, whole.shape)
            unit = to_unit(patch, *span, clip=self.making.by_halves)
            if draw.gamma is not None:
                unit = with_gamma(unit, draw.gamma)
            patches[role] = np.ascontiguousarray(flipped(unit, draw.flips))
        return patches

    def _corner(self, rng: np.random.Generator, pair: VolumePair, size: Sequence[int]) -> list[int]:
        """First voxel of the patch in lq; five draws at all times."""
        choice, which, *place = rng.random(5).tolist()
        crop = [n // s for n, s in zip(size, self.making.scale)]
        room = [n - c for n, c in zip(pair.lq.shape, crop)]
        if choice >= self.foreground_prob:
            return [int(x * (r + 1)) for x, r in zip(place, room)]
        voxel = np.unravel_index(int(pair.body[int(which * pair.body.size)]), pair.gt.shape)
        middle = [(int(v) + 0.5) / s for v, s in zip(voxel, self.making.scale)]
        return [min(max(math.floor(m - c / 2), 0), r) for m, c, r in zip(middle, crop, room)]

    def _margin(self) -> list[int]:
        """lq voxels around a patch that take part in its outer slices."""
        profile = self.making.slice_profile
        reach = 0 if profile is None else profile_reach(profile, self.making.thickness)
        return [reach if s > 1 else 0 for s in self.making.scale]

    def _cut(self, pair: VolumePair, corner: Sequence[int], size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        places = list(zip(corner, size, self.making.scale))
        lq = pair.lq[tuple(slice(c, c + n // s) for c, n, s in places)]
        return lq, pair.gt[tuple(slice(c * s, c * s + n) for c, n, s in places)]

    def _warped(
        self, pair: VolumePair, corner: Sequence[int], size: Sequence[int], margin: Sequence[int], warp: Warp
    ) -> tuple[np.ndarray, np.ndarray]:
        """lq is made from a larger warped patch of gt, so that its outer slices are as complete as the inner ones."""
        places = list(zip(corner, size, margin, self.making.scale))
        begin, block = [(c - m) * s for c, _, m, s in places], [n + 2 * m * s for _, n, m, s in places]
        gt = warped(pair.gt, begin, block, warp, pair.facts.spacing_mm)
        lq = self.making.lq_of(gt)
        inner = tuple(slice(m, m + n // s) for _, n, m, s in places)
        return lq[inner], gt[tuple(slice(m * s, m * s + n) for _, n, m, s in places)]
