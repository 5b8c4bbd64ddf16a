"""Damage to lq crops alone, which the network learns to undo: black holes and JPEG compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srkit.data.ranges import require_within
from srkit.errors import RefusedError
from srkit.imaging.jpeg_codec import jpeg_compressed


@dataclass(frozen=True, kw_only=True)
class LqDamage:
    """Settings; the defaults damage nothing.

    Args:
        dropout_prob: Probability that a crop gets holes.
        dropout_holes: Most holes in a crop; their number is uniform from 1.
        dropout_size: Longest side of a hole in lq pixels; height and width are uniform from 1. Holes are black.
        jpeg_prob: Probability of JPEG compression, after the holes.
        jpeg_quality: Lowest and highest quality; uniform, both included.

    Raises: RefusedError for a value out of its range.
    Source: DeVries and Taylor 2017, arXiv:1708.04552 (regions set to 0), here many and small.
    """

    dropout_prob: float = 0.0
    dropout_holes: int = 8
    dropout_size: int = 2
    jpeg_prob: float = 0.0
    jpeg_quality: tuple[int, int] = (65, 100)

    def __post_init__(self) -> None:
        for name in ("dropout_prob", "jpeg_prob"):
            require_within(f"lq_{name}", getattr(self, name))
        for name in ("dropout_holes", "dropout_size"):
            if getattr(self, name) < 1:
                raise RefusedError(f"lq_{name} must be 1 or more, got {getattr(self, name)}")
        low, high = self.jpeg_quality
        if not 1 <= low <= high <= 100:
            raise RefusedError(f"lq_jpeg_quality: found {[low, high]}, expected lowest and highest of 1 to 100")

    @property
    def is_on(self) -> bool:
        """Whether it can do anything."""
        return self.dropout_prob > 0 or self.jpeg_prob > 0

    def __call__(self, lq: np.ndarray, rng: np.random.Generator, white: float) -> np.ndarray:
        """A crop (H, W, C) of integers, 0 to `white`, damaged by chance; `lq` itself when nothing befalls it."""
        holes, jpeg = rng.random(2)
        quality = int(rng.integers(*self.jpeg_quality, endpoint=True))
        if holes < self.dropout_prob:
            lq = self._with_holes(lq, rng)
        return jpeg_compressed(lq, quality, white) if jpeg < self.jpeg_prob else lq

    def _with_holes(self, lq: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        damaged = lq.copy()
        for _ in range(rng.integers(1, self.dropout_holes, endpoint=True)):
            # A small crop has no room for the largest hole.
            sides = rng.integers(1, np.minimum(self.dropout_size, lq.shape[:2]), endpoint=True)
            top, left = rng.integers(0, np.array(lq.shape[:2]) - sides, endpoint=True)
            damaged[top : top + sides[0], left : left + sides[1]] = 0
        return damaged
