"""`srkit plan FOLDER`: looks at what a folder holds and writes an option file for it, with lists of a split by groups."""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from srkit.errors import DataError, RefusedError
from srkit.tools.groups import keys_of
from srkit.tools.planning.facts import (
    Kind,
    PictureFacts,
    SlideFacts,
    VolumeFacts,
    kind_of,
    picture_facts,
    slide_facts,
    volume_facts,
)
from srkit.tools.planning.fitting import Fit, Size, fit
from srkit.tools.planning.groups import guess_key
from srkit.tools.planning.layout import Layout, Part, look, with_names
from srkit.tools.planning.text import Plan, test_text, train_text
from srkit.tools.split import TABLE, part_groups
from srkit.tools.writing import new_folder

_DEFAULT_SCALE = 4
_DEFAULT_THICK = 3
_UNMEASURED_ITER = 100_000
_MOST_ITER, _LEAST_ITER = 300_000, 100
_BASELINE_PICTURES = 5
_WANTED_BATCH = {"pictures": 16, "slides": 16, "volumes": 4}
_SIDES = {
    "pictures": (24, 48),
    "slides": (48, 96),
    "volumes": (32, 64),
}  # CPU, GPU; of lq for pictures, of gt for volumes
_SLICE_SIDE = 48


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="pictures, slides or NIfTI volumes; gt alone, or gt and lq below it")
    parser.add_argument("--out", type=Path, help="new folder for the option files and lists (default: plans/NAME)")
    parser.add_argument(
        "--scale", help="4, or 1,3,1 for one number per axis; default: what pairs or spacings tell, else 4"
    )
    parser.add_argument(
        "--kind",
        choices=("natural", "histology", "faces", "slides"),
        help="what pictures show, which decides the protocol; slides: .tif files are whole slides",
    )
    parser.add_argument(
        "--key", help="regular expression whose group is the slide, patient or person, searched in the name"
    )
    parser.add_argument("--slide_mpp", type=float, help="microns per pixel of slides that do not say theirs")
    parser.add_argument("--hours", type=float, default=8.0, help="that the training may take (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--no_probe", action="store_true", help="measure neither steps nor interpolation")


def run(flags: argparse.Namespace) -> None:
    wanted = parse_scale(flags.scale)
    layout = look(flags.folder, wanted, slides=flags.kind == "slides")
    train = layout.parts.get("train") or layout.parts["all"]
    scale, scale_why, facts = scale_and_facts(layout, train, wanted)
    kind, kind_why = kind_and_why(flags, layout, train)
    thick = isinstance(facts, VolumeFacts) and facts.thick_axis is not None and train.lq is None
    key, key_why = key_and_why(flags.key, train.names)
    parts, listed, rows = split_parts(layout, key, flags.seed, keep_all=thick)
    name = experiment_name(flags.folder, scale)
    out = flags.out or Path("plans") / name
    if out.exists():
        raise RefusedError(f"{out} exists; remove it or give another --out")
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = device.type == "cpu"
    sizes = patch_sizes(layout.holds, scale, facts, on_cpu, thick)
    batch = _WANTED_BATCH["pictures" if thick else layout.holds] * (
        1 if on_cpu or thick else 2 if layout.holds == "volumes" else 1
    )
    plan = Plan(
        name=name,
        source=str(flags.folder),
        out=out.as_posix(),
        facts=facts,
        scale=scale,
        scale_why=scale_why,
        kind=kind,
        kind_why=kind_why,
        key=key,
        key_why=key_why,
        parts=parts,
        listed=listed,
        fit=Fit(sizes[0], batch, 1),
        total_iter=_UNMEASURED_ITER,
        is_small=on_cpu,
        workers=0 if on_cpu else min(8, os.cpu_count() or 1),
        slide_mpp=flags.slide_mpp,
        found=found_lines(layout, facts, parts),
    )
    with new_folder(out) as folder:
        write_lists(folder, parts, listed, rows, flags.seed)
        if not flags.no_probe:
            plan = probed(plan, folder, sizes, batch, device, flags.hours)
        (folder / "train.yml").write_text(train_text(plan), encoding="utf-8")
        if "test" in parts and not thick:
            (folder / "test.yml").write_text(test_text(plan), encoding="utf-8")
    tell(plan, layout)


