"""What is looked at before training: every file's presence, and sizes and decoding of all or of a seeded part."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from srkit.data.order import skip_limit
from srkit.data.pairing import first_names
from srkit.data.sources import Shape, Source, in_threads
from srkit.errors import DataError

if TYPE_CHECKING:
    from srkit.data.pairs import PictureReader

_ALL_UP_TO, _PART = 2000, 500
_REASONS = 20  # shown of files that each have one of their own
_log = logging.getLogger("srkit")


@dataclass
class Findings:
    """Problems of one dataset, a line each."""

    title: str
    lines: list[str] = field(default_factory=list)

    def add(self, kind: str, files: list[str]) -> None:
        """Files that share a problem; `kind` reads after their number."""
        if files:
            self.lines.append(f"{len(files)} {kind}: {first_names(files)}")

    def add_lost(self, kind: str, source: Source) -> set[int]:
        """Files that are missing or hold zero bytes; returns their numbers."""
        sizes, lost = source.stats()[:, 0], set()
        for what, found in (("missing", np.flatnonzero(sizes < 0)), ("empty (0 bytes)", np.flatnonzero(sizes == 0))):
            self.add(f"{kind} are {what}", [source.label(k) for k in found.tolist()])
            lost.update(found.tolist())
        return lost

    def add_unusable(self, kind: str, reasons: list[str], bearable: int) -> None:
        """Files of which a text says what is wrong. Up to `bearable` are warned about, for a run skips them."""
        if len(reasons) > bearable:
            more = len(reasons) - _REASONS
            shown = [*reasons[:_REASONS], *([f"and {more} more"] if more > 0 else [])]
            self.lines.append(
                "\n      ".join([f"{len(reasons)} {kind}:", *shown]) if len(reasons) > 1 else f"1 {kind}: {reasons[0]}"
            )
            return
        for reason in reasons:
            _log.warning("%s: will be skipped: %s", self.title, reason)

    def refuse(self) -> None:
        """DataError with everything found, if anything."""
        if self.lines:
            count = f"{len(self.lines)} problem" + ("s" if len(self.lines) > 1 else "")
            raise DataError("\n".join([f"{self.title}: {count}", *(f"  - {line}" for line in self.lines)]))


def picks(count: int, at_most: int) -> list[int]:
    """All indices, or a sorted seeded choice of them."""
    if count <= at_most:
        return list(range(count))
    return np.sort(np.random.default_rng(0).choice(count, at_most, replace=False)).tolist()


def to_decode(count: int, *, everything: bool) -> list[int]:
    """Numbers of the files whose content is looked at: all of up to 2,000, else 500 of them."""
    return picks(count, count if everything or count <= _ALL_UP_TO else _PART)


def check_files(
    reader: PictureReader, findings: Findings, cache_failures: Callable[[], dict[int, str]] | None = None
) -> None:
    """Adds to `findings`.

    Always: missing and zero-byte files. Unless `check: off`, for all files up to 2,000 or with `check: full`, else
    for 500 picked by a fixed seed: decoding, size of gt against lq, size against the crop, one bit depth throughout,
    and with `bit_depth` no value above it. Pictures in a current cache were decoded when it was built.
    """
    gone: set[int] = set()
    for role, source in reader.sources.items():
        if role == "lq" and reader.lq_is_made:
            continue
        gone |= findings.add_lost(f"{role} files", source)
    if reader.reading.check == "off":
        return
    failed = {} if cache_failures is None else cache_failures()
    unreadable = {k: reason for k, reason in failed.items() if k not in gone}
    chosen = [k for k in to_decode(len(reader), everything=reader.reading.check == "full") if k not in gone]
    facts: dict[int, _Fact] = {}
    for k, fact in zip(chosen, in_threads(lambda k: _look(reader, k), chosen)):
        if isinstance(fact, str):
            unreadable[k] = fact
        else:
            facts[k] = fact
    bearable = skip_limit(len(reader)) if reader.reading.on_error == "skip" else 0
    findings.add_unusable("files are unreadable", [unreadable[k] for k in sorted(unreadable)], bearable)
    _report_sizes(reader, findings, facts)
    _report_depths(reader, findings, facts)


@dataclass(frozen=True)
class _Fact:
    shapes: dict[str, Shape]
    types: dict[str, np.dtype]
    brightest: int


def _look(reader: PictureReader, index: int) -> _Fact | str:
    try:
        seen = {role: source.inspect(index) for role, source in reader.sources.items()}
        values = reader.reading.bit_depth is not None
        brightest = max(int(s.read(index).max()) for s in reader.sources.values()) if values else 0
    except DataError as error:
        return str(error)
    return _Fact({r: s for r, (s, _) in seen.items()}, {r: t for r, (_, t) in seen.items()}, brightest)


def _report_sizes(reader: PictureReader, findings: Findings, facts: dict[int, _Fact]) -> None:
    unfit, small = [], []
    crop = reader.augments[-1].lq_size  # the largest
    for k, fact in facts.items():
        height, width = fact.shapes["lq" if reader.gt else reader.alone][:2]
        lq, gt = f"{reader.lq.label(k)} {width}x{height}", fact.shapes.get("gt")
        if gt is not None and reader.gt is not None and not reader.fits((height, width), gt):
            expected = f"{width * reader.scale[1]}x{height * reader.scale[0]}"
            unfit.append(f"{reader.gt.label(k)} is {gt[1]}x{gt[0]}, expected {expected} (lq {lq})")
        if crop is not None and (height < crop[0] or width < crop[1]):
            small.append(lq)
    findings.add(f"gt pictures are not scale {reader.scale} times their lq", unfit)
    if crop is not None:
        role, size = ("lq", "gt_size / scale") if reader.gt else (reader.alone, "gt_size")
        findings.add(f"{role} pictures are smaller than the crop of {crop[1]}x{crop[0]} ({size})", small)


def _report_depths(reader: PictureReader, findings: Findings, facts: dict[int, _Fact]) -> None:
    groups: dict[np.dtype, list[str]] = {}
    for k, fact in facts.items():
        for role, dtype in fact.types.items():
            groups.setdefault(dtype, []).append(reader.sources[role].label(k))
    depth = reader.reading.bit_depth
    if len(groups) > 1:
        parts = [f"{len(files)} of {dtype.itemsize * 8} bit ({first_names(files)})" for dtype, files in groups.items()]
        findings.lines.append("one bit depth is needed, found " + "; ".join(parts))
    elif depth is not None:
        dtype = next(iter(groups), np.dtype(np.uint16))
        bright = [f"{reader.lq.label(k)} has {f.brightest}" for k, f in facts.items() if f.brightest > 2**depth - 1]
        if depth > dtype.itemsize * 8:
            findings.lines.append(f"bit_depth {depth} is given, the files have {dtype.itemsize * 8} bit")
        findings.add(f"files exceed bit_depth {depth}, whose white is {2**depth - 1}", bright)
