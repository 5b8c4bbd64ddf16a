"""`python srkit/train.py -opt x.yml`: trains what an option file describes."""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file: import srkit from this checkout, not its insides
    _here = os.path.dirname(os.path.realpath(__file__))
    _root = os.path.dirname(_here)
    sys.path[:] = [_root] + [p for p in sys.path if os.path.realpath(p) not in (_here, _root)]

import argparse
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

from srkit.commands import examples, guarded, load_all
from srkit.errors import ExitCode


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="srkit-train",
        description="Train super-resolution from option files.",
        epilog=examples("train"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-opt", nargs="+", required=True, metavar="FILE", help="option files, run in order")
    parser.add_argument(
        "--auto_resume", action="store_true", help="go on from the newest checkpoint; skip finished phases"
    )
    parser.add_argument("--restart", action="store_true", help="archive an existing experiment and start from zero")
    parser.add_argument("--accept_data_change", action="store_true", help="resume although the training files changed")
    parser.add_argument("--time_limit", metavar="T", help="save and exit (code 76) before T has passed: 540, 9m, 1h30m")
    parser.add_argument(
        "--debug", action="store_true", help="short trial: validate and save every 8, print every iteration"
    )
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started the processes"
    )
    parser.add_argument("--local_rank", type=int, default=0, help="accepted for old launchers; the environment decides")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. train:ema_decay=0.99")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command; every foreseen error becomes one message and its exit code."""
    started = time.monotonic()

    def work() -> ExitCode:
        flags = arguments(argv)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, _requeue)
        phases = load_all(flags.opt, mode="train", force=flags.force_yml, launcher=flags.launcher, debug=flags.debug)
        from srkit.train_run import TrainFlags, train_phases  # torch is imported only for a file without mistakes

        return train_phases(
            phases,
            TrainFlags(
                auto_resume=flags.auto_resume,
                restart=flags.restart,
                accept_data_change=flags.accept_data_change,
                time_limit=flags.time_limit,
                debug=flags.debug,
                launcher=flags.launcher,
                started=started,
            ),
        )

    return guarded(work)


def _requeue(number: int, frame: FrameType | None) -> None:
    """SLURM's warning, before there is a training that could save anything."""
    with suppress(OSError):
        os.write(2, b"\nsrkit: stopped: by SIGUSR1 before the training began\n")
    os._exit(ExitCode.REQUEUE)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