def parse_scale(text: str | None) -> tuple[int, ...] | None:
    """ "4" -> (4, 4), "1,3,1" -> (1, 3, 1). RefusedError for anything else."""
    if text is None:
        return None
    numbers = text.split(",")
    if not all(n.strip().isdecimal() and int(n) > 0 for n in numbers) or len(numbers) > 3:
        raise RefusedError(f"--scale: found '{text}', expected a number such as 4, or one per axis such as 1,3,1")
    return (int(text),) * 2 if len(numbers) == 1 else tuple(int(n) for n in numbers)


def scale_and_facts(
    layout: Layout, train: Part, wanted: tuple[int, ...] | None
) -> tuple[tuple[int, ...], str, PictureFacts | SlideFacts | VolumeFacts]:
    """The scale, why, and what the files say of themselves. RefusedError for a scale of another number of axes."""
    axes = 3 if layout.holds == "volumes" else 2
    if wanted is not None and len(wanted) != axes:
        raise RefusedError(
            f"--scale: found {len(wanted)} axes, {layout.holds} have {axes}" + ("; write 1,1,3" if axes == 3 else "")
        )
    if layout.holds == "volumes":
        facts = volume_facts(train)
        spacing = "x".join(f"{s:g}" for s in facts.spacing_mm)
        if layout.scale is not None:
            return layout.scale, "measured: gt has so many times the voxels of its lq", facts
        if wanted is not None:
            return wanted, f"given by --scale; the voxels are {spacing} mm", facts
        if facts.thick_scale is not None and facts.odd:
            raise DataError(
                f"{train.gt}: {facts.warnings[-1]}; give a folder whose scans share one spacing, or --scale"
            )
        if facts.thick_scale is not None:
            return (
                facts.thick_scale,
                f"slices lie {facts.spacing_mm[facts.thick_axis or 0]:g} mm apart, voxels are {spacing} mm",
                facts,
            )
        why = f"a guess: voxels are {spacing} mm; put the number on the axis along which your scans have thick slices"
        return (1, 1, _DEFAULT_THICK), why, facts
    scale = layout.scale or wanted or (_DEFAULT_SCALE,) * 2
    if layout.scale is not None:
        why = "measured: gt is so many times as large as its lq"
    else:
        why = "given by --scale" if wanted is not None else "a guess: there is no lq that would tell it (--scale)"
    return scale, why, slide_facts(train) if layout.holds == "slides" else picture_facts(train, scale)


def kind_and_why(flags: argparse.Namespace, layout: Layout, train: Part) -> tuple[Kind, str]:
    """What the pictures show, and where that is known from."""
    if layout.holds == "slides":
        return "histology", "whole slides"
    if flags.kind in ("natural", "histology", "faces"):
        return flags.kind, "given by --kind"
    kind, word = kind_of(flags.folder, train.names)
    if kind == "unknown":
        return kind, "RGB; --kind natural would measure luma, as papers on photographs do"
    return kind, f"a guess: '{word}' stands in a name (--kind)"


def key_and_why(given: str | None, names: Sequence[str]) -> tuple[str | None, str]:
    """The groups' expression, and a comment for the lists."""
    if given is not None:
        return given, f"split by the groups of --key {given}"
    guess = guess_key(names)
    if guess is None:
        return None, "a guess: every file is a group of its own; --key keeps slides, patients or persons together"
    return guess[
        1
    ], f"a guess: split by {guess[0]} ({guess[1]}), so that no group stands on two sides; --key says it better"


