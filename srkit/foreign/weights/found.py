"""A file of weights as another project saved it, and the network that an importer finds in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from srkit.errors import WeightsError

State = Mapping[str, Tensor]

# Where several lie in one file, the first of these are the weights an importer looks at; "" is the file itself.
_USUAL = ("params", "params_ema", "state_dict", "model_state_dict", "generator", "discriminator", "model", "")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Args:
        values: Everything under its key; nothing when the file is a bare state dict.
        states: The weights among it, without the prefixes of wrapped networks.
    """

    path: Path
    values: Mapping[str, Any]
    states: Mapping[str, State]

    @property
    def main(self) -> State:
        """The weights, where the project that saved them has no word of its own for them."""
        names = [name for name in _USUAL if name in self.states]
        return self.states[(names or list(self.states))[0]]


def content_of(path: Path, loaded: Any) -> Content:
    """Sorts what `torch.load` returned. Raises WeightsError when there are no weights in it."""
    values = loaded if isinstance(loaded, Mapping) else {}
    bare = _is_state(values)
    states = {"": values} if bare else {name: item for name, item in values.items() if _is_state(item)}
    if not states:
        held = f"keys {first(values)}" if values else f"a {type(loaded).__name__}"
        raise WeightsError(f"{path}: holds no weights, a mapping of names to tensors; found {held}")
    plain = {name: {_WRAPPERS.sub("", key): value for key, value in state.items()} for name, state in states.items()}
    return Content(path, {} if bare else values, plain)


def _is_state(item: Any) -> bool:
    return (
        isinstance(item, Mapping)
        and bool(item)
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in item.items())
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """A network in the file.

    Args:
        arch: Its type in srkit.
        parts: Weights by the part of the network they fill ("" is the whole), under names that part knows.
        origin: Project and file, and what its licence demands.
        options: Options of the arch that the file tells.
        scale: Enlargement of both axes, or of each; None when the file does not tell.
        assumed: What the file leaves open, and what it is taken for unless the user says otherwise; may hold "scale".
        averaged: Averaged weights of the whole, beside those in `parts`.
        color: Of the pictures it was trained on, where the arch has no option `num_in_ch` that tells.
        intensity: How the volumes it was trained on were normalised, a name of `imaging.intensity`; "" when unknown.
    """

    arch: str
    parts: Mapping[str, State]
    origin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: int | tuple[int, ...] | None = None
    assumed: Mapping[str, Any] = field(default_factory=dict)
    averaged: State = field(default_factory=dict)
    color: str = "rgb"
    intensity: str = ""
    iteration: int = 0


def renamed(state: State, rules: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """Keys by the first rule (pattern of the whole key, replacement) that fits; others stay, and are refused later."""
    new = {}
    for key, value in state.items():
        fitting = (match.expand(to) for pattern, to in rules if (match := re.fullmatch(pattern, key)))
        new[next(fitting, key)] = value
    return new


def numbers(state: State, pattern: str) -> list[int]:
    """The different numbers that the pattern's group finds in the keys, ascending."""
    return sorted({int(match[1]) for key in state if (match := re.match(pattern, key))})


def color_of(channels: int) -> str:
    """One channel is luma in all these projects."""
    return "y" if channels == 1 else "rgb"


def first(names: Any, count: int = 6) -> str:
    """The first few names, for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:count]) + (f", ... ({len(listed) - count} more)" if len(listed) > count else "")
