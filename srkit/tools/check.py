"""`srkit check x.yml`: everything that would be refused at start, without starting; and what only a look at the data shows.

What a start accepts, and still makes figures worthless, is warned about: pictures or groups that stand in two sets, known
benchmark pictures, shifted pairs. With --strict a warning ends the command with 9.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from srkit.commands import forced
from srkit.errors import ExitCode
from srkit.options import load_options

_PAIRS = 20  # looked at for shifts, of each set


def check(
    file: str,
    mode: Literal["train", "test"],
    key: str | None = None,
    table: Path | None = None,
    models: Sequence[str] = (),
) -> int:
    """Reads, builds and checks; prints what would run. Returns the number of warnings.

    Args:
        models: What `srkit test -m` will be given.
        key, table: Which group a file belongs to, for sets that do not know it themselves (`groups.keys_of`).

    Raises: SrkitError for the first thing that is refused.
    """
    options = load_options(file, mode=mode, force=forced(models))
    warnings = list(options.warnings)
    for warning in options.warnings:
        print(f"warning: {warning}")
    import torch

    from srkit import build
    from srkit.assemble import build_parts, load_pretrained
    from srkit.engine.distributed import Group
    from srkit.test_run import load_models
    from srkit.tools.set_contents import Contents, equal_contents, shared_groups

    group = Group(0, 1, torch.device("cpu"))
    named: dict[str, Any] = {}
    if mode == "train":
        parts = build_parts(options, group)
        load_pretrained(parts)
        named["train"] = parts.dataset
        for name, network in parts.networks.items():
            print(f"{name}: {type(network).__name__}, {build.parameter_count(network):,} parameters")
        sets = parts.eval_sets
    else:
        sets = load_models(options, group, models)[0].sets
    named |= {item.name: item.dataset for item in sets}
    contents = {}
    for name, dataset in named.items():
        print(f"{name}: {build.describe_dataset(dataset)}")
        held = Contents.of(dataset)
        if held is not None:
            contents[name] = held
            print(f"{name}: {held.summary()}")
        warnings += _warned(known(name, dataset) + shifts(name, dataset))
    for a, b in itertools.combinations(contents, 2):
        warnings += _warned(equal_contents(a, contents[a], b, contents[b]))
        warnings += _warned(shared_groups(a, contents[a], b, contents[b], key, table))
    print(
        f"{file}: no problem found" + (f" that would stop a start; {len(warnings)} warnings above" if warnings else "")
    )
    return len(warnings)


def _warned(lines: list[str]) -> list[str]:
    for line in lines:
        print(f"warning: {line}")
    return lines


def known(name: str, dataset: Any) -> list[str]:
    """Pictures of benchmarks in a set that is trained on; building has logged the same line."""
    from srkit.data.known_pictures import known_pictures
    from srkit.data.pairs import PictureDataset

    gt = dataset.reader.sources.get("gt") if isinstance(dataset, PictureDataset) else None
    return [f"{name}: {line}" for line in known_pictures(gt)] if gt is not None and name == "train" else []


def shifts(name: str, dataset: Any) -> list[str]:
    """What some pairs of files show of a shift between their halves."""
    from srkit.data.pairs import PictureDataset
    from srkit.tools.check_pairs import look_at_pairs

    reader = dataset.reader if isinstance(dataset, PictureDataset) else None
    if reader is None or reader.gt is None or reader.lq_is_made:
        return []
    report = look_at_pairs(reader.lq, reader.gt, reader.scale, _PAIRS)
    return [f"{name}: {report.summary}; first: {report.lines[0]}"] if report.lines else []


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from srkit.tools.groups import add_key_arguments

    parser.add_argument("file", help="option file")
    parser.add_argument(
        "--mode", choices=("train", "test"), default="train", help="what it is read for (default train)"
    )
    parser.add_argument(
        "-m",
        nargs="+",
        default=[],
        metavar="FILE",
        help="model files, as `srkit test -m` takes them; means --mode test",
    )
    parser.add_argument("--strict", action="store_true", help="end with 9 when there are warnings")
    add_key_arguments(parser, required=False)


def run(flags: argparse.Namespace) -> ExitCode:
    warnings = check(flags.file, "test" if flags.m else flags.mode, flags.key, flags.table, flags.m)
    return ExitCode.INCOMPLETE if warnings and flags.strict else ExitCode.OK
