"""Which pictures a report shows, and what of them: crops around the largest error, slices of volumes, within a size."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from srkit.engine.stored import StoredResults
from srkit.errors import DataError
from srkit.report.encode import data_uri
from srkit.report.pictures import Gallery, Shown, worst_place

CROP_PX = 384
SLICES = 24
_SLICE_PX = 256
_PLANES = ("I", "J", "K")


@dataclass
class View:
    """One plane of a picture or volume: panels of equal size, each a list of slices (one of a picture)."""

    title: str
    panels: dict[str, list[str]]
    width: int
    height: int
    start: int = 0


@dataclass
class Look:
    """One picture of the page.

    Args:
        rank: worst, median or best.
        values: Method -> its value of the metric that the rank is of.
    """

    set_name: str
    image: str
    rank: str
    metric: str
    values: dict[str, str]
    left: str
    right: str
    views: list[View] = field(default_factory=list)


def choose(results: StoredResults, set_name: str) -> dict[str, str]:
    """Picture -> rank, by the first metric of the first model; of one or two pictures the worst and the best."""
    metric = results.metrics(set_name)[0]
    model = results.models(set_name)[0]
    values = results.values(set_name, model, metric)
    sign = 1 if results.better(set_name, metric) == "higher" else -1
    order = sorted(values, key=lambda name: sign * values[name].value)
    found = {order[0]: "worst", order[len(order) // 2]: "median", order[-1]: "best"}
    found[order[-1]] = "best" if len(order) > 1 else "only"
    return found


def looks(results: StoredResults, gallery: Gallery, budget_bytes: int) -> tuple[list[Look], list[str]]:
    """The pictures of every set, of about `budget_bytes` characters in all, and why sets have none."""
    sets = {name: choose(results, name) for name in results.rows if results.models(name)}
    share = budget_bytes // max(1, sum(map(len, sets.values())))
    found: list[Look] = []
    reasons = []
    for name, chosen in sets.items():
        try:
            found += [_look(results, gallery, name, image, rank, share) for image, rank in chosen.items()]
        except DataError as error:
            reasons.append(str(error))
    return found, reasons


def _look(results: StoredResults, gallery: Gallery, set_name: str, image: str, rank: str, budget_bytes: int) -> Look:
    shown = gallery.look(set_name, image)
    metric = results.metrics(set_name)[0]
    values = {}
    for method in results.methods(set_name):
        value = results.values(set_name, method, metric)[image].value
        values[method] = f"{value:.4g}" if math.isfinite(value) else "identical"
    look = Look(set_name, image, rank, metric, values, shown.interpolation, shown.models[0])
    look.views = _planes(shown, budget_bytes) if shown.is_volume else [_crop(shown, budget_bytes)]
    return look


def _all_panels(shown: Shown) -> dict[str, np.ndarray]:
    """In the order they stand on the page; errors last."""
    return {**shown.panels, **{f"error of {name}": error for name, error in shown.errors.items()}}


def _crop(shown: Shown, budget_bytes: int) -> View:
    panels = _all_panels(shown)
    top, left = worst_place(shown.errors[shown.models[0]], CROP_PX)
    cut = {name: image[top : top + CROP_PX, left : left + CROP_PX] for name, image in panels.items()}
    height, width = next(iter(cut.values())).shape[:2]
    whole = next(iter(panels.values())).shape[:2] == (height, width)
    title = "whole picture" if whole else f"{width} x {height} pixels from column {left}, row {top}, where it errs most"
    share = budget_bytes // len(cut)
    return View(title, {name: [data_uri(image, share)] for name, image in cut.items()}, width, height)


def _planes(shown: Shown, budget_bytes: int) -> list[View]:
    """Three planes; the slices at equal distances, the outermost left out when there are more than are shown."""
    panels = _all_panels(shown)
    share = budget_bytes // (3 * len(panels) * SLICES)
    views = []
    for axis, plane in enumerate(_PLANES):
        length = next(iter(panels.values())).shape[axis]
        count = min(SLICES, length)
        places = sorted({int((k + 0.5) * length / count) for k in range(count)})
        encoded = {
            name: [data_uri(_slice(volume, axis, at), share, lossless=False) for at in places]
            for name, volume in panels.items()
        }
        height, width = _slice(next(iter(panels.values())), axis, 0).shape
        views.append(View(f"slices along {plane}, {len(places)} of {length}", encoded, width, height, len(places) // 2))
    return views


def _slice(volume: np.ndarray, axis: int, at: int) -> np.ndarray:
    """As `montage.middle_slices` turns it: the first remaining axis runs right, the second up."""
    plane = np.ascontiguousarray(np.rot90(np.take(volume, at, axis)))
    shrink = max(plane.shape) / _SLICE_PX
    if shrink <= 1:
        return plane
    size = (max(1, round(plane.shape[1] / shrink)), max(1, round(plane.shape[0] / shrink)))
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA))
