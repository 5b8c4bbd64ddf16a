"""How long a training takes to start: from the command to its first iteration, against `import torch` alone.

    python scripts/benchmark_start.py [--runs 5]

Also the time until a misspelt option is reported. Runs take turns, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml
from benchmark_gan import write_pairs

ROOT = Path(__file__).resolve().parent.parent


def make_run(folder: Path) -> Path:
    """Synthetic pairs and an option file of a small training on them that never validates or saves."""
    write_pairs(folder, 2)
    content = {
        "name": "start", "model_type": "SRModel", "scale": 2, "num_gpu": "auto",
        "datasets": {"train": {
            "type": "PairedImageDataset", "dataroot_gt": f"{folder}/gt", "dataroot_lq": f"{folder}/lq", "gt_size": 96,
            "use_hflip": True, "use_rot": True, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0,
            "cache_dir": f"{folder}/cache"}},
        "network_g": {"type": "EDSR", "num_feat": 16, "num_block": 4},
        "path": {"experiments_root": f"{folder}/experiments"},
        "train": {"total_iter": 10**9, "ema_decay": 0.999, "precision": "fp32",
                  "optim_g": {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}, "pixel_opt": {"type": "L1Loss"}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 10**9, "use_tb_logger": False},
    }  # fmt: skip
    path = folder / "start.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def seconds(command: list[str], until: Path | None = None) -> float:
    """Wall time until the command ends, or until `until` exists (the command is then ended)."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (until and until.exists()):
        time.sleep(0.001)
    taken = time.perf_counter() - began
    process.kill()
    process.wait()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        options = make_run(folder)
        wrong = folder / "wrong.yml"
        wrong.write_text(options.read_text().replace("num_block", "num_blocks"))
        times: dict[str, list[float]] = {"import torch": [], "first iteration": [], "option mistake": []}
        for run in range(runs + 1):
            name = f"start_{run}"
            train = [sys.executable, str(ROOT / "srkit/train.py"), "-opt", str(options), "--force_yml", f"name={name}"]
            taken = {
                "import torch": seconds([sys.executable, "-c", "import torch"]),
                "first iteration": seconds(train, folder / f"experiments/{name}/records.jsonl"),
                "option mistake": seconds([sys.executable, str(ROOT / "srkit/train.py"), "-opt", str(wrong)]),
            }
            if run:  # the first warms the file cache and builds the decoded one
                for what, value in taken.items():
                    times[what].append(value)
    medians = {what: statistics.median(values) for what, values in times.items()}
    print(
        json.dumps(
            {"median_s": medians, "ratio": medians["first iteration"] / medians["import torch"], "all": times}, indent=1
        )
    )


if __name__ == "__main__":
    main()
