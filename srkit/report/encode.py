"""Pictures as text inside a page: without loss where they fit into their share of it, else as fine as fits."""

from __future__ import annotations

import base64

import cv2
import numpy as np

_QUALITIES = (95, 90, 80, 65, 50, 30)


def data_uri(image: np.ndarray, budget_bytes: int, lossless: bool = True) -> str:
    """A (H, W, 3) or (H, W) uint8 picture as a data: address of about `budget_bytes` characters at most.

    WebP without loss, else JPEG of falling quality; the coarsest is taken even when it does not fit.
    """
    pixels = np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image)
    if lossless:
        found = _encoded(pixels, ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101])
        if len(found) <= budget_bytes:
            return f"data:image/webp;base64,{found}"
    for quality in _QUALITIES:
        found = _encoded(pixels, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(found) <= budget_bytes:
            break
    return f"data:image/jpeg;base64,{found}"


def _encoded(pixels: np.ndarray, suffix: str, flags: list[int]) -> str:
    _, data = cv2.imencode(suffix, pixels, flags)
    return base64.b64encode(data.tobytes()).decode()
