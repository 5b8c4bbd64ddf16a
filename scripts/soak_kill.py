"""Kills trainings at random moments and checks that each, resumed, ends exactly as one that was never interrupted.

    python scripts/soak_kill.py [--trials 200] [--minutes M] [--seed 0] [--sync]

Half of the trials get SIGKILL at a random time; the others die at a named place: in an iteration, in a validation, or at
a stage of a save. Prints one line a trial, then a table by kind, and ends with 1 when any trial failed: a checkpoint that
is not found whole, two save intervals lost (with `--sync`, which is `async_save: false`: more than one), or an end that
differs. Weights, averages, optimizer, best values, random states and every logged loss must be equal to the bit.

Trainings are forks of this process, which has everything imported: a kill costs one second and not ten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; one thread also makes forking safe
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import cv2
import numpy as np
from forked import ended, logged, reached, train
from tiny import end_state, equal, in_process, options, pictures

from srkit.engine.checkpoint import CheckpointStore

TOTAL, INTERVAL, VALIDATION = 60, 10, 15
SAVES = TOTAL // INTERVAL
STAGES = {  # place -> how often a whole run passes it
    "train.step": TOTAL,
    "train.update": TOTAL,
    "validation": TOTAL // VALIDATION * 4,
    "save.after_networks": SAVES,
    "save.before_manifest": SAVES,
    "save.before_rename": SAVES,
    "save.after_rename": SAVES,
    "save.before_prune": SAVES,
    "save.in_prune": SAVES - 3,
    "save.before_export": SAVES,
}


@dataclass
class Count:
    """What became of the trials of one kind."""

    tried: int = 0
    survived: int = 0
    lost: list[int] = field(default_factory=list)
    back_s: list[float] = field(default_factory=list)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no new trial begins after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sync", action="store_true", help="trainings wait for their checkpoints")
    flags = parser.parse_args()
    cv2.setNumThreads(1)
    draw = np.random.default_rng(flags.seed)
    counts: dict[str, Count] = defaultdict(Count)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures(folder / "data")
        os.chdir(folder)
        # Whatever is imported when needed is then there.
        must(in_process(folder, settings(folder, "warm_up", 0, flags.sync)))
        for workers in (0, 2):
            must(ended(train(folder, settings(folder, f"whole_{workers}", workers, flags.sync))))
        for trial in range(flags.trials):
            if time.monotonic() - began > 60 * flags.minutes:
                break
            workers = (0, 0, 2)[trial % 3]
            kind, note = one(folder, f"killed_{trial}", workers, trial, draw, counts, flags.sync)
            print(f"{trial:4d} {workers} workers, {kind}: {note}", flush=True)
    print(f"\n{'killed':24s} tried survived  lost iterations (mean, most)  seconds to finish the rest")
    for kind, count in counts.items():
        lost, back = np.array(count.lost or [0]), np.array(count.back_s or [0])
        print(
            f"{kind:24s} {count.tried:5d} {count.survived:8d}  {lost.mean():5.1f} {lost.max():5d} {back.mean():28.1f}",
            flush=True,
        )
    tried, survived = (sum(getattr(c, n) for c in counts.values()) for n in ("tried", "survived"))
    print(f"{tried} killed, {survived} ended equal to the bit, in {(time.monotonic() - began) / 60:.1f} minutes")
    return 0 if survived == tried else 1


def one(
    folder: Path, name: str, workers: int, trial: int, draw: np.random.Generator, counts: dict[str, Count], sync: bool
) -> tuple[str, str]:
    """Kills one training and finishes it; returns what killed it and what came of that."""
    experiment = folder / f"experiments/{name}"
    data = settings(folder, name, workers, sync)
    if trial % 2:
        kind = list(STAGES)[trial // 2 % len(STAGES)]
        fault = f"{kind}:{draw.integers(1, STAGES[kind] + 1)}"
        code, wanted = ended(train(folder, data, env={"SRKIT_FAULT": fault})), 86
    else:
        kind = "at a random time"
        child, wanted = train(folder, data), -signal.SIGKILL
        if reached(child, experiment, int(draw.integers(0, TOTAL))):
            time.sleep(draw.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
        code = ended(child)
    if code != wanted:  # it ended before the blow fell
        shutil.rmtree(experiment, ignore_errors=True)
        return kind, f"ended with {code} before it was killed; not counted"
    count = counts[kind]
    count.tried += 1
    store = CheckpointStore(experiment / "training_states")
    found, notes = store.newest_valid()
    done = logged(experiment)
    kept = int(found.name.removeprefix("iter_")) if found else 0
    count.lost.append(max(0, done - kept))
    began = time.monotonic()
    code = ended(train(folder, data, "--auto_resume"))
    count.back_s.append(time.monotonic() - began)
    whole = end_state(folder / f"experiments/whole_{workers}", TOTAL)
    is_same = code == 0 and equal(whole, end_state(experiment, TOTAL))
    is_good = is_same and not notes and done - kept <= (INTERVAL if sync else 2 * INTERVAL - 1)
    count.survived += is_good
    note = (
        f"reached {done}, went on from {kept}, end {'equal' if is_same else f'DIFFERENT (code {code})'} {notes or ''}"
    )
    if is_good:
        shutil.rmtree(experiment)
    return kind, note if is_good else f"{note}\n{(folder / f'{name}.out').read_text()[-3000:]}"


def settings(folder: Path, name: str, workers: int, sync: bool) -> dict:
    return options(
        folder, name=name, train__total_iter=TOTAL, train__scheduler__milestones=[40], val__val_freq=VALIDATION,
        datasets__train__num_worker_per_gpu=workers, logger__save_checkpoint_freq=INTERVAL,
        logger__async_save=not sync,
    )  # fmt: skip


def must(code: int) -> None:
    if code != 0:
        sys.exit(f"an undisturbed training ended with {code}")


if __name__ == "__main__":
    sys.exit(main())
