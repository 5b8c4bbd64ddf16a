"""Small made-up slides. No tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from srkit.imaging.slide_writer import SlideWriter

WITHOUT = "slides are read by OpenSlide: pip install openslide-python openslide-bin"


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """White glass whose left half is noise in pink: tissue, to the pixel where columns end."""
    picture = np.full((height, width, 3), 245, np.uint8)
    pink = np.random.default_rng(seed).integers((150, 60, 110), (230, 140, 190), (height, width // 2, 3))
    picture[:, : width // 2] = pink.astype(np.uint8)
    return picture


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture without fine detail, which JPEG keeps well."""
    return cv2.resize(noise(4, 4, seed), (width, height), interpolation=cv2.INTER_CUBIC)


def write_slide(path: Path, picture: np.ndarray, mpp: float | None = 0.25, **options) -> Path:
    """A slide of exactly these pixels, with smaller levels."""
    height, width = picture.shape[:2]
    with SlideWriter(path, width, height, mpp=mpp, **{"compression": "deflate", "tile": 64, **options}) as writer:
        writer.append(picture)
    return path


def foreign_slide(path: Path, levels: list, mpp: float | None = 0.25, unit: str = "CENTIMETER") -> Path:
    """A flat pyramid of these pictures, by tifffile: srkit has no part in it."""
    tifffile = pytest.importorskip("tifffile")
    resolution = None if mpp is None else (1e4 / mpp, 1e4 / mpp)
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            file.write(
                level, tile=(64, 64), photometric="rgb", metadata=None, subfiletype=int(number > 0),
                resolution=resolution, resolutionunit=unit if mpp else "NONE",
            )  # fmt: skip
    return path
