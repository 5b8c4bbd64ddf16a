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

from benchmark_overhead import make_run

ROOT = Path(__file__).resolve().parent.parent


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
        size = {"gt_size": 96, "batch": 4, "workers": 0, "feat": 16, "block": 4, "precision": "fp32"}
        options = make_run(folder, argparse.Namespace(**size))
        text = options.read_text()
        options.write_text(text.replace("print_freq: 100", "print_freq: 1"))
        wrong = folder / "wrong.yml"
        wrong.write_text(text.replace("num_block", "num_blocks"))
        times: dict[str, list[float]] = {"import torch": [], "first iteration": [], "option mistake": []}
        for run in range(runs + 1):
            name = f"overhead_{run}"
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
