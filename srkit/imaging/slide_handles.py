"""Slides that a process holds open, and decoding through them: fit for threads, forked workers and thousands of files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from srkit.errors import DataError, RefusedError

_OPEN = 16  # slides a process keeps open
# Decoded tiles a process keeps, of all its slides together; OpenSlide's own would be as much for each.
_CACHE_BYTES = 32 << 20
_handles: dict[tuple[int, str], Any] = {}  # (process, path) -> OpenSlide, the latest used at the end
_caches: dict[int, Any] = {}


def import_openslide() -> Any:
    """The package. RefusedError saying how to install it."""
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the package without the library below it
        raise RefusedError(
            f"slides are read by OpenSlide, which is not here ({error}): pip install openslide-python openslide-bin"
        ) from None
    return openslide


def handle_of(path: str, *, anew: bool = False) -> Any:
    """The open OpenSlide object of this process. DataError naming the path and why it cannot be opened.

    Objects of a parent process are neither used nor closed: its threads may have held their locks when it forked.

    Args:
        anew: Open it even if it is held: the file may be another by now.
    """
    key = (os.getpid(), path)
    held = _handles.pop(key, None)
    handle = _opened(path) if anew or held is None else held
    _handles[key] = handle
    mine = [other for other in list(_handles) if other[0] == key[0]]
    for oldest in mine[:-_OPEN]:
        _handles.pop(oldest, None)  # closed when no thread reads from it any more
    return handle


def _opened(path: str) -> Any:
    openslide = import_openslide()
    try:
        if Path(path).stat().st_size == 0:
            raise DataError(f"{path}: the file is empty (0 bytes)")
        handle = openslide.OpenSlide(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except openslide.OpenSlideUnsupportedFormatError:
        raise DataError(
            f"{path}: not a slide that OpenSlide reads; damaged, cut short, or a TIFF without tiles"
        ) from None
    except (openslide.OpenSlideError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a slide ({error})") from None
    handle.set_cache(_caches.setdefault(os.getpid(), openslide.OpenSlideCache(_CACHE_BYTES)))
    return handle


def decode(
    path: str, place: tuple[int, int], level: int, size: tuple[int, int], background: tuple[int, int, int]
) -> np.ndarray:
    """`size` (width, height) pixels of a level from the level-0 pixel `place` (x, y): (H, W, 3) uint8 RGB.

    Where the slide has no pixels, or transparent ones, `background` shows. DataError naming the place when damaged.
    """
    openslide = import_openslide()
    try:
        pixels = np.asarray(handle_of(path).read_region(place, level, size))
    except openslide.OpenSlideError as error:
        _handles.pop((os.getpid(), path), None)  # after an error OpenSlide refuses everything else of an open file
        where = f"{size[0]}x{size[1]} pixels of level {level} at level-0 pixel {place}"
        raise DataError(f"{path}: {where} cannot be decoded ({error})") from None
    opacity = pixels[..., 3:]
    if opacity.min() == 255:
        return np.ascontiguousarray(pixels[..., :3])
    share = opacity / np.float32(255)
    return np.rint(pixels[..., :3] * share + np.array(background, np.float32) * (1 - share)).astype(np.uint8)
