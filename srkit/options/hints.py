"""What an unknown key probably meant: a key of another section, or the nearest name in its own."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from srkit.errors import did_you_mean, nearest
from srkit.options.catalog import Catalog
from srkit.options.components import DatasetOptions, LossOptions, MetricOptions
from srkit.options.problems import Problem
from srkit.options.schema import DistSection, LoggerSection, Options, PathSection, ValSection
from srkit.options.section import Section
from srkit.options.training import (
    AdamOptions,
    CosineRestartOptions,
    MultiStepOptions,
    SGDOptions,
    TrainSection,
)

_SECTIONS: tuple[tuple[str, type[Section]], ...] = (
    ("datasets.train", DatasetOptions),
    ("train", TrainSection),
    ("val", ValSection),
    ("path", PathSection),
    ("logger", LoggerSection),
    ("dist_params", DistSection),
    ("the top level", Options),
    ("train.optim_g", AdamOptions),
    ("train.optim_g of type SGD", SGDOptions),
    ("train.scheduler of type MultiStepLR", MultiStepOptions),
    ("train.scheduler of type CosineAnnealingRestartLR", CosineRestartOptions),
    ("train.pixel_opt", LossOptions),
    ("a metric under val.metrics", MetricOptions),
)
_COMPONENTS = (
    ("datasets.train", "dataset"),
    ("network_g", "arch"),
    ("train.pixel_opt", "loss"),
    ("a metric under val.metrics", "metric"),
)
_EVERYWHERE = {"type", "name", "options", "phase"}


@functools.cache
def _homes() -> Mapping[str, str]:
    """Key -> the first section that has it."""
    homes: dict[str, str] = {}
    for label, section in _SECTIONS:
        for key in section.model_fields:
            homes.setdefault(key, label)
    return homes


def _home(problem: Problem, catalog: Catalog) -> str | None:
    key = str(problem.place[-1])
    if key in _EVERYWHERE:
        return None
    home = _homes().get(key)
    # An optimizer's key is looked for in `train`; in a loss, `eps` is more likely another loss's.
    if home is not None and (not home.startswith(("train.optim", "train.sched")) or _is_of_training(problem)):
        return home
    for label, kind in _COMPONENTS:
        takers = catalog.takers(kind, key)
        if takers:
            return f"{label} of type {takers[0]}" if len(takers) == 1 else label
    return None


def _is_of_training(problem: Problem) -> bool:
    return problem.place[0] == "train" and problem.place[1] not in ("pixel_opt", "losses")


def with_hint(problem: Problem, catalog: Catalog) -> Problem:
    """The problem with a hint after its text when it is about an unknown key."""
    if problem.known is None:
        return problem
    key = str(problem.place[-1])
    own = nearest(key[:60], problem.known)
    home = _home(problem, catalog)
    if home is None or (own is not None and own.lower() == key.lower()):
        return Problem(problem.place, problem.text + did_you_mean(key[:60], problem.known))
    return Problem(problem.place, f"{problem.text}; it belongs to {home}")
