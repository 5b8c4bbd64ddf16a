"""Base of every section of an option file: frozen, no unknown keys, and mistakes in our words instead of pydantic's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from srkit.errors import did_you_mean
from srkit.options.problems import MAX_REPORTED, Place, Problem, found

_PLAIN = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a section (lines 'key: value')",
    "model_type": "a section (lines 'key: value')",
    "model_attributes_type": "a section (lines 'key: value')",
}
_BOUNDS = {
    "greater_than": ("a number above {:g}", "gt"),
    "greater_than_equal": ("a number not below {:g}", "ge"),
    "less_than": ("a number below {:g}", "lt"),
    "less_than_equal": ("a number not above {:g}", "le"),
    "too_short": ("a list of at least {:g} value(s)", "min_length"),
    "too_long": ("a list of at most {:g} value(s)", "max_length"),
}


class Section(BaseModel):
    """One section. Unknown keys are mistakes; an empty section (`path:` with nothing below) is one without keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    unknown: ClassVar[str] = "unknown option"

    @model_validator(mode="wrap")
    @classmethod
    def explain(cls, raw: Any, handler: Any, info: ValidationInfo) -> Any:
        """Validates, and turns every error into a Problem with its place below this section."""
        raw = {} if raw is None else raw
        try:
            return handler(raw)
        except ValidationError as error:
            known = tuple(f.alias or name for name, f in cls.model_fields.items())
            raise collected(problems_of(error, raw, cls.unknown, known)) from None


def collected(problems: Sequence[Problem]) -> PydanticCustomError:
    """Carries problems through pydantic to the section above."""
    return PydanticCustomError("problems", "invalid section", {"problems": list(problems)})


def problems_of(
    error: ValidationError, raw: Any, unknown: str = "unknown option", known: tuple[str, ...] = ()
) -> list[Problem]:
    """The problems in a validation error, those of sections below included; places are relative to `raw`."""
    problems: list[Problem] = []
    for details in error.errors(include_url=False):
        problems.extend(_problems(details, raw, unknown, known))
        if len(problems) > MAX_REPORTED:
            break
    return problems


def _problems(details: ErrorDetails, raw: Any, unknown: str, known: tuple[str, ...]) -> Iterator[Problem]:
    kind, ctx, value = details["type"], details.get("ctx", {}), details["input"]
    place = _place_in(raw, details["loc"], kind)
    if kind == "problems":
        yield from (p.below(place) for p in ctx["problems"])
    elif kind == "extra_forbidden":
        yield Problem(place, unknown, known)
    elif kind == "missing" and isinstance(place[-1], int):
        yield Problem(place[:-1], f"found {found(value)}, expected more values")
    elif kind == "missing":
        yield Problem(place, "missing; it has no default")
    elif kind == "union_tag_not_found":
        yield Problem((*place, "type"), "missing; it has no default")
    elif kind == "union_tag_invalid":
        names = re.findall(r"'([^']+)'", ctx["expected_tags"])
        hint = did_you_mean(ctx["tag"][:60], names).partition("; known")[0]
        yield Problem((*place, "type"), f"found {found(value.get('type'))}, expected {' or '.join(names)}{hint}")
    else:
        yield Problem(place, f"found {found(value)}, expected {_expected(kind, ctx)}{_hint(kind, value)}")


def _place_in(raw: Any, loc: Sequence[str | int], kind: str) -> Place:
    """The part of pydantic's location that exists in the file: it also names union members."""
    place: list[str | int] = []
    for index, part in enumerate(loc):
        is_last = index == len(loc) - 1
        if isinstance(raw, Mapping) and part in raw:
            raw = raw[part]
        elif isinstance(raw, (list, tuple)) and isinstance(part, int):
            raw = raw[part] if part < len(raw) else None
        elif not (is_last and kind == "missing"):
            continue
        place.append(part)
    return tuple(place)


def _expected(kind: str, ctx: Mapping[str, Any]) -> str:
    if kind == "expected":
        return str(ctx["phrase"])
    if kind == "literal_error":
        return str(ctx["expected"])
    if kind in _BOUNDS:
        phrase, bound = _BOUNDS[kind]
        return phrase.format(ctx[bound])
    return _PLAIN.get(kind, "another kind of value")


def _hint(kind: str, value: Any) -> str:
    if not isinstance(value, str):
        return ""
    if kind == "bool_type" and value.lower() in ("yes", "on", "y", "no", "off", "n"):
        return f"; write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
    if kind in ("int_type", "float_type") and re.fullmatch(r"[-+]?[0-9.]+([eE][-+]?[0-9]+)?", value):
        return "; write the number without quotes or leading zeros"
    return ""
