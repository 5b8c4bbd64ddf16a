"""The models that the page offers, opened, under names that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from srkit.errors import RefusedError
from srkit.inference.settings import ModelSettings, RunSettings
from srkit.inference.upscaler import Upscaler, load


def open_models(paths: Sequence[Path], run: RunSettings) -> dict[str, Upscaler]:
    """All of them, in the given order.

    Raises: RefusedError for a file that is named twice; WeightsError for one that cannot be used.
    """
    names = labels(paths)
    return {name: load(ModelSettings(path=path), run) for name, path in zip(names, paths)}


def labels(paths: Sequence[Path]) -> list[str]:
    """The file names without suffix; for equal ones, with as much of their folders as it takes.

    Raises: RefusedError for a file that is named twice.
    """
    whole = [path.resolve() for path in paths]
    for number, path in enumerate(whole):
        if path in whole[:number]:
            raise RefusedError(f"-m {paths[number]}: this model file is named twice; name it once")
    return [_label(path, [other for other in whole if other != path]) for path in whole]


def _label(path: Path, others: Sequence[Path]) -> str:
    """The shortest end of the path, without suffix, that none of the others has; with its suffix where that alone differs."""
    for count in range(1, len(path.parts) + 1):
        if all(_end(path, count) != _end(other, count) for other in others):
            return _end(path, count)
    return path.name if all(path.name != other.name for other in others) else str(path)


def _end(path: Path, count: int) -> str:
    return "/".join(path.with_suffix("").parts[-count:])
