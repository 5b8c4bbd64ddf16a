"""Options set on the command line: --force_yml train:ema_decay=0.99 and --debug."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from srkit.errors import OptionError
from srkit.options.problems import Place, Problem, found
from srkit.options.reader import read_value

DEBUG: Mapping[Place, int] = {
    ("val", "val_freq"): 8,
    ("logger", "save_checkpoint_freq"): 8,
    ("logger", "print_freq"): 1,
}
"""What --debug sets: a short trial that validates and saves every 8 iterations and prints each."""


def apply_force(
    data: Mapping[str, Any], force: Sequence[str]
) -> tuple[dict[str, Any], frozenset[Place], list[Problem]]:
    """The data with each "section:key=value" set, the places set, and what was wrong with the words themselves.

    Keys may be new; validation refuses unknown ones afterwards, as it does in files.
    """
    result = dict(data)
    places: set[Place] = set()
    problems: list[Problem] = []
    for word in force:
        keys, equals, text = word.partition("=")
        place: Place = tuple(keys.split(":"))
        if not equals or not all(place):
            problems.append(
                Problem((), f"command line: found {found(word)}, expected key=value, such as train:ema_decay=0.99")
            )
            continue
        try:
            result = _with(result, place, read_value(text))
        except OptionError as error:
            problems.extend(Problem((), f"command line, {keys}: {p}") for p in error.problems)
        else:
            places.add(place)
    return result, frozenset(places), problems


def apply_debug(data: Mapping[str, Any]) -> tuple[dict[str, Any], frozenset[Place]]:
    """The data as --debug changes it, and the places set; what is malformed is left for validation to report."""
    result = dict(data)
    places: set[Place] = set()
    if isinstance(data.get("name"), str):
        result["name"] = data["name"] if data["name"].startswith("debug_") else f"debug_{data['name']}"
        places.add(("name",))
    for place, value in DEBUG.items():
        if isinstance(result.get(str(place[0])) or {}, dict):
            result = _with(result, place, value)
            places.add(place)
    return result, frozenset(places)


def _with(data: Mapping[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy with `value` at `place`; sections that are absent or empty are made. Raises OptionError."""
    key, rest = str(place[0]), place[1:]
    if not rest:
        return {**data, key: value}
    inner = data.get(key)
    if inner is not None and not isinstance(inner, dict):
        raise OptionError("command line", [f"'{key}' is {found(inner)}, not a section; set it as a whole"])
    return {**data, key: _with(inner or {}, rest, value)}
