"""Reading of option files at the edges: limits of size and depth, tags, anchors, merges, and which line is named."""

from __future__ import annotations

import math

import pytest
from test_options_samples import write

from srkit.errors import OptionError
from srkit.options import reader
from srkit.options.reader import read_file, read_text, read_value


def refusal(call, *arguments):
    with pytest.raises(OptionError) as caught:
        call(*arguments)
    return caught.value.problems


def test_a_folder_and_a_name_that_cannot_be_are_refused_in_the_systems_words(tmp_path):
    assert refusal(read_file, tmp_path) == ["cannot be read: Is a directory"]
    assert refusal(read_file, tmp_path / "a\0b") == ["cannot be read: embedded null byte"]


def test_a_missing_file_says_where_was_looked(tmp_path):
    missing = tmp_path / "none" / "x.yml"
    assert refusal(read_file, missing) == [f"no such file; the folder {missing.parent} does not exist either"]
    (tmp_path / "train_x2.txt").write_text("")
    assert refusal(read_file, tmp_path / "train_x3.yml") == [f"no such file in {tmp_path}"]
    write(tmp_path, "a: 1\n", "train_x2.yaml")
    assert refusal(read_file, tmp_path / "train_x3.yml") == [
        f"no such file; did you mean '{tmp_path / 'train_x2.yaml'}'?"
    ]


def test_a_file_of_32_kib_is_read_and_one_byte_more_is_not(tmp_path):
    text = "a: " + "b" * (32 * 1024 - 3)
    assert read_file(write(tmp_path, text)).data["a"] == text[3:]
    assert refusal(read_file, write(tmp_path, text + "b")) == ["larger than 32 KiB, which no option file is"]


@pytest.mark.parametrize(("before", "line"), [("", 1), ("a: 1\n", 2), ("a: 1\n\n\n", 4)])
def test_bytes_that_are_no_utf_8_are_named_by_their_line(tmp_path, before, line):
    path = tmp_path / "x.yml"
    path.write_bytes(before.encode() + b"# \xff\n")
    assert refusal(read_file, path) == [f"line {line}: not UTF-8 text; save the file as UTF-8"]


def test_32_levels_are_read_and_33_are_not():
    """The section is the first level, the innermost number the last."""
    assert read_text("a: " + "[" * 30 + "1" + "]" * 30, "x").data
    assert refusal(read_text, "a: " + "[" * 31 + "1" + "]" * 31, "x") == ["line 1: nested deeper than 32 levels"]


def test_an_alias_counts_as_deep_as_what_it_stands_for(monkeypatch):
    """*a is at level 4 and stands for three levels, so its number is at level 6."""
    text = "a: &a [[1]]\nb: [[*a]]\n"
    monkeypatch.setattr(reader, "MAX_DEPTH", 6)
    assert read_text(text, "x").data == {"a": [[1]], "b": [[[[1]]]]}
    monkeypatch.setattr(reader, "MAX_DEPTH", 5)
    assert refusal(read_text, text, "x") == ["line 2: nested deeper than 5 levels"]


def test_an_alias_counts_as_many_values_as_it_stands_for(monkeypatch):
    """The section, a list with three numbers, a list, and twice the four values of the first: 1 + 4 + 1 + 8."""
    text = "a: &a [1, 2, 3]\nb: [*a, *a]\n"
    monkeypatch.setattr(reader, "MAX_NODES", 14)
    assert read_text(text, "x").data["b"] == [[1, 2, 3], [1, 2, 3]]
    monkeypatch.setattr(reader, "MAX_NODES", 13)
    assert refusal(read_text, text, "x") == ["line 2: more than 13 values once its aliases are filled in"]


