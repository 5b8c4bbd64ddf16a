"""`srkit calibrate`: how far gt lies from sr, told from the self-ensemble's disagreement and checked group by group."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from srkit.commands import load_all
from srkit.data.loader import eval_samples
from srkit.data.sample import Sample
from srkit.engine.confidence import Calibration, GroupCoverage, Tally, calibrated, coverage_table, level_of
from srkit.engine.log import logger, start_console
from srkit.errors import DataError, DivergedError, RefusedError
from srkit.imaging.colour import luma_full
from srkit.imaging.files import write_image
from srkit.imaging.montage import heat, strip
from srkit.tools.groups import add_key_arguments, keys_of
from srkit.tools.writing import write_new

if TYPE_CHECKING:
    from srkit.test_run import Model

PICTURE_PX = 384


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-m", "--model", required=True, help="model file")
    add("-opt", required=True, metavar="FILE", help="test option file whose sets, with gt, are calibrated on")
    add("-o", "--out", type=Path, help="default: calibration.json in the results folder of that option file")
    add("--coverage", type=float, default=0.9, help="share of the pixels that the map is to hold for (default 0.9)")
    add(
        "--guaranteed",
        action="store_true",
        help="raise the factor until the number of groups proves the coverage for a new group (0.9: 9 groups or more)",
    )
    add("--check", metavar="FILE", help="test option file of other pictures, on which the finished map is checked")
    add_key_arguments(parser, required=False)
    add("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="change keys of -opt (not of --check)")


def run(flags: argparse.Namespace) -> None:
    if not 0 < flags.coverage < 1:
        raise RefusedError(f"--coverage: found {flags.coverage:g}, expected a share between 0 and 1, such as 0.9")
    from srkit import build

    start_console(True)
    options, model = _opened(flags.opt, flags.model, flags.force_yml)
    root = build.absolute(options.path.results_root)
    assert root is not None
    out: Path = flags.out or root / options.name / "calibration.json"
    picture = out.with_suffix(".png")
    for path in (out, picture):
        if path.exists():
            raise RefusedError(f"{path} exists; remove it or give another name with -o")
    other = _opened(flags.check, flags.model, [])[1] if flags.check else None
    groups = _groups(model, flags)
    if len(set(groups.values())) > 1:  # a single one is refused below, with its name
        level_of(flags.coverage, len(set(groups.values())), flags.guaranteed)
    found = _measured(model, groups)
    about = calibrated(found.tallies, flags.coverage, flags.guaranteed)
    checked: tuple[GroupCoverage, ...] = ()
    last = found
    if other is not None:
        theirs = _groups(other, flags)
        if shared := sorted(set(theirs.values()) & set(groups.values())):
            raise RefusedError(
                f"--check {flags.check}: group {shared[0]} was calibrated on too; a check needs groups of its own"
            )
        last = _measured(other, theirs)
        if (last.channels, last.white, last.region) != (found.channels, found.white, found.region):
            raise DataError(f"--check {flags.check}: its data are of another kind than those of {flags.opt}")
        checked = tuple(GroupCoverage.of(name, tally, about["factor"]) for name, tally in last.tallies.items())
    calibration = Calibration(
        kind="volumes" if len(model.restorer.scale) == 3 else "pictures",
        scale=model.restorer.scale,
        model=str(model.file.path),
        model_sha256=sha256_of(model.file.path),
        weights=model.file.key,
        precision=options.val.precision,
        channels=found.channels,
        white=found.white,
        region=found.region,
        checked=checked,
        **about,
    )
    write_new(out, calibration.to_json())
    assert last.example is not None
    write_image(picture, _drawn(calibration, *last.example))
    print(table(calibration), end="")
    print(f"wrote {out} and {picture}")


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(file: str, model: str, force: Sequence[str]) -> tuple[Any, Model]:
    """Options and the model with its sets. Raises SrkitError."""
    forced = [*force, f"path:pretrain_network_g={json.dumps(model)}"]
    options = load_all([file], mode="test", force=forced, launcher="none")[0]
    from srkit.engine.distributed import join_group
    from srkit.test_run import load_models

    group = join_group("none", options.num_gpu, backend=None, port=0, timeout_s=0)[0]
    opened = load_models(options, group, [model])[0]
    if len({item.scale for item in opened.sets}) > 1:
        raise RefusedError(f"{file}: has sets of several scales; calibrate each scale by itself")
    return options, opened._replace(restorer=opened.restorer.at_scale(opened.sets[0].scale))


def _groups(model: Model, flags: argparse.Namespace) -> dict[tuple[str, str], str]:
    """(Set, picture) -> group: by --key or --table, else as the set knows it, else every picture by itself."""
    found: dict[tuple[str, str], str] = {}
    alone = 0
    for item in model.sets:
        for sample in tqdm(
            eval_samples(item.dataset, range(len(item.dataset)), 0), "groups", leave=False, disable=None
        ):
            found[item.name, sample.name] = sample.group or sample.name
            alone += not sample.group
    if flags.key is not None or flags.table is not None:
        keys = keys_of((name for _, name in found), flags.key, flags.table)
        return {place: keys[place[1]] for place in found}
    if alone:
        logger.warning(
            "%d of %d pictures have no known group, each counts as one; if several come from one slide or patient, the stated "
            "coverage is too hopeful: say the groups by --key or --table, or by group_pattern in the option file",
            alone,
            len(found),
        )
    return found


@dataclass
class _Found:
    """Scores of all groups, and of the last picture sr (*S, C), spread and error (*S)."""

    channels: int = 0
    white: float | None = None
    region: Any = "whole"
    tallies: dict[str, Tally] = field(default_factory=dict)
    example: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def _measured(model: Model, groups: Mapping[tuple[str, str], str]) -> _Found:
    """Runs the self-ensemble over all sets. Raises DataError for a picture without gt, or unlike the first one."""
    found = _Found()
    for item in model.sets:
        samples = eval_samples(item.dataset, range(len(item.dataset)), item.num_workers)
        for sample in tqdm(samples, item.name, len(item.dataset), leave=False, disable=None):
            place = f"{item.name}/{sample.name}"
            error, spread, sr = _looked_at(model, sample, place, item.scale)
            mask = sample.images.get("mask")
            kind = (
                sample.images["gt"].shape[-1],
                None if len(item.scale) == 3 else sample.white,
                "whole" if mask is None else "mask",
            )
            if not found.tallies:
                found.channels, found.white, found.region = kind
            if (found.channels, found.white, found.region) != kind:
                raise DataError(
                    f"{place}: has {kind[0]} channels, white {kind[1]}, region {kind[2]}, the first picture {found.channels}, "
                    f"{found.white}, {found.region}; calibrate each kind by itself"
                )
            inside = None if mask is None else mask[..., 0] > 0
            if inside is not None and not inside.any():
                raise DataError(f"{place}: its mask is empty; mend the mask, or leave the picture out")
            group = groups[item.name, sample.name]
            found.tallies.setdefault(group, Tally()).add(error, spread, inside)
            found.example = sr, spread, error
    return found


def _looked_at(
    model: Model, sample: Sample, place: str, scale: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Error and spread (*S), both 1.0 at white, and the values of the file that `srkit infer` would write (*S, C).

    A pixel's error is that of its worst channel, so that a pixel is covered when all of its channels are.
    """
    from srkit.data.forms import PictureForm

    form, gt = sample.form or PictureForm.of(sample), sample.images.get("gt")
    if gt is None:
        raise DataError(f"{place}: has no gt; name it by dataroot_gt, a calibration needs it")

    def view(sr: np.ndarray) -> np.ndarray:
        made = form.finished(sr, scale)
        return luma_full(made) if gt.shape[-1] == 1 and made.shape[-1] == 3 else made

    spread = model.restorer.spread(sample.images["lq"], sample.white, sample.black, view)
    if not np.isfinite(spread.mean).all():
        raise DivergedError(f"{place}: the network's output is not finite; use earlier weights")
    sr = form.stored(spread.mean)
    if sr.shape != gt.shape:
        raise DataError(
            f"{place}: sr is {sr.shape}, gt is {gt.shape}; expected lq and gt that differ by scale {scale} alone"
        )
    error = np.abs(sr.astype(np.float64) - gt).max(-1) / form.span
    return error, spread.sd, sr


