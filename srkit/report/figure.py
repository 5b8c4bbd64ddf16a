"""A figure for papers: gt with marked boxes, and beside it what every method makes of each box."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from srkit.engine.stored import StoredResults, read_results
from srkit.errors import RefusedError, StorageError, did_you_mean
from srkit.report.needs import require
from srkit.report.pictures import Gallery, Shown

Box = Sequence[int]
"""top, left, height, width in gt pixels."""

_COLOURS = ("#e6194b", "#0082c8", "#f58231", "#3cb44b")
_SUFFIXES = (".png", ".pdf", ".svg")
_WIDTH_IN = 7.0  # of a page's text
_CHARACTERS_PER_IN = 14  # of the captions


def write_figure(
    folder: Path,
    set_name: str,
    image: str,
    boxes: Sequence[Box],
    out: Path,
    methods: Sequence[str] = (),
    dpi: int = 300,
) -> None:
    """Writes the figure. Crops are drawn pixel by pixel, not smoothed; below each stands the picture's first metric.

    Args:
        boxes: One to four; crops of a row are equally large.
        methods: Which, in which order; default: all but lq and nearest, gt last.

    Raises: RefusedError for boxes outside the picture, unknown methods, volumes or suffixes; DataError as Gallery.look.
    """
    require(["matplotlib"])
    if out.suffix not in _SUFFIXES:
        raise RefusedError(f"{out}: expected a name ending with {', '.join(_SUFFIXES)}")
    if not 1 <= len(boxes) <= len(_COLOURS):
        raise RefusedError(f"--box: found {len(boxes)}, expected one to {len(_COLOURS)}")
    results = read_results(folder)
    if set_name not in results.rows:
        raise RefusedError(f"{folder}: no set is named '{set_name}'{did_you_mean(set_name, results.rows)}")
    shown = Gallery(results).look(set_name, image)
    if shown.is_volume:
        raise RefusedError(f"{set_name} holds volumes, figures are of pictures; `srkit report` shows their slices")
    names = _methods(shown, methods)
    _require_inside(boxes, shown.panels["gt"].shape)
    figure = _drawn(results, set_name, image, shown, boxes, names)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=dpi)
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror})") from error


def _methods(shown: Shown, wanted: Sequence[str]) -> list[str]:
    unknown = [name for name in wanted if name not in shown.panels]
    if unknown:
        raise RefusedError(f"--methods: '{unknown[0]}' is none of them{did_you_mean(unknown[0], shown.panels)}")
    return list(wanted) or [name for name in shown.panels if name != "lq"]


def _require_inside(boxes: Sequence[Box], shape: tuple[int, ...]) -> None:
    for top, left, height, width in boxes:
        if top < 0 or left < 0 or height < 1 or width < 1 or top + height > shape[0] or left + width > shape[1]:
            raise RefusedError(
                f"--box: {top} {left} {height} {width} (top, left, height, width) leaves gt of {shape[0]} x {shape[1]} "
                "pixels (height x width)"
            )


def _drawn(
    results: StoredResults, set_name: str, image: str, shown: Shown, boxes: Sequence[Box], names: Sequence[str]
) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    metric = results.metrics(set_name)[0]
    gt = shown.panels["gt"]
    whole = _WIDTH_IN * 0.3
    crop = (_WIDTH_IN - whole) / len(names)
    height = max(whole * gt.shape[0] / gt.shape[1], sum(crop * b[2] / b[3] for b in boxes)) + 0.5
    figure: Any = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    grid = figure.add_gridspec(len(boxes), 1 + len(names), width_ratios=[whole, *[crop] * len(names)])
    axes = figure.add_subplot(grid[:, 0])
    _show(axes, gt)
    axes.set_xlabel(image, fontsize=8)
    for (top, left, rows, columns), colour in zip(boxes, _COLOURS):
        axes.add_patch(Rectangle((left - 0.5, top - 0.5), columns, rows, fill=False, edgecolor=colour, linewidth=1.5))
    for row, ((top, left, rows, columns), colour) in enumerate(zip(boxes, _COLOURS)):
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[row, 1 + column])
            _show(axes, shown.panels[name][top : top + rows, left : left + columns])
            for spine in axes.spines.values():
                spine.set(edgecolor=colour, linewidth=1.5)
            if row == len(boxes) - 1:
                label = _broken(name, max(6, int(crop * _CHARACTERS_PER_IN)))
                axes.set_xlabel("\n".join([*label, _value(results, set_name, image, name, metric)]), fontsize=7)
    return figure


def _broken(name: str, width: int) -> list[str]:
    """The lines of a name of `width` characters at most, broken behind "_" and "-" where that is possible."""
    lines = [""]
    for part in re.split(r"(?<=[_-])", name):
        pieces = [part[k : k + width] for k in range(0, len(part), width)]
        if pieces and len(lines[-1] + pieces[0]) <= width:
            lines[-1] += pieces.pop(0)
        lines += pieces
    return [line for line in lines if line]


def _show(axes: Any, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _value(results: StoredResults, set_name: str, image: str, method: str, metric: str) -> str:
    row = results.values(set_name, method, metric).get(image)
    if row is None:
        return metric if method == "gt" else ""
    return f"{row.value:.2f}" if math.isfinite(row.value) and abs(row.value) >= 10 else f"{row.value:.4f}"
