"""Picture files to arrays and back: the only place where OpenCV's BGR order exists.

Pixels come as they are stored: EXIF orientation is not applied (`image_size` reports it), because the partner of a
picture has often lost its tag on the way and a pair must not be turned apart. Of several pages or frames, the first
is read. JPEGs are decoded by OpenCV, so values equal `cv2.imread`'s.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np

from srkit.disk import require_no_pipe
from srkit.errors import DataError, StorageError
from srkit.imaging.headers import ImageHeader, read_header

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # damaged files are named by srkit, once

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
MAX_PIXELS = 100_000_000
_DEPTH_16_SUFFIXES = (".png", ".tif", ".tiff")
# WebP above quality 100 is lossless; JPEG quality is OpenCV's default, written down.
_ENCODER_FLAGS = {
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
}


def image_size(path: str | os.PathLike[str]) -> ImageHeader:
    """Height, width and channels from the file's header alone.

    Raises: DataError naming the path and the reason.
    """
    try:
        require_no_pipe(path)
        with open(path, "rb") as file:
            return read_header(file, os.fspath(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture as (H, W, C) uint8 or uint16, C 1 (grey) or 3 (RGB); alpha is dropped, palettes become RGB.

    Args:
        path: PNG, JPEG, BMP, WebP or TIFF, recognised by content.
        max_pixels: Larger pictures are refused before decoding.

    Raises: DataError naming the path and the reason: missing, a folder, empty, not a picture, damaged or cut short,
        too large, or samples other than 8 or 16 bit.
    """
    try:
        require_no_pipe(path)
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    return decode_image(data, os.fspath(path), max_pixels=max_pixels)


def decode_image(data: bytes, source: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """`read_image` for bytes already in memory (an LMDB value); `source` names them in errors."""
    header = read_header(io.BytesIO(data), source)
    shape = (header.height, header.width)
    if header.height * header.width > max_pixels:
        raise DataError(
            f"{source}: {header.width} x {header.height} = {header.height * header.width:,} pixels, "
            f"above the limit of {max_pixels:,} (max_pixels)"
        )
    # OpenCV 4 fills the missing part of a JPEG with grey and says nothing. In scan data FF is followed by 00 or a
    # restart marker, so the last FFDA starts the last scan and a complete file has its end marker after it.
    if header.format == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        raise DataError(f"{source}: JPEG is cut short after {len(data)} bytes (no end marker)")
    try:
        raw = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise DataError(f"{source}: OpenCV cannot decode this {header.format} ({error.err})") from error
    if raw is None or raw.shape[:2] != shape:
        raise DataError(
            f"{source}: {header.format} does not decode ({len(data)} bytes): damaged, cut short or an unusual kind"
        )
    if raw.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{source}: {raw.dtype} samples; 8-bit and 16-bit unsigned pictures are read")
    return _to_rgb(raw, header.channels)


def _to_rgb(raw: np.ndarray, channels: int) -> np.ndarray:
    """OpenCV's (H, W), BGR or BGRA to (H, W, C); grey with alpha arrives as BGRA with three equal channels."""
    if raw.ndim == 2 or raw.shape[2] == 1:
        return raw.reshape(*raw.shape[:2], 1)
    if channels == 1:
        return np.ascontiguousarray(raw[..., :1])
    return cv2.cvtColor(raw, cv2.COLOR_BGR2RGB if raw.shape[2] == 3 else cv2.COLOR_BGRA2RGB)


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write (H, W, 1 or 3) RGB uint8 or uint16 whole or not at all; the suffix picks the format.

    16 bit needs PNG or TIFF. WebP is lossless, JPEG (quality 95) is not. Missing folders are made.

    Raises: DataError for a suffix, shape or type that cannot be written; StorageError when the disk refuses.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: no picture format for suffix '{suffix}'; known: {', '.join(IMAGE_SUFFIXES)}")
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: {image.dtype} {image.shape} is not a (H, W, 1 or 3) picture of 8 or 16 bit")
    if image.dtype == np.uint16 and suffix not in _DEPTH_16_SUFFIXES:
        raise DataError(f"{path}: '{suffix}' holds 8 bit only; write 16 bit as .png or .tif")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image
    try:
        done, data = cv2.imencode(suffix, bgr, _ENCODER_FLAGS.get(suffix, []))
    except cv2.error as error:
        raise DataError(f"{path}: OpenCV cannot encode {image.shape} as '{suffix}' ({error.err})") from error
    if not done:
        raise DataError(f"{path}: OpenCV cannot encode {image.shape} as '{suffix}'")
    _replace(path, data.tobytes())


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` through a neighbour, so that no reader ever sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error


def _unreadable(path: str | os.PathLike[str], error: OSError) -> DataError:
    reasons = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not a picture"}
    return DataError(f"{os.fspath(path)}: {reasons.get(type(error), f'cannot be read ({error.strerror})')}")
