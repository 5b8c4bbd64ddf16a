"""`srkit figure`: crops of one picture by several methods, for a paper."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="results/NAME of a test with val.save_img")
    parser.add_argument("set", help="name of the set")
    parser.add_argument("image", help="name of the picture, as in metrics.csv")
    parser.add_argument("-o", "--out", type=Path, required=True, help=".png, .pdf or .svg")
    parser.add_argument(
        "--box",
        type=int,
        nargs=4,
        action="append",
        required=True,
        metavar=("TOP", "LEFT", "HEIGHT", "WIDTH"),
        help="in gt pixels; may be given up to four times",
    )
    parser.add_argument("--methods", nargs="+", default=[], help="which, in which order; default: all, gt last")
    parser.add_argument("--dpi", type=int, default=300, help="of a .png, 300")


def run(flags: argparse.Namespace) -> None:
    from srkit.report.figure import write_figure

    write_figure(flags.results, flags.set, flags.image, flags.box, flags.out, flags.methods, flags.dpi)
    print(f"wrote {flags.out}")
