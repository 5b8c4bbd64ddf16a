"""How far gt may be from sr: the spread of the self-ensemble times a factor that was fitted on groups with gt.

A pixel's score is |gt - sr| / (spread + FLOOR). The factor is a quantile of the scores of the calibration groups, each
group (slide, patient, animal) with equal weight whatever its size: split conformal prediction with pooled groups.

Sources: Angelopoulos and Bates 2021, arXiv:2107.07511, section 2.3 (scores scaled by a heuristic spread); Angelopoulos et
al. 2022, arXiv:2202.05265 (intervals of pixels); Dunn, Wasserman and Ramdas 2018, arXiv:1809.07441 (pooling of groups);
Lee, Barber and Willett 2023, arXiv:2306.06342 (what K groups prove: K / (K + 1) of the level).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from srkit.errors import DataError, RefusedError

FLOOR = 0.1 / 255
"""Added to every spread, in shares of white: where all turns agree, a rounded gt is still up to half a level away. The mean
half-width hardly depends on it (docs/trust.md); a floor of a whole level made the map flat, for spreads are far below one."""

FORMAT = 1
_UNLIKE = 1.5  # times the largest, or part of the smallest, mean spread of the calibration: worth a word
_LOWEST, _HIGHEST, _STEPS = 1e-3, 1e5, 512  # scores apart by 10**(1 / 512), that is 0.45 %
_EDGES = _LOWEST * 10 ** (np.arange(round(math.log10(_HIGHEST / _LOWEST)) * _STEPS + 1) / _STEPS)


@dataclass
class Tally:
    """Scores of one group, counted in bins: memory does not grow with its pixels.

    Attributes:
        counts: By bin; bin i holds scores from edge i - 1 to below edge i, the first all below, the last all above.
        widths: Sum of spread + FLOOR over the pixels.
        spreads: Mean spread of each picture, whole: where there is a mask, `srkit infer` does not know it.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(_EDGES) + 1, np.int64))
    widths: float = 0.0
    spreads: list[float] = field(default_factory=list)

    def add(self, error: np.ndarray, spread: np.ndarray, inside: np.ndarray | None = None) -> None:
        """One picture, any shape, both 1.0 at white; of its pixels those inside a mask (bool) are counted."""
        chosen = np.ones(error.shape, bool) if inside is None else inside
        width = spread[chosen].astype(np.float64) + FLOOR
        score = error[chosen].astype(np.float64) / width
        with np.errstate(divide="ignore"):
            index = np.floor(np.log10(score / _LOWEST) * _STEPS + 1)
        bins = np.clip(index, 0, len(_EDGES)).astype(np.int64)
        self.counts += np.bincount(bins, minlength=len(_EDGES) + 1)
        self.widths += float(width.sum())
        self.spreads.append(float(spread.mean(dtype=np.float64)))

    @property
    def pixels(self) -> int:
        return int(self.counts.sum())

    def coverage(self, factor: float) -> float:
        """Share of the pixels whose score lies below the factor, an edge that `factor_of` gave."""
        return float(self.counts[: int(np.searchsorted(_EDGES, factor * (1 - 1e-9))) + 1].sum() / self.pixels)

    def half_width(self, factor: float) -> float:
        """Mean over the pixels, in shares of white."""
        return factor * self.widths / self.pixels


def factor_of(tallies: Mapping[str, Tally], level: float) -> float:
    """The smallest bin edge below which the groups have, on average, that share of their pixels. DataError for none."""
    shares = np.mean([tally.counts.cumsum() / tally.pixels for tally in tallies.values()], axis=0)
    index = int(np.argmax(shares >= level - 1e-12))
    if index == len(_EDGES):
        raise DataError(
            f"errors are more than {_HIGHEST:g} times the spread of the turns in {1 - shares[-2]:.1%} of the pixels; "
            "the network does not fit these data, or lq and gt do not belong together"
        )
    return float(_EDGES[index])


def level_of(coverage: float, groups: int, guaranteed: bool) -> float:
    """Level of the quantile for a stated coverage: the coverage itself, or raised so that K groups prove it.

    Raises: RefusedError when so few groups prove it at no level.
    """
    if not guaranteed:
        return coverage
    needed = math.ceil(coverage / (1 - coverage) - 1e-9)
    if groups < needed:
        raise RefusedError(
            f"--guaranteed: found {groups} groups, which prove a coverage of at most {groups / (groups + 1):.3g}; expected "
            f"{needed} or more for {coverage:g}; add groups, lower --coverage, or leave --guaranteed out"
        )
    return min(1.0, coverage * (groups + 1) / groups)