def split_parts(
    layout: Layout, key: str | None, seed: int, keep_all: bool
) -> tuple[dict[str, Part], frozenset[str], list[tuple[str, str, str]]]:
    """Parts by phase, which of them need lists, and rows (name, key, part) of the split.

    Folders that are parts already stay as they are; what lacks is parted off by group, unless `keep_all`.
    """
    parts = dict(layout.parts)
    if "all" not in parts and ("val" in parts or keep_all):
        return parts, frozenset(), []
    whole = parts.pop("all", None) or parts.pop("train")
    keys = keys_of(whole.names, key, None) if key is not None else {name: name for name in whole.names}
    count = len(set(keys.values()))
    if keep_all or count < 2:
        return {"train": whole, **parts}, frozenset(), []
    shares = (
        {"train": 0.8, "val": 0.1, "test": 0.1} if "test" not in parts and count > 2 else {"train": 0.9, "val": 0.1}
    )
    where = part_groups(keys.values(), shares, seed)
    rows = [(name, group, where[group]) for name, group in keys.items()]
    made = {part: with_names(whole, [name for name, _, held in rows if held == part]) for part in shares}
    return {**made, **parts}, frozenset(shares), rows


def write_lists(
    folder: Path, parts: Mapping[str, Part], listed: frozenset[str], rows: Sequence[tuple[str, str, str]], seed: int
) -> None:
    for phase in listed:
        text = "".join(f"{name}\n" for name in parts[phase].names)
        (folder / f"{phase}.txt").write_text(text, encoding="utf-8", errors="surrogateescape")
    if rows:
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["name", "key", "part", "seed"])
        writer.writerows([*row, seed] for row in rows)
        (folder / TABLE).write_text(table.getvalue(), encoding="utf-8", errors="surrogateescape")


