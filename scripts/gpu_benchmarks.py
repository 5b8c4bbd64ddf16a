"""The parts of gpu_benchmarks.sh: synthetic data and option files, resuming on the GPU, BasicSR's own step, the page of results.

    python scripts/gpu_benchmarks.py make FOLDER [--tiny]      # pictures, volumes and option files
    python scripts/gpu_benchmarks.py resume FOLDER --out x.json [--iterations 60]
    python scripts/gpu_benchmarks.py basicsr FOLDER --out x.json   # in an environment with BasicSR and torchvision
    python scripts/gpu_benchmarks.py page RESULTS              # Markdown of all that was measured

`resume` trains a small generator and discriminator: once from start to end, once killed after a checkpoint and resumed; eager,
compiled and as CUDA graphs, with `deterministic: true`. Then twice from start to end without it, to see how far they drift.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

ADAM = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
GIB = 2**30


def make(folder: Path, *, tiny: bool) -> None:
    """Writes data and option files, unless they are there."""
    side, count = (96, 4) if tiny else (480, 64)
    if not (folder / "made").exists():
        write_pictures(folder, side, count)
        write_volumes(folder, (24, 24, 24) if tiny else (128, 192, 128))
        (folder / "made").touch()
    import yaml

    for name, content in option_files(folder, tiny=tiny).items():
        (folder / f"{name}.yml").write_text(yaml.safe_dump(content, sort_keys=False))


def write_pictures(folder: Path, side: int, count: int) -> None:
    import numpy as np

    from srkit.imaging.files import write_image
    from srkit.imaging.resize import imresize

    draw = np.random.default_rng(0)
    for index in range(count):
        gt = imresize(draw.integers(0, 256, (side // 4, side // 4, 3)).astype(np.uint8), 4)
        write_image(folder / f"gt/{index:03d}.png", gt)
        for scale in (2, 4):
            write_image(folder / f"x{scale}/{index:03d}.png", imresize(gt, Fraction(1, scale)))


def write_volumes(folder: Path, shape: tuple[int, ...]) -> None:
    try:
        import nibabel  # noqa: F401 - what volumes are written with
    except ImportError:
        print("nibabel is not installed: the steps of volumes will fail")
        return
    import numpy as np

    from srkit.imaging.volumes import write_volume

    draw = np.random.default_rng(0)
    for index in range(4):
        values = draw.random(shape, dtype=np.float32) * 1000
        write_volume(folder / f"volumes/brain{index}.nii.gz", values, np.diag([0.15, 0.15, 0.15, 1]), like=None)


def option_files(folder: Path, *, tiny: bool) -> dict[str, dict[str, Any]]:
    """By name. `tiny` shrinks networks and crops, to try the script on a CPU."""

    def small(full: int, least: int) -> int:
        return least if tiny else full

    def edsr(lq: int, feat: int, block: int) -> dict[str, Any]:
        network = {"type": "EDSR", "num_feat": small(feat, 4), "num_block": small(block, 1), "upscale": 2}
        return {"scale": 2, "gt_size": small(2 * lq, 16), "batch": 16, "network_g": {**network, "res_scale": 0.1}}

    rrdb = {"type": "RRDBNet", "num_feat": small(64, 4), "num_block": small(23, 1), "num_grow_ch": small(32, 2)}
    x4 = {"scale": 4, "gt_size": small(128, 32), "batch": small(16, 2)}
    judge = {"type": "VGGAdaptiveDiscriminator", "channels": [4, 4, 4, 4]}
    if not tiny:
        judge = {"type": "VGGStyleDiscriminator", "num_feat": 64, "input_size": 128}
    features = {"type": "PerceptualLoss", "weights": "random", "layer_weights": {"conv5_4": 1}}
    against = {
        "model_type": "ESRGANModel",
        "network_d": judge,
        "train": {
            "optim_d": ADAM,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1e-2},
            **({} if tiny else {"perceptual_opt": features}),
            "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 5e-3},
        },
    }
    srresnet = {"type": "SRResNet", "num_feat": small(64, 4), "num_block": small(16, 1)}
    edges = {"train": {"losses": {"edge": {"type": "EdgeLoss", "method": "sobel", "loss_weight": 0.1}}}}
    volumes = {"type": "ResnetGenerator", "num_feat": small(32, 4), "num_block": small(2, 1)}
    made = {
        "edsr_base": edsr(48, 64, 16),
        "edsr_l_48": edsr(48, 256, 32),
        "edsr_l_128": edsr(128, 256, 32),
        "rrdb": {**x4, "network_g": rrdb},
        "esrgan": {**x4, "network_g": rrdb, **against},
        "srresnet_edge": {**x4, "gt_size": small(96, 32), "network_g": srresnet, **edges},
        "volumes": {
            "scale": [1, 3, 1],
            "gt_size": [12, 12, 12] if tiny else [128, 192, 128],
            "batch": 2,
            "network_g": volumes,
        },
    }
    return {name: option_file(folder, name, **parts) for name, parts in made.items()}


def option_file(
    folder: Path,
    name: str,
    *,
    scale: Any,
    gt_size: Any,
    batch: int,
    network_g: dict[str, Any],
    train: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    data: dict[str, Any] = {"type": "VolumeDataset", "dataroot_gt": f"{folder}/volumes", "dataset_enlarge_ratio": 50}
    if not isinstance(scale, list):
        data = {
            "type": "PairedImageDataset", "dataroot_gt": f"{folder}/gt", "dataroot_lq": f"{folder}/x{scale}",
            "use_hflip": True, "use_rot": True, "dataset_enlarge_ratio": 50,
        }  # fmt: skip
    return {
        "name": name, "model_type": "SRModel", "scale": scale, "num_gpu": "auto", "manual_seed": 0,
        "datasets": {"train": {
            **data, "gt_size": gt_size, "batch_size_per_gpu": batch, "cache_dir": f"{folder}/cache",
            "num_worker_per_gpu": min(8, max(1, (os.cpu_count() or 1) - 2)), "pin_memory": True, "prefetch_mode": "cuda"}},
        "network_g": network_g,
        "path": {"experiments_root": f"{folder}/experiments"},
        "train": {
            "total_iter": 10**6, "ema_decay": 0.999, "optim_g": ADAM, "pixel_opt": {"type": "L1Loss"}, **(train or {})},
        "logger": {"print_freq": 100, "save_checkpoint_freq": 10**6, "use_tb_logger": False},
        **more,
    }  # fmt: skip


# ---- resuming


def resume(folder: Path, iterations: int) -> dict[str, Any]:
    """Whether a killed and resumed training ends as an undisturbed one; and how far two undisturbed ones drift apart."""
    from tiny import pictures

    from srkit.engine.experiment import environment

    folder.mkdir(parents=True, exist_ok=True)
    pictures(folder / "data", count=8, size=96)
    machine = environment()
    forms: dict[str, dict[str, Any]] = {"eager": {}, "compiled": {"compile": True}, "CUDA graphs": {"cuda_graph": True}}
    if not machine["gpus"]:
        forms = {"eager": {}}  # compiling for a CPU takes minutes
    found: dict[str, dict[str, Any]] = {}
    for form, changes in forms.items():
        found[form] = {}
        for part in (resumed, drifted):
            try:
                found[form] |= part(folder, form.replace(" ", "_"), iterations, changes)
            except TrainingFailed as error:  # what another form shows is not lost
                found[form].setdefault("failed", str(error))
        print(form, found[form], flush=True)
    return {"kind": "resume", "iterations": iterations, "forms": found, "machine": machine}


def resumed(folder: Path, form: str, iterations: int, changes: dict[str, Any]) -> dict[str, Any]:
    from tiny import end_state, equal

    ends = []
    for kind in ("whole", "killed"):
        name = f"{kind}_{form}"
        file = gan_file(folder, name, iterations, deterministic=True, **changes)
        if kind == "killed":
            trained(folder, file, expected=86, env={"SRKIT_FAULT": "save.after_rename:2"})
        trained(folder, file, "--auto_resume")
        ends.append(end_state(folder / f"experiments/{name}", iterations))
    return {"equal_to_the_bit": bool(equal(ends[0], ends[1]))}


def drifted(folder: Path, form: str, iterations: int, changes: dict[str, Any]) -> dict[str, Any]:
    from tiny import end_state

    ends = []
    for number in (1, 2):
        name = f"drift_{number}_{form}"
        trained(folder, gan_file(folder, name, iterations, deterministic=False, **changes))
        ends.append(end_state(folder / f"experiments/{name}", iterations))
    return apart(*ends)


class TrainingFailed(Exception):
    """With the exit code and the end of what was printed."""


def trained(folder: Path, file: Path, *flags: str, expected: int = 0, env: dict[str, str] | None = None) -> None:
    from tiny import run

    code, text = run("-opt", file, *flags, cwd=folder, env=env)
    if code != expected:
        raise TrainingFailed(f"a training ended with {code}, expected {expected}:\n{text[-3000:]}")


def gan_file(folder: Path, name: str, iterations: int, **train: Any) -> Path:
    from tiny import options, write_options

    data = options(
        folder, name=name, num_gpu="auto", model_type="SRGANModel", val=None, datasets__val=None,
        network_g={"type": "EDSR", "num_feat": 32, "num_block": 4},
        network_d={"type": "VGGAdaptiveDiscriminator", "channels": [16, 16, 32, 32]},
        datasets__train__gt_size=64, datasets__train__batch_size_per_gpu=8, datasets__train__dataset_enlarge_ratio=50,
        train__total_iter=iterations, train__optim_d={"type": "Adam", "lr": 1e-3},
        train__gan_opt={"type": "GANLoss", "loss_weight": 5e-3}, train__scheduler__milestones=[iterations // 2],
        train__precision="bf16", logger__save_checkpoint_freq=iterations // 3, **{f"train__{k}": v for k, v in train.items()},
    )  # fmt: skip
    return write_options(folder, data, f"{name}.yml")


def apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> dict[str, Any]:
    """The first iteration whose logged losses differ, and the largest difference of a weight at the end."""
    losses = [[{k: v for k, v in line.items() if k.startswith("l_")} for line in end[-1]] for end in (one, other)]
    first = next((line["iteration"] for line, a, b in zip(one[-1], *losses, strict=True) if a != b), None)
    weights = [end[0]["net_g"] for end in (one, other)]
    largest = max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0])
    return {"first_iteration_that_differs": first, "largest_weight_difference": largest}


# ---- BasicSR


def basicsr(folder: Path, iterations: int, batch: int = 16, side: int = 128) -> dict[str, Any]:
    """Milliseconds of an iteration of BasicSR's own ESRGANModel, on batches that lie in the host's memory."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    import torch
    import torchvision

    # The name that BasicSR 1.4.2 imports one function from, and that torchvision has dropped since.
    sys.modules.setdefault("torchvision.transforms.functional_tensor", torchvision.transforms.functional)
    vgg = Path("experiments/pretrained_models/vgg19-dcbb9e9d.pth")  # where BasicSR looks before it downloads
    vgg.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torchvision.models.vgg19(weights=None).state_dict(), vgg)
    from basicsr.models import build_model

    adam = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
    model = build_model({
        "name": "esrgan", "model_type": "ESRGANModel", "scale": 4, "num_gpu": torch.cuda.device_count(), "dist": False,
        "is_train": True, "path": {},
        "network_g": {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 23, "num_grow_ch": 32},
        "network_d": {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 64},
        "train": {
            "ema_decay": 0.999, "optim_g": dict(adam), "optim_d": dict(adam),
            "scheduler": {"type": "MultiStepLR", "milestones": [10**6], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1e-2, "reduction": "mean"},
            "perceptual_opt": {
                "type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}, "vgg_type": "vgg19", "use_input_norm": True,
                "perceptual_weight": 1.0, "style_weight": 0, "range_norm": False, "criterion": "l1"},
            "gan_opt": {
                "type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 5e-3},
            "net_d_iters": 1, "net_d_init_iters": 0,
        },
    })  # fmt: skip
    draw = torch.Generator().manual_seed(0)
    batches = [
        {"lq": torch.rand(batch, 3, side // 4, side // 4, generator=draw), "gt": torch.rand(batch, 3, side, side, generator=draw)}
        for _ in range(4)
    ]  # fmt: skip
    is_cuda = torch.cuda.is_available()
    batches = [{k: v.pin_memory() if is_cuda else v for k, v in b.items()} for b in batches]
    if is_cuda:
        torch.backends.cudnn.benchmark = True  # as BasicSR's train.py does
    wait: Callable[[], None] = torch.cuda.synchronize if is_cuda else (lambda: None)
    times = []
    for iteration in range(1, iterations + 21):
        wait()
        began = time.perf_counter()
        model.update_learning_rate(iteration, warmup_iter=-1)
        model.feed_data(batches[iteration % len(batches)])
        model.optimize_parameters(iteration)
        wait()
        if iteration > 20:
            times.append(time.perf_counter() - began)
        elif iteration == 20 and is_cuda:
            torch.cuda.reset_peak_memory_stats()
    quarters = statistics.quantiles(times, n=4)
    return {
        "kind": "basicsr",
        "what": f"BasicSR's ESRGANModel, RRDB-23, gt {side}, batch {batch}, fp32 with TF32 convolutions",
        "median_s": statistics.median(times),
        "low_s": quarters[0],
        "high_s": quarters[2],
        "peak_memory_bytes": torch.cuda.max_memory_reserved() if is_cuda else None,
        "torch": str(torch.__version__),
    }


# ---- the page


def page(results: Path) -> str:
    """Markdown tables of the JSON files in a folder, in the order of their names' prefix."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    parts = [
        table(found, "train", training_head(), training_row),
        table(found, "infer", ("what", "tile", "seconds", "megapixels/s", "peak GiB"), inference_rows),
        table(found, "save", ("what", "times", "median s", "most s"), save_rows),
        table(found, "basicsr", ("what", "ms an iteration", "peak GiB", "torch"), basicsr_row),
        table(found, "resume", ("training", "resumed is equal to the bit", "without deterministic"), resume_rows),
    ]
    machines = {
        f"{', '.join(m['gpus']) or 'CPU'}, torch {m['torch']}, CUDA {m['cuda']}, cuDNN {m['cudnn']}, Python {m['python']}"
        for m in (item["machine"] for item in found.values() if "machine" in item)
    }
    left_out = [f"- {path.stem}: failed, see {path.name}" for path in sorted(results.glob("*.failed"))]
    lines = ["## GPU", "", *(f"{m}." for m in sorted(machines)), ""]
    for part in parts:
        lines += [*part, ""] if part else []
    return "\n".join([*lines, *left_out])


def table(
    found: dict[str, Any],
    kind: str,
    head: tuple[str, ...],
    rows: Callable[[str, dict[str, Any]], Iterator[tuple[str, ...]]],
) -> list[str]:
    body = [row for step, item in found.items() if item["kind"] == kind for row in rows(step.partition("-")[2], item)]
    return [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *body)] if body else []


def training_head() -> tuple[str, ...]:
    return (
        "step",
        "ms an iteration",
        "data on / off",
        "of the matmul ceiling",
        "over a bare loop",
        "EMA and log",
        "peak GiB",
        "host syncs",
    )


def training_row(step: str, item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    resident = item["iteration"]["resident batch"]["wall_s"]
    loaded = item["ratios"]["loaded batches / resident batch"]["wall"]["median"]
    bare = item["ratios"]["srkit / bare loop, both on a resident batch"]["wall"]["median"]
    share = item["flop_per_iteration"] / resident["median"] / item["matmul_ceiling_flop_per_s"]
    syncs = item["host_syncs_per_iteration"]
    yield (
        step,
        f"{resident['median'] * 1e3:.2f} ({resident['low'] * 1e3:.2f} to {resident['high'] * 1e3:.2f})",
        f"{loaded:.3f}",
        f"{share:.0%}",
        f"{bare:.3f}",
        f"{sum(item['shares']['wall_s'].get(stage, 0) for stage in ('EMA', 'log')):.1%}",
        gib(item["peak_memory_bytes"]),
        "" if syncs is None else f"{syncs:g}",
    )


def inference_rows(step: str, item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    from math import prod

    for row in item["rows"]:
        tile = str(row["tile"] or "whole")
        if "megapixels_per_s" not in row:
            yield step, tile, row.get("failed", "out of memory"), "", ""
            continue
        speed = row["megapixels_per_s"]["median"]
        pixels = prod(item["lq_size"]) * prod(item["scale"]) / 1e6
        yield step, tile, f"{pixels / speed:.2f}", f"{speed:.2f}", gib(row["peak_memory_bytes"])


def save_rows(step: str, item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for label, seconds in item["seconds"].items():
        yield f"{step}: {label}", str(len(seconds)), f"{statistics.median(seconds):.3f}", f"{max(seconds):.3f}"


def basicsr_row(step: str, item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    spread = f"{item['median_s'] * 1e3:.2f} ({item['low_s'] * 1e3:.2f} to {item['high_s'] * 1e3:.2f})"
    yield item["what"], spread, gib(item["peak_memory_bytes"]), item["torch"]


def resume_rows(step: str, item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for form, told in item["forms"].items():
        failed = told.get("failed", "").partition(":")[0]
        equal = failed if "equal_to_the_bit" not in told else "yes" if told["equal_to_the_bit"] else "NO"
        text = failed
        if "largest_weight_difference" in told:
            first = told["first_iteration_that_differs"]
            text = f"losses differ from iteration {first}" if first else "losses equal"
            text += f"; weights by at most {told['largest_weight_difference']:.2g}"
        yield form, equal, text


def gib(count: float | None) -> str:
    return "" if count is None else f"{count / GIB:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "resume", "basicsr", "page"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16, help="of basicsr")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    folder: Path = flags.folder.resolve()
    out = flags.out.resolve() if flags.out else None
    if flags.what == "make":
        make(folder, tiny=flags.tiny)
        return
    if flags.what == "page":
        print(page(folder))
        return
    if flags.what == "resume":
        found = resume(folder, flags.iterations)
    else:
        found = basicsr(folder, flags.iterations, flags.batch)
    text = json.dumps(found, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")


if __name__ == "__main__":
    main()
