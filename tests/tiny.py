"""A training that takes a second: pictures, options, commands, and the comparison of two ends. No tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import yaml

from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize

ROOT = Path(__file__).resolve().parent.parent


def pictures(folder: Path, count: int = 4, size: int = 48, seed: int = 0) -> None:
    """Smooth random pairs: lq in folder/lq, gt in folder/gt."""
    draw = np.random.default_rng(seed)
    for index in range(count):
        coarse = draw.integers(0, 256, (size // 8, size // 8, 3)).astype(np.uint8)
        gt = imresize(coarse, 8)
        write_image(folder / "gt" / f"p{index}.png", gt)
        write_image(folder / "lq" / f"p{index}.png", imresize(gt, Fraction(1, 2)))


def options(tmp: Path, **changes) -> dict:
    """A tiny EDSR training; `changes` are colon paths with double underscores: train__total_iter=5."""
    data = {
        "name": "tiny",
        "model_type": "SRModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {
                "type": "PairedImageDataset", "dataroot_gt": str(tmp / "data/gt"), "dataroot_lq": str(tmp / "data/lq"),
                "gt_size": 16, "use_hflip": True, "use_rot": True, "batch_size_per_gpu": 2, "num_worker_per_gpu": 0,
                "dataset_enlarge_ratio": 3, "cache_dir": str(tmp / "cache"),
            },
            "val": {"name": "val", "type": "PairedImageDataset", "dataroot_gt": str(tmp / "data/gt"), "dataroot_lq": str(tmp / "data/lq")},
        },
        "network_g": {"type": "EDSR", "num_feat": 4, "num_block": 1},
        "path": {"experiments_root": str(tmp / "experiments"), "results_root": str(tmp / "results")},
        "train": {
            "total_iter": 12, "ema_decay": 0.9, "warmup_iter": 3,
            "optim_g": {"type": "Adam", "lr": 1e-3, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [8], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 6, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 4, "use_tb_logger": False},
    }  # fmt: skip
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = data
        for parent in parents:
            section = section.setdefault(parent, {})
        if value is None:
            section.pop(key, None)
        else:
            section[key] = value
    return data


def write_options(tmp: Path, data: dict, name: str = "x.yml") -> Path:
    path = tmp / name
    part = path.with_name(f".{name}.part")
    part.write_text(yaml.safe_dump(data))
    part.replace(path)  # another rank may be reading it
    return path


def command(*arguments, tool: str = "train", cwd: Path, env: dict | None = None, **popen) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"srkit/{tool}.py"), *map(str, arguments)], cwd=cwd, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **popen,
    )  # fmt: skip


def run(*arguments, tool: str = "train", cwd: Path, env: dict | None = None) -> tuple[int, str]:
    process = command(*arguments, tool=tool, cwd=cwd, env=env)
    out, _ = process.communicate(timeout=240)
    return process.returncode, out


def on_two_ranks(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    """srkit/train.py under torchrun, with gloo on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint",
         f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", str(ROOT / "srkit/train.py"), *map(str, arguments),
         "--launcher", "pytorch"],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def in_process(tmp: Path, data: dict, *flags: str) -> int:
    """The command in this process: saves the seconds an import of torch takes."""
    from srkit.train import main

    return int(main(["-opt", str(write_options(tmp, data)), *flags]))


def measured(tmp: Path, **changes) -> int:
    """srkit/test.py in this process, on what a tiny training of 12 iterations left, with further changes to its options."""
    from srkit.test import main

    weights = str(tmp / "experiments/tiny/models/net_g_12.pth")
    data = options(tmp, **{"name": "tested", "path__pretrain_network_g": weights, **changes})
    data = {k: v for k, v in data.items() if k not in ("train", "logger")}
    data["datasets"].pop("train")
    return int(main(["-opt", str(write_options(tmp, data, "test.yml"))]))


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def end_state(experiment: Path, iteration: int) -> tuple:
    """Weights, averages, optimizer, best values and random states of a checkpoint, and the logged losses."""
    folder = experiment / f"training_states/iter_{iteration}"
    load = [torch.load(folder / n, weights_only=True) for n in ("networks.pt", "training.pt", "rng_rank0.pt")]
    timing = {"iteration_s", "data_s"}
    lines = [json.loads(line) for line in (experiment / "records.jsonl").read_text().splitlines()]
    return (*load, [{k: v for k, v in line.items() if k not in timing} for line in lines])


def assert_same_end(a: Path, b: Path, iteration: int = 12) -> None:
    for ours, theirs in zip(end_state(a, iteration), end_state(b, iteration)):
        assert equal(ours, theirs)
