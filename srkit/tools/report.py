"""`srkit report`: a test's results as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", type=Path, help="results/NAME of a test")
    parser.add_argument("--experiment", type=Path, help="experiments/NAME whose training curves are drawn")


def run(flags: argparse.Namespace) -> None:
    from srkit.report.write import write_report

    path = write_report(flags.results, flags.experiment)
    print(f"wrote {path}: {path.stat().st_size / 1e6:.1f} MB")