def _drawn(calibration: Calibration, sr: np.ndarray, spread: np.ndarray, error: np.ndarray) -> np.ndarray:
    """sr, the map, the error in the same colours and where it is larger, side by side; of a volume the middle slice."""
    if error.ndim == 3:
        at = error.shape[2] // 2
        sr, spread, error = (part[:, :, at] for part in (sr, spread, error))
    rows, columns = (slice(max(0, n // 2 - PICTURE_PX // 2), n // 2 + PICTURE_PX // 2) for n in error.shape)
    sr, spread, error = (part[rows, columns] for part in (sr, spread, error))
    half = calibration.half_width(spread)
    low, high = (0.0, calibration.white) if calibration.white else (float(sr.min()), float(sr.max()))
    shown = np.clip((sr.astype(np.float64) - low) * (255 / max(high - low, 1e-12)) + 0.5, 0, 255).astype(np.uint8)
    limit = float(np.percentile(half, 99.9))
    outside = np.repeat((error > half)[..., None] * np.uint8(255), 3, axis=-1)
    panels = {
        "sr": np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown,
        f"half-width, 0 to {calibration.unit(limit)}": heat(half, limit),
        "|gt - sr|, same colours": heat(error, limit),
        "white: gt is outside": outside,
    }
    return strip(panels)


def table(calibration: Calibration) -> str:
    """Markdown, and what the numbers mean."""
    rows = coverage_table(calibration)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    count = len(calibration.left_out)
    notes = [
        f"stated coverage {calibration.coverage:g}; half-width = {calibration.factor:.3f} x (spread + {255 * calibration.floor:g} of 255)",
        f"left out in turn: each of the {count} groups, judged by the factor of the others",
        f"{count} groups prove a mean coverage of {calibration.proven:.3f} for new groups of the same kind; the rest is observed",
    ]
    if calibration.region == "mask":
        notes.append("only voxels inside the mask are counted: the coverage holds there")
    return "\n".join([*lines, "", *notes]) + "\n"
