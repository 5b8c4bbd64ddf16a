"""Time and memory that a list of many files costs: PairedImageDataset over two folders of N pictures, paired by name.

python scripts/benchmark_listing.py [--files 300000]
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from srkit.data import PairedImageDataset
from srkit.imaging.files import write_image

LINKS_PER_FILE = 30_000  # below the limit of any common file system


def fill(folder: Path, files: int, side: int) -> None:
    """`files` names for a few equal pictures: listing never opens them, so hard links do."""
    folder.mkdir()
    for k in range(files):
        path = folder / f"slide_{k // 1000:04d}_tile_{k:07d}.png"
        if k % LINKS_PER_FILE == 0:
            write_image(source := path, np.zeros((side, side, 3), np.uint8))
        else:
            os.link(source, path)


def resident_mb() -> float:
    """Peak memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300_000, help="pictures in each of the two folders")
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory() as name:
        gt, lq = Path(name) / "gt", Path(name) / "lq"
        fill(gt, files, 64)
        fill(lq, files, 32)
        before, start, cpu = resident_mb(), time.perf_counter(), time.process_time()
        dataset = PairedImageDataset(scale=(2, 2), dataroot_gt=str(gt), dataroot_lq=str(lq), gt_size=32)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(f"{len(dataset):,} pairs listed and matched in {wall:.2f} s ({cpu:.2f} s of CPU), ", end="")
        print(f"peak memory {resident_mb() - before:.0f} MB more than before")


if __name__ == "__main__":
    main()
