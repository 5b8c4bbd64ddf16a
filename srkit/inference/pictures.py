"""Picture files through a network: depth, grey and transparency stay as they are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from srkit.disk import require_no_pipe
from srkit.engine.checkpoint import write_atomically
from srkit.engine.log import logger
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES, decode_image
from srkit.imaging.headers import ImageHeader, read_header
from srkit.imaging.rgba import LOSSY, alpha_of, encoded, require_holds
from srkit.imaging.tiles import Tick
from srkit.inference.confidence import Confidence
from srkit.inference.settings import PictureSettings
from srkit.inference.upscaler import Upscaler


class Pictures:
    """PNG, JPEG, BMP, WebP and TIFF, see `Kind`.

    Pixels come as they are stored: EXIF orientation is not applied, and neither it nor a colour profile is copied.
    """

    name = "pictures"
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES
    extensions: tuple[str, ...] = IMAGE_SUFFIXES
    unit = "pixels"

    def __init__(self, upscaler: Upscaler, settings: PictureSettings, confidence: Confidence | None = None) -> None:
        self._upscaler, self._settings, self._confidence = upscaler, settings, confidence

    def takes(self, source: Path) -> bool:
        return source.suffix.lower() in self.suffixes

    def stem(self, source: Path) -> str:
        return source.stem

    def extension(self, source: Path) -> str:
        if self._settings.format is not None:
            return self._settings.format
        suffix = source.suffix.lower()
        return ".png" if suffix in (".jpg", ".jpeg") else suffix

    def require(self, source: Path, out: Path) -> None:
        suffix, settings = out.suffix.lower(), self._settings
        if settings.format is not None and _plain(suffix) != _plain(settings.format):
            raise RefusedError(f"-o {out}: ends with '{suffix}', --format says '{settings.format}'; leave one out")
        if self._confidence is not None:
            self._confidence.require_pictures(settings, out)
        if settings.quality is not None and suffix not in LOSSY:
            raise RefusedError(
                f"--quality {settings.quality}: {out.name} loses nothing and has none; add --format jpg or webp"
            )

    def restore(self, source: Path, out: Path, tick: Tick) -> int:
        try:
            require_no_pipe(source)
            data = source.read_bytes()
        except OSError as error:
            raise DataError(f"{source}: cannot be read ({error.strerror})") from error
        image = decode_image(data, str(source), max_pixels=self._settings.max_pixels)
        alpha = alpha_of(data)
        suffix, scale = out.suffix.lower(), self._upscaler.scale
        size = (image.shape[0] * scale[0], image.shape[1] * scale[1])
        require_holds(str(source), suffix, size, image.dtype == np.uint16, alpha is not None)
        self._say_what_is_lost(source, read_header(io.BytesIO(data), str(source)))
        if self._confidence is None:
            made = self._upscaler.picture(image, tick)
        else:
            made, spread = self._upscaler.picture_and_spread(image, tick)
            self._confidence.write_picture(source, out, image, spread)  # first: where the result is, its map is too
        opacity = None if alpha is None else self._upscaler.enlarged_alpha(alpha)
        write_atomically(out, encoded(made, opacity, suffix, self._settings.quality))
        return size[0] * size[1]

    @staticmethod
    def _say_what_is_lost(source: Path, header: ImageHeader) -> None:
        if header.frames > 1:
            logger.warning(
                "%s: holds %d pages or frames; the first is restored, the others are not", source, header.frames
            )
        if header.orientation != 1:
            logger.warning(
                "%s: stored turned (EXIF orientation %d) and restored as stored; the result carries no such mark",
                source,
                header.orientation,
            )


def _plain(suffix: str) -> str:
    return {".jpeg": ".jpg", ".tiff": ".tif"}.get(suffix, suffix)
