"""The main job on a fresh machine: `python3 scripts/quickstart.py`.

Installs srkit's requirements into .venv, makes a small paired data set from scikit-image's real pictures, trains a small
EDSR x2 for a few minutes, tests it on held-out pictures beside bicubic, and says where the pictures are.
An interrupted run goes on when started again; a finished one only tests again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from environment import ROOT, prepare

DATA, NAME = "datasets/quickstart", "quickstart_edsr_x2"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="virtual environment to make or use")
    parser.add_argument("--no-install", action="store_true", help="use this Python as it is")
    parser.add_argument("--restart", action="store_true", help="train again from zero")
    options = parser.parse_args()
    times = {}

    def step(title: str, *command: str) -> None:
        print(f"\n== {title}\n$ python {' '.join(command)}", flush=True)
        began = time.monotonic()
        code = subprocess.run([python, *command], cwd=ROOT).returncode
        if code != 0:
            sys.exit(code)
        times[title] = time.monotonic() - began

    began = time.monotonic()
    python = sys.executable if options.no_install else str(prepare(options.venv))
    times["install"] = time.monotonic() - began
    again = ["--restart"] if options.restart else ["--auto_resume"]
    step("make data", "-m", "srkit.tools", "example-data", DATA)
    step("train", "srkit/train.py", "-opt", f"options/train/edsr/{NAME}.yml", *again)
    step("test", "srkit/test.py", "-opt", f"options/test/edsr/{NAME}.yml")
    picture, crop = f"results/{NAME}/comparison.png", ["60", "140", "128", "128"]
    shown = [
        f"{DATA}/test/lq/chelsea.png",
        f"results/{NAME}/visualization/held_out/chelsea.png",
        f"{DATA}/test/gt/chelsea.png",
    ]
    step("compare", "-m", "srkit.tools", "compare", *shown, picture, "--crop", *crop)
    print("\n== done: " + ", ".join(f"{title} {seconds:.0f} s" for title, seconds in times.items()))
    print((ROOT / f"results/{NAME}/table.md").read_text())
    print(f"pictures      {ROOT / f'results/{NAME}/visualization'}\nside by side  {ROOT / picture}")
    print(f"experiment    {ROOT / f'experiments/{NAME}'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
