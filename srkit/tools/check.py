"""`srkit check x.yml`: everything that would be refused at start, without starting."""

from __future__ import annotations

import argparse
from typing import Any, Literal

from srkit.options import load_options

_PAIRS = 20  # looked at for shifts, of each set


def check(file: str, mode: Literal["train", "test"]) -> None:
    """Reads, builds and checks; prints what would run. Raises SrkitError for the first thing that is refused."""
    options = load_options(file, mode=mode)
    for warning in options.warnings:
        print(f"warning: {warning}")
    import torch

    from srkit import build
    from srkit.assemble import build_parts, load_pretrained
    from srkit.engine.distributed import Group
    from srkit.test_run import load_for_test

    group = Group(0, 1, torch.device("cpu"))
    if mode == "train":
        parts = build_parts(options, group)
        load_pretrained(parts)
        print(f"train: {build.describe_dataset(parts.dataset)}")
        warn_of_shifts("train", parts.dataset)
        for name, network in parts.networks.items():
            print(f"{name}: {type(network).__name__}, {build.parameter_count(network):,} parameters")
        sets = parts.eval_sets
    else:
        sets = load_for_test(options, group)[1]
    for item in sets:
        print(f"{item.name}: {build.describe_dataset(item.dataset)}")
        warn_of_shifts(item.name, item.dataset)
    print(f"{file}: no problem found")


def warn_of_shifts(name: str, dataset: Any) -> None:
    """Prints what some pairs of files show of a shift between their halves."""
    from srkit.data.pairs import PictureDataset
    from srkit.tools.check_pairs import look_at_pairs

    reader = dataset.reader if isinstance(dataset, PictureDataset) else None
    if reader is None or reader.gt is None or reader.lq_is_made:
        return
    report = look_at_pairs(reader.lq, reader.gt, reader.scale, _PAIRS)
    if report.lines:
        print(f"warning: {name}: {report.summary}; first: {report.lines[0]}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file")
    parser.add_argument("--mode", choices=("train", "test"), default="train")


def run(flags: argparse.Namespace) -> None:
    check(flags.file, flags.mode)
