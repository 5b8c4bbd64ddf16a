"""The overview of all commands, and the examples at the end of each one's help."""

import argparse
import importlib
import re
import shlex

import pytest
from tiny import ROOT

from srkit.tools.__main__ import main, parser_of
from srkit.tools.catalog import TASKS, TOOLS

OWN = [name for name, tool in TOOLS.items() if not tool.is_entry_point]
CALLS = [(name, words) for name in OWN for words in TOOLS[name].examples]


def test_the_overview_lists_every_command_below_its_task(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    blocks = dict(re.findall(r"^([A-Z][^\n]*):\n((?:  \S[^\n]*\n?)+)", out, re.MULTILINE))
    for name, tool in TOOLS.items():
        assert re.search(rf"^  {name} +\S", blocks[TASKS[tool.task]], re.MULTILINE), name


def test_every_module_of_a_tool_is_in_the_overview():
    modules = {f"srkit.tools.{path.stem}" for path in (ROOT / "srkit/tools").glob("*.py")}
    with_arguments = {m for m in modules if "\ndef add_arguments(parser" in _text(m) and "\ndef run(" in _text(m)}
    assert with_arguments == {tool.module for tool in TOOLS.values() if not tool.is_entry_point}


def _text(module: str) -> str:
    return (ROOT / f"{module.replace('.', '/')}.py").read_text()


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_every_command_has_one_to_three_examples(name):
    assert 1 <= len(TOOLS[name].examples) <= 3


@pytest.mark.parametrize(("name", "words"), CALLS)
def test_every_example_is_accepted_by_its_own_command(name, words):
    parser_of(name).parse_args(shlex.split(words))


@pytest.mark.parametrize("name", OWN)
def test_the_help_of_a_tool_ends_with_its_examples(name):
    text = parser_of(name).format_help()
    assert text.endswith(
        "examples:\n" + "".join(f"  {f'srkit {name} {words}'.rstrip()}\n" for words in TOOLS[name].examples)
    )


def test_option_files_in_examples_exist():
    named = {w for tool in TOOLS.values() for words in tool.examples for w in shlex.split(words) if w.endswith(".yml")}
    assert named
    assert all((ROOT / file).exists() for file in named)


@pytest.mark.parametrize("name", ["train", "test", "infer"])
def test_entry_points_open_through_srkit_too(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: srkit-{name}" in out
    assert out.endswith("examples:\n" + "".join(f"  srkit {name} {words}\n" for words in TOOLS[name].examples))
    assert callable(importlib.import_module(TOOLS[name].module).main)


@pytest.mark.parametrize("name", ["train", "test", "infer"])
def test_examples_of_an_entry_point_are_accepted_by_it(name):
    arguments = importlib.import_module(TOOLS[name].module).arguments
    assert all(arguments(shlex.split(words)) for words in TOOLS[name].examples)


def test_an_unknown_command_is_refused_by_naming_the_known_ones(capsys):
    with pytest.raises(SystemExit) as end:
        main(["dcotor"])
    assert end.value.code == 2
    assert "doctor" in capsys.readouterr().err


def test_a_parser_of_every_tool_can_be_built():
    assert all(isinstance(parser_of(name), argparse.ArgumentParser) for name in OWN)
