"""`srkit slice`: pictures cut into tiles, lq and gt at once; tiles.json beside them tells `srkit join` the way back."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.data.names import stem
from srkit.data.pairing import by_key, pattern_key, require_pattern, require_template
from srkit.data.sources import Source, in_threads
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.tile_grid import TileGrid
from srkit.tools.writing import new_folder

GEOMETRY = "tiles.json"
Numbering = Literal["grid", "index"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="pictures to cut; with --gt, the low-resolution ones")
    parser.add_argument("out", type=Path, help="new folder for their tiles")
    parser.add_argument("--size", type=int, required=True, help="side of a tile in pixels, border included")
    parser.add_argument("--stride", type=int, required=True, help="pixels from tile to tile")
    parser.add_argument("--pad", type=int, default=0, help="mirrored border, both sides together (default 0)")
    parser.add_argument("--gt", nargs=2, metavar=("FOLDER", "OUT"), help="also cut their high-resolution partners")
    parser.add_argument("--scale", type=int, help="gt size / lq size, with --gt")
    parser.add_argument("--filename_tmpl", default="{}", help="name of lq from the name of gt, such as {}x4")
    parser.add_argument("--pair_pattern", help="regular expression whose group is the id, which then names the tiles")
    parser.add_argument("--recursive", action="store_true", help="also the folders below")
    parser.add_argument(
        "--names", choices=("grid", "index"), default="grid", help="a_1_2.png (row, column) or BasicSR's a_s002.png"
    )


def run(flags: argparse.Namespace) -> None:
    if (flags.gt is None) != (flags.scale is None):
        raise RefusedError("--gt and --scale belong together: gt tiles are cut where lq's are, times the scale")
    require_template(flags.filename_tmpl)
    if flags.pair_pattern is not None:
        require_pattern(flags.pair_pattern)
    grid, folders = TileGrid(flags.size, flags.stride, flags.pad), Folders(recursive=flags.recursive)
    if flags.gt is None:
        lq, problems = folders.open("folder", flags.folder)
        by_key(lq.names, flags.folder, problems, flags.pair_pattern)
        halves = [Half(lq, flags.out, grid)]
    else:
        gt, lq, problems = folders.open_pairs(flags.gt[0], flags.folder, flags.filename_tmpl, flags.pair_pattern)
        halves = [Half(lq, flags.out, grid), Half(gt, Path(flags.gt[1]), grid.times(flags.scale), flags.scale)]
    Findings("slice", problems).refuse()
    named_by = halves[-1].source.names  # gt's, so that tiles of both halves have one name
    keys = [
        stem(name) if flags.pair_pattern is None else str(pattern_key(flags.pair_pattern, name)) for name in named_by
    ]
    tiles = slice_halves(halves, keys, flags.names)
    print(f"{len(keys)} pictures, {tiles} tiles in {' and in '.join(str(half.out) for half in halves)}")


@dataclass(frozen=True)
class Half:
    """Pictures of one kind, where their tiles go and lie, and their size relative to the first half's."""

    source: Source
    out: Path
    grid: TileGrid
    scale: int = 1


def slice_halves(halves: list[Half], keys: list[str], names: Numbering) -> int:
    """Cuts picture k of every half into tiles named after keys[k]; returns the number of tiles of a half.

    Each folder gets its name when all is written. The tiles' places follow from the first half's picture; the others may
    exceed it, times their scale, by less than one step, and are cut.

    Raises: DataError naming every picture that cannot be read or does not fit; RefusedError when a folder exists.
    """
    with ExitStack() as stack:
        outs = [stack.enter_context(new_folder(half.out)) for half in halves]
        shapes: dict[str, tuple[int, int]] = {}
        failed, tiles = [], 0

        def work(k: int) -> tuple[int, int] | str:
            try:
                pictures = list(_fitting(halves, k))
            except DataError as error:
                return str(error)
            places = halves[0].grid.places(pictures[0].shape)
            for half, out, picture in zip(halves, outs, pictures):
                for (row, column), tile in zip(places, half.grid.cut(picture)):
                    write_image(out / f"{tile_name(keys[k], row, column, places[-1][1] + 1, names)}.png", tile)
            height, width = pictures[0].shape[:2]
            return height, width

        for key, result in zip(keys, tqdm(in_threads(work, range(len(keys))), "slicing", len(keys), disable=None)):
            if isinstance(result, str):
                failed.append(result)
            else:
                shapes[key] = result
                tiles += len(halves[0].grid.places(result))
        if failed:
            raise DataError("\n  - ".join([f"slice: {len(failed)} of {len(keys)} pictures cannot be cut", *failed]))
        for half, out in zip(halves, outs):
            sizes = {key: [n * half.scale for n in shape] for key, shape in shapes.items()}
            geometry = {**asdict(half.grid), "names": names, "pictures": sizes}
            (out / GEOMETRY).write_text(json.dumps(geometry, indent=1) + "\n")
    return tiles


def _fitting(halves: list[Half], k: int) -> Iterator[np.ndarray]:
    """Picture k of every half, cut to the first's size times the scale. DataError when it does not fit."""
    height, width = 0, 0
    for half in halves:
        picture = half.source.read(k)
        if half is halves[0]:
            height, width = picture.shape[:2]
        wanted = (height * half.scale, width * half.scale)
        if not all(0 <= n - w < half.scale for n, w in zip(picture.shape, wanted)):
            raise DataError(
                f"{half.source.label(k)} is {picture.shape[1]}x{picture.shape[0]}; expected {wanted[1]}x{wanted[0]}, "
                f"{half.scale} times {halves[0].source.label(k)}"
            )
        yield picture[: wanted[0], : wanted[1]]


def tile_name(key: str, row: int, column: int, columns: int, names: Numbering) -> str:
    """Stem of a tile: row and column count from 0, the numbers in it from 1."""
    return f"{key}_{row + 1}_{column + 1}" if names == "grid" else f"{key}_s{row * columns + column + 1:03d}"
