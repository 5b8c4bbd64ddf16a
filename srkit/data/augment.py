"""Crop, flips, transpose and colour jitter: drawn once for a sample, applied alike to all its arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import cv2
import numpy as np

from srkit.data.ranges import require_not_negative, require_within
from srkit.errors import DataError, RefusedError

_CV2_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


@dataclass(frozen=True)
class Draw:
    """What chance decided for one sample; `corner` counts in lq pixels, `offset` in grey levels per channel."""

    corner: tuple[int, ...]
    hflip: bool
    vflip: bool
    transpose: bool
    offset: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Settings of the augmentation; one object serves images and volumes.

    Args:
        scale: gt size / lq size, one per axis.
        gt_size: Crop of gt in pixels, one per axis; None keeps the whole picture.
        crop_type: Where the crop is taken.
        use_hflip: Mirror the last axis with probability 1/2.
        use_rot: Mirror the last but one axis, and swap the two, each with probability 1/2.
        jitter_prob: Probability of the colour jitter.
        jitter_shift: One offset per RGB channel, uniform in +-jitter_shift/255 of white, the same for lq and gt, in
            whole grey levels: so the arrays stay integers, only the clip loses anything, and lq and gt move alike.

    Raises: RefusedError when the crop is no multiple of the scale, or the swapped axes differ in scale or crop.
    """

    scale: tuple[int, ...]
    gt_size: tuple[int, ...] | None = None
    crop_type: Literal["random", "center"] = "random"
    use_hflip: bool = False
    use_rot: bool = False
    jitter_prob: float = 0.0
    jitter_shift: float = 20.0

    def __post_init__(self) -> None:
        require_within("color_jitter_prob", self.jitter_prob)
        require_not_negative("color_jitter_shift", self.jitter_shift)
        for size, scale in zip(self.gt_size or (), self.scale):
            if size < 1 or size % scale:
                low = size // scale * scale
                near = f"{low} and {low + scale} are" if low > 0 else f"{scale} is"
                raise RefusedError(f"gt_size: {size} is not a multiple of scale {scale}; {near}")
        if self.use_rot and (len(set(self.scale[-2:])) > 1 or len(set((self.gt_size or ())[-2:])) > 1):
            raise RefusedError(
                f"use_rot swaps the last two axes, which needs one scale and one gt_size for both; "
                f"got scale {self.scale}, gt_size {self.gt_size}"
            )

    @cached_property
    def lq_size(self) -> tuple[int, ...] | None:
        """Crop of lq in pixels."""
        return self.gt_size and tuple(g // s for g, s in zip(self.gt_size, self.scale))

    def draw(self, rng: np.random.Generator, lq_shape: tuple[int, ...], white: float) -> Draw:
        """Decide everything. The number of draws is fixed, so switching one thing on leaves the others as they were.

        Raises: DataError when the picture is smaller than the crop.
        """
        dims = len(self.scale)
        u = rng.random(dims + 4).tolist()
        corner = (0,) * dims
        if self.lq_size is not None:
            room = [n - c for n, c in zip(lq_shape, self.lq_size)]
            if min(room) < 0:
                raise DataError(f"lq {lq_shape[:dims]} is smaller than its crop {self.lq_size} (gt_size / scale)")
            centred = self.crop_type == "center"
            corner = tuple(r // 2 if centred else int(x * (r + 1)) for r, x in zip(room, u))
        hflip, vflip, transpose, jitter = u[dims:]
        offset = None
        if jitter < self.jitter_prob:
            limit = self.jitter_shift / 255.0 * white
            offset = np.rint(rng.uniform(-limit, limit, 3)).astype(np.int32)
        return Draw(
            corner,
            self.use_hflip and hflip < 0.5,
            self.use_rot and vflip < 0.5,
            self.use_rot and transpose < 0.5,
            offset,
        )

    def crop(self, image: np.ndarray, draw: Draw, scale: tuple[int, ...] | None = None) -> np.ndarray:
        """The drawn window as a view of `image` (*S, C), whose geometry is lq's times `scale` (None: lq's own)."""
        if self.lq_size is None:
            return image
        factor = scale or (1,) * len(self.lq_size)
        return image[tuple(slice(c * f, (c + n) * f) for c, n, f in zip(draw.corner, self.lq_size, factor))]

    def turn(self, image: np.ndarray, draw: Draw) -> np.ndarray:
        """Mirrored and swapped as drawn: columns, then rows, then rows for columns. May return a view."""
        if not (draw.hflip or draw.vflip or draw.transpose):
            return image
        if image.ndim == 3 and image.dtype in _CV2_TYPES and image.shape[2] <= 4:
            return _turn_picture(image, draw)
        last, other = image.ndim - 2, image.ndim - 3
        if draw.hflip:
            image = np.flip(image, last)
        if draw.vflip:
            image = np.flip(image, other)
        return image.swapaxes(last, other) if draw.transpose else image

    def jitter(self, image: np.ndarray, draw: Draw, white: float) -> np.ndarray:
        """Offset added and clipped to 0..white; integer (*S, C) in and out. A grey image takes the first offset."""
        if draw.offset is None:
            return image
        moved = image + draw.offset[: image.shape[-1]]
        return np.clip(moved, 0, white).astype(image.dtype)


def sides(gt_size: int | Sequence[int] | None, axes: int) -> tuple[int, ...] | None:
    """The crop per axis from what an option file may say: one number, one per axis, or nothing.

    Raises: RefusedError for another count of numbers. An empty list, too, says neither a size nor that there is none.
    """
    if gt_size is None or isinstance(gt_size, int):
        return None if gt_size is None else (gt_size,) * axes
    if len(gt_size) != axes:
        raise RefusedError(f"gt_size: found {list(gt_size)}, expected one number or {axes}, one for each axis")
    return tuple(gt_size)


def _turn_picture(image: np.ndarray, draw: Draw) -> np.ndarray:
    # cv2 turns a 96 px crop in 2 us where copying numpy's strided view takes 47; the results are the same.
    if draw.hflip or draw.vflip:
        image = cv2.flip(image, -1 if draw.hflip and draw.vflip else int(draw.hflip))
    if draw.transpose:
        image = cv2.transpose(image)
    return image if image.ndim == 3 else image[..., None]  # cv2 drops a single channel
