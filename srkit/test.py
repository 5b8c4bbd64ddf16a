"""`python srkit/test.py -opt y.yml`: measures trained models on benchmark sets."""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file: import srkit from this checkout, not its insides
    _here = os.path.dirname(os.path.realpath(__file__))
    _root = os.path.dirname(_here)
    sys.path[:] = [_root] + [p for p in sys.path if os.path.realpath(p) not in (_here, _root)]

import argparse
from collections.abc import Sequence

from srkit.commands import examples, forced, guarded, load_all
from srkit.errors import ExitCode


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="srkit-test",
        description="Measure trained models on benchmark sets, beside interpolation.",
        epilog=examples("test"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-opt", nargs="+", required=True, metavar="FILE", help="option files, run in order")
    parser.add_argument(
        "-m", nargs="+", default=[], metavar="FILE", help="model files to compare, in place of path.pretrain_network_g"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with a stopped test of that name; what was measured is kept"
    )
    parser.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started the processes"
    )
    parser.add_argument("--local_rank", type=int, default=0, help="accepted for old launchers; the environment decides")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="e.g. val:save_img=false")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command; every foreseen error becomes one message and its exit code."""

    def work() -> ExitCode:
        flags = arguments(argv)
        force = [*flags.force_yml, *forced(flags.m)]
        phases = load_all(flags.opt, mode="test", force=force, launcher=flags.launcher)
        from srkit.test_run import test_phases  # torch is imported only for a file without mistakes

        return test_phases(phases, flags.launcher, flags.m, flags.resume)

    return guarded(work)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
