"""What srkit adds to training: its trainer against a bare loop of the same network, interleaved in one process.

    python scripts/benchmark_overhead.py [--feat 64 --block 16 --batch 4 --gt-size 96 --pairs 12 --chunk 4] [--out x.json]

The trainer reads its batches from the decoded cache, averages weights, guards and logs; the bare loop runs forward,
backward and step on one resident batch. Each pair times `chunk` iterations of both, in turn; the ratio is the median.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import yaml

from srkit.assemble import assemble, build_parts, manifest_meta
from srkit.engine.distributed import Group, choose_device
from srkit.engine.experiment import Experiment, environment
from srkit.engine.log import start_console
from srkit.engine.stopping import StopRequest
from srkit.engine.trainer import Trainer
from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize
from srkit.options import load_options


def write_pairs(folder: Path, scale: int) -> None:
    """Sixteen pairs of noise, gt of 256 pixels."""
    draw = np.random.default_rng(0)
    for index in range(16):
        gt = draw.integers(0, 256, (256, 256, 3)).astype(np.uint8)
        write_image(folder / f"gt/{index}.png", gt)
        write_image(folder / f"lq/{index}.png", imresize(gt, Fraction(1, scale)))


def make_run(folder: Path, flags: argparse.Namespace) -> Path:
    """Synthetic pairs and an option file that trains on them without ever validating or saving."""
    write_pairs(folder, 2)
    train = {
        "type": "PairedImageDataset", "dataroot_gt": f"{folder}/gt", "dataroot_lq": f"{folder}/lq", "gt_size": flags.gt_size,
        "use_hflip": True, "use_rot": True, "batch_size_per_gpu": flags.batch, "num_worker_per_gpu": flags.workers,
        "cache_dir": f"{folder}/cache",
    }  # fmt: skip
    content = {
        "name": "overhead", "model_type": "SRModel", "scale": 2, "num_gpu": "auto", "datasets": {"train": train},
        "network_g": {"type": "EDSR", "num_feat": flags.feat, "num_block": flags.block},
        "path": {"experiments_root": f"{folder}/experiments"},
        "train": {"total_iter": 10**9, "ema_decay": 0.999, "precision": flags.precision,
                  "optim_g": {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}, "pixel_opt": {"type": "L1Loss"}},
        "logger": {"print_freq": 100, "save_checkpoint_freq": 10**9, "use_tb_logger": False},
    }  # fmt: skip
    path = folder / "overhead.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("feat", 64),
        ("block", 16),
        ("batch", 4),
        ("gt-size", 96),
        ("pairs", 12),
        ("chunk", 4),
        ("workers", 0),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    print_report(measure, flags)


def print_report(measure: Callable[[Path, argparse.Namespace], dict[str, object]], flags: argparse.Namespace) -> None:
    """Measures in a folder of its own; prints the figures, and writes them to `--out` where that is given."""
    with tempfile.TemporaryDirectory() as temporary:
        text = json.dumps(measure(Path(temporary), flags), indent=1)
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


def open_trainer(folder: Path, option_file: Path) -> tuple[Trainer, Experiment]:
    """The trainer that `srkit train` would start, silent; both are the caller's to close."""
    options = load_options(option_file, mode="train")
    device, _ = choose_device("auto", 0)
    group = Group(0, 1, device)
    start_console(is_main=False)
    parts = build_parts(options, group)
    experiment = Experiment(folder / "experiments", options.name)
    experiment.open(keep=False)
    return assemble(parts, group, StopRequest(), experiment, manifest_meta(parts, group), None), experiment


def timed(iteration: Callable[[], object], count: int, device: torch.device) -> tuple[float, float]:
    """Seconds per iteration, of the clock and of all this process's threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        iteration()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def measure(folder: Path, flags: argparse.Namespace) -> dict[str, object]:
    trainer, experiment = open_trainer(folder, make_run(folder, flags))
    device = trainer.group.device
    bare = copy.deepcopy(trainer.networks["network_g"])
    optimizer = torch.optim.Adam(bare.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)
    batch = next(trainer.batches)

    def bare_iteration() -> None:
        with trainer.precision.autocast():
            sr = bare(batch.lq)
        loss = (sr.float() - batch.gt).abs().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def our_iteration() -> None:
        trainer.train_step()
        trainer.log.step()
        trainer.between_iterations()

    def pair() -> tuple[tuple[float, float], tuple[float, float]]:
        return timed(bare_iteration, flags.chunk, device), timed(our_iteration, flags.chunk, device)

    pair()
    pairs = [pair() for _ in range(flags.pairs)]
    trainer.log.close()
    experiment.close()
    return {
        "what": f"EDSR {flags.feat}/{flags.block} x2, batch {flags.batch}, gt {flags.gt_size}, {flags.precision}, "
        f"{flags.workers} workers",
        "bare_s": statistics.median(b[0] for b, _ in pairs),
        "srkit_s": statistics.median(o[0] for _, o in pairs),
        "ratio_wall": statistics.median(o[0] / b[0] for b, o in pairs),
        "ratio_cpu": statistics.median(o[1] / b[1] for b, o in pairs),
        "pairs": flags.pairs,
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
