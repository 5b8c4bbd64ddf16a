"""What a test looked at and made, read again: lq, interpolation, sr of every model and gt of a picture or volume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from srkit import build
from srkit.data.forms import Form, VolumeForm, form_of
from srkit.data.sample import Sample
from srkit.engine.evaluator import EvalSet
from srkit.engine.stored import StoredResults
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import read_image
from srkit.imaging.resize import nearest_upscale
from srkit.imaging.slices import enlarge
from srkit.imaging.volumes import read_volume
from srkit.options import Options, load_options

ERROR_SPAN = 0.2
"""Share of white (of a volume: of the span it is shown in) at which an error map is brightest."""

_BRIGHT = 99.5
"""Percentile of gt's voxels above its least value that is shown white: a few bright vessels would darken the rest."""


@dataclass(frozen=True)
class Shown:
    """One picture or volume as every method has it, all of gt's size, uint8.

    Args:
        panels: Caption -> (H, W, 3), or (I, J, K) of a volume; lq, interpolation, models, gt. What is of a model alone
            stands in `models`.
        errors: Model -> (H, W, 3) or (I, J, K): how far it is from gt.
    """

    panels: dict[str, np.ndarray]
    models: tuple[str, ...]
    interpolation: str
    errors: dict[str, np.ndarray]
    is_volume: bool = False


class Gallery:
    """Pictures of a test, by set and name.

    Raises: RefusedError when the option file saved with the results is missing or its data are not what they were.
    """

    def __init__(self, results: StoredResults) -> None:
        self.results = results
        path = results.folder / "options.yml"
        if not path.is_file():
            raise RefusedError(f"{path}: no such file; test again, then the options lie beside the values")
        self.options: Options = load_options(path, mode="test")
        seen = [told.get("read_as") for told in results.about["models"].values()]
        sets = build.build_eval_sets(self.options, seen[0] if seen else None)  # as the first model saw them
        self._sets = {item.name: item for item in sets}

    def look(self, set_name: str, image: str) -> Shown:
        """Raises DataError when the picture is gone, or the test was run without `val.save_img`."""
        item = self._set(set_name)
        sample = self._sample(item, image)
        models = tuple(self.results.models(set_name))
        form = form_of(sample)
        restored = {name: self._restored(form, set_name, name, image) for name in models}
        make = _volumes if len(item.scale) == 3 else _pictures
        return make(sample, item.scale, restored)

    def _set(self, name: str) -> EvalSet:
        if name not in self._sets:
            raise DataError(f"{self.options.source}: has no set {name}; its sets are {', '.join(self._sets)}")
        item = self._sets[name]
        if self.results.about.get("read", {}).get(name) != build.reading(self.options, item):
            raise DataError(f"{name}: its data changed after the test, so test again")
        return item

    def _sample(self, item: EvalSet, image: str) -> Sample:
        names = self.results.images(item.name)
        if image not in names:
            raise DataError(f"{self.results.folder}: {item.name} has no picture {image} (first: {names[0]})")
        index = names.index(image)
        sample: Sample | None = item.dataset.sample(index, None) if index < len(item.dataset) else None
        if sample is None or sample.name != image or "gt" not in sample.images:
            raise DataError(
                f"{item.name}: picture {index + 1} is no longer {image}; its data changed after the test, so test again"
            )
        return sample

    def _restored(self, form: Form, set_name: str, model: str, image: str) -> Path:
        folder = self.results.folder / "visualization" / set_name
        suffix = f"_{self.options.val.suffix}" if self.options.val.suffix else ""
        inner = folder / model if len(self.results.about["models"]) > 1 else folder
        path = form.path(inner / f"{image}{suffix}")
        if path.is_file():
            return path
        raise DataError(f"{inner}: holds no {image}{suffix}; test with val.save_img: true to see pictures")


def _pictures(sample: Sample, scale: tuple[int, ...], restored: Mapping[str, Path]) -> Shown:
    form = form_of(sample)
    baseline = form.baselines[-1]
    lq, gt = sample.images["lq"], sample.images["gt"]
    white = sample.white
    made = {name: read_image(path) for name, path in restored.items()}
    arrays = {
        "lq": nearest_upscale(form.low(lq), scale),
        baseline: form.enlarged(baseline, lq, scale),
        **made,
        "gt": gt,
    }
    shown = {name: _eight_bit(image, white) for name, image in arrays.items()}
    size = shown["gt"].shape
    shown = {name: image[: size[0], : size[1]] for name, image in shown.items()}
    errors = {name: picture_error(shown[name], shown["gt"]) for name in made}
    return Shown(shown, tuple(made), baseline, errors)


def _eight_bit(image: np.ndarray, white: float) -> np.ndarray:
    """(H, W, 3) uint8."""
    scaled = np.clip(np.floor(image * (255 / white) + 0.5), 0, 255).astype(np.uint8)
    return np.repeat(scaled, 3, axis=-1) if scaled.shape[-1] == 1 else scaled


def picture_error(sr: np.ndarray, gt: np.ndarray) -> np.ndarray:
    """(H, W, 3): mean absolute difference of the channels, black at 0, bright from ERROR_SPAN of white on."""
    error = np.abs(sr.astype(np.float32) - gt).mean(-1) / (255 * ERROR_SPAN)
    coloured = cv2.applyColorMap((np.clip(error, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(coloured[..., ::-1])


def _volumes(sample: Sample, scale: tuple[int, ...], restored: Mapping[str, Path]) -> Shown:
    form = sample.form
    assert isinstance(form, VolumeForm)
    baseline = form.baselines[-1]
    lq, gt = sample.images["lq"], sample.images["gt"][..., 0]
    made = {name: read_volume(path)[0] for name, path in restored.items()}
    arrays = {
        "lq": enlarge(lq[..., 0], scale, 0),
        baseline: form.enlarged(baseline, lq, scale)[..., 0],
        **made,
        "gt": gt,
    }
    low = float(gt.min())
    high = float(np.percentile(gt[gt > low], _BRIGHT))
    shown = {name: _window(volume, low, high) for name, volume in arrays.items()}
    span = (high - low) * ERROR_SPAN
    errors = {name: _window(np.abs(made[name].astype(np.float32) - gt), 0.0, span) for name in made}
    return Shown(shown, tuple(made), baseline, errors, is_volume=True)


def _window(volume: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (volume.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)


def worst_place(error: np.ndarray, side: int) -> tuple[int, int]:
    """Top and left of the square of that side (less in smaller pictures) with the largest mean error."""
    height, width = error.shape[:2]
    rows, columns = min(side, height), min(side, width)
    sums = cv2.integral(error.astype(np.float32).sum(-1))
    boxes = sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]
    top, left = np.unravel_index(int(np.argmax(boxes)), boxes.shape)
    return int(top), int(left)
