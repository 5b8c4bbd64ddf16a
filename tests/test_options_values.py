"""The edges of every type of option value, the types made from annotations, and how a report names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, Union

import pytest
from pydantic import TypeAdapter, ValidationError

from srkit.options import values as v
from srkit.options.values import UnsupportedType, describe, option_type


def accepts(kind, value):
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (v.Int, [-5, 0, 5.0], [1.5, True, "1", None]),
        (v.Natural, [0, 1, 2.0], [-1, 0.5, False]),
        (v.Count, [1, 2], [0, -1]),
        (v.Warmup, [-1, 0], [-2]),
        (v.Port, [1, 65535], [0, 65536]),
        (v.Seed, [0, 2**32 - 1], [-1, 2**32]),
        (v.Num, [-1.5, 0, 3], [float("nan"), float("inf"), "1", True]),
        (v.NotNegative, [0, 0.0, 9.5], [-1e-9, float("inf"), "1"]),
        (v.Positive, [1e-9, 1], [0, 0.0, -1, float("nan")]),
        (v.Fraction, [0, 0.999], [1, -0.001, float("nan")]),
        (v.Share, [0, 1], [-0.001, 1.001, float("nan")]),
        (v.PositiveShare, [1e-9, 1], [0, 1.001, float("nan")]),
        (v.Text, ["", "a"], [1, None, b"a"]),
        (v.Flag, [True, False], [0, 1, "true", None]),
        (v.Label, ["a", "a b", "x" * 200, "..."], ["", ".", "..", "a/b", "a\\b", "a\n", "x" * 201, 3]),
        (v.IntOrPerAxis, [1, [1, 2], (3,)], [0, [0], [1, "a"], "1"]),
        (v.NaturalOrPerAxis, [0, [0, 1]], [-1, [-1], "0"]),
        (v.GpuCount, [0, 4, "auto"], [-1, "all", 1.5]),
    ],
)
def test_each_type_takes_its_edge_and_not_the_value_beyond(kind, inside, outside):
    assert [x for x in inside if not accepts(kind, x)] == []
    assert [x for x in outside if accepts(kind, x)] == []


def test_a_whole_float_becomes_an_int_and_no_other_value_changes():
    assert type(TypeAdapter(v.Int).validate_python(5e3)) is int
    assert type(TypeAdapter(v.Num).validate_python(3)) is float


@pytest.mark.parametrize(
    ("annotation", "given", "made"),
    [
        (int, 3.0, 3),
        (bool, True, True),
        (type(None), None, None),
        (None, None, None),
        (Any, {"a": object}, {"a": object}),
        (Literal["a", 2], 2, 2),
        (list[int], [1, 2.0], [1, 2]),
        (list, [1, "a"], [1, "a"]),
        (tuple, [1, "a"], (1, "a")),
        (Sequence, [1, "a"], (1, "a")),
        (Sequence[float], [1, 2], (1.0, 2.0)),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (tuple[int, float], [1, 2], (1, 2.0)),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (dict, {"a": [1]}, {"a": [1]}),
        (Mapping[str, float], {"a": 1}, {"a": 1.0}),
        (int | None, None, None),
        (Optional[int], 3, 3),  # noqa: UP045 - a form that users write
        (Union[int, str], "a", "a"),  # noqa: UP007 - likewise
        (int | list[int] | None, [3], [3]),
    ],
)
def test_annotations_become_types_that_hand_over_these_values(annotation, given, made):
    read = TypeAdapter(option_type(annotation)).validate_python(given)
    assert read == made
    assert type(read) is type(made)


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        (list[int], [1, "a"]),
        (Sequence[float], [1, "a"]),
        (tuple[int, ...], ["a"]),
        (tuple[int, float], [1]),
        (tuple[int, float], [1, 2, 3]),
        (dict[str, int], {"a": "b"}),
        (dict, {1: 2}),
        (int | None, "a"),
        (int | str, [1]),
        (Literal["a", 2], "2"),
    ],
)
def test_annotations_become_types_that_refuse_these_values(annotation, wrong):
    assert not accepts(option_type(annotation), wrong)


@pytest.mark.parametrize("annotation", [object, set[int], bytes, list[bytes], dict[str, bytes], int | bytes])
def test_an_annotation_without_counterpart_in_yaml_is_refused(annotation):
    with pytest.raises(UnsupportedType):
        option_type(annotation)


def test_an_unsupported_type_is_called_by_its_name():
    with pytest.raises(UnsupportedType, match=r"^bytes$"):
        option_type(bytes)


@pytest.mark.parametrize(
    ("annotation", "named"),
    [
        (int, "a whole number"),
        (float, "a number"),
        (str, "text"),
        (bool, "true or false"),
        (None, "nothing (~)"),
        (type(None), "nothing (~)"),
        (Any, "anything"),
        (Literal["a", 2], "'a' or 2"),
        (int | str, "a whole number or text"),
        (Optional[float], "a number or nothing (~)"),  # noqa: UP045 - likewise
        (list[int], "a list"),
        (list, "a list"),
        (Sequence[int], "a list"),
        (tuple[int, ...], "a list"),
        (tuple[int], "a list"),
        (tuple[int, float], "a list of 2 values"),
        (tuple[int, float, str], "a list of 3 values"),
        (dict[str, int], "a section"),
        (Mapping, "a section"),
    ],
)
def test_a_report_names_each_type_in_these_words(annotation, named):
    assert describe(annotation) == named


def messages(kind, value):
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return [error["msg"] for error in caught.value.errors()]


def test_a_union_of_several_types_is_one_expectation_and_one_of_nothing_keeps_the_types_own():
    assert messages(option_type(int | str | None), [1]) == ["a whole number or text or nothing (~)"]
    assert messages(option_type(int | None), [1]) != ["a whole number or nothing (~)"]


def test_the_longest_name_is_said_when_a_name_is_refused():
    told = "a name without slashes, of 200 characters at most, for it becomes part of file names"
    assert messages(v.Label, "a/b") == [told]
