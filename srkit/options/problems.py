"""One mistake in an option file, its place, and how a report of all of them reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Place = tuple[str | int, ...]
"""Path of a key from the top of the file: ("train", "scheduler", "periods", 0)."""

MAX_REPORTED = 50
"""More lines than this help nobody, and a hostile file could ask for a hundred thousand."""


@dataclass(frozen=True)
class Problem:
    """A mistake.

    Args:
        place: The key it is about; () is the file as a whole.
        text: What was found and what was expected.
        known: For an unknown key: the names allowed there, from which the report makes its hint.
    """

    place: Place
    text: str
    known: tuple[str, ...] | None = None

    def below(self, place: Place) -> Problem:
        """The same mistake seen from further up."""
        return Problem(place + self.place, self.text, self.known)


def shown(place: Place) -> str:
    """train.scheduler.periods[0]; characters that a terminal would obey are escaped."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isprintable() and part else repr(part)[:60])
    return text


def found(value: Any) -> str:
    """How a report quotes a value from the file, in the file's own spelling where it is short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, (list, tuple)):
        inner = [found(v) for v in value[:4]] + (["..."] if len(value) > 4 else [])
        return f"[{', '.join(inner)}]"
    return f"{value!r}"


@dataclass
class Places:
    """Where each key of a file was written: its line, or the command line.

    Args:
        lines: Line number (from 1) of each key.
        forced: Keys set by --force_yml or --debug.
    """

    lines: Mapping[Place, int] = field(default_factory=dict)
    forced: frozenset[Place] = frozenset()

    def line(self, place: Place) -> int:
        """Line of the key, else of the nearest section around it; 0 for the command line or the whole file."""
        for length in range(len(place), 0, -1):
            if place[:length] in self.forced:
                return 0
            if place[:length] in self.lines:
                return self.lines[place[:length]]
        return 0

    def is_forced(self, place: Place) -> bool:
        return any(place[:length] in self.forced for length in range(1, len(place) + 1))

    def prefix(self, place: Place) -> str:
        """ "line 12, train.lr"; the line is left out where there is none."""
        line = self.line(place)
        parts = ["command line"] if self.is_forced(place) else [f"line {line}"] if line else []
        return ", ".join([*parts, *([shown(place)] if place else [])])

    def sentences(self, problems: Iterable[Problem]) -> list[str]:
        """One line per problem in the order of the file, repeated ones once, at most MAX_REPORTED."""
        ordered = sorted(dict.fromkeys(problems), key=lambda p: self.line(p.place))
        lines = [": ".join(filter(None, [self.prefix(p.place), p.text])) for p in ordered[:MAX_REPORTED]]
        if len(ordered) > MAX_REPORTED:
            lines.append("and more of the kind; mend these first")
        return lines
