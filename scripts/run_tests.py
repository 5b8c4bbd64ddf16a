"""Sets everything up and runs lint, types and tests: `python3 scripts/run_tests.py [pytest arguments]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from environment import ROOT, prepare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="virtual environment to make or use")
    parser.add_argument("--no-install", action="store_true", help="use this Python as it is")
    parser.add_argument("--locked", action="store_true", help="install the versions of tests/requirements-lock.txt")
    options, pytest_arguments = parser.parse_known_args()
    lock = ROOT / "tests/requirements-lock.txt" if options.locked else None
    python = sys.executable if options.no_install else str(prepare(options.venv, "dev", lock))
    checks = (
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "mypy"],
        # By file: what a module's tests share is made once.
        ["-m", "pytest", "-n", "auto", "--dist", "loadfile", "--durations=10", *pytest_arguments],
    )
    failed = []
    for check in checks:
        print("\n$ python " + " ".join(check), flush=True)
        if subprocess.run([python, *check], cwd=ROOT).returncode != 0:
            failed.append(" ".join(check[1:3]))
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
