"""`srkit paired`: models against each other and against the best interpolation, picture by picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from srkit.engine.paired import compare_between, compare_within, table
from srkit.engine.stored import read_results
from srkit.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="results/NAME of a test")
    parser.add_argument("other", type=Path, nargs="?", help="another test on the same pictures")


def run(flags: argparse.Namespace) -> None:
    ours = read_results(flags.results)
    found = compare_within(ours) if flags.other is None else compare_between(ours, read_results(flags.other))
    if not found:
        raise DataError(f"{flags.results}: holds one method in each set; expected two to compare")
    print(table(found), end="")
