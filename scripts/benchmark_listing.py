"""Time and memory that a list of many files costs: PairedImageDataset over two folders or archives of N pictures, paired by
name, and then the sizes of all files, which a resumed training compares.

python scripts/benchmark_listing.py [--files 300000] [--kind disk|zip|tar] [--root FOLDER]

`--root` keeps the files for a further run: making a million links takes longer than listing them.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from srkit.data import PairedImageDataset
from srkit.imaging.files import write_image

LINKS_PER_FILE = 30_000  # below the limit of any common file system


def names(files: int) -> Iterator[str]:
    return (f"slide_{k // 1000:04d}_tile_{k:07d}.png" for k in range(files))


def fill(root: Path, kind: str, files: int, side: int) -> None:
    """`files` names for equal pictures: listing never opens them, so in a folder hard links do."""
    picture = root.with_name(f"{side}.png")
    write_image(picture, np.zeros((side, side, 3), np.uint8))
    if kind == "disk":
        root.mkdir()
        for k, name in enumerate(names(files)):
            if k % LINKS_PER_FILE == 0:
                (source := root / name).write_bytes(picture.read_bytes())
            else:
                os.link(source, root / name)
    elif kind == "zip":
        with zipfile.ZipFile(root, "w") as out:
            for name in names(files):
                out.writestr(name, picture.read_bytes())
    else:
        data = picture.read_bytes()
        with tarfile.open(root, "w") as out:
            for name in names(files):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                out.addfile(member, io.BytesIO(data))
                out.members = []


def resident_mb() -> float:
    """Peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000, help="pictures in each of the two halves")
    parser.add_argument("--kind", choices=("disk", "zip", "tar"), default="disk", help="how they are stored")
    parser.add_argument("--root", type=Path, help="folder to keep the files in")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(flags.root or temporary)
        end = "" if flags.kind == "disk" else f".{flags.kind}"
        gt, lq = root / f"gt{end}", root / f"lq{end}"
        for half, side in ((gt, 64), (lq, 32)):
            if not half.exists():
                fill(half, flags.kind, flags.files, side)
        before, start, cpu = resident_mb(), time.perf_counter(), time.process_time()
        dataset = PairedImageDataset(scale=(2, 2), dataroot_gt=str(gt), dataroot_lq=str(lq), gt_size=32)
        wall, listed = time.perf_counter() - start, time.process_time() - cpu
        print(f"{len(dataset):,} pairs listed and matched in {wall:.2f} s ({listed:.2f} s of CPU), ", end="")
        print(f"peak memory {resident_mb() - before:.0f} MB more than before")
        dataset.fingerprint()
        print(f"sizes of all files: {time.process_time() - cpu - listed:.2f} s of CPU, ", end="")
        print(f"peak memory {resident_mb() - before:.0f} MB more than before")


if __name__ == "__main__":
    main()
