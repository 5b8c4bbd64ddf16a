"""`srkit audit`: nuclei that stand in sr and not in gt, and the reverse, with bicubic and a touch of noise beside.

The detector has one length, the diameter of a typical nucleus, and one threshold for all pictures of a field: that of gt.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.data.names import need_folders, output_name
from srkit.data.pairing import require_template
from srkit.data.sources import Source
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.montage import strip
from srkit.imaging.resize import imresize
from srkit.metrics.nuclei import find_nuclei, same_nuclei
from srkit.tools.groups import add_key_arguments, keys_of
from srkit.tools.writing import new_folder

DIAMETER_UM = 8.0
MATCH = 3 / 8  # of the diameter: of 8 microns 3, as Sirinukunwattana et al. 2016 (6 pixels at 20x)
_INVENTED, _LOST = (255, 255, 0), (0, 255, 255)
_COLUMNS = ("both", "invented", "lost", "precision", "recall", "f1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--sr", required=True, help="folder of restored pictures")
    add("-gt", "--gt", required=True, help="folder of the truth")
    small = parser.add_mutually_exclusive_group(required=True)
    small.add_argument("-lq", "--lq", help="folder of what was enlarged: bicubic enlarges the same")
    small.add_argument(
        "--bicubic", type=int, metavar="SCALE", help="bicubic enlarges what bicubic made of gt, so many times smaller"
    )
    add("-o", "--out", type=Path, required=True, help="new folder for table, CSV, JSON and overlays")
    size = parser.add_mutually_exclusive_group(required=True)
    size.add_argument("--mpp", type=float, help="microns per pixel of gt")
    size.add_argument(
        "--diameter_px", type=float, help="diameter of a typical nucleus in pixels of gt, where microns are unknown"
    )
    add("--diameter_um", type=float, help=f"with --mpp: the diameter in microns (default {DIAMETER_UM:g})")
    add("--filename_tmpl", default="{}_sr", help="name of sr from the name of gt (default {}_sr)")
    add("--lq_tmpl", default="{}", help="name of lq from the name of gt (default {})")
    add_key_arguments(parser, required=False)


@dataclass(frozen=True)
class Count:
    """Nuclei of one method's pictures against gt's: in both, in the method's alone, in gt alone."""

    both: int
    invented: int
    lost: int

    @property
    def precision(self) -> float | None:
        return self.both / (self.both + self.invented) if self.both + self.invented else None

    @property
    def recall(self) -> float | None:
        return self.both / (self.both + self.lost) if self.both + self.lost else None

    @property
    def f1(self) -> float | None:
        found = 2 * self.both + self.invented + self.lost
        return 2 * self.both / found if found else None

    @classmethod
    def total(cls, counts: Sequence[Count]) -> Count:
        return cls(sum(c.both for c in counts), sum(c.invented for c in counts), sum(c.lost for c in counts))

    def plain(self) -> dict[str, int | float | None]:
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


Counts = dict[str, dict[str, Count]]
"""By picture and method."""


def run(flags: argparse.Namespace) -> None:
    diameter_px = _diameter_px(flags)
    if flags.bicubic is not None and flags.bicubic < 2:
        raise RefusedError(f"--bicubic: found {flags.bicubic}, expected the scale of the network, 2 or more")
    for template in (flags.filename_tmpl, flags.lq_tmpl):
        require_template(template)
    if flags.out.exists():
        raise RefusedError(f"{flags.out} exists; remove it or give another name with -o")
    gt, sr = _pairs("-i", flags.gt, flags.sr, flags.filename_tmpl)
    lq = None if flags.lq is None else _pairs("-lq", flags.gt, flags.lq, flags.lq_tmpl)[1]
    names = [output_name(name, need_folders(gt.names)) for name in gt.names]
    groups = dict.fromkeys(names, "")
    if flags.key is not None or flags.table is not None:
        keys = keys_of(gt.names, flags.key, flags.table)
        groups = {name: keys[given] for name, given in zip(names, gt.names)}
    counts: Counts = {}
    with new_folder(flags.out) as folder:
        for k, name in enumerate(tqdm(names, "audit", disable=None)):
            pictures = _pictures(gt, sr, lq, k, flags.bicubic)
            counts[name], overlay = audited(pictures, diameter_px, gt.label(k))
            write_image(folder / "overlays" / f"{name}.jpg", overlay)
        (folder / "nuclei.csv").write_text(_csv(counts, groups), encoding="utf-8")
        text = _table(counts, groups, diameter_px)
        (folder / "table.md").write_text(text, encoding="utf-8")
        (folder / "nuclei.json").write_text(_json(counts, groups, diameter_px, flags), encoding="utf-8")
    print(text, end="")
    print(f"results in {flags.out}")


