"""Brightness of colour pictures, and the rounding that turns network output into file values."""

from __future__ import annotations

import numpy as np

from srkit.errors import DivergedError

# BT.601. Limited: 16 to 235 of 255 (the 8-bit studio range); full: 0 to white.
LIMITED_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
LIMITED_OFFSET = 16 / 255
FULL_WEIGHTS = (0.299, 0.587, 0.114)


def luma(image: np.ndarray, white: float = 255.0) -> np.ndarray:
    """Y of BT.601, limited range, float64 and not rounded; a grey picture is its own luma.

    Args:
        image: (*S, 3) RGB or (*S, 1), intensities 0 to `white`.
        white: Intensity of full white.

    Shape: returns (*S, 1), for RGB from 16/255 to 235/255 of `white`.
    """
    return _weighted(image, LIMITED_WEIGHTS, LIMITED_OFFSET * white)


def luma_full(image: np.ndarray) -> np.ndarray:
    """Y of BT.601, full range (white stays white): (*S, 3) RGB to (*S, 1) float64; grey is its own luma."""
    return _weighted(image, FULL_WEIGHTS, 0.0)


def limited_from_full(y: np.ndarray, white: float = 1.0) -> np.ndarray:
    """Limited-range luma from full-range luma, in the same units."""
    return y * (219 / 255) + LIMITED_OFFSET * white


def full_from_limited(y: np.ndarray, white: float = 1.0) -> np.ndarray:
    """Full-range luma from limited-range luma, in the same units."""
    return (y - LIMITED_OFFSET * white) * (255 / 219)


def chroma(image: np.ndarray) -> np.ndarray:
    """Cb and Cr of BT.601, full range, around 0: (*S, 3) RGB to (*S, 2) float64, in the picture's units."""
    y = luma_full(image)[..., 0]
    return np.stack([(image[..., 2] - y) / 1.772, (image[..., 0] - y) / 1.402], axis=-1)


def with_chroma(y_full: np.ndarray, cb_cr: np.ndarray) -> np.ndarray:
    """RGB (*S, 3) from full-range luma (*S, 1) and chroma (*S, 2) as `chroma` gives it, not clipped."""
    y = y_full[..., 0]
    red, blue = y + 1.402 * cb_cr[..., 1], y + 1.772 * cb_cr[..., 0]
    green = (y - FULL_WEIGHTS[0] * red - FULL_WEIGHTS[2] * blue) / FULL_WEIGHTS[1]
    return np.stack([red, green, blue], axis=-1)


def _weighted(image: np.ndarray, weights: tuple[float, float, float], offset: float) -> np.ndarray:
    if image.shape[-1] == 1:
        return image.astype(np.float64)
    if image.shape[-1] != 3:
        raise ValueError(f"luma needs 1 or 3 channels in the last axis, got shape {image.shape}")
    # Planes one by one, always in this order: a matrix product would round differently from machine to machine.
    total = image[..., 0] * np.float64(weights[0])
    total += image[..., 1] * np.float64(weights[1])
    total += image[..., 2] * np.float64(weights[2])
    total += offset
    return total[..., None]


def quantize(sr: np.ndarray, like: np.dtype | type, white: float) -> np.ndarray:
    """Network output to the values a file would hold: clipped to 0 and 1, times `white`, rounded half up.

    Args:
        sr: Any shape, float, 1.0 is white.
        like: Integer type of the file (the gt's).
        white: Intensity of 1.0: 255, 65535, or 2**bit_depth - 1.

    Raises: DivergedError when sr holds NaN, which no integer can stand for.
    """
    if white > np.iinfo(like).max:
        raise ValueError(f"white {white} does not fit into {np.dtype(like)}")
    values = np.clip(sr, 0.0, 1.0, dtype=np.float64)
    values *= white
    values += 0.5
    if np.isnan(values.sum()):
        raise DivergedError(f"the network's output holds {np.isnan(values).sum()} NaN among {values.size} values")
    return values.astype(like)  # values are not negative, so truncation is floor
