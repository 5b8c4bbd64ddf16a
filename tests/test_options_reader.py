"""YAML reading: numbers and words, repeated keys, hostile and broken files."""

from __future__ import annotations

import time

import pytest
from test_options_samples import TRAIN, refusal, write

from srkit.errors import OptionError
from srkit.options import load_options
from srkit.options.reader import read_file, read_text, read_value
from srkit.options.writer import to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5e3", 500.0),
        ("255.", 255.0),
        ("!!float 1e-4", 1e-4),
        ("!!float 5e3", 5000.0),
        ("!!float 3", 3.0),
        ("!!int 3", 3),
        ("-7", -7),
        ("+7", 7),
        ("~", None),
        ("", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("off", "off"),
        ("0755", "0755"),
        ("0x1F", "0x1F"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("2020-01-01", "2020-01-01"),
        ("'1e-4'", "1e-4"),
        ("!!str 3", "3"),
        ("[1, a, ~]", [1, "a", None]),
        ("{a: 1}", {"a": 1}),
    ],
)
def test_plain_words_are_read_as_yaml_1_2(text, value):
    read = read_value(text)
    assert read == value
    assert type(read) is type(value)


def test_keys_are_always_text():
    assert list(read_text("on: 1\nyes: 2\n3: 4\n~: 5\n", "x").data) == ["on", "yes", "3", "~"]


def test_each_key_has_its_line():
    lines = read_text("a: 1\nb:\n  - x\n  - c: 2\n", "x").lines
    assert lines == {("a",): 1, ("b",): 2, ("b", 0): 3, ("b", 1): 4, ("b", 1, "c"): 4}


def test_merge_keys_fill_what_the_section_does_not_say():
    data = read_text("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n", "x").data
    assert data["use"] == {"x": 1, "y": 3}


def test_a_repeated_key_is_refused_with_both_lines(tmp_path):
    report = refusal(tmp_path, TRAIN + "  total_iter: 5\n")
    assert "line 20, train.total_iter: given again on line 24" in report


def test_a_repeated_key_does_not_hide_other_mistakes(tmp_path):
    report = refusal(tmp_path, TRAIN + "  total_iter: 5\n  foo: 1\n")
    assert "given again" in report
    assert "train.foo" in report


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system [ls]", "!!python/name:os.system", "!mine 3", "!!binary YQ==", "!!set {a}"]
)
def test_tags_other_than_plain_ones_are_refused_with_their_line(tmp_path, tag):
    assert "line 2, x: tag " in refusal(tmp_path, f"name: a\nx: {tag}\n")


BOMB = "a: &a [1, 1]\n" + "".join(f"{y}: &{y} [{', '.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefghi", "bcdefghij"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, r"line \d: more than 100,000 values"),
        ("a: &a [*a]", "line 1: alias '[*]a' contains itself"),
        ("a: *b", "line 1: not valid YAML: found undefined alias|line 1: alias '[*]b' names no anchor"),
        ("x: " + "[" * 30_000, "line 1: nested deeper than 32 levels"),
        ("train:\n\ttotal_iter: 3\n", "line 2: .*indent with spaces, not tabs"),
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- a\n", "the top level is no section"),
        ("a: 1\n---\nb: 2\n", "line 2: a second YAML document"),
        ("? [1]\n: 2\n", "line 1: a key is a list"),
        ("a: [1,\n", "line 2: not valid YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", "line 1: not valid YAML"),
        ('a: "\\UFFFFFFFF"', "line 1: not valid YAML"),
        ('a: 1\nname: "\\ud800"', "line 2, name: holds a character"),
        ('a: 1\nname: "\\0"', "line 2, name: holds a character"),
        ("a: !!int 1.5", "line 1, a: '1.5' is no !!int"),
        ("a: " + "b" * 40_000, "larger than 32 KiB"),
    ],
)
def test_broken_and_hostile_files_are_refused_at_once_naming_the_line(tmp_path, text, reason):
    path = write(tmp_path, text)
    begin = time.monotonic()
    with pytest.raises(OptionError, match=reason):
        load_options(path, mode="train")
    assert time.monotonic() - begin < 1


def test_a_report_has_a_bounded_length(tmp_path):
    report = refusal(tmp_path, TRAIN + "".join(f"k{i}: 1\n" for i in range(2000)))
    assert report.splitlines()[0].endswith(": 51 problems")
    assert report.endswith("and more of the kind; mend these first")


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(tmp_path):
    path = tmp_path / "latin.yml"
    path.write_bytes(b"name: a\n# caf\xe9\n")
    with pytest.raises(OptionError, match="line 2: not UTF-8"):
        read_file(path)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "windows.yml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\nscale: 2\r\n")
    assert read_file(path).data == {"name": "a", "scale": 2}


def test_a_missing_file_names_the_nearest_one(tmp_path):
    write(tmp_path, TRAIN, "train_x2.yml")
    with pytest.raises(OptionError, match=r"no such file; did you mean '.*train_x2\.yml'"):
        load_options(tmp_path / "train_x3.yml", mode="train")


def test_a_folder_is_no_option_file(tmp_path):
    with pytest.raises(OptionError, match="cannot be read"):
        load_options(tmp_path, mode="train")


@pytest.mark.parametrize(
    "value", ["1e-4", "0755", "yes", "~", "12", "", "a: b", "# x", "é\n\tz", " x ", 1e-7, 3.0, None, True, [[2]], {}]
)
def test_what_is_written_is_read_back(value):
    read = read_text(to_yaml({"x": value}), "x").data["x"]
    assert read == value
    assert type(read) is type(value)
