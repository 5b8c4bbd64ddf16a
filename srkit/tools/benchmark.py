"""`srkit benchmark`: what a training, its loading, an evaluation or an inference costs on this machine, and why."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from srkit.errors import StorageError

KINDS = ("train", "data", "eval", "infer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        choices=KINDS,
        help="train: an iteration by stage, beside a bare loop; data: every storage form; eval: a picture by stage; "
        "infer: speed and memory by tile size",
    )
    parser.add_argument(
        "-opt", required=True, metavar="FILE", help="option file of a training, for eval and infer or a test"
    )
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="changes to that file")
    parser.add_argument("--seconds", type=float, help="train: in all (60); data: a row (4); infer: a tile size (5)")
    parser.add_argument("--profile", action="store_true", help="train: also a trace of torch's profiler")
    parser.add_argument(
        "--channels_last",
        action=argparse.BooleanOptionalAction,
        help="train: the networks' memory layout, in place of what their classes prefer",
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], metavar="N", help="data: numbers of workers")
    parser.add_argument(
        "--pictures",
        type=int,
        default=200,
        help="eval: pictures of each set; data: pictures that are stored in other forms",
    )
    parser.add_argument(
        "--tiles",
        type=int,
        nargs="+",
        default=[0, 256, 128, 64],
        metavar="PX",
        help="infer: sides in lq pixels; 0: whole",
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        default=[384],
        metavar="PX",
        help="infer: the lq picture, one number or one per axis",
    )
    parser.add_argument(
        "--channels", type=int, help="infer: of that picture (default: 3, or 1 when the network takes that)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="for KIND.json and KIND.md (default: benchmarks/NAME of the option file)",
    )


def run(flags: argparse.Namespace) -> None:
    from srkit.engine.experiment import environment
    from srkit.options import load_options

    mode = "train" if flags.kind in ("train", "data") or _has_train(flags.opt) else "test"
    options = load_options(flags.opt, mode=mode, force=flags.force_yml)  # type: ignore[arg-type]
    folder: Path = flags.out or Path("benchmarks") / options.name
    found = _measured(flags, options, folder)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {**environment(), "cores": os.cpu_count(), "load_1min": load}
    about = {"kind": flags.kind, "options": str(flags.opt), "force_yml": flags.force_yml, "machine": machine}
    text = markdown(about, found)
    print(text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{flags.kind}.json").write_text(json.dumps(_plain({**about, **found}), indent=1) + "\n")
        (folder / f"{flags.kind}.md").write_text(text + "\n")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); name another folder with --out") from error
    print(f"written to {folder}/{flags.kind}.json and {flags.kind}.md")


def _measured(flags: argparse.Namespace, options: Any, folder: Path) -> dict[str, Any]:
    """Each kind in a module of its own, for what one imports need not be installed for the others."""
    if flags.kind == "train":
        from srkit.tools.benchmarking.training import measure_training

        trace = folder / "trace.json" if flags.profile else None
        return measure_training(options, flags.seconds or 60.0, trace, flags.channels_last)
    if flags.kind == "data":
        from srkit.tools.benchmarking.loading import measure_loading

        return measure_loading(options, flags.seconds or 4.0, flags.workers, flags.pictures)
    if flags.kind == "eval":
        from srkit.tools.benchmarking.evaluating import measure_evaluation

        return measure_evaluation(options, flags.pictures)
    from srkit.tools.benchmarking.inferring import measure_inference

    return measure_inference(options, flags.tiles, flags.size, flags.seconds or 5.0, flags.channels)


def _has_train(path: str) -> bool:
    """Whether the file describes a training; what cannot be read is reported by the reader of options."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and "train" in content


