"""K-fold by animal: a short training for every fold, every animal tested once by a network that did not see it.

    python scripts/benchmark_mri.py -opt options/train/mri/resnet3d_x3_quick.yml --data datasets/mice_all --out experiments/kfold

The data are one folder (links will do). The option file's training set is replaced by the fold's list; there is no
validation, and the weights of the last iteration are tested, so that nothing is chosen on the animals that are tested.
A fold that is finished is not run again; one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from srkit.metrics.summary import interval
from srkit.test import main as test
from srkit.tools.__main__ import main as tools
from srkit.train import main as train

METRICS = {
    "psnr": {"type": "PSNR"},
    "psnr_mask": {"type": "PSNR", "region": "mask"},
    "psnr_core": {"type": "PSNR", "region": "mask", "erode": 3},
    "ssim_mask": {"type": "SSIM", "region": "mask"},
    "nrmse_mask": {"type": "NRMSE", "region": "mask"},
}
ROWS = ("nearest", "linear", "cubic")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-opt", type=Path, required=True, help="option file of a training on volumes")
    parser.add_argument("--data", type=Path, required=True, help="folder with the volumes of all animals")
    parser.add_argument("--key", default="_tp3_([0-9]+)_", help="regular expression whose group is the animal")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force_yml", nargs="+", default=[], help="handed on to the trainings")
    flags = parser.parse_args()
    flags.out.mkdir(parents=True, exist_ok=True)
    lists = flags.out / "folds"
    if not lists.exists():
        code = tools(["split", str(flags.data), str(lists), "--key", flags.key, "--folds", str(flags.folds)])
        if code != 0:
            return code
    values: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for fold in range(1, flags.folds + 1):
        folder = run_fold(flags, lists, fold)
        with (folder / "metrics.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                method = row["model"] if row["model"] in ROWS else "network"
                values[row["metric"], method][row["group"]] = float(row["value"])
    print(report(values))
    return 0


def run_fold(flags: argparse.Namespace, lists: Path, fold: int) -> Path:
    """Trains and tests one fold; returns the folder of its results."""
    options = yaml.safe_load(flags.opt.read_text())
    name = f"fold{fold}"
    options["name"] = name
    options["path"] = {
        **options.get("path", {}),
        "experiments_root": str(flags.out),
        "results_root": str(flags.out / "results"),
    }
    given = {"dataroot_gt": str(flags.data), "group_pattern": flags.key}
    options["datasets"] = {
        "train": {**options["datasets"]["train"], **given, "meta_info_file": str(lists / f"{name}_train.txt")}
    }
    options.pop("val", None)
    tested = {
        **{key: options[key] for key in ("name", "model_type", "scale", "num_gpu")},
        "datasets": {"test": {"type": "VolumeDataset", **given, "meta_info_file": str(lists / f"{name}_test.txt")}},
        "path": {
            "results_root": str(flags.out / "results"),
            "pretrain_network_g": str(flags.out / name / "models/net_g_latest.pth"),
        },
        "val": {"metrics": METRICS},
    }
    files = {}
    for kind, content in (("train", options), ("test", tested)):
        files[kind] = flags.out / f"{name}_{kind}.yml"
        files[kind].write_text(yaml.safe_dump(content, sort_keys=False))
    results = flags.out / "results" / name
    if not (results / "metrics.csv").exists():
        force = ["--force_yml", *flags.force_yml] if flags.force_yml else []
        code = train(["-opt", str(files["train"]), "--auto_resume", *force]) or test(["-opt", str(files["test"])])
        if code != 0:
            sys.exit(int(code))
    return results


def report(values: dict[tuple[str, str], dict[str, float]]) -> str:
    """Means of all methods, then every animal's difference from the cubic row, with its interval."""
    lines = [
        "| metric | " + " | ".join((*ROWS, "network")) + " | network - cubic | 95 % | better in |",
        "|---" * 8 + "|",
    ]
    for metric in METRICS:
        means = [np.mean(list(values[metric, method].values())) for method in (*ROWS, "network")]
        gains = differences(values, metric)
        edges = interval(list(gains.values()), list(gains))
        between = "" if edges is None else "{:+.4f} to {:+.4f}".format(*edges)
        sign = -1 if metric.startswith("nrmse") else 1
        better = sum(sign * gain > 0 for gain in gains.values())
        lines.append(
            f"| {metric} | "
            + " | ".join(f"{m:.4f}" for m in means)
            + f" | {np.mean(list(gains.values())):+.4f} | {between} | {better} of {len(gains)} |"
        )
    lines += [
        "",
        "| animal | " + " | ".join(f"{m}: cubic, network, difference" for m in ("psnr_mask", "psnr_core")) + " |",
        "|---|---|---|",
    ]
    for animal in sorted(values["psnr_mask", "cubic"]):
        cells = [
            "{:.3f} {:.3f} {:+.3f}".format(a := values[m, "cubic"][animal], b := values[m, "network"][animal], b - a)
            for m in ("psnr_mask", "psnr_core")
        ]
        lines.append(f"| {animal} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def differences(values: dict[tuple[str, str], dict[str, float]], metric: str) -> dict[str, float]:
    """Network minus cubic for every animal."""
    cubic = values[metric, "cubic"]
    return {animal: value - cubic[animal] for animal, value in values[metric, "network"].items()}


if __name__ == "__main__":
    sys.exit(main())
