"""`srkit check-pairs`: lq and gt that lie beside each other or are no pairs. Exits 9 on findings.

Halves made by different reducers (or by dropping pixels) differ by a fraction of a pixel, which no network can learn away.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from srkit.data.checks import Findings, picks
from srkit.data.folders import Folders
from srkit.data.pairing import require_pattern, require_template
from srkit.data.sources import Source, in_threads
from srkit.errors import DataError, ExitCode
from srkit.imaging.shift import Shift, pair_shift

LIMIT_PX = 0.25
STRANGERS = 0.9  # correlation: true pairs had 0.95 and more, even x8 by dropping pixels; faces of two people up to 0.79


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("gt", help="high-resolution pictures")
    parser.add_argument("lq", help="their partners")
    parser.add_argument("--scale", type=int, required=True, help="gt size / lq size")
    parser.add_argument("--filename_tmpl", default="{}", help="name of lq from the name of gt, such as {}x4")
    parser.add_argument("--pair_pattern", help="regular expression whose group is the id in both names")
    parser.add_argument("--recursive", action="store_true", help="also the folders below")
    parser.add_argument("--count", type=int, default=100, help="pairs looked at, picked by a fixed seed (default 100)")
    parser.add_argument("--limit", type=float, default=LIMIT_PX, help=f"shift in gt pixels (default {LIMIT_PX})")


def run(flags: argparse.Namespace) -> ExitCode:
    require_template(flags.filename_tmpl)
    if flags.pair_pattern is not None:
        require_pattern(flags.pair_pattern)
    folders = Folders(recursive=flags.recursive)
    gt, lq, problems = folders.open_pairs(flags.gt, flags.lq, flags.filename_tmpl, flags.pair_pattern)
    Findings("check-pairs", problems).refuse()
    report = look_at_pairs(lq, gt, (flags.scale, flags.scale), flags.count, flags.limit)
    print("\n".join([*report.lines, report.summary]))
    return ExitCode.INCOMPLETE if report.lines else ExitCode.OK


@dataclass(frozen=True)
class Report:
    """A line for each pair found wanting, and one for all of them."""

    lines: list[str]
    summary: str


def look_at_pairs(lq: Source, gt: Source, scale: Sequence[int], count: int, limit_px: float = LIMIT_PX) -> Report:
    """Shifts of up to `count` pairs, in gt pixels."""

    def look(k: int) -> Shift | str | None:
        try:
            small, large = lq.read(k), gt.read(k)
        except DataError as error:
            return str(error)
        room = [g - n * s for n, g, s in zip(small.shape, large.shape, scale)]
        if not all(0 <= r < s for r, s in zip(room, scale)):
            return f"{gt.label(k)} of {large.shape[:2]} is not {tuple(scale)} times {lq.label(k)} of {small.shape[:2]}"
        return pair_shift(small, large, scale)

    chosen = picks(len(gt.names), count)
    lines, shifts = [], []
    for k, shift in zip(chosen, tqdm(in_threads(look, chosen), "check-pairs", len(chosen), disable=None)):
        if isinstance(shift, str):
            lines.append(shift)
        elif shift is not None and shift.correlation < STRANGERS:
            lines.append(f"{lq.label(k)} hardly shows what {gt.label(k)} does (correlation {shift.correlation:.2f})")
        elif shift is not None:
            shifts.append(shift)
            if max(abs(shift.down), abs(shift.right)) > limit_px:
                lines.append(f"{lq.label(k)} lies {shift.down:+.2f} px down, {shift.right:+.2f} right of {gt.label(k)}")
    if not shifts:
        return Report(lines, f"{len(chosen)} of {len(gt.names)} pairs looked at, none could be measured")
    down, right = np.median([(s.down, s.right) for s in shifts], axis=0).round(2) + 0.0  # + 0.0: no "-0.00"
    return Report(
        lines,
        f"{len(chosen)} of {len(gt.names)} pairs looked at, {len(shifts)} measured: lq lies {down:+.2f} gt pixels down, "
        f"{right:+.2f} right (median); {len(lines)} findings",
    )