def patch_sizes(
    holds: str, scale: tuple[int, ...], facts: PictureFacts | SlideFacts | VolumeFacts, on_cpu: bool, thick: bool
) -> list[Size]:
    """Patches from the wanted one downwards, halved each time; multiples of the scale that fit into the smallest file."""
    side = _SIDES[holds][0 if on_cpu else 1]
    sizes: list[Size] = []
    for part in (side, side // 2, side // 4):
        if isinstance(facts, VolumeFacts) and thick:
            factor = max(scale)
            inside = min(n for a, n in enumerate(facts.smallest) if a != facts.thick_axis)
            wanted = _SLICE_SIDE * part // side
            sizes.append((max(1, min(wanted, inside) // factor) * factor,))
        elif isinstance(facts, VolumeFacts):
            sizes.append(tuple(max(1, min(-(-part // s), n // s)) * s for s, n in zip(scale, facts.smallest)))
        else:
            room = [n // s for n, s in zip(facts.smallest, scale)] if isinstance(facts, PictureFacts) else [part]
            sizes.append(tuple(max(1, min(part, *room)) * s for s in scale))
    return list(dict.fromkeys(sizes))


def probed(plan: Plan, folder: Path, sizes: Sequence[Size], batch: int, device: object, hours: float) -> Plan:
    """The plan with patch, batch and length that were measured on this machine, and what interpolation reaches."""
    import torch

    from srkit.options import Options, load_options
    from srkit.tools.planning.baseline import baseline_lines

    assert isinstance(device, torch.device)
    trial = folder / "trial.yml"

    def text_for(size: Size, samples: int) -> str:
        return train_text(replace(plan, out=folder.as_posix(), fit=Fit(size, samples, 1), workers=0))

    def options(size: Size, samples: int) -> Options:
        trial.write_text(text_for(size, samples), encoding="utf-8")
        quick = ["datasets:train:check=off", "datasets:train:dataset_enlarge_ratio=1000"]
        quick += [] if isinstance(plan.facts, SlideFacts) else ["datasets:train:cache=none"]
        loaded = load_options(trial, mode="train", force=quick)
        return loaded.model_copy(update={"datasets": {"train": loaded.datasets["train"]}})

    found = fit(options, sizes, batch, device)
    assert found.step_s is not None
    total = round_down(hours * 3600 / found.step_s)
    plan = replace(plan, fit=found, total_iter=total)
    if "val" in plan.parts and not plan.thick:
        trial.write_text(text_for(found.gt_size, found.batch), encoding="utf-8")
        loaded = load_options(trial, mode="train", force=["datasets:val:check=off"])
        plan = replace(plan, to_beat=baseline_lines(loaded, _BASELINE_PICTURES))
    trial.unlink()
    return plan


def round_down(iterations: float) -> int:
    """To two digits, between the least and the most that make sense."""
    within = max(_LEAST_ITER, min(_MOST_ITER, int(iterations)))
    unit = 10 ** max(0, len(str(within)) - 2)
    return within // unit * unit


def experiment_name(folder: Path, scale: tuple[int, ...]) -> str:
    """Letters, digits, _ and -: the folder's name and the scale."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", folder.resolve().name).strip("_") or "plan"
    return f"{plain}_x{max(scale)}"


def found_lines(layout: Layout, facts: PictureFacts | SlideFacts | VolumeFacts, parts: Mapping[str, Part]) -> list[str]:
    """Sentences for the head of the option file."""
    counts = ", ".join(f"{phase} {len(part.names)}" for phase, part in parts.items())
    lines = [f"{layout.holds}: {counts}"]
    if isinstance(facts, PictureFacts):
        height, width = facts.smallest
        kinds = " and ".join("grey" if c == 1 else "colour" for c in sorted(facts.channels))
        lines.append(f"{width}x{height} to {facts.largest[1]}x{facts.largest[0]} pixels, {kinds}, {facts.bits} bit")
        if facts.channels == {1}:
            lines.append("grey pictures pass through a colour network as three equal channels")
        if facts.jpeg:
            lines.append(
                f"{facts.jpeg:.0%} are JPEG: their blocks and noise become part of the truth, so mark figures from them"
            )
    if isinstance(facts, VolumeFacts):
        lines.append(
            f"voxels of {'x'.join(f'{s:g}' for s in facts.spacing_mm)} mm, at least {'x'.join(map(str, facts.smallest))} of them"
        )
    if isinstance(facts, SlideFacts) and facts.mpp:
        lines.append(f"{min(facts.mpp):.4g} to {max(facts.mpp):.4g} microns per pixel")
    if isinstance(facts, SlideFacts) and facts.silent:
        lines.append(f"{len(facts.silent)} slides do not say their microns per pixel: {', '.join(facts.silent[:3])}")
    return [*lines, *layout.notes, *(f"WARNING {text}" for text in facts.warnings)]


def tell(plan: Plan, layout: Layout) -> None:
    """What was decided, on the screen."""
    for line in plan.found:
        print(line)
    print(f"scale {'x'.join(map(str, plan.scale))}: {plan.scale_why}")
    if layout.holds == "pictures":
        print(f"kind {plan.kind}: {plan.kind_why}")
    if plan.listed:
        print(plan.key_why)
    size = "x".join(map(str, plan.fit.gt_size))
    print(
        f"patches of {size}, batches of {plan.fit.batch} times {plan.fit.accum} accumulated, {plan.total_iter:,} iterations"
    )
    if plan.hours is not None:
        print(f"expected: {plan.hours:.2g} hours on {plan.fit.device}, loading and validation not counted")
    for line in plan.to_beat:
        print(f"to beat: {line}")
    print(
        f"wrote {plan.out}/train.yml" + (f" and {plan.out}/test.yml" if "test" in plan.parts and not plan.thick else "")
    )
    print(f"next:  srkit check {plan.out}/train.yml && srkit train -opt {plan.out}/train.yml")
