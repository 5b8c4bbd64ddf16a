"""`srkit thicken`: isotropic volumes as a scanner with thicker slices sees them, to try networks where the truth is known."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from srkit.data.volume_files import unique_names
from srkit.errors import DataError, RefusedError
from srkit.imaging.geometry import scaled_affine
from srkit.imaging.slices import thicken
from srkit.imaging.volumes import find_volumes, read_volume, volume_stem, write_volume
from srkit.tools.writing import new_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="volumes, .nii or .nii.gz")
    parser.add_argument("out", type=Path, help="new folder for the thick ones, which keep their names")
    parser.add_argument("--scale", required=True, help="old voxels per new one along each axis: 1,1,4")
    parser.add_argument("--profile", choices=("box", "gaussian"), default="box", help="sensitivity across a slice")
    parser.add_argument(
        "--thickness",
        type=float,
        default=1.0,
        help="of a slice over the distance of the slices: 0.8 leaves gaps of a fifth",
    )
    parser.add_argument("--recursive", action="store_true", help="also the folders below; their names join the files'")


def run(flags: argparse.Namespace) -> None:
    factors = parse_factors(flags.scale)
    paths = find_volumes(flags.folder, flags.recursive)
    if not paths:
        raise DataError(f"{flags.folder}: no volumes (.nii, .nii.gz)")
    names = unique_names([(p.parent / volume_stem(p)).relative_to(flags.folder).as_posix() for p in paths])
    first: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        if first.setdefault(name, path) != path:
            raise DataError(f"{first[name]} and {path} would be one file; rename one")
    with new_folder(flags.out) as out:
        for path, name in zip(tqdm(paths, "thickening", disable=None), names, strict=True):
            volume, header = read_volume(path)
            try:
                thick = thicken(volume, factors, profile=flags.profile, thickness=flags.thickness)
            except DataError as error:
                raise DataError(f"{path}: {error}") from None
            affine = scaled_affine(header.affine, [1 / f for f in factors])
            write_volume(out / f"{name}.nii.gz", thick, affine, like=header)
    print(f"{len(paths)} volumes with slices of {flags.scale} voxels in {flags.out}")


def parse_factors(text: str) -> tuple[int, ...]:
    """ "1,1,4" to (1, 1, 4). RefusedError for anything else."""
    parts = text.split(",")
    if len(parts) != 3 or not all(p.strip().isdigit() and int(p) for p in parts):
        raise RefusedError(f"--scale: found '{text}', expected three whole numbers from 1, such as 1,1,4")
    return tuple(map(int, parts))
