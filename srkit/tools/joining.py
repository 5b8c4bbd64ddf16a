"""`srkit join`: tiles put together again to the pictures they were cut from, restored or not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from srkit.data.names import require_folder, stem
from srkit.data.pairing import folders_below, list_pictures
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.tile_grid import TileGrid
from srkit.tools.slicing import GEOMETRY, Numbering, tile_name
from srkit.tools.writing import new_folder

_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tiles", help="folder of tiles, of the size they were cut to or enlarged by a whole number")
    parser.add_argument("out", type=Path, help="new folder for the pictures")
    parser.add_argument(
        "--geometry", type=Path, help=f"{GEOMETRY} that `srkit slice` wrote (default: beside the tiles)"
    )
    parser.add_argument("--suffix", default="", help="what the tiles' names have gained since, such as _sr")
    parser.add_argument("--overlap", choices=("blend", "crop"), default="blend", help="fade from tile to tile, or cut")


def run(flags: argparse.Namespace) -> None:
    require_folder("tiles", flags.tiles)
    geometry = read_geometry(flags.geometry or Path(flags.tiles) / GEOMETRY)
    found = {stem(name): f"{flags.tiles}/{name}" for name in list_pictures(flags.tiles, folders_below(flags.tiles))}
    names = {tile: f"{tile}{flags.suffix}" for tiles in geometry.tiles.values() for tile in tiles.values()}
    missing = [name for name in names.values() if name not in found]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"{len(missing)} of {len(names)} tiles are not in {flags.tiles}: {', '.join(missing[:_SHOWN])}{more}"
        )
    with new_folder(flags.out) as out:
        for key in tqdm(geometry.tiles, "joining", disable=None):
            files = {place: found[names[tile]] for place, tile in geometry.tiles[key].items()}
            write_image(out / f"{key}.png", join_tiles(files, geometry, key, blend=flags.overlap == "blend"))
    print(f"{len(geometry.tiles)} pictures of {len(names)} tiles in {flags.out}")


@dataclass(frozen=True)
class Geometry:
    """How pictures were cut: grid, (height, width) by key, and by key the stem of the tile at (row, column)."""

    grid: TileGrid
    shapes: Mapping[str, tuple[int, int]]
    tiles: Mapping[str, Mapping[tuple[int, int], str]]


def read_geometry(path: Path) -> Geometry:
    """What `srkit slice` wrote. DataError when missing or of another kind."""
    try:
        raw: Any = json.loads(path.read_text())
        grid = TileGrid(raw["size"], raw["stride"], raw["pad"])
        names: Numbering = raw["names"]
        shapes = {str(key): (int(height), int(width)) for key, (height, width) in raw["pictures"].items()}
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; `srkit slice` writes it beside the tiles, --geometry names it"
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RefusedError) as error:
        raise DataError(f"{path}: not as `srkit slice` writes it ({error})") from None
    tiles = {}
    for key, shape in shapes.items():
        places = grid.places(shape)
        tiles[key] = {place: tile_name(key, *place, places[-1][1] + 1, names) for place in places}
    return Geometry(grid, shapes, tiles)


def join_tiles(files: Mapping[tuple[int, int], str], geometry: Geometry, key: str, *, blend: bool) -> np.ndarray:
    """The picture, (H, W, C) times what the tiles were enlarged by. DataError naming a tile of another size or type."""
    shape = geometry.shapes[key]
    side = tuple(geometry.grid.side(n) for n in shape)
    first = read_image(files[0, 0])
    scale = first.shape[0] // side[0]

    def tile(row: int, column: int) -> np.ndarray:
        image = read_image(files[row, column])
        wanted = (*(n * scale for n in side), first.shape[2])
        if image.shape != wanted or image.dtype != first.dtype or scale < 1:
            raise DataError(
                f"{files[row, column]} is {image.dtype} {image.shape}, expected {first.dtype} {wanted}: height, width and "
                f"channels of a {side[0]}x{side[1]} tile times {scale}, as {files[0, 0]}"
            )
        return image

    return geometry.grid.times(max(scale, 1)).join(tile, [n * max(scale, 1) for n in shape], blend=blend)
