"""Transparency of picture files, and pictures encoded at a chosen quality: what training has no use for.

Alpha is an opacity that stands beside the colours, not multiplied into them.
"""

from __future__ import annotations

import cv2
import numpy as np

from srkit.errors import DataError

WITH_ALPHA = (".png", ".webp")
"""Suffixes of formats whose alpha srkit reads and writes."""

DEEP = (".png", ".tif", ".tiff")
"""Suffixes of formats that hold 16 bit."""

LOSSY = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
"""Suffixes of formats that have a quality, and OpenCV's name for it."""

_DEFAULT_QUALITY = {".jpg": 95, ".jpeg": 95, ".webp": 101}  # of WebP, above 100 is lossless
_ROWS = 256
_LARGEST_SIDE = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}


def alpha_of(data: bytes) -> np.ndarray | None:
    """(H, W, 1) of the colours' type, or None: the alpha of a PNG or WebP that `decode_image` took."""
    if not _may_be_transparent(data):
        return None
    raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return raw[..., 3:] if raw is not None and raw.ndim == 3 and raw.shape[2] == 4 else None


def _may_be_transparent(data: bytes) -> bool:
    if data.startswith(b"\x89PNG"):
        return data[25] in (4, 6) or 0 <= data.find(b"tRNS") < data.find(b"IDAT")
    return data[8:12] == b"WEBP" and data[12:16] != b"VP8 "


def require_holds(name: str, suffix: str, shape: tuple[int, int], deep: bool, alpha: bool) -> None:
    """Raises DataError naming `name` unless files of that suffix hold (H, W) pictures of 16 bit, or with alpha."""
    height, width = shape
    limit = _LARGEST_SIDE.get(suffix)
    if limit is not None and max(shape) > limit:
        raise DataError(f"{name}: {width}x{height} pixels, more than '{suffix}' holds ({limit} a side); --format png")
    if deep and suffix not in DEEP:
        raise DataError(f"{name}: has 16 bit, '{suffix}' holds 8 only; --format png or tif")
    if alpha and suffix not in WITH_ALPHA:
        raise DataError(f"{name}: has transparency, which '{suffix}' does not keep; --format png or webp")


def encoded(image: np.ndarray, alpha: np.ndarray | None, suffix: str, quality: int | None) -> bytes:
    """(H, W, 1 or 3) RGB uint8 or uint16, and alpha (H, W, 1) of its type, as a file of that suffix.

    The channels of `image` are left in another order. Grey with alpha is stored as RGBA. PNG, TIFF and BMP lose nothing, WebP neither without a `quality` (1 to 100); JPEG
    is of quality 95 unless said.

    Raises: DataError when OpenCV cannot encode it.
    """
    planes = image
    if alpha is not None:
        colours = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
        planes = cv2.cvtColor(np.concatenate([colours, alpha], axis=-1), cv2.COLOR_RGBA2BGRA)
    elif image.shape[-1] == 3:
        planes = image
        for start in range(0, len(planes), _ROWS):  # in place: a second copy may be gigabytes
            planes[start : start + _ROWS] = planes[start : start + _ROWS, :, ::-1].copy()
    flags = [LOSSY[suffix], quality or _DEFAULT_QUALITY[suffix]] if suffix in LOSSY else []
    try:
        done, data = cv2.imencode(suffix, planes, flags)
    except cv2.error as error:
        raise DataError(f"OpenCV cannot encode {image.shape} as '{suffix}' ({error.err})") from error
    if not done:
        raise DataError(f"OpenCV cannot encode {image.shape} as '{suffix}'")
    return data.tobytes()
