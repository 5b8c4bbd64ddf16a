"""`srkit check x.yml`: everything that would be refused at start, without starting."""

from __future__ import annotations

import argparse
from typing import Literal

from srkit.options import load_options


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
        for name, network in parts.networks.items():
            print(f"{name}: {type(network).__name__}, {build.parameter_count(network):,} parameters")
        sets = parts.eval_sets
    else:
        sets = load_for_test(options, group)[1]
    for item in sets:
        print(f"{item.name}: {build.describe_dataset(item.dataset)}")
    print(f"{file}: no problem found")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file")
    parser.add_argument("--mode", choices=("train", "test"), default="train")


def run(flags: argparse.Namespace) -> None:
    check(flags.file, flags.mode)
