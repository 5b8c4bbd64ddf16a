"""Kills trainings at random moments and checks that each, resumed, ends exactly as one that was never interrupted.

    python scripts/soak_kill.py [--trials 20] [--seed 0]

Prints one line a trial and ends with 1 when any end differs: weights, averages, optimizer, best values, random states
and every logged loss must be equal to the bit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
from tiny import command, end_state, equal, options, pictures, write_options

TOTAL = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    draw = np.random.default_rng(flags.seed)
    equal_ends = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures(folder / "data")
        for workers in (0, 2):
            whole = finish(folder, f"whole_{workers}", workers)[0]
            for trial in range(flags.trials // 2):
                name = f"killed_{workers}_{trial}"
                lived = draw.uniform(0.5, 1.0) * whole
                process = command("-opt", option_file(folder, name, workers), cwd=folder)
                time.sleep(lived)
                process.kill()
                process.communicate()
                states = sorted(p.name for p in (folder / f"experiments/{name}/training_states").glob("iter_*"))
                finish(folder, name, workers, "--auto_resume")
                a, b = (end_state(folder / f"experiments/{n}", TOTAL) for n in (f"whole_{workers}", name))
                same = all(equal(x, y) for x, y in zip(a, b, strict=True))
                equal_ends += same
                print(
                    f"{name}: killed after {lived:.2f} s, checkpoints {states}, end {'equal' if same else 'DIFFERENT'}",
                    flush=True,
                )
                shutil.rmtree(folder / f"experiments/{name}")
    trials = flags.trials // 2 * 2
    print(f"{equal_ends} of {trials} ends equal to the bit")
    return 0 if equal_ends == trials else 1


def option_file(folder: Path, name: str, workers: int) -> Path:
    data = options(
        folder, name=name, train__total_iter=TOTAL, train__scheduler__milestones=[80], val__val_freq=30,
        datasets__train__num_worker_per_gpu=workers, logger__save_checkpoint_freq=10,
    )  # fmt: skip
    return write_options(folder, data, f"{name}.yml")


def finish(folder: Path, name: str, workers: int, *flags: str) -> tuple[float, str]:
    began = time.monotonic()
    process = command("-opt", option_file(folder, name, workers), *flags, cwd=folder)
    out, _ = process.communicate(timeout=120)
    if process.returncode != 0:
        sys.exit(out)
    return time.monotonic() - began, out


if __name__ == "__main__":
    sys.exit(main())
