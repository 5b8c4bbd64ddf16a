"""Charts as SVG text: values by method, metric against metric, training curves. Text takes the page's colour."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_INK = "#010203"  # becomes the page's text colour, so that one chart serves light and dark
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by colour-blind eyes too
_GREYS = ("#8a8a8a", "#b0b0b0", "#6a6a6a")
_MOST_POINTS = 300
_VIOLIN_FROM = 20
_salt = itertools.count()  # ids inside a page differ from chart to chart


def colours(methods: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """Models have colours, interpolation greys."""
    others = [m for m in methods if m not in models]
    chosen = {m: _COLOURS[i % len(_COLOURS)] for i, m in enumerate(models)}
    return {**{m: _GREYS[i % len(_GREYS)] for i, m in enumerate(others)}, **chosen}


def distribution(title: str, values: Mapping[str, Sequence[float]], colour: Mapping[str, str]) -> str:
    """A line a method: its values as points on a box, from 20 values on a violin. Infinite ones are left out."""
    finite = {m: np.array([v for v in found if math.isfinite(v)]) for m, found in values.items()}
    finite = {m: v for m, v in finite.items() if v.size}
    figure, axes = _figure(1.1 + 0.5 * max(1, len(finite)))
    draw = np.random.default_rng(0)
    for place, (method, found) in enumerate(finite.items()):
        at = len(finite) - place
        if found.size >= _VIOLIN_FROM and np.ptp(found) > 0:
            shape = axes.violinplot(found, [at], orientation="horizontal", widths=0.8, showextrema=False)
            for body in shape["bodies"]:
                body.set(facecolor=colour[method], edgecolor="none", alpha=0.35)
            axes.plot([np.median(found)] * 2, [at - 0.3, at + 0.3], color=colour[method], linewidth=2)
        elif found.size > 1:
            line = {"color": colour[method]}
            axes.boxplot(
                found, positions=[at], orientation="horizontal", widths=0.5, showfliers=False,
                boxprops=line, whiskerprops=line, capprops=line, medianprops={**line, "linewidth": 2},
            )  # fmt: skip
        points = found if found.size <= _MOST_POINTS else draw.choice(found, _MOST_POINTS, replace=False)
        axes.scatter(
            points, at + draw.uniform(-0.16, 0.16, points.size), s=9, color=colour[method], alpha=0.7, linewidth=0
        )
    axes.set_yticks(range(len(finite), 0, -1), list(finite))
    axes.set_ylim(0.4, len(finite) + 0.6)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(title)
    axes.grid(axis="x", alpha=0.25)
    return _svg(figure)


def scatter(
    across: str, up: str, values: Mapping[str, tuple[Sequence[float], Sequence[float]]], colour: Mapping[str, str]
) -> str:
    """A point a picture: one metric against another, by method."""
    figure, axes = _figure(3.4)
    draw = np.random.default_rng(0)
    for method, pair in values.items():
        points = np.array([p for p in zip(*pair, strict=True) if all(map(math.isfinite, p))]).reshape(-1, 2)
        if len(points) > _MOST_POINTS:
            points = points[draw.choice(len(points), _MOST_POINTS, replace=False)]
        axes.scatter(points[:, 0], points[:, 1], s=14, color=colour[method], alpha=0.75, linewidth=0, label=method)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=_INK, fontsize=8)
    return _svg(figure)


def curves(title: str, lines: Mapping[str, Sequence[tuple[int, float]]], log: bool = False) -> str:
    """Numbers over iterations; long lines are thinned to means of neighbours."""
    figure, axes = _figure(2.8)
    for index, (name, points) in enumerate(lines.items()):
        steps = np.array_split(np.array(points, float), min(len(points), _MOST_POINTS))
        means = np.array([part.mean(0) for part in steps])
        mark = "o" if len(points) <= 40 else None
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(means[:, 0], means[:, 1], label=name, color=colour, linewidth=1.5, marker=mark, markersize=3)
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_title(title, fontsize=10, color=_INK)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, labelcolor=_INK, fontsize=9)
    return _svg(figure)


def _figure(height_in: float) -> Any:
    from matplotlib.figure import Figure  # without pyplot: no window system, nothing kept between charts

    figure = Figure(figsize=(5.0, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for spine in axes.spines.values():
        spine.set_edgecolor(_INK)
        spine.set_alpha(0.4)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    return figure, axes


def _svg(figure: Any) -> str:
    """Only the <svg> element, with the ids of its own."""
    import matplotlib

    out = io.StringIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": str(next(_salt)), "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return re.sub(_INK, "currentColor", text[text.index("<svg") :])
