"""`--confidence FILE`: beside each result a map of how far the truth may be from it, by a calibration of this model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from srkit.engine.checkpoint import write_atomically
from srkit.engine.confidence import read_calibration
from srkit.engine.log import logger
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.montage import heat, middle_slices, strip
from srkit.imaging.volumes import VolumeHeader, volume_stem, write_volume
from srkit.inference.opening import OpenModel
from srkit.inference.settings import PictureSettings, VolumeSettings

_BRIGHT = 99.9  # percentile of a map that its picture shows brightest


class Confidence:
    """A calibration that fits the model.

    Raises: DataError for a file that is none, RefusedError for one of another model, scale or arithmetic.
    """

    def __init__(self, path: Path, model: OpenModel, precision: str) -> None:
        self.path, self.calibration = path, read_calibration(path)
        told = self.calibration
        with model.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        pairs = {
            "model": (f"{told.model} (sha256 {told.model_sha256[:12]})", f"{model.path} (sha256 {digest[:12]})"),
            "weights": (told.weights, model.key),
            "scale": (str(told.scale), str(model.scale)),
            "precision": (told.precision, precision),
        }
        if told.model_sha256 == digest:
            del pairs["model"]  # the same file may lie elsewhere now
        for name, (expected, found) in pairs.items():
            if expected != found:
                raise RefusedError(
                    f"--confidence {path}: was made with {name} {expected}, this is {found}; run `srkit calibrate` for it"
                )

    def require_pictures(self, settings: PictureSettings, out: Path) -> None:
        """RefusedError for results that lose grey levels."""
        if out.suffix.lower() in (".jpg", ".jpeg") or settings.quality is not None:
            raise RefusedError(f"--confidence: {out.name} would not keep the grey levels; write PNG, without --quality")

    def require_volumes(self, settings: VolumeSettings) -> None:
        """RefusedError for results that are no longer the network's own."""
        changed = {
            "--target_spacing": settings.target_spacing_mm is not None,
            "--bias_correct": settings.bias_correct,
            "--register": settings.register is not None,
            f"--dtype {settings.dtype}": settings.dtype != "float32",
        }
        if given := [flag for flag, is_set in changed.items() if is_set]:
            raise RefusedError(f"--confidence: {', '.join(given)} changes the result after the network; leave it out")

    def map_of(self, out: Path, ending: str = ".tif") -> Path:
        """Where the map of that result is written."""
        stem = volume_stem(out) if ending.startswith(".nii") else out.stem
        return out.with_name(f"{stem}_halfwidth{ending}")

    def write_picture(self, source: Path, out: Path, image: np.ndarray, spread: np.ndarray) -> None:
        """A TIFF of float32, (H, W), in grey levels of the picture, and a PNG to look at. Raises StorageError.

        Args:
            image: The input (H, W, C).
            spread: Of its result, 1.0 is white.
        """
        told, white = self.calibration, float(np.iinfo(image.dtype).max)
        if (image.shape[-1], white) != (told.channels, told.white):
            raise DataError(
                f"{source}: has {image.shape[-1]} channels and white {white:.0f}; --confidence {self.path} was made of pictures "
                f"with {told.channels} and {told.white:.0f}"
            )
        self._say_unlike(source, spread)
        half = told.half_width(spread) * np.float32(white)
        done, data = cv2.imencode(".tif", half)
        assert done
        write_atomically(self.map_of(out), data.tobytes())
        limit = float(np.percentile(half, _BRIGHT))
        write_image(self.map_of(out, ".png"), strip({f"half-width, 0 to {limit:.3g} grey levels": heat(half, limit)}))

    def write_volume(
        self, source: Path, out: Path, spread: np.ndarray, span: float, affine: np.ndarray, like: VolumeHeader
    ) -> None:
        """A packed NIfTI of float32 in the volume's unit, and a PNG of its middle slices. Raises StorageError.

        Args:
            spread: (I, J, K), 1.0 is `span`.
            affine: Of the result.
        """
        self._say_unlike(source, spread)
        half = self.calibration.half_width(spread) * np.float32(span)
        path = self.map_of(out, ".nii.gz")
        write_volume(path, half, affine, like=like)
        limit = float(np.percentile(half, _BRIGHT))
        shown = heat(middle_slices(half, 0.0, limit)[..., 0].astype(np.float32), 255.0)
        write_image(path.with_name(f"{volume_stem(path)}.png"), strip({f"half-width, 0 to {limit:.4g}": shown}))

    def _say_unlike(self, source: Path, spread: np.ndarray) -> None:
        if told := self.calibration.unlike(spread):
            logger.warning("%s: %s", source, told)
