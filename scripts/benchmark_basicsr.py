"""srkit and BasicSR 1.4.2 side by side: an iteration, loading, a test and the start of a training, in turn on this machine.

    python scripts/benchmark_basicsr.py --basicsr FOLDER --data DATA [--parts step loading test start] [--rounds 5] [--out x.json]

FOLDER holds the package `basicsr` (site-packages of an environment, or a clone); DATA holds natural/BSDS500/train, and Set5 and
Set14 as benchmark/NAME/X2/{HR,LR}. BasicSR's own code does its half: SRModel, PairedImageDataset with its loader, test.py and train.py,
all on the same option files, pictures and weights, on the CPU.

- step: EDSR on resident batches; one iteration of each side in turn, `--pairs` times.
- loading: batches as a network takes them, in this process, from whole pictures and from sub-images of 240 and 120 pixels.
- test: Set5 and Set14 x2, PSNR and SSIM, pictures written; the values of both are compared.
- start: from the command to the first iteration in the log; srkit's decoded cache is there already, but for the first run.

Every figure is a median of CPU time and of wall time; a ratio is the median over neighbours. Start it with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
import yaml

from srkit import build
from srkit.engine.distributed import join_group
from srkit.engine.experiment import environment
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize, mod_crop
from srkit.options import load_options
from srkit.tools.benchmarking.stages import Time, ratio, timed
from srkit.tools.benchmarking.training import BareLoop
from srkit.tools.measuring import trial

Pair = tuple[float, float]  # seconds by the clock, seconds of CPU
SCALE, CPU = 2, torch.device("cpu")
FORMS: dict[str, tuple[int | None, str]] = {  # side of the pieces in pixels, suffix
    "whole pictures, PNG": (None, "png"),
    "whole pictures, JPEG": (None, "jpg"),
    "sub-images of 240 px, PNG": (240, "png"),
    "sub-images of 120 px, PNG": (120, "png"),
}
# Run by a fresh interpreter: the entry point of BasicSR that argv names, its results below the folder that argv names.
# torchvision has dropped the name that BasicSR 1.4.2 imports one function from.
ENTRY = """
import sys
folder, kind, root = sys.argv[1:4]
del sys.argv[1:4]
sys.path.append(folder)
import torchvision.transforms.functional as functional
sys.modules["torchvision.transforms.functional_tensor"] = functional
import importlib
getattr(importlib.import_module("basicsr." + kind), kind + "_pipeline")(root)
"""


def train_file(name: str, lq: Path, gt: Path, network: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Options in BasicSR's form of a training that never validates or saves."""
    return {
        "name": name, "model_type": "SRModel", "scale": SCALE, "num_gpu": 0, "manual_seed": 0,
        "datasets": {"train": {
            "name": "train", "type": "PairedImageDataset", "dataroot_gt": str(gt), "dataroot_lq": str(lq),
            "filename_tmpl": "{}", "io_backend": {"type": "disk"}, "gt_size": 96, "use_hflip": True, "use_rot": True,
            "num_worker_per_gpu": 0, "batch_size_per_gpu": batch, "dataset_enlarge_ratio": 100}},
        "network_g": {
            "type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, **network, "upscale": SCALE, "res_scale": 1,
            "img_range": 255.0, "rgb_mean": [0.4488, 0.4371, 0.4040]},
        "path": {"strict_load_g": True},
        "train": {
            "total_iter": 10**6, "ema_decay": 0.999,
            "optim_g": {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [200000], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 10**6, "use_tb_logger": False},
    }  # fmt: skip


def write(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def import_basicsr(folder: Path) -> None:
    import torchvision.transforms.functional as functional

    sys.path.append(str(folder))
    sys.modules["torchvision.transforms.functional_tensor"] = functional
    logging.getLogger("basicsr").addHandler(logging.NullHandler())
    import basicsr.models  # noqa: F401  (registers)


# ---- an iteration


def step(folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """srkit's trainer in fp32 and bf16, a bare loop of its network and loss, and BasicSR's SRModel."""
    import_basicsr(flags.basicsr)
    from basicsr.models import build_model

    network = {"num_feat": flags.feat, "num_block": flags.block}
    data = flags.data / f"benchmark/Set14/X{SCALE}"
    content = train_file("step", data / "LR", data / "HR", network, flags.batch)
    options = load_options(str(write(folder / "step.yml", content)), mode="train")
    in_bf16 = load_options(str(folder / "step.yml"), mode="train", force=["train:precision=bf16"])
    theirs = build_model({**content, "dist": False, "is_train": True})
    with trial(options) as (parts, fp32), trial(in_bf16) as (_, bf16):
        resident = list(itertools.islice(fp32.batches, 4))
        for trainer in (fp32, bf16):
            trainer.batches.close()
            trainer.batches = (batch for batch in itertools.cycle(resident))
        bare, batches, count = BareLoop(parts, fp32), itertools.cycle(resident), itertools.count(1)

        def field() -> None:
            number, batch = next(count), next(batches)
            theirs.update_learning_rate(number, warmup_iter=-1)
            theirs.feed_data({"lq": batch.lq, "gt": batch.gt})
            theirs.optimize_parameters(number)

        times = in_turn(
            {
                "BasicSR": lambda: timed(field, 1, CPU),
                "bare loop": lambda: timed(lambda: bare.iteration(next(batches)), 1, CPU),
                "srkit fp32": lambda: timed(fp32.train_step, 1, CPU),
                "srkit bf16": lambda: timed(bf16.train_step, 1, CPU),
            },
            flags.pairs,
        )
    return {
        "what": f"EDSR {flags.feat}/{flags.block} x{SCALE}, batch {flags.batch}, lq 48",
        **compared(times, [("srkit fp32", "bare loop"), ("srkit fp32", "BasicSR"), ("srkit bf16", "BasicSR")]),
    }


# ---- loading


def loading(folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """CPU time of a sample of 96 pixels, in batches of 16, without workers: the same pictures in three forms."""
    import_basicsr(flags.basicsr)
    make_pictures(folder, sorted((flags.data / "natural/BSDS500/train").glob("*.jpg"))[: flags.pictures])
    found = {}
    for form in FORMS:
        kind = folder / form.replace(" ", "_")
        content = train_file("loading", kind / "lq", kind / "gt", {"num_feat": 8, "num_block": 1}, 16)
        file = write(folder / "loading.yml", content)
        with closing(ours(str(file))) as mine:
            pair = {"BasicSR": theirs(content), "srkit": mine}
            for batches in pair.values():  # the first batches open files and list folders
                list(itertools.islice(batches, 3))
            times = in_turn({name: lambda b=b: per_sample(b, flags.batches) for name, b in pair.items()}, flags.rounds)
        found[form] = compared(times, [("BasicSR", "srkit")])
    return {"what": f"{flags.pictures} pictures of BSDS500, gt 96, batch 16, no workers; of one sample", **found}


def make_pictures(folder: Path, files: Sequence[Path]) -> None:
    for file, (form, (side, suffix)) in itertools.product(files, FORMS.items()):
        gt = mod_crop(read_image(file), (SCALE, SCALE))
        height, width = side or gt.shape[0], side or gt.shape[1]
        for top in range(0, gt.shape[0] - height + 1, height):
            for left in range(0, gt.shape[1] - width + 1, width):
                piece = gt[top : top + height, left : left + width]
                write_pair(folder / form.replace(" ", "_"), f"{file.stem}_{top}_{left}.{suffix}", piece)


def write_pair(folder: Path, name: str, gt: Any) -> None:
    write_image(folder / "gt" / name, gt)
    write_image(folder / "lq" / name, imresize(gt, Fraction(1, SCALE)))


def ours(file: str) -> Iterator[Any]:
    options = load_options(file, mode="train")
    dataset = build.build_dataset(options.datasets["train"], options.scale)
    dataset.prepare(progress=False)
    group = join_group("none", 0, backend=None, port=0, timeout_s=0)[0]
    return build.build_batches(options, dataset, group, build.build_normalization(options), 0)


def theirs(content: Mapping[str, Any]) -> Iterator[Any]:
    """As BasicSR's train.py has them, epoch after epoch."""
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler
    from basicsr.data.prefetch_dataloader import CPUPrefetcher

    item = {**content["datasets"]["train"], "phase": "train", "scale": SCALE}
    dataset = build_dataset(item)
    sampler = EnlargedSampler(dataset, 1, 0, item["dataset_enlarge_ratio"])
    batches = CPUPrefetcher(build_dataloader(dataset, item, num_gpu=0, sampler=sampler, seed=0))
    while True:
        if (batch := batches.next()) is None:
            batches.reset()
        else:
            yield batch


def per_sample(batches: Iterator[Any], count: int) -> Pair:
    wall, cpu = timed(lambda: next(batches), count, CPU)
    return wall / 16, cpu / 16


# ---- whole commands


def test(folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """test.py of both on Set5 and Set14, from the command to its end; the same file and the same weights."""
    weights = folder / "weights.pth"
    run([sys.executable, "-m", "srkit.tools", "export", "-m", str(flags.model), "-o", str(weights), "--to", "basicsr"])
    key, state = next(iter(torch.load(weights, weights_only=True).items()))
    network = {
        "num_feat": state["conv_first.weight"].shape[0],
        "num_block": sum(name.startswith("body.") for name in state) // 4,
        "img_range": flags.img_range,
    }
    content = train_file("", folder, folder, {}, 0)
    metrics = {
        "psnr": {"type": "calculate_psnr", "crop_border": SCALE, "test_y_channel": flags.luma},
        "ssim": {"type": "calculate_ssim", "crop_border": SCALE, "test_y_channel": flags.luma},
    }
    content |= {
        "name": "test",
        "datasets": {f"test_{k}": {
            "name": name, "type": "PairedImageDataset", "dataroot_gt": str(flags.data / f"benchmark/{name}/X{SCALE}/HR"),
            "dataroot_lq": str(flags.data / f"benchmark/{name}/X{SCALE}/LR"), "io_backend": {"type": "disk"}}
            for k, name in enumerate(("Set5", "Set14"))},
        "network_g": {**content["network_g"], **network},
        "path": {"pretrain_network_g": str(weights), "param_key_g": key, "strict_load_g": True},
        "val": {"save_img": True, "suffix": None, "metrics": metrics},
    }  # fmt: skip
    del content["train"], content["logger"]
    file = write(folder / "test.yml", content)
    values: dict[str, Any] = {}

    def basicsr() -> Pair:
        taken = run(field_command(flags, "test", folder / "field", file), cwd=folder)
        log = max((folder / "field/results/test").glob("test_*.log")).read_text()
        found = re.findall(r"Validation (\w+)\s+# psnr: ([\d.]+)\s.*\s+# ssim: ([\d.]+)", log)
        values["BasicSR"] = {name: {"psnr": float(psnr), "ssim": float(ssim)} for name, psnr, ssim in found}
        return taken

    def srkit() -> Pair:
        taken = run([sys.executable, str(ROOT / "srkit/test.py"), "-opt", str(file)], cwd=folder)
        rows = list(csv.DictReader((folder / "results/test/metrics.csv").open()))
        values["srkit"] = means([row for row in rows if row["model"] == "test"])
        return taken

    times = in_turn({"BasicSR": basicsr, "srkit": srkit}, flags.rounds)
    what = f"EDSR {network['num_feat']}/{network['num_block']} x{SCALE}, Set5 and Set14, PSNR, SSIM, pictures written"
    return {"what": what, **compared(times, [("srkit", "BasicSR")]), "values": values}


def means(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, float]]:
    """Set -> metric -> mean over its pictures."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["set"], {}).setdefault(row["metric"], []).append(float(row["value"]))
    return {name: {k: round(sum(v) / len(v), 6) for k, v in metrics.items()} for name, metrics in found.items()}


def start(folder: Path, flags: argparse.Namespace) -> dict[str, Any]:
    """From the command to the first iteration in the log, of one option file."""
    data = flags.data / f"benchmark/Set14/X{SCALE}"
    content = train_file("start", data / "LR", data / "HR", {"num_feat": 16, "num_block": 4}, 4)
    file = write(folder / "start.yml", content)

    def srkit() -> Pair:
        name = f"start_{time.time_ns()}"
        command = [sys.executable, str(ROOT / "srkit/train.py"), "-opt", str(file), "--force_yml", f"name={name}"]
        return run(command, cwd=folder, until=(folder / f"experiments/{name}/records.jsonl").exists)

    def basicsr() -> Pair:
        name = f"start_{time.time_ns()}"
        command = [*field_command(flags, "train", folder / "field", file), "--force_yml", f"name={name}"]
        logs = folder / f"field/experiments/{name}"
        return run(command, cwd=folder, until=lambda: any("[epoch:" in f.read_text() for f in logs.glob("train_*.log")))

    first = {"BasicSR": basicsr(), "srkit": srkit()}
    times = in_turn({"BasicSR": basicsr, "srkit": srkit}, flags.rounds)
    return {"what": "EDSR 16/4, Set14", "first_run": first, **compared(times, [("srkit", "BasicSR")])}


def field_command(flags: argparse.Namespace, kind: str, root: Path, file: Path) -> list[str]:
    return [sys.executable, "-c", ENTRY, str(flags.basicsr), kind, str(root), "-opt", str(file)]


def run(command: list[str], cwd: Path | None = None, until: Callable[[], bool] | None = None) -> Pair:
    """Seconds until the command ends or `until` holds (it is then ended). Stops the script when it fails."""
    with tempfile.TemporaryFile("w+") as told:
        began = time.perf_counter()
        child = subprocess.Popen(command, cwd=cwd or ROOT, stdout=told, stderr=subprocess.STDOUT)
        while until is not None and child.poll() is None and not until():
            time.sleep(0.002)
        if until is not None:
            child.kill()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        taken = time.perf_counter() - began
        if child.returncode not in ((0,) if until is None else (-9,)):
            told.seek(0)
            sys.exit(f"{' '.join(command)} ended with {child.returncode}:\n{told.read()[-3000:]}")
    return taken, usage.ru_utime + usage.ru_stime


# ---- all parts


def in_turn(sides: Mapping[str, Callable[[], Pair]], rounds: int) -> dict[str, list[Pair]]:
    """All sides, one after the other, so many times; a first round, for caches, is not counted."""
    times: dict[str, list[Pair]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            pair = side()
            if number:
                times[name].append(pair)
    return times


def compared(times: Mapping[str, Sequence[Pair]], ratios: Sequence[tuple[str, str]]) -> dict[str, Any]:
    def spread(a: str, b: str) -> dict[str, Any]:
        return {kind: asdict(value) for kind, value in ratio(times[a], times[b]).items()}

    return {
        "seconds": {name: asdict(Time.of(pairs)) for name, pairs in times.items()},
        "ratios": {f"{a} / {b}": spread(a, b) for a, b in ratios},
    }


PARTS = {"step": step, "loading": loading, "test": test, "start": start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--basicsr", type=lambda text: Path(text).resolve(), required=True)
    parser.add_argument("--data", type=lambda text: Path(text).resolve(), default=Path("datasets").resolve())
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--model", type=Path, default=ROOT / "srkit/models/natural-x2.safetensors", help="of test: an EDSR"
    )
    parser.add_argument("--img_range", type=float, default=1.0, help="of that model")
    parser.add_argument("--luma", action="store_true", help="test: metrics of luma")
    sizes = {"rounds": 5, "pairs": 20, "feat": 64, "block": 16, "batch": 4, "pictures": 20, "batches": 20}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    found: dict[str, Any] = {}
    for name in flags.parts:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = {**PARTS[name](Path(folder), flags), "load_1min": os.getloadavg()[0]}
    text = json.dumps({**found, "environment": environment()}, indent=1)
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
