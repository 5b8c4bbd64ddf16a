"""What a save costs a training: how long it waits, and how long the writing takes beside it.

    python scripts/benchmark_save.py -opt options/train/edsr/edsr_histology_x2.yml --force_yml \
        train:total_iter=6 logger:save_checkpoint_freq=3 datasets:train:batch_size_per_gpu=1 datasets:train:gt_size=64 path:experiments_root=/tmp/save

Runs that training with a clock around every step, every wait for a save, and every checkpoint that is written. A step on a
GPU is its start alone; `--out x.json` keeps the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from srkit.engine.checkpoint import CheckpointStore
from srkit.engine.saving import Saver
from srkit.engine.trainer import Trainer
from srkit.train import main as train


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", required=True)
    parser.add_argument("--force_yml", nargs="+", default=[])
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    seconds: dict[str, list[float]] = defaultdict(list)

    def clocked(owner: type, name: str, label: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **words: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*arguments, **words)
            finally:
                seconds[label].append(time.perf_counter() - began)

        setattr(owner, name, timed)

    clocked(Trainer, "train_step", "step")
    clocked(Saver, "save", "training waits for a save")
    clocked(CheckpointStore, "save", "a checkpoint is written")
    code = int(train(["-opt", flags.opt, "--restart", "--force_yml", *flags.force_yml]))
    print("\n| what | times | median s | most s |\n|---|---|---|---|")
    for label, values in seconds.items():
        print(f"| {label} | {len(values)} | {statistics.median(values):.3f} | {max(values):.3f} |")
    if flags.out and code == 0:
        flags.out.write_text(json.dumps({"kind": "save", "options": flags.opt, "seconds": seconds}, indent=1) + "\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
