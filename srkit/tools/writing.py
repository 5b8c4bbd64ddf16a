"""Results that appear under their name when they are whole, and not at all before."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from srkit.errors import RefusedError, StorageError


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which gets its name at the end; nothing stays of a failed attempt.

    Raises: RefusedError when something of that name exists; StorageError when the disk refuses.
    """
    with _neighbour(path) as temporary:
        temporary.mkdir()
        yield temporary


def write_new(path: Path, text: str) -> None:
    """A text file, whole or not at all. Raises as `new_folder` does."""
    with _neighbour(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


@contextmanager
def _neighbour(path: Path) -> Iterator[Path]:
    if path.exists():
        raise RefusedError(f"{path} exists; remove it or give another name")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.rename(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
