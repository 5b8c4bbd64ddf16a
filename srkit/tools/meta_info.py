"""`srkit meta`: the pictures of a folder as a list, a line each: `0001.png (1404,2040,3)`. For `meta_info_file`."""

from __future__ import annotations

import argparse
from pathlib import Path

from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.data.sources import Shape, in_threads
from srkit.errors import DataError
from srkit.tools.writing import write_new


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="pictures to list, high-resolution ones where there are pairs")
    parser.add_argument("out", type=Path, help="new list file")
    parser.add_argument("--recursive", action="store_true", help="also the folders below")
    parser.add_argument(
        "--min_size",
        type=int,
        nargs=2,
        default=(1, 1),
        metavar=("SHORT", "LONG"),
        help="only pictures whose shorter and longer side have at least so many pixels",
    )


def run(flags: argparse.Namespace) -> None:
    source, problems = Folders(recursive=flags.recursive).open("folder", flags.folder)

    def shape(k: int) -> Shape | str:
        try:
            return source.shape(k)
        except DataError as error:
            return str(error)

    shapes = list(in_threads(shape, range(len(source.names))))
    findings = Findings("meta", problems)
    findings.add("files are unreadable", [s for s in shapes if isinstance(s, str)])
    findings.refuse()
    short, long = sorted(flags.min_size)
    lines = [
        f"{name} ({height},{width},{channels})\n"
        for name, (height, width, channels) in zip(source.names, (s for s in shapes if not isinstance(s, str)))
        if min(height, width) >= short and max(height, width) >= long
    ]
    if not lines:
        raise DataError(f"meta: none of the {len(shapes)} pictures in {flags.folder} has sides of {short} and {long}")
    write_new(flags.out, "".join(lines))
    print(f"{len(lines)} of {len(shapes)} pictures in {flags.out}")
