"""YAML text -> plain values and the line of every key. Refuses what is ambiguous, hostile or not plain data.

Plain words follow YAML 1.2 and not PyYAML's YAML 1.1: `1e-4` is a number; `yes`, `on`, `0755` and `12:30:45` are text;
keys are always text. Built on PyYAML's event stream, so no object is ever constructed from a tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from srkit.errors import OptionError, nearest
from srkit.options.problems import Place, Problem, found

MAX_BYTES = 32 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000

_INT = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(
    r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
)
_WORDS = {
    w: v
    for v, ws in ((True, "true True TRUE"), (False, "false False FALSE"), (None, "~ null Null NULL"))
    for w in ws.split()
}
_TAG = "tag:yaml.org,2002:"


@dataclass
class Document:
    """What a file says. `problems` are mistakes that did not keep the rest from being read: repeated keys, tags."""

    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_file(path: str | Path) -> Document:
    """Reads an option file. Raises OptionError when it is missing, unreadable, not UTF-8 or not YAML."""
    path, source = Path(path), str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise OptionError(source, [f"no such file{_nearest_file(path)}"]) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise OptionError(source, [f"cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(raw) > MAX_BYTES:
        raise OptionError(source, [f"larger than {MAX_BYTES // 1024} KiB, which no option file is"])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise OptionError(source, [f"line {line}: not UTF-8 text; save the file as UTF-8"]) from None
    return read_text(text, source)


def read_text(text: str, source: str) -> Document:
    """Reads the text of an option file, whose top level is a section. Raises OptionError."""
    composer = _Composer(text, source)
    data = composer.document()
    if data is None:
        raise OptionError(source, ["empty; an option file has sections such as name, scale, datasets, network_g"])
    if not isinstance(data, dict):
        raise OptionError(source, ["the top level is no section; expected lines such as 'name: my_experiment'"])
    return Document(data, composer.lines, composer.problems)


def read_value(text: str) -> Any:
    """Reads one value given on the command line, by the rules of files. Raises OptionError."""
    composer = _Composer(text, "command line")
    value = composer.document()
    if composer.problems:
        raise OptionError("command line", [p.text for p in composer.problems])
    return value


def plain_value(text: str) -> Any:
    """The value of an unquoted word."""
    if not text or text in _WORDS:
        return _WORDS.get(text)
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1] in "fnFN" else text)
    return text


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"; the folder {path.parent} does not exist either"
    name = nearest(path.name, (p.name for p in path.parent.iterdir() if p.suffix in (".yml", ".yaml")))
    return f"; did you mean '{path.parent / name}'?" if name else f" in {path.parent.resolve()}"


@dataclass(frozen=True)
class _Node:
    value: Any
    size: int  # nodes, aliases counted as often as they are used
    height: int


class _Composer:
    """Turns one document's events into values; depth and size are bounded while reading."""

    def __init__(self, text: str, source: str) -> None:
        self.text, self.source = text, source
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._anchors: dict[str, _Node | None] = {}  # None while the anchored value is still being read
        self._count = 0
        self._line = 0
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)

    def document(self) -> Any:
        try:
            self._next()  # start of the stream
            if isinstance(self._next(), yaml.StreamEndEvent):
                return None
            node = self._node(self._next(), (), 1)
            self._next()  # end of the document
            if not isinstance(self._next(), yaml.StreamEndEvent):
                raise self._refused("a second YAML document begins; one file holds one")
        except OptionError:
            raise
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise self._invalid(error) from None
        return node.value

    def _next(self) -> yaml.Event:
        event = next(self._events)
        if event.start_mark is not None:
            self._line = event.start_mark.line + 1
        return event

    def _refused(self, text: str) -> OptionError:
        return OptionError(self.source, [f"line {self._line}: {text}"])

    def _invalid(self, error: Exception) -> OptionError:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            self._line = mark.line + 1
        elif isinstance(position := getattr(error, "position", None), int):
            self._line = self.text.count("\n", 0, position) + 1
        line = (self.text.splitlines() or [""])[min(self._line, len(self.text.splitlines()) or 1) - 1]
        tabs = "; indent with spaces, not tabs" if "\t" in line else ""
        what = (
            getattr(error, "problem", None) or getattr(error, "reason", None) or "a directive or escape has no meaning"
        )
        return self._refused(f"not valid YAML: {what}{tabs}")

    def _node(self, event: yaml.Event, place: Place, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._refused(f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            node = self._alias(event, depth)
            self._count += node.size
        else:
            self._count += 1
            node = self._new(event, place, depth)
        if self._count > MAX_NODES:
            raise self._refused(f"more than {MAX_NODES:,} values once its aliases are filled in")
        return node

    def _alias(self, event: Any, depth: int) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            kind = "contains itself" if event.anchor in self._anchors else "names no anchor"
            raise self._refused(f"alias '*{event.anchor}' {kind}")
        if depth + node.height - 1 > MAX_DEPTH:
            raise self._refused(f"nested deeper than {MAX_DEPTH} levels")
        return node

    def _new(self, event: Any, place: Place, depth: int) -> _Node:
        anchor, before = event.anchor, self._count
        value: Any
        if anchor:
            self._anchors[anchor] = None
        if isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event, place, "map")
            value, height = self._mapping(place, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, place, "seq")
            value, height = self._sequence(place, depth)
        else:
            value, height = self._scalar(event, place), 0
        node = _Node(value, self._count - before + 1, height + 1)
        if anchor:
            self._anchors[anchor] = node
        return node

    def _sequence(self, place: Place, depth: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        height = 0
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            here = (*place, len(values))
            self.lines.setdefault(here, self._line)
            node = self._node(event, here, depth + 1)
            values.append(node.value)
            height = max(height, node.height)
        return values, height

    def _mapping(self, place: Place, depth: int) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        height = 0
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refused("a key is a list, a section or an alias; keys are plain words")
            here, line = (*place, self._text(event, place)), self._line
            if event.anchor or event.tag:
                raise self._refused("a key carries a tag or an anchor; keys are plain words")
            is_merge = event.value == "<<" and event.style is None
            if not is_merge and here[-1] in own:
                self.problems.append(Problem(here, f"given again on line {line}; keep one of the two"))
            if not is_merge:
                self.lines.setdefault(here, line)
            node = self._node(self._next(), here, depth + 1)
            height = max(height, node.height)
            if is_merge:
                self._merge(merged, node.value)
            else:
                own.setdefault(str(here[-1]), node.value)
        return {**merged, **own}, height

    def _merge(self, into: dict[str, Any], value: Any) -> None:
        for part in value if isinstance(value, list) else [value]:
            if not isinstance(part, dict):
                raise self._refused("'<<' takes a section or a list of sections")
            for key, inner in part.items():
                into.setdefault(key, inner)

    def _text(self, event: yaml.ScalarEvent, place: Place) -> str:
        text: str = event.value
        if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
            self._mistake(place, "holds a character that no file name or log can hold")
            return text.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")
        return text

    def _scalar(self, event: yaml.ScalarEvent, place: Place) -> Any:
        text, tag = self._text(event, place), event.tag
        if tag is None:
            return plain_value(text) if event.style is None else text
        if tag in ("!", _TAG + "str"):
            return text
        value = plain_value(text)
        if tag == _TAG + "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        wanted = {"int": int, "bool": bool, "null": type(None)}.get(tag.removeprefix(_TAG))
        if wanted is not None and type(value) is wanted:
            return value
        if wanted is not None or tag == _TAG + "float":
            self._mistake(place, f"{found(text)} is no !!{tag.removeprefix(_TAG)}")
            return value
        self._refuse_tag(tag, place)
        return text

    def _check_tag(self, event: Any, place: Place, plain: str) -> None:
        if event.tag not in (None, "!", _TAG + plain):
            self._refuse_tag(event.tag, place)

    def _refuse_tag(self, tag: str, place: Place) -> None:
        name = tag.replace(_TAG, "!!")
        self._mistake(
            place, f"tag {name!r} is refused; option files hold text, numbers, true/false, lists and sections"
        )

    def _mistake(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place, text if place else f"line {self._line}: {text}"))
