"""What the real JPEG encoder leaves of one small picture, on the host (`jpeg.py` is its model for batches on a device)."""

from __future__ import annotations

import cv2
import numpy as np


def jpeg_compressed(image: np.ndarray, quality: int, white: float = 255.0) -> np.ndarray:
    """What is left of a picture that was saved as JPEG.

    Args:
        image: (H, W, 1 or 3) RGB, integers from 0 to `white`. Above 8 bit it passes through 8 bit, as any JPEG does.
        quality: libjpeg's, 1 to 100; colour is subsampled 4:2:0, OpenCV's default and the usual one.

    Shape: returns (H, W, C), type and range of `image`.
    """
    is_byte = image.dtype == np.uint8 and white == 255
    data = image if is_byte else np.rint(image * (255.0 / white)).astype(np.uint8)
    bgr = cv2.cvtColor(data, cv2.COLOR_RGB2BGR) if data.shape[2] == 3 else data
    _, code = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    back = cv2.imdecode(code, cv2.IMREAD_UNCHANGED)
    assert back is not None
    back = cv2.cvtColor(back, cv2.COLOR_BGR2RGB) if data.shape[2] == 3 else back[..., None]
    return back if is_byte else np.rint(back * (white / 255.0)).astype(image.dtype)