def test_an_alias_of_an_alias_counts_in_full(monkeypatch):
    """1 + [1, 1] 3 + [*a, *a] 7 + [*b] 8 = 19."""
    text = "a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b]\n"
    monkeypatch.setattr(reader, "MAX_NODES", 19)
    read_text(text, "x")
    monkeypatch.setattr(reader, "MAX_NODES", 18)
    assert refusal(read_text, text, "x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1,\n", "line 2: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\nb: \x07\n", "line 2: not valid YAML: special characters are not allowed"),
        ("\n\x07", "line 2: not valid YAML: special characters are not allowed"),
        ("\x07", "line 1: not valid YAML: special characters are not allowed"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "line 1: not valid YAML: a directive or escape has no meaning"),
        ("a: 1\n\tb: 2\n", "line 2: not valid YAML: found character '\\t' that cannot start any token; indent with spaces, not tabs"),
        ("a: 1  # \t\nb: [1,\n", "line 3: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a: 1\n&k b: 2\n", "line 2: a key carries a tag or an anchor; keys are plain words"),
        ("a: 1\n!!str b: 2\n", "line 2: a key carries a tag or an anchor; keys are plain words"),
        ("a: 1\n<<: 3\n", "line 2: '<<' takes a section or a list of sections"),
        ("a: 1\n<<: [{b: 1}, 3]\n", "line 2: '<<' takes a section or a list of sections"),
        ("a: &a [*a]", "line 1: alias '*a' contains itself"),
        ("a: [1, *b]", "line 1: alias '*b' names no anchor"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_line_and_reason(text, told):
    assert refusal(read_text, text, "x") == [told]


def test_of_several_merged_sections_the_first_wins_and_the_own_keys_before_all():
    data = read_text("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2, w: 2}\nc:\n  w: 3\n  <<: [*a, *b]\n", "x").data
    assert data["c"] == {"x": 1, "y": 1, "z": 2, "w": 3}


def test_a_quoted_merge_key_is_a_key_and_repeated_merges_are_no_repetition():
    assert read_text("'<<': {a: 1}\n", "x").data == {"<<": {"a": 1}}
    document = read_text("a: &a {x: 1}\nb: {<<: *a, <<: {y: 2}}\n", "x")
    assert (document.data["b"], document.problems) == ({"x": 1, "y": 2}, [])


def test_a_repeated_key_keeps_its_first_value_and_line():
    document = read_text("a: 1\nb: 2\na: 3\n", "x")
    assert document.data == {"a": 1, "b": 2}
    assert document.lines[("a",)] == 1
    assert [p.text for p in document.problems] == ["given again on line 3; keep one of the two"]


@pytest.mark.parametrize(
    ("text", "value", "mistakes"),
    [
        ("!!int 1.5", 1.5, 1),
        ("!!bool 1", 1, 1),
        ("!!null 0", 0, 1),
        ("!!float true", True, 1),
        ("!!float abc", "abc", 1),
        ("!mine 3", "3", 1),
        ("!!timestamp 2020-01-01", "2020-01-01", 1),
        ("!!seq [1]", [1], 0),
        ("!!map {a: 1}", {"a": 1}, 0),
        ("!!map [1]", [1], 1),
        ("!!seq {a: 1}", {"a": 1}, 1),
        ("! 3", "3", 0),
        ("!!str ~", "~", 0),
        ("!!null ~", None, 0),
        ("!!bool true", True, 0),
        ("!!float 7", 7.0, 0),
        ('"\\0"', "\\0", 1),
        ('"\\ud800x"', "\\ud800x", 1),
    ],
)
def test_a_value_with_a_wrong_tag_is_one_mistake_and_is_still_there_for_the_other_checks(text, value, mistakes):
    document = read_text(f"a: {text}", "x")
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)
    assert len(document.problems) == mistakes


def test_mistakes_in_a_value_of_the_command_line_are_raised():
    assert refusal(read_value, "!mine 3") == [
        "line 1: tag '!mine' is refused; option files hold text, numbers, true/false, lists and sections"
    ]
    assert refusal(read_value, "!!int x") == ["line 1: 'x' is no !!int"]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("-0", 0),
        ("00", "00"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("+.inf", math.inf),
        ("-.nan", "-.nan"),
        ("1.", 1.0),
        (".", "."),
        ("1e", "1e"),
        ("e5", "e5"),
        ("1.5e-3", 0.0015),
        ("inf", "inf"),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("NULL", None),
        ("None", "None"),
    ],
)
def test_a_word_is_a_number_only_where_yaml_1_2_says_so(word, value):
    read = reader.plain_value(word)
    assert (read, type(read)) == (value, type(value))


def test_not_a_number_is_a_number():
    assert math.isnan(reader.plain_value(".nan"))


def test_the_top_level_of_a_command_line_value_may_be_anything():
    assert read_value("[1, {a: ~}]") == [1, {"a": None}]
    assert read_value("# nothing") is None
