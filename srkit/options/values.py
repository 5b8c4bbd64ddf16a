"""The types option values may have: strict where YAML is loose, and made from the annotations of constructors."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AllowInfNan, BeforeValidator, Field, Strict, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError


def _whole(value: Any) -> Any:
    """5e3 is a whole number although YAML makes it a float; the family's files write `val_freq: !!float 5e3`."""
    return int(value) if type(value) is float and value.is_integer() else value


# Bounds stand before the conversion, else pydantic's JSON schema names them wrongly.
Int = Annotated[int, Strict(), BeforeValidator(_whole)]
Natural = Annotated[int, Strict(), Field(ge=0), BeforeValidator(_whole)]
Count = Annotated[int, Strict(), Field(ge=1), BeforeValidator(_whole)]
Warmup = Annotated[int, Strict(), Field(ge=-1), BeforeValidator(_whole)]
Port = Annotated[int, Strict(), Field(ge=1, le=65535), BeforeValidator(_whole)]
Seed = Annotated[int, Strict(), Field(ge=0, lt=2**32), BeforeValidator(_whole)]
Num = Annotated[float, Strict(), AllowInfNan(False)]
NotNegative = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0)]
Positive = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0)]
Fraction = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, lt=1)]
Share = Annotated[float, Strict(), AllowInfNan(False), Field(ge=0, le=1)]
PositiveShare = Annotated[float, Strict(), AllowInfNan(False), Field(gt=0, le=1)]
Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]


def _is_label(value: str) -> str:
    if value in ("", ".", "..") or not value.isprintable() or "/" in value or "\\" in value or len(value) > 200:
        raise expected("a name without slashes, of 200 characters at most, for it becomes part of file names")
    return value


Label = Annotated[str, Strict(), BeforeValidator(lambda v: _is_label(v) if isinstance(v, str) else v)]
"""Text that becomes a folder, a file name or a log tag."""


def expected(phrase: str) -> PydanticCustomError:
    """The error of a validator of ours; the report puts what was found before it."""
    return PydanticCustomError("expected", "{phrase}", {"phrase": phrase})


class UnsupportedType(TypeError):
    """A constructor argument's annotation has no counterpart in YAML."""


_SCALARS: Mapping[Any, tuple[Any, str]] = {
    int: (Int, "a whole number"),
    float: (Num, "a number"),
    str: (Text, "text"),
    bool: (Flag, "true or false"),
    None: (None, "nothing (~)"),
    type(None): (None, "nothing (~)"),
    Any: (Any, "anything"),
}
_LISTS = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)


def option_type(annotation: Any) -> Any:
    """The strict pydantic type for a constructor's annotation. Raises UnsupportedType."""
    if annotation in _SCALARS:
        return _SCALARS[annotation][0]
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Literal:
        return annotation
    if origin in (Union, types.UnionType):
        return _union(annotation, args)
    if origin is list:
        return list[option_type(args[0])] if args else list[Any]  # type: ignore[misc]
    if origin in _LISTS:  # a Sequence is handed over as a tuple: nobody can change it
        inner = [a if a is Ellipsis else option_type(a) for a in args or (Any, ...)]
        return tuple[tuple(inner if origin is tuple else [inner[0], ...])]  # type: ignore[misc]
    if origin in _MAPPINGS:
        return dict[Text, option_type(args[1]) if args else Any]  # type: ignore[misc]
    raise UnsupportedType(f"{getattr(annotation, '__name__', annotation)}")


def _union(annotation: Any, args: tuple[Any, ...]) -> Any:
    members = [option_type(a) for a in args]
    union: Any = Union[tuple(members)]  # noqa: UP007 - the members are known only here
    if sum(a is not type(None) for a in args) < 2:
        return union
    return Annotated[union, WrapValidator(one_of(describe(annotation)))]


def one_of(phrase: str) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """A wrap validator that reports a union as one expectation instead of one error per member."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise expected(phrase) from None

    return check


IntOrPerAxis = Annotated[Count | tuple[Count, ...], WrapValidator(one_of("a whole number above 0, or one per axis"))]
NaturalOrPerAxis = Annotated[Natural | tuple[Natural, ...], WrapValidator(one_of("a whole number, or one per axis"))]
GpuCount = Annotated[Natural | Literal["auto"], WrapValidator(one_of("a whole number or auto"))]


def describe(annotation: Any) -> str:
    """How a report names a type: "a whole number or a list of numbers"."""
    if annotation in _SCALARS:
        return _SCALARS[annotation][1]
    origin, args = get_origin(annotation) or annotation, get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(a) for a in args)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in args)
    if origin in _LISTS:
        values = [a for a in args if a is not Ellipsis]
        return f"a list of {len(values)} values" if origin is tuple and len(values) > 1 else "a list"
    return "a section"
