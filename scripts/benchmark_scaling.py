"""What several processes cost: seconds of an iteration on 1, 2 and 4 gloo processes, on this machine's CPUs.

    python scripts/benchmark_scaling.py [--processes 1 2 4] [--workers 0 1 2] [--batch 4] [--out scaling.json]

Every process trains EDSR (`--feat`, `--block`, x2) on its own batch, one thread each, on pictures that the script makes.

- step: an iteration on a batch that is there. Within one group, chunks of iterations with and without the exchange of gradients
  and buffers take turns; `exchange` is the median over pairs of chunks of the one over the other, minus 1. It compares like
  with like also where there are more processes than cores. `exchange_cpu` is the same of rank 0's CPU time: what the exchange
  computes and copies, without waiting for the others.
- workers: iterations a second of all processes together, real data, by loader workers of each process.

All but the CPU times are wall times; run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import statistics
import sys
import tempfile
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import yaml

from srkit.assemble import assemble, build_parts, manifest_meta
from srkit.engine.distributed import Group, join_group
from srkit.engine.experiment import Experiment, environment
from srkit.engine.stopping import StopRequest
from srkit.engine.trainer import Trainer
from srkit.imaging.files import write_image
from srkit.options import load_options
from srkit.tools.benchmarking.stages import timed
from srkit.tools.measuring import repeated

PICTURES, SIDE = 8, 256


def make_run(folder: Path, flags: argparse.Namespace, workers: int) -> Path:
    """Pictures, and an option file that trains on them."""
    draw = np.random.default_rng(0)
    for number in range(PICTURES):
        gt = draw.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
        for kind, picture in (("gt", gt), ("lq", np.ascontiguousarray(gt[::2, ::2]))):
            path = folder / kind / f"{number}.png"
            if not path.exists():
                write_image(path, picture)
    data = {
        "name": "scaling", "model_type": "SRModel", "scale": 2, "num_gpu": 0, "manual_seed": 0,
        "datasets": {"train": {
            "type": "PairedImageDataset", "dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq"),
            "gt_size": flags.gt_size, "batch_size_per_gpu": flags.batch, "num_worker_per_gpu": workers, "use_hflip": True,
            "use_rot": True, "dataset_enlarge_ratio": 1000, "cache_dir": str(folder / "cache"),
        }},
        "network_g": {"type": "EDSR", "num_feat": flags.feat, "num_block": flags.block},
        "train": {
            "total_iter": 10**6, "optim_g": {"type": "Adam", "lr": 1e-4}, "ema_decay": 0.999,
            "pixel_opt": {"type": "L1Loss"},
        },
        "logger": {"use_tb_logger": False},
    }  # fmt: skip
    path = folder / f"workers{workers}.yml"
    path.write_text(yaml.safe_dump(data))
    return path


def trainer_of(file: Path, group: Group) -> Trainer:
    options = load_options(str(file), mode="train", launcher="pytorch")
    parts = build_parts(options, group)
    parts.dataset.prepare(progress=False)
    experiment = Experiment(Path(tempfile.mkdtemp(prefix="srkit-scaling-")), options.name)
    experiment.records.parent.mkdir(parents=True)
    trainer = assemble(parts, group, StopRequest(), experiment, manifest_meta(parts, group), None)
    trainer.log.bar.leave = False
    return trainer


def seconds(trainer: Trainer, count: int) -> tuple[float, float]:
    """Wall and CPU time of an iteration, over `count` of them that all ranks begin together."""
    trainer.group.barrier()
    return timed(trainer.train_step, count, trainer.group.device)


def alone(trainer: Trainer) -> Trainer:
    """The same networks, data and optimizers without the group: nothing is exchanged."""
    group, wrapped = trainer.group, trainer.recipe.networks["network_g"]
    trainer.group = Group(group.rank, 1, group.device)
    trainer.recipe.networks = {"network_g": wrapped.module if Group.is_wrapped(wrapped) else wrapped}
    return trainer


def exchange(trainer: Trainer, flags: argparse.Namespace) -> dict[str, float]:
    """Chunks with the exchange of gradients and without in turn, on one batch that is there."""
    batch = next(trainer.batches)
    trainer.batches.close()
    trainer.batches = repeated(batch)
    group, networks = trainer.group, trainer.recipe.networks
    together, apart = [], []
    for number in range(flags.pairs + 1):
        trainer.group, trainer.recipe.networks = group, networks
        together.append(seconds(trainer, flags.chunk))
        group.barrier()
        apart.append(seconds(alone(trainer), flags.chunk))
        if number == 0:  # warm-up
            together.clear(), apart.clear()
    trainer.group = group
    row = {}
    for kind, suffix in enumerate(("", "_cpu")):
        ratios = [a[kind] / b[kind] - 1 for a, b in zip(together, apart, strict=True)]
        row |= {
            f"step{suffix}_s": statistics.median(a[kind] for a in together),
            f"without_exchange{suffix}_s": statistics.median(b[kind] for b in apart),
            f"exchange{suffix}": statistics.median(ratios),
            f"exchange{suffix}_lowest": min(ratios),
            f"exchange{suffix}_highest": max(ratios),
        }
    return row


def process(
    rank: int, world: int, port: int, folder: Path, flags: argparse.Namespace, results: multiprocessing.Queue
) -> None:
    """One rank's measurements; rank 0 reports."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    group, _ = join_group("pytorch", 0, backend=None, port=None, timeout_s=600)
    row = {"processes": world, **exchange(trainer_of(folder / "workers0.yml", group), flags)}
    for workers in flags.workers:
        trainer = trainer_of(folder / f"workers{workers}.yml", group)
        seconds(trainer, flags.chunk)
        times = [seconds(trainer, flags.chunk)[0] for _ in range(flags.pairs)]
        row[f"iterations_per_s_workers_{workers}"] = 1 / statistics.median(times)
        trainer.close()
    if group.is_main:
        results.put(row)
    group.barrier()


def measure(world: int, folder: Path, flags: argparse.Namespace) -> dict[str, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    ranks = [spawn.Process(target=process, args=(r, world, port, folder, flags, results)) for r in range(world)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
    if any(rank.exitcode for rank in ranks):
        sys.exit(f"{world} processes: one ended with {[rank.exitcode for rank in ranks]}; its message stands above")
    row: dict[str, float] = results.get()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    sizes = {"feat": 64, "block": 16, "gt_size": 96, "batch": 4, "pairs": 10, "chunk": 3}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for workers in {0, *flags.workers}:
            make_run(folder, flags, workers)
        rows = [measure(world, folder, flags) for world in flags.processes]
    what = f"EDSR {flags.feat}/{flags.block} x2, batch {flags.batch} a process, gt {flags.gt_size}, fp32, 1 thread a process"
    text = json.dumps({"what": what, "cores": os.cpu_count(), "rows": rows, "environment": environment()}, indent=1)
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
