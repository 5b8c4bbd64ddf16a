"""What a picture file says about itself, read without decoding a pixel (a 1 MB file can unfold to gigabytes)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from srkit.errors import DataError

# Colour channels by Pillow mode; alpha is not counted, a palette is colour.
CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "I": 1, "I;16": 1, "I;16B": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3}
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
# TIFF compressions OpenCV decodes: none, CCITT (2 to 4), LZW, JPEG, deflate (two codes), PackBits. For others,
# JPEG 2000 in slides among them, it returns a black picture and no error (seen with 4.10 and 5.0).
TIFF_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}
# TIFF photometric interpretation -> (samples in the file, colour channels): white-is-zero, black-is-zero, RGB,
# palette, YCbCr.
TIFF_KINDS = {0: (1, 1), 1: (1, 1), 2: (3, 3), 3: (1, 3), 6: (3, 3)}
EXIF_ORIENTATION = 274
# What the parsers of Pillow and tifffile raise on damaged headers.
_PARSE_ERRORS = (OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, struct.error, OverflowError)


@dataclass(frozen=True)
class ImageHeader:
    """Geometry of a picture file.

    Attributes:
        height, width: In pixels, as stored (no EXIF rotation).
        channels: Colour channels, 1 or 3; alpha is not counted, a palette counts as 3.
        format: PNG, JPEG, BMP, WebP or TIFF, by the file's first bytes, not its name.
        orientation: EXIF orientation, 1 to 8; 1 is upright. srkit never rotates by it.
        frames: Pages or frames that the file holds. srkit reads the first.
    """

    height: int
    width: int
    channels: int
    format: str
    orientation: int = 1
    frames: int = 1


def read_header(file: BinaryIO, source: str) -> ImageHeader:
    """Header of an open picture file.

    Raises: DataError naming `source` when the file is empty, of another kind, damaged, or in a form (CMYK, five
        channels, turned TIFF) that would be decoded into something else than its author saw.
    """
    start = file.read(16)
    file.seek(0)
    kind = _kind(start)
    if not start:
        raise DataError(f"{source}: the file is empty (0 bytes)")
    if kind is None:
        raise DataError(f"{source}: not a PNG, JPEG, BMP, WebP or TIFF picture (its first bytes are {start!r})")
    try:
        return _tiff(file) if kind == "TIFF" else _pillow(file, kind)
    except _Unfit as problem:
        raise DataError(f"{source}: {kind} {problem}") from None
    except _PARSE_ERRORS as error:
        raise DataError(f"{source}: {kind} header cannot be read ({error}); damaged or cut short") from error


class _Unfit(Exception):
    """A readable header of a picture srkit does not take."""


def _kind(start: bytes) -> str | None:
    """Format by signature."""
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"BM"):
        return "BMP"
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WebP"
    return "TIFF" if start.startswith(TIFF_STARTS) else None


def _pillow(file: BinaryIO, kind: str) -> ImageHeader:
    # The classes are called directly: Image.open has a pixel limit of its own, a global that warns or raises first.
    from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    classes: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
        "PNG": PngImagePlugin.PngImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "WebP": WebPImagePlugin.WebPImageFile,
    }
    picture = classes[kind](file)
    if picture.mode not in CHANNELS:
        raise _Unfit(f"in colour mode {picture.mode}; convert it to RGB or grey first")
    orientation = 1
    if "exif" in picture.info:  # getexif() of a PNG without would decode the picture
        exif = Image.Exif()
        exif.load(picture.info["exif"])
        orientation = exif.get(EXIF_ORIENTATION, 1)
    return ImageHeader(
        picture.height, picture.width, CHANNELS[picture.mode], kind, orientation, getattr(picture, "n_frames", 1)
    )


def _tiff(file: BinaryIO) -> ImageHeader:
    # tifffile (a dependency of scikit-image), because Pillow does not know float, planar and many 16-bit TIFFs.
    import tifffile

    size = file.seek(0, 2)
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        compression, photometric = int(page.compression), int(page.photometric)
        if compression not in TIFF_COMPRESSIONS:
            raise _Unfit(f"with compression {page.compression!r}, which OpenCV cannot decode; save it as PNG")
        # OpenCV multiplies 8-bit colours by their alpha, halves the depth of 16-bit grey with alpha, and shuffles
        # planar 16-bit files, all without a word.
        planar = page.samplesperpixel > 1 and int(page.planarconfig) != 1
        samples, channels = TIFF_KINDS.get(photometric, (0, 0))
        if page.samplesperpixel != samples or planar:
            kind = getattr(page.photometric, "name", page.photometric)  # an unknown one is a bare number
            layout = f"{kind} of {page.samplesperpixel} {'planes' if planar else 'channels'}"
            raise _Unfit(f"with {layout}; OpenCV decodes plain grey and RGB reliably, save it so or as PNG")
        end = max((a + b for a, b in zip(page.dataoffsets, page.databytecounts)), default=0)
        if end > size:
            raise _Unfit(f"is cut short: {size} bytes of {end}")
        tag = page.tags.get(EXIF_ORIENTATION)
        if tag is not None and tag.value != 1:  # OpenCV turns TIFFs by it and nothing else; libraries disagree
            raise _Unfit(f"is stored turned (orientation {tag.value}); save it upright")
        return ImageHeader(page.imagelength, page.imagewidth, channels, "TIFF", frames=len(tiff.pages))