@dataclass(frozen=True, kw_only=True)
class GroupCoverage:
    """How a factor did on a group that had no part in it.

    Attributes:
        coverage: Share of pixels of which gt lies within sr plus and minus the half-width.
        half_width: Mean over the pixels, in shares of white (of a volume: of the span from black to white).
        factor: By which it was judged.
    """

    group: str
    images: int
    pixels: int
    coverage: float
    half_width: float
    factor: float

    @classmethod
    def of(cls, group: str, tally: Tally, factor: float) -> GroupCoverage:
        return cls(
            group=group,
            images=len(tally.spreads),
            pixels=tally.pixels,
            coverage=tally.coverage(factor),
            half_width=tally.half_width(factor),
            factor=factor,
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `srkit calibrate` found, and for what it holds.

    Attributes:
        model_sha256: Of the model file.
        weights: Which of its weights: params or params_ema.
        channels: Of gt; 1 for volumes.
        white: Intensity of 1.0 in the file's units; None for volumes, whose span is each one's own.
        region: Pixels that were counted: all, or those inside the mask.
        coverage: The stated share of pixels.
        proven: Mean coverage over new groups that the number of groups proves.
        left_out: Each calibration group, judged by the factor of the others.
        checked: Groups of other data, judged by the factor.
        spreads: Smallest and largest mean spread of a calibration picture.
    """

    kind: Literal["pictures", "volumes"]
    scale: tuple[int, ...]
    model: str
    model_sha256: str
    weights: str
    precision: str
    channels: int
    white: float | None
    region: Literal["whole", "mask"]
    coverage: float
    proven: float
    factor: float
    floor: float
    spreads: tuple[float, float]
    left_out: tuple[GroupCoverage, ...]
    checked: tuple[GroupCoverage, ...]

    def half_width(self, spread: np.ndarray) -> np.ndarray:
        """Same shape, float32, in shares of white."""
        return ((spread + np.float32(self.floor)) * np.float32(self.factor)).astype(np.float32)

    def unlike(self, spread: np.ndarray) -> str:
        """What sets this picture apart from those of the calibration; empty for nothing."""
        mean, (least, most) = float(spread.mean(dtype=np.float64)), self.spreads
        if least / _UNLIKE <= mean <= most * _UNLIKE:
            return ""
        return (
            f"the turns differ by {mean:.3g} of white on average, in the calibration by {least:.3g} to {most:.3g}; this input is "
            "unlike those the map was calibrated on, and the stated coverage may not hold"
        )

    def to_json(self) -> str:
        return json.dumps({"srkit_calibration": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    def unit(self, half_width: float) -> str:
        """A half-width for people: grey levels, of volumes per cent of the span."""
        return f"{100 * half_width:.2f} %" if self.white is None else f"{half_width * self.white:.2f}"


def calibrated(tallies: Mapping[str, Tally], coverage: float, guaranteed: bool) -> dict[str, Any]:
    """What a Calibration says of its groups.

    Raises: DataError for fewer than two groups; RefusedError as `level_of`.
    """
    if len(tallies) < 2:
        raise DataError(
            f"found {len(tallies)} group ({', '.join(tallies)}), expected two or more: the coverage is checked on a group that "
            "had no part in the factor"
        )
    level = level_of(coverage, len(tallies), guaranteed)
    left_out = []
    for group, tally in tallies.items():
        others = {name: other for name, other in tallies.items() if name != group}
        raised = min(1.0, coverage * (len(others) + 1) / len(others)) if guaranteed else coverage
        left_out.append(GroupCoverage.of(group, tally, factor_of(others, raised)))
    spreads = [spread for tally in tallies.values() for spread in tally.spreads]
    return {
        "coverage": coverage,
        "proven": level * len(tallies) / (len(tallies) + 1),
        "factor": factor_of(tallies, level),
        "floor": FLOOR,
        "spreads": (min(spreads), max(spreads)),
        "left_out": tuple(left_out),
    }


def read_calibration(path: Path) -> Calibration:
    """Raises DataError for a file that is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a file that `srkit calibrate` wrote") from None
    if not isinstance(told, dict) or told.pop("srkit_calibration", None) != FORMAT:
        raise DataError(f"{path}: is no calibration of this version; expected a file that `srkit calibrate` wrote")
    try:
        told["scale"], told["spreads"] = tuple(told["scale"]), tuple(told["spreads"])
        for key in ("left_out", "checked"):
            told[key] = tuple(GroupCoverage(**group) for group in told[key])
        return Calibration(**told)
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{path}: a calibration that was changed or cut ({error}); run `srkit calibrate` again"
        ) from None


def coverage_table(calibration: Calibration) -> list[tuple[str, ...]]:
    """Rows of text, the head first: every group left out in turn, then those that were checked."""
    width = "mean half-width" if calibration.white is None else f"mean half-width (levels of {calibration.white:.0f})"
    rows: list[tuple[str, ...]] = [("groups", "group", "images", "coverage", width)]
    for name, groups in (("left out in turn", calibration.left_out), ("checked", calibration.checked)):
        rows += [(name, g.group, str(g.images), f"{g.coverage:.3f}", calibration.unit(g.half_width)) for g in groups]
        if len(groups) > 1:
            mean = sum(g.coverage for g in groups) / len(groups)
            wide = sum(g.half_width for g in groups) / len(groups)
            rows.append(
                (name, "mean of groups", str(sum(g.images for g in groups)), f"{mean:.3f}", calibration.unit(wide))
            )
    return rows
