"""A picture of any colours through a network that knows luma, or RGB, only."""

from __future__ import annotations

import numpy as np

from srkit.imaging.colour import chroma, full_from_limited, luma, luma_full, with_chroma
from srkit.imaging.resize import imresize


def seen_by_network(image: np.ndarray, white: float, color: str) -> np.ndarray:
    """What a network is given of a picture (H, W, 1 or 3), 0 to `white`: luma of colours, or grey three times.

    Args:
        color: What the network was trained on: rgb, y (limited range), y_full.
    """
    is_grey = image.shape[-1] == 1
    if color == "rgb":
        return np.repeat(image, 3, axis=-1) if is_grey else image
    if is_grey:
        return image
    return (luma(image, white) if color == "y" else luma_full(image)).astype(np.float32)


def finished(sr: np.ndarray, image: np.ndarray, white: float, color: str, scale: tuple[int, ...]) -> np.ndarray:
    """What becomes of the network's result (H * scale, W * scale, C_out), 1.0 is white: (H * scale, W * scale, 1 or 3),
    0 to 1 and not clipped; grey stays grey.

    The colour of a picture that a luma network saw is brought back by bicubic enlargement. Of a grey picture that an RGB
    network saw, the luma (BT.601) is kept.
    """
    is_grey = image.shape[-1] == 1
    if color == "rgb":
        return luma_full(sr) if is_grey else sr
    if is_grey:
        return sr
    return with_chroma(full_from_limited(sr) if color == "y" else sr, imresize(chroma(image) / white, scale))