def markdown(about: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Tables of what was measured, and the verdict in words."""
    machine = about["machine"]
    device = ", ".join(machine["gpus"]) or f"CPU, {machine['cores']} cores"
    forced = f" --force_yml {' '.join(about['force_yml'])}" if about["force_yml"] else ""
    head = [
        f"# srkit benchmark {about['kind']} -opt {about['options']}{forced}",
        "",
        f"{device}, {machine['threads']} threads, torch {machine['torch']}, Python {machine['python']}"
        + (f"; load of the machine {machine['load_1min']:.1f}" if machine["load_1min"] is not None else "")
        + ". Medians, and quartiles in brackets.",
        "",
    ]
    body = {"train": _training, "data": _loading, "eval": _evaluation, "infer": _inference}[about["kind"]](found)
    return "\n".join([*head, *body, "", f"In words: {found['verdict']}."])


def _training(found: Mapping[str, Any]) -> list[str]:
    parts = found["shares"]
    stages = [
        (name, _ms(t.wall_s), f"{parts['wall_s'][name]:.1%}", _ms(t.cpu_s), f"{parts['cpu_s'][name]:.1%}")
        for name, t in found["stages"].items()
    ]
    loops = [(name, _ms(t.wall_s), _ms(t.cpu_s)) for name, t in found["iteration"].items()]
    ratios = [(name, *(_number(told[kind]) for kind in ("wall", "cpu"))) for name, told in found["ratios"].items()]
    memory, syncs = found["peak_memory_bytes"], found["host_syncs_per_iteration"]
    return [
        *_table(("stage of an iteration", "ms", "part", "CPU ms", "part"), stages),
        "",
        *_table(("loop", "ms an iteration", "CPU ms"), loops),
        "",
        *_table(("ratio, median of pairs", "by the clock", "by CPU time"), ratios),
        "",
        f"{found['samples_per_s']:.1f} samples/s in {found['precision']}; {found['flop_per_iteration'] / 1e9:.1f} GFLOP an iteration, "
        f"{found['flop_per_s'] / 1e9:,.0f} GFLOP a second {found['second']}, {found['part_of_ceiling']:.0%} of the {found['matmul_ceiling_flop_per_s'] / 1e9:,.0f} "
        f"of a large matrix product here; peak memory {_mib(memory)}"
        + (f"; the host waits for the GPU {syncs:g} times an iteration." if syncs is not None else "."),
    ]


def _loading(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            row["form"],
            str(row["workers"]),
            f"{row['samples_per_s']:,.0f}",
            f"{row['cpu_ms_per_sample']:.3f}",
            "" if row["prepared_s"] is None else f"{row['prepared_s']:.1f}",
        )
        for row in found["rows"]
    ]
    left_out = [f"Left out: {name}: {why}." for name, why in found["left_out"].items()]
    return [
        f"Batches of {found['batch']} on the device; {found['pictures']} pictures, {found['pictures_in_made_forms']} of them in the "
        "forms that were made for this.",
        "",
        *_table(("form", "workers", "samples/s", "CPU ms a sample", "s to prepare"), rows),
        *(["", *left_out] if left_out else []),
    ]


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, told in found["sets"].items():
        stages = [f"{_ms(t.wall_s)}, {told['shares'][stage]:.0%}" for stage, t in told["stages"].items()]
        size = f"{told['megapixels_per_picture']:.2f}"
        rows.append(
            (name, str(told["pictures"]), size, _ms(told["picture"].wall_s), _ms(told["picture"].cpu_s), *stages)
        )
    return [
        *_table(
            ("set", "pictures", "megapixels", "ms a picture", "CPU ms", "read", "network", "metrics", "write"), rows
        ),
        "",
        f"The network in {found['precision']}; peak memory {_mib(found['peak_memory_bytes'])}.",
    ]


def _inference(found: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in found["rows"]:
        name = str(row["tile"]) if row["tile"] else "whole"
        if "megapixels_per_s" not in row:
            rows.append((name, "", row.get("failed", "out of memory"), "", "", ""))
            continue
        speed, ratio = row["megapixels_per_s"], row["srkit_over_bare"]
        rows.append(
            (
                name,
                str(row["tiles"]),
                _number(speed),
                f"{ratio['wall'].median:.3f}",
                f"{ratio['cpu'].median:.3f}",
                _mib(row["peak_memory_bytes"]),
            )
        )
    size = "x".join(map(str, found["lq_size"]))
    return [
        f"One lq picture of {size} pixels and {found['channels']} channels, in {found['precision']}; the bare network gets the same tiles.",
        "",
        *_table(("tile", "tiles", "megapixels/s of sr", "srkit / bare network, clock", "CPU", "peak memory"), rows),
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows)]


def _ms(spread: Any) -> str:
    return f"{spread.median * 1e3:.2f} ({spread.low * 1e3:.2f} to {spread.high * 1e3:.2f})"


def _number(spread: Any) -> str:
    return f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})"


def _mib(count: float | None) -> str:
    return "not told by this system" if count is None else f"{count / 2**20:,.0f} MiB"


def _plain(value: Any) -> Any:
    """For JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
