"""Samples per second and CPU time per sample of the data path: decoding every time, and from the decoded cache.

    python scripts/benchmark_data.py --data natural/BSDS500/train --gt-size 96 --seconds 5 --out data.json

Each row draws batches of 16 crops (scale 2, flips, transpose, collated to tensors) from one folder of gt and its lq,
which is made once beside it in a scratch folder. PNG rows read lossless copies of the same pictures. CPU time counts
the caller and its workers; the first batches are not timed. `--data` is a folder, or a path below $SRKIT_TEST_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import torch

from srkit.data import PairedImageDataset
from srkit.data.loader import train_batches
from srkit.imaging.files import IMAGE_SUFFIXES, read_image, write_image
from srkit.imaging.resize import imresize, mod_crop

SCALE, BATCH = 2, 16
WARM_UP_BATCHES = 20


def prepare(source: Path, scratch: Path) -> dict[str, tuple[Path, Path]]:
    """Folders (gt, lq) per format: cut to a multiple of the scale, as PNG and as JPEG of quality 95."""
    made = {form: (scratch / form / "gt", scratch / form / "lq") for form in ("png", "jpg")}
    paths = sorted(p for p in source.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise SystemExit(f"no pictures in {source}")
    for path in paths:
        gt = mod_crop(read_image(path), SCALE)
        lq = imresize(gt, Fraction(1, SCALE))
        for form, (gt_folder, lq_folder) in made.items():
            write_image(gt_folder / f"{path.stem}.{form}", gt)
            write_image(lq_folder / f"{path.stem}.{form}", lq)
    return made


def cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def measure(dataset: PairedImageDataset, workers: int, seconds: float) -> dict[str, float]:
    """Samples a second by the clock, and CPU milliseconds a sample."""
    cpu_start = cpu_seconds()
    batches = train_batches(dataset, seed=0, batch_size=BATCH, num_workers=workers)
    for _ in range(WARM_UP_BATCHES):
        next(batches)
    warm_cpu, start, count = cpu_seconds(), time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        next(batches)
        count += BATCH
    batches.close()  # waits for the workers, whose CPU time counts only then
    if workers:  # the workers' warm-up cannot be told apart; their samples, prefetched ones included, are in both
        cpu, samples = cpu_seconds() - cpu_start, count + WARM_UP_BATCHES * BATCH
    else:
        cpu, samples = cpu_seconds() - warm_cpu, count
    return {"samples_per_s": count / elapsed, "cpu_ms_per_sample": 1000 * cpu / samples}


def rows(source: Path, gt_size: int, seconds: float) -> list[dict[str, Any]]:
    """Every combination of format, cache and workers."""
    table: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for form, (gt, lq) in prepare(source, scratch).items():
            for cache in ("none", "disk"):
                if cache == "disk" and form == "jpg":
                    continue  # decoded pixels have no format
                dataset = PairedImageDataset(
                    scale=(SCALE, SCALE),
                    dataroot_gt=str(gt),
                    dataroot_lq=str(lq),
                    gt_size=gt_size,
                    use_hflip=True,
                    use_rot=True,
                    cache=cache,  # type: ignore[arg-type]
                    cache_dir=str(scratch / "cache"),
                )
                start = time.perf_counter()
                dataset.prepare(progress=False)
                built = time.perf_counter() - start
                for workers in (0, 2):
                    kind = "decoded cache" if cache == "disk" else form.upper()
                    figures = measure(dataset, workers, seconds)
                    table.append({"source": kind, "workers": workers, "pictures": len(dataset), **figures})
                    if cache == "disk":
                        table[-1]["cache_built_s"] = built
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="natural/BSDS500/train", help="folder of gt pictures")
    parser.add_argument("--gt-size", type=int, default=96)
    parser.add_argument("--seconds", type=float, default=5.0, help="per row")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    source = Path(args.data)
    if not source.is_dir():
        source = Path(os.environ.get("SRKIT_TEST_DATA", ".")) / args.data
    if not source.is_dir():
        raise SystemExit(f"--data: {args.data} is no folder, nor one below $SRKIT_TEST_DATA")
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    table = rows(source, args.gt_size, args.seconds)
    print(f"gt {args.gt_size}, x{SCALE}, batch {BATCH}, flips and transpose, {table[0]['pictures']} pictures\n")
    print("| source | workers | samples/s | CPU ms a sample |\n|---|---|---|---|")
    for row in table:
        print(f"| {row['source']} | {row['workers']} | {row['samples_per_s']:,.0f} | {row['cpu_ms_per_sample']:.3f} |")
    if args.out:
        machine = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
        args.out.write_text(json.dumps({"gt_size": args.gt_size, "machine": machine, "rows": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
