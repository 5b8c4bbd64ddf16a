"""The valid parts of a file that may have mistakes elsewhere: cross checks run on what could be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from srkit.options.catalog import Context
from srkit.options.components import DatasetOptions, NetworkOptions
from srkit.options.problems import Place
from srkit.options.schema import Options, PathSection, ValSection
from srkit.options.training import TrainSection

Mode = Literal["train", "test"]


@dataclass(frozen=True)
class Sections:
    """What a cross check may look at.

    Args:
        raw: The file as written, to see which keys were given.
        scale: None when it is missing or wrong, like every section below; a wrong dataset is absent from `datasets`.
    """

    raw: Mapping[str, Any]
    mode: Mode
    context: Context
    scale: tuple[int, ...] | None
    datasets: Mapping[str, DatasetOptions]
    network_g: NetworkOptions | None
    network_d: NetworkOptions | None
    path: PathSection | None
    train: TrainSection | None
    val: ValSection | None

    def given(self, place: Place) -> bool:
        """Whether the file (or the command line) has the key."""
        return raw_value(self.raw, place) is not _ABSENT

    @property
    def evaluated(self) -> dict[str, DatasetOptions]:
        """Datasets that are evaluated, by phase."""
        return {phase: item for phase, item in self.datasets.items() if phase != "train"}


class _Absent:
    pass


_ABSENT = _Absent()


def raw_value(raw: Any, place: Place) -> Any:
    """What the file says at a place, or a private marker."""
    for part in place:
        if not isinstance(raw, Mapping) or part not in raw:
            return _ABSENT
        raw = raw[part]
    return raw


def valid_scale(raw: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The top-level scale, if it is one."""
    value = _valid(Options.model_fields["scale"].rebuild_annotation(), raw.get("scale"), None)
    return value if isinstance(value, tuple) else None


def valid_sections(raw: Mapping[str, Any], mode: Mode, context: Context) -> Sections:
    """Validates each section on its own and keeps the valid ones."""
    datasets = raw.get("datasets")
    parts = {
        phase: _valid(DatasetOptions, item, context)
        for phase, item in (datasets if isinstance(datasets, Mapping) else {}).items()
    }
    return Sections(
        raw=raw,
        mode=mode,
        context=context,
        scale=context.scale,
        datasets={phase: item for phase, item in parts.items() if item is not None},
        network_g=_valid(NetworkOptions, raw.get("network_g"), context),
        network_d=_valid(NetworkOptions, raw.get("network_d"), context),
        path=_valid(PathSection, raw.get("path"), context),
        train=_valid(TrainSection, raw.get("train"), context),
        val=_valid(ValSection, raw.get("val"), context),
    )


def _valid(kind: Any, value: Any, context: Context | None) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value, context=context)
    except ValidationError:
        return None  # reported where the whole file is validated
