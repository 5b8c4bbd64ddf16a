"""The disk that a path lies on, or would lie on: folders are often asked about before they are made."""

from __future__ import annotations

import shutil
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists (a file, where one stands in the way)."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def free_disk_bytes(path: Path) -> int:
    """What may still be written there."""
    return shutil.disk_usage(nearest_existing(path)).free
