"""Trains a tiny network for long and says whether anything grows: resident memory, open files, threads, disk.

    python scripts/soak_long.py [--iterations 20000] [--minutes M]

The training validates and saves all the time, is stopped ten times by SIGUSR1 and goes on with --auto_resume, all in one
process. Prints what is held at twenty points and the slope of each over the second half, per 1,000 iterations. Ends with 1
when memory grows by more than 1 MiB per 1,000 iterations, or files or threads by any.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
from tiny import in_process, options, pictures
from usage import disk_mib, usage

from srkit.engine.trainer import Trainer

STOPS, POINTS = 10, 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time, however far it came")
    total, minutes = vars(parser.parse_args()).values()
    rows: list[tuple[float, ...]] = []
    began = time.monotonic()
    is_late, console, stops = False, sys.stdout, [0]
    between = Trainer.between_iterations

    def watched(trainer: Trainer) -> None:
        nonlocal is_late
        at = trainer.iteration
        if at and at % (total // POINTS) == 0 and (not rows or rows[-1][0] < at):
            rows.append((at, *usage(), disk_mib(Path("experiments"))))
            print(
                "{:8.0f} {:10.1f} MiB {:5.0f} files {:4.0f} threads {:8.2f} MiB on disk".format(*rows[-1]),
                file=console,
                flush=True,
            )
        is_late = time.monotonic() - began > 60 * minutes
        if is_late or (at % (total // STOPS + 7) == 0 and at > stops[-1]):  # once: a start comes by here too
            stops.append(at)
            os.kill(os.getpid(), signal.SIGUSR1)
        between(trainer)

    Trainer.between_iterations = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures(folder / "data")
        os.chdir(folder)
        data = options(
            folder, train__total_iter=total, val__val_freq=200, logger__save_checkpoint_freq=100, logger__print_freq=100,
            logger__prune_weights=True, logger__use_tb_logger=True, val__save_img=False,
        )  # fmt: skip
        code, starts = 75, 0
        while code == 75 and not is_late:
            with (
                Path(os.devnull).open("w") as quiet,
                contextlib.redirect_stdout(quiet),
                contextlib.redirect_stderr(quiet),
            ):
                code = in_process(folder, data, "--auto_resume")
            starts += 1
        os.chdir(ROOT)
    held = np.array(rows)[len(rows) // 2 :]
    slopes = [np.polyfit(held[:, 0] / 1000, held[:, k], 1)[0] for k in range(1, 5)]
    print(
        f"\n{rows[-1][0]:.0f} iterations, {starts} starts, {(time.monotonic() - began) / 60:.1f} minutes, ended with {code}"
    )
    print(
        "per 1,000 iterations: {:+.3f} MiB memory, {:+.3f} files, {:+.3f} threads, {:+.4f} MiB on disk".format(*slopes)
    )
    return int(slopes[0] > 1 or slopes[1] > 0.01 or slopes[2] > 0.01)


if __name__ == "__main__":
    sys.exit(main())
