"""Curves as a picture: panels below each other, drawn with OpenCV, so that no plotting package is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

Curve = Mapping[int, float]  # iteration -> value
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _RIGHT = 900, 260, 90, 28, 30, 20
_COLOURS = ((31, 119, 180), (255, 127, 14), (44, 160, 44), (214, 39, 40))  # RGB, told apart by most eyes
_BLACK, _GREY = (0, 0, 0), (215, 215, 215)
_TICKS = 5


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes.

    Attributes:
        curves: By the name in the legend; a curve may be empty.
        is_log: Logarithmic values; for those above 0.
    """

    title: str
    curves: Mapping[str, Curve]
    is_log: bool = False


def chart(panels: Sequence[Panel]) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    return np.vstack([_panel(panel) for panel in panels])


def _panel(panel: Panel) -> np.ndarray:
    image = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
    shown = {
        name: {k: math.log10(v) if panel.is_log else v for k, v in curve.items() if not panel.is_log or v > 0}
        for name, curve in panel.curves.items()
    }
    iterations = [k for curve in shown.values() for k in curve]
    values = [v for curve in shown.values() for v in curve.values()]
    _text(image, panel.title, (_LEFT, 18))
    if not values:
        _text(image, "no values", (_LEFT, _HEIGHT // 2))
        return image
    first, last, low, high = min(iterations), max(iterations), min(values), max(values)
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5

    def at(iteration: float, value: float) -> tuple[int, int]:
        x = _LEFT + (iteration - first) / max(1, last - first) * (_WIDTH - _LEFT - _RIGHT)
        y = _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        return round(x), round(y)

    for number in range(_TICKS):
        value = low + (high - low) * number / (_TICKS - 1)
        left, right = at(first, value), at(last, value)
        cv2.line(image, left, (max(right[0], _WIDTH - _RIGHT), right[1]), _GREY, 1)
        _text(image, f"{10**value if panel.is_log else value:.4g}", (4, left[1] + 4))
        iteration = first + (last - first) * number // (_TICKS - 1)
        _text(image, f"{iteration:,}", (at(iteration, low)[0] - (40 if number == _TICKS - 1 else 0), _HEIGHT - 8))
    x = _WIDTH - _RIGHT
    for name, colour in reversed(list(zip(shown, _COLOURS * len(shown)))):
        x -= 9 * len(name) + 12
        _text(image, name, (x, 18), colour)
    for curve, colour in zip(shown.values(), _COLOURS * len(shown)):
        points = [at(k, v) for k, v in sorted(curve.items())]
        if len(points) == 1:
            cv2.circle(image, points[0], 3, colour, -1)
        cv2.polylines(image, [np.array(points, np.int32)], False, colour, 2, cv2.LINE_AA)
    return image


def _text(image: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int] = _BLACK) -> None:
    cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
