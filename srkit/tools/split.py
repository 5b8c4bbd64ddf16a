"""`srkit split`: pictures parted by group, so that no slide, patient or person stands on two sides.

Keys are sorted, then ordered by a hash of (seed, key), and cut by their number: the same on every machine, whatever the
order of the folder. Files are listed, never moved. A folder of NIfTI files or of slides is split as one of pictures is.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES
from srkit.imaging.slides import find_slides
from srkit.imaging.volumes import find_volumes
from srkit.tools.groups import add_key_arguments, keys_of
from srkit.tools.writing import new_folder

TABLE = "split.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="pictures or volumes to part, high-resolution ones where there are pairs")
    parser.add_argument("out", type=Path, help=f"new folder for the lists and {TABLE}")
    add_key_arguments(parser, required=True)
    cut = parser.add_mutually_exclusive_group()
    cut.add_argument(
        "--parts", nargs="+", default=["train=0.8", "val=0.1", "test=0.1"], help="NAME=SHARE of the groups"
    )
    cut.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help="lists of K folds instead: every group is tested once, trained on K - 1 times",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recursive", action="store_true", help="also the folders below")


def run(flags: argparse.Namespace) -> None:
    shares = parse_shares(flags.parts) if flags.folds is None else fold_shares(flags.folds)
    keys = keys_of(names_of(flags.folder, flags.recursive), flags.key, flags.table)
    parts = part_groups(keys.values(), shares, flags.seed)
    rows = [(name, key, parts[key]) for name, key in keys.items()]
    lists = {part: [name for name, _, where in rows if where == part] for part in shares}
    if flags.folds is not None:
        lists |= {f"{fold}_train": [name for name, _, where in rows if where != fold] for fold in shares}
        lists = {name if name.endswith("_train") else f"{name}_test": names for name, names in lists.items()}
    with new_folder(flags.out) as out:
        for part, names in lists.items():
            text = "".join(f"{name}\n" for name in names)
            (out / f"{part}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["name", "key", "part", "seed"])
        writer.writerows([*row, flags.seed] for row in rows)
        (out / TABLE).write_text(table.getvalue(), encoding="utf-8", errors="surrogateescape")
    for part, names in lists.items():
        groups = len({keys[name] for name in names})
        share = f"{len(names) / len(rows):.0%}"
        print(f"{part}: {groups} groups, {len(names)} files ({share}) in {flags.out / part}.txt")


def names_of(folder: str, recursive: bool) -> list[str]:
    """Names of a folder's volumes, or else of its slides, or else of its pictures, relative to it. Raises DataError."""
    if Path(folder).is_dir():
        if volumes := find_volumes(folder, recursive):
            return [path.relative_to(folder).as_posix() for path in volumes]
        slides = find_slides(Path(folder), recursive=recursive)
        if any(
            not name.lower().endswith(IMAGE_SUFFIXES) for name in slides
        ):  # a .tif may be either, and is listed as a picture
            return slides
    source, problems = Folders(recursive=recursive).open("folder", folder)
    Findings("split", problems).refuse()
    return list(source.names)


def fold_shares(folds: int) -> dict[str, float]:
    """Equal shares named fold1, fold2, ... Raises RefusedError below 2."""
    if folds < 2:
        raise RefusedError(f"--folds: found {folds}, expected 2 or more")
    return {f"fold{k + 1}": 1 / folds for k in range(folds)}


def parse_shares(words: Iterable[str]) -> dict[str, float]:
    """ "train=0.8" ... -> shares, which must sum to 1. Raises RefusedError."""
    shares: dict[str, float] = {}
    for word in words:
        match = re.fullmatch(r"([A-Za-z0-9_-]+)=(\d*\.?\d+)", word)
        if match is None or match[1] in shares or float(match[2]) == 0:
            raise RefusedError(
                f"--parts: found '{word}', expected different names with shares above 0, such as train=0.8"
            )
        shares[match[1]] = float(match[2])
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise RefusedError(f"--parts: the shares sum to {sum(shares.values()):g}, expected 1")
    return shares


def part_groups(keys: Iterable[str], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Key -> part. Every part gets a group at least, and beyond that the number nearest to its share.

    Raises: DataError when there are fewer groups than parts.
    """
    ordered = sorted(sorted(set(keys)), key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    if len(ordered) < len(shares):
        raise DataError(f"split: {len(ordered)} groups ({', '.join(ordered)}) cannot make {len(shares)} parts")
    ends: list[int] = []
    reached = 0.0
    for number, share in enumerate(shares.values(), 1):
        reached += share
        low, high = (ends[-1] if ends else 0) + 1, len(ordered) - (len(shares) - number)
        ends.append(min(max(int(reached * len(ordered) + 0.5), low), high))
    starts = [0, *ends[:-1]]
    return {key: part for part, start, end in zip(shares, starts, ends) for key in ordered[start:end]}
