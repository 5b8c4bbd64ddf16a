"""The disk that a path lies on, or would lie on: folders are often asked about before they are made."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path


def nearest_existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists (a file, where one stands in the way)."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def require_no_pipe(path: str | os.PathLike[str]) -> None:
    """Raises OSError for a pipe, a socket or a device, which would be waited for, perhaps for ever; and for what is not there."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe, a socket or a device, not a file")


def free_disk_bytes(path: Path) -> int:
    """What may still be written there."""
    return shutil.disk_usage(nearest_existing(path)).free
