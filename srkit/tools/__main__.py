"""`srkit TOOL ...` (or `python -m srkit.tools TOOL ...`): the small tools, each in a file of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from srkit.commands import guarded
from srkit.errors import ExitCode


def main(argv: Sequence[str] | None = None) -> ExitCode:
    parser = argparse.ArgumentParser(prog="srkit", description="Small tools around training and testing.")
    tools = parser.add_subparsers(dest="tool", required=True)

    check = tools.add_parser("check", help="all that a start would refuse, without starting")
    check.add_argument("file")
    check.add_argument("--mode", choices=("train", "test"), default="train")
    listing = tools.add_parser("list", help="what `type:` can name: archs, datasets, losses, metrics, recipes")
    listing.add_argument("kind", choices=("archs", "datasets", "losses", "metrics", "recipes"))
    schema = tools.add_parser("schema", help="write the JSON schema that editors use")
    schema.add_argument("file", nargs="?", default="options/srkit.schema.json")
    example = tools.add_parser("example-data", help="make a small paired data set from scikit-image's pictures")
    example.add_argument("folder", nargs="?", default="datasets/quickstart")
    picture = tools.add_parser("compare", help="one picture: lq, bicubic, sr and gt side by side")
    picture.add_argument("lq")
    picture.add_argument("sr")
    picture.add_argument("gt")
    picture.add_argument("out")
    picture.add_argument("--crop", type=int, nargs=4, metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"), help="in gt pixels")

    return guarded(lambda: _run(parser.parse_args(argv)))


def _run(flags: argparse.Namespace) -> ExitCode:
    if flags.tool == "check":
        from srkit.tools.check import check

        check(flags.file, flags.mode)
    elif flags.tool == "list":
        from srkit.tools.listing import listing

        print(listing(flags.kind))
    elif flags.tool == "schema":
        from srkit.tools.schema import write_schema

        write_schema(flags.file)
    elif flags.tool == "example-data":
        from srkit.tools.example_data import make_example_data

        make_example_data(flags.folder)
    elif flags.tool == "compare":
        from srkit.tools.compare import compare

        compare(flags.lq, flags.sr, flags.gt, flags.out, flags.crop)
    return ExitCode.OK


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
