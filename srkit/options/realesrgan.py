"""Real-ESRGAN's option files keep the degradation at the top level; srkit has it where it is used.

Keys are moved before anything is checked, together with the lines they stand on: mistakes in them are reported under
srkit's place and the file's line. Only files whose model_type is one of Real-ESRGAN's are touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srkit.options.problems import Place, Places, Problem, found, shown

MODELS = ("RealESRNetModel", "RealESRGANModel")
_STAGE = (
    "resize_prob",
    "resize_range",
    "gaussian_noise_prob",
    "noise_range",
    "poisson_scale_range",
    "gray_noise_prob",
    "jpeg_range",
)
_OF_DATASET = ("gt_size", "queue_size", *_STAGE, "second_blur_prob", *(f"{name}2" for name in _STAGE))
_OF_LOSSES: Mapping[str, tuple[str, ...]] = {
    "l1_gt_usm": ("pixel_opt",),
    "percep_gt_usm": ("perceptual_opt",),
    "gan_gt_usm": ("gan_opt",),
    "gt_usm": ("pixel_opt", "perceptual_opt"),
}
TOP_LEVEL: Mapping[str, str] = {
    **{key: f"datasets.train.{key}" for key in _OF_DATASET},
    **{key: " and ".join(f"train.{loss}.target" for loss in losses) for key, losses in _OF_LOSSES.items()},
}
"""Key at the top of such a file -> where srkit has it."""


def in_srkit_places(data: dict[str, Any], places: Places) -> tuple[dict[str, Any], Places, list[Problem]]:
    """The file's data with these keys moved, where each was written, and what stands in their way."""
    if data.get("model_type") not in MODELS:
        return data, places, []
    result = {key: value for key, value in data.items() if key not in TOP_LEVEL}
    lines, forced, problems = dict(places.lines), set(places.forced), []
    for key in (k for k in data if k in TOP_LEVEL):
        if key in _OF_LOSSES and type(data[key]) is not bool:
            problems.append(Problem((key,), f"found {found(data[key])}, expected true or false"))
            continue
        for place, value in _moves(key, data[key], result):
            section, name = _section(result, place[:-1]), str(place[-1])
            if section is None:
                problems.append(Problem((key,), f"found without {shown(place[:-1])}, to which it belongs"))
            elif section.get(name, value) != value:
                text = f"found {found(value)}, but {shown(place)} is {found(section[name])}; they must agree"
                problems.append(Problem((key,), text))
            else:
                result = _with(result, place, value)
                lines[place] = places.line((key,))
                if places.is_forced((key,)):
                    forced.add(place)
    return result, Places(lines, frozenset(forced)), problems


def _moves(key: str, value: Any, data: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    """Where the key's value goes, and what it is there. The file may lack losses; their flags then ask for nothing."""
    if key in _OF_DATASET:
        yield ("datasets", "train", key), value
        return
    if key == "gt_usm":
        yield ("datasets", "train", "gt_usm"), value
    for loss in _OF_LOSSES[key]:
        if value and _section(data, ("train", loss)) is not None:
            yield ("train", loss, "target"), "gt_usm"


def _section(data: Mapping[str, Any], place: Place) -> Mapping[str, Any] | None:
    """The section at that place; None where there is none."""
    section: Any = data
    for key in place:
        section = section.get(key) if isinstance(section, Mapping) else None
    return section if isinstance(section, Mapping) else None


def _with(data: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy with `value` at `place`, whose sections exist."""
    key, rest = str(place[0]), place[1:]
    return {**data, key: _with(data[key], rest, value) if rest else value}