def _diameter_px(flags: argparse.Namespace) -> float:
    if flags.diameter_px is not None and flags.diameter_um is not None:
        raise RefusedError("--diameter_um: needs --mpp; found --diameter_px, which says the same in pixels")
    for flag in ("mpp", "diameter_px", "diameter_um"):
        value = getattr(flags, flag)
        if value is not None and not 0 < value < float("inf"):
            raise RefusedError(f"--{flag}: found {value:g}, expected a length above 0")
    found = float(flags.diameter_px or (flags.diameter_um or DIAMETER_UM) / flags.mpp)
    if found < 6:
        raise RefusedError(
            f"a nucleus would have {found:.1f} pixels across, expected 6 or more; it is too small to be told apart"
        )
    return found


def _pairs(flag: str, gt_root: str, root: str, template: str) -> tuple[Source, Source]:
    """Raises DataError naming folders that are none and pictures without a partner."""
    for name, path in (("-gt", gt_root), (flag, root)):
        if not Path(path).is_dir():
            raise DataError(f"{name} {path}: no such folder")
    gt, other, problems = Folders().open_pairs(gt_root, root, template)
    Findings(f"audit {flag}", problems).refuse()
    return gt, other


def _pictures(gt: Source, sr: Source, lq: Source | None, k: int, scale: int | None) -> dict[str, np.ndarray]:
    """gt, sr and bicubic, of equal size; gt may be larger by less than one step of the scale. Raises DataError."""
    truth, made = gt.read(k), sr.read(k)
    if lq is None:
        assert scale is not None
        steps: tuple[int, ...] = (scale, scale)
        kept = [n // scale * scale for n in truth.shape[:2]]
        cut = np.ascontiguousarray(truth[: kept[0], : kept[1]])
        enlarged = imresize(imresize(cut, Fraction(1, scale)), scale)
    else:
        small = lq.read(k)
        steps = tuple(max(1, n // m) for n, m in zip(made.shape, small.shape[:2]))
        enlarged = imresize(small, steps)
        cut = truth[: enlarged.shape[0], : enlarged.shape[1]]
    fits = all(0 <= t - n < s for t, n, s in zip(truth.shape, enlarged.shape[:2], steps))
    if not fits or made.shape != enlarged.shape or cut.shape != made.shape:
        raise DataError(
            f"{sr.label(k)} is {made.shape}, {gt.label(k)} {truth.shape}, bicubic {enlarged.shape}; expected equal sizes and "
            "colours: name the lq that sr was made from, or the scale"
        )
    if len({made.dtype, cut.dtype, enlarged.dtype}) > 1:
        raise DataError(f"{sr.label(k)} is {made.dtype}, {gt.label(k)} {truth.dtype}; expected the same depth")
    return {"gt": cut, "sr": made, "bicubic": enlarged}


def audited(pictures: Mapping[str, np.ndarray], diameter_px: float, place: str) -> tuple[dict[str, Count], np.ndarray]:
    """Counts of every picture but "gt" against it, of gt with noise too, and a picture (H, W, 3) of where they differ.

    "gt + noise" is gt with normal noise of one grey level of 8 bits: what the detector makes of a difference that nobody
    sees.

    Raises: DataError naming `place` for pictures without colour, or all of one colour.
    """
    gt = pictures["gt"]
    white = float(np.iinfo(gt.dtype).max)
    noise = np.random.default_rng(0).normal(0, white / 255, gt.shape)
    noisy = np.clip(np.rint(gt + noise), 0, white).astype(gt.dtype)
    try:
        truth = find_nuclei(gt, diameter_px=diameter_px, data_range=white)
        counts, panels = {}, {"gt": _eight_bit(gt, white)}
        for name, image in {**pictures, "gt + noise": noisy}.items():
            if name == "gt":
                continue
            found = find_nuclei(image, diameter_px=diameter_px, data_range=white, threshold=truth.threshold).centres
            pairs = same_nuclei(found, truth.centres, MATCH * diameter_px)
            invented = np.delete(found, pairs[:, 0], axis=0)
            lost = np.delete(truth.centres, pairs[:, 1], axis=0)
            counts[name] = Count(len(pairs), len(invented), len(lost))
            if name != "gt + noise":
                caption = f"{name}: {len(invented)} invented (yellow), {len(lost)} lost (cyan)"
                panels[caption] = _ringed(_eight_bit(image, white), invented, lost, diameter_px)
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    return counts, strip(panels)


def _eight_bit(image: np.ndarray, white: float) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.rint(image * (255 / white)).astype(np.uint8)


def _ringed(image: np.ndarray, invented: np.ndarray, lost: np.ndarray, diameter_px: float) -> np.ndarray:
    drawn = image.copy()
    width = max(2, round(diameter_px / 10))
    for centres, colour in ((lost, _LOST), (invented, _INVENTED)):
        for row, column in centres:
            cv2.circle(drawn, (round(column), round(row)), round(diameter_px * 0.75), colour, width, cv2.LINE_AA)
    return drawn


def _by(counts: Counts, key: Callable[[str], str]) -> dict[str, dict[str, Count]]:
    """Totals by what `key` says of a picture, and by method."""
    found: dict[str, dict[str, list[Count]]] = {}
    for name, methods in counts.items():
        for method, count in methods.items():
            found.setdefault(key(name), {}).setdefault(method, []).append(count)
    return {k: {method: Count.total(parts) for method, parts in methods.items()} for k, methods in found.items()}


def _texts(count: Count) -> list[str]:
    return [
        "n/a" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
        for value in count.plain().values()
    ]


def _table(counts: Counts, groups: Mapping[str, str], diameter_px: float) -> str:
    """Markdown: all pictures, each group, each picture."""
    blocks = [("all pictures", _by(counts, lambda name: str(len(counts))))]
    if any(groups.values()):
        blocks.append(("group", _by(counts, lambda name: groups[name])))
    blocks.append(("picture", counts))
    texts = []
    for head, rows in blocks:
        lines = [f"| {head} | method | " + " | ".join(_COLUMNS) + " |", "|---" * (2 + len(_COLUMNS)) + "|"]
        lines += [
            f"| {name} | {method} | " + " | ".join(_texts(count)) + " |"
            for name, methods in rows.items()
            for method, count in methods.items()
        ]
        texts.append("\n".join(lines) + "\n")
    notes = (
        f"\ninvented: in the picture, not in gt; lost: the reverse; nuclei of about {diameter_px:.3g} pixels, the same within "
        f"{MATCH * diameter_px:.3g}\ngt + noise: gt with noise of one grey level, the least that the detector can tell\n"
    )
    return "\n".join(texts) + notes


def _csv(counts: Counts, groups: Mapping[str, str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("image", "group", "method", *_COLUMNS))
    for name, methods in counts.items():
        for method, count in methods.items():
            values = ["" if value is None else repr(value) for value in count.plain().values()]
            writer.writerow((name, groups[name] or name, method, *values))
    return out.getvalue()


def _json(counts: Counts, groups: Mapping[str, str], diameter_px: float, flags: argparse.Namespace) -> str:
    def plain(rows: Mapping[str, Mapping[str, Count]]) -> dict[str, dict[str, dict[str, int | float | None]]]:
        return {name: {m: c.plain() for m, c in methods.items()} for name, methods in rows.items()}

    about = {
        "sr": flags.sr,
        "gt": flags.gt,
        "lq": flags.lq,
        "bicubic_scale": flags.bicubic,
        "diameter_px": diameter_px,
        "match_px": MATCH * diameter_px,
        "all": plain(_by(counts, lambda name: "all"))["all"],
        "groups": plain(_by(counts, lambda name: groups[name] or name)),
        "pictures": plain(counts),
    }
    return json.dumps(about, indent=1, allow_nan=False) + "\n"
