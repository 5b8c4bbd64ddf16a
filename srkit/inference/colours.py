"""A picture of any colours through a network that knows luma, or RGB, only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from srkit.imaging.colour import chroma, full_from_limited, luma, luma_full, with_chroma
from srkit.imaging.resize import imresize

Restore = Callable[[np.ndarray], np.ndarray]
"""What the network makes of (H, W, C) from 0 to `white`: (H * scale, W * scale, C_out), 1.0 is white, not clipped."""


def restored(restore: Restore, image: np.ndarray, white: float, color: str, scale: tuple[int, ...]) -> np.ndarray:
    """(H, W, 1 or 3), 0 to `white`, to (H * scale, W * scale, 1 or 3), 0 to 1 and not clipped; grey stays grey.

    A luma network gets the luma of a colour picture, and bicubic enlargement brings the colour back. An RGB network gets
    a grey picture three times, and the luma (BT.601) of what it makes is kept.

    Args:
        color: What the network was trained on: rgb, y (limited range), y_full.
    """
    is_grey = image.shape[-1] == 1
    if color == "rgb":
        return luma_full(restore(np.repeat(image, 3, axis=-1))) if is_grey else restore(image)
    if is_grey:
        return restore(image)
    seen = luma(image, white) if color == "y" else luma_full(image)
    y = restore(seen.astype(np.float32))
    return with_chroma(full_from_limited(y) if color == "y" else y, imresize(chroma(image) / white, scale))
