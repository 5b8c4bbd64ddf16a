"""What a folder holds: pictures, slides or volumes; its parts (train, val, test); and which sub-folder is lq of which.

Parts are recognised by names of folders, pairs by names of files and by sizes in their headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, takewhile
from pathlib import Path
from typing import Literal

from srkit.data.checks import picks
from srkit.data.names import stem
from srkit.data.pairing import first_names, folders_below, list_pictures, pattern_key
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES, image_size
from srkit.imaging.slides import find_slides
from srkit.imaging.volumes import find_volumes, is_nifti, read_header, volume_stem

Holds = Literal["pictures", "slides", "volumes"]
PARTS: Mapping[str, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "val": frozenset({"val", "valid", "validation", "dev"}),
    "test": frozenset({"test", "testing"}),
}
_GT_WORDS, _LQ_WORDS = ("hr", "gt", "high", "target"), ("lr", "lq", "low", "bicubic", "bic", "input")
_ID_PATTERNS = (r"(\d+)$", r"(\d+)")
_LEAST_SHARE = 0.8  # of the gt names that have a partner, for two folders to be taken for a pair
_SIZES_LOOKED_AT = 20
_MOST_FOLDERS = 24  # a tree of more is no set of pairs


@dataclass(frozen=True)
class Leaf:
    """A folder with files directly in it; `names` are relative to it, `where` is its path below the folder looked at."""

    path: Path
    where: str
    names: Sequence[str]

    @property
    def words(self) -> list[str]:
        return re.split(r"[^a-z0-9]+", self.where.lower())

    def size(self, name: str) -> tuple[int, ...]:
        """Spatial size by the header. Raises DataError."""
        if is_nifti(name):
            return read_header(self.path / name, volume=0).shape
        header = image_size(self.path / name)
        return header.height, header.width


@dataclass(frozen=True)
class Part:
    """One side of a split, or everything.

    Attributes:
        gt, lq: Folders; without lq it is made from gt.
        names: gt's files, relative to gt.
    """

    gt: Path
    names: Sequence[str]
    recursive: bool = False
    lq: Path | None = None
    filename_tmpl: str = "{}"
    pair_pattern: str | None = None


@dataclass(frozen=True)
class Layout:
    """What was found; `scale` per axis where pairs tell it, else None; `notes` are sentences for the reader."""

    holds: Holds
    parts: Mapping[str, Part]
    scale: tuple[int, ...] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Pair:
    gt: Leaf
    lq: Leaf
    scale: tuple[int, ...]
    filename_tmpl: str
    pair_pattern: str | None
    likeness: int


def look(folder: Path, scale: tuple[int, ...] | None, slides: bool) -> Layout:
    """What `folder` holds.

    Args:
        scale: What the user asks for; chooses among several lq folders.
        slides: Take .tif files for slides.

    Raises: DataError for a folder without anything, or with several kinds of things; RefusedError where --scale decides.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    holds, leaves = _leaves(folder, slides)
    by_part: dict[str, list[Leaf]] = {}
    for leaf in leaves:
        by_part.setdefault(part_of(leaf.words), []).append(leaf)
    notes: list[str] = []
    if "train" in by_part:
        if beside := by_part.pop("", []):
            notes.append(f"not used, for their names say no part: {first_names(leaf.where or '.' for leaf in beside)}")
    else:
        by_part = {"all": leaves}
    parts: dict[str, Part] = {}
    found: tuple[int, ...] | None = None
    for name in sorted(by_part, key=["all", *PARTS].index):
        own = by_part[name]
        pair = None if holds == "slides" or len(own) > _MOST_FOLDERS else _best_pair(own, scale or found)
        if pair is None:
            parts[name] = _alone(folder, own)
            continue
        found = pair.scale
        parts[name] = Part(
            gt=pair.gt.path,
            names=pair.gt.names,
            lq=pair.lq.path,
            filename_tmpl=pair.filename_tmpl,
            pair_pattern=pair.pair_pattern,
        )
        if unused := [leaf.where or "." for leaf in own if leaf not in (pair.gt, pair.lq)]:
            notes.append(f"not used in {name}: {first_names(unused)}")
    if found is None and scale is None and _has_lq_word(leaves):
        notes.append("a folder is named like low resolution, but its files do not pair with any other folder's")
    return Layout(holds, parts, found, notes)


def part_of(words: Sequence[str]) -> str:
    """train, val, test, or "" where no word says it; the first that does counts."""
    return next((part for word in words for part, known in PARTS.items() if word in known), "")


def _leaves(folder: Path, slides: bool) -> tuple[Holds, list[Leaf]]:
    kinds: dict[Holds, list[Leaf]] = {"pictures": [], "slides": [], "volumes": []}
    for where in folders_below(str(folder)):
        path = folder / where
        volumes = [v.name for v in find_volumes(path)]
        pictures = list_pictures(str(path))
        listed = find_slides(path)
        if not slides and not any(not name.lower().endswith(IMAGE_SUFFIXES) for name in listed):
            listed = []  # only .tif: pictures, unless the user says otherwise
        for holds, names in (("volumes", volumes), ("slides", listed), ("pictures", [] if listed else pictures)):
            if names:
                kinds[holds].append(Leaf(path, where, names))  # type: ignore[index]
    held = {holds: leaves for holds, leaves in kinds.items() if leaves}
    if not held:
        raise DataError(f"{folder}: holds no picture ({', '.join(IMAGE_SUFFIXES)}), slide or NIfTI volume at any depth")
    if len(held) > 1:
        parts = "; ".join(
            f"{holds} in {first_names(leaf.where or '.' for leaf in found)}" for holds, found in held.items()
        )
        raise DataError(f"{folder} holds {parts}: give a folder with one of them")
    return next(iter(held.items()))


def _alone(folder: Path, leaves: Sequence[Leaf]) -> Part:
    """gt without partners: one folder, or all below the deepest folder that they share."""
    if len(leaves) == 1:
        return Part(leaves[0].path, leaves[0].names)
    parents = [leaf.path.parts for leaf in leaves]
    shared = [words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*parents))]
    root = Path(*shared) if shared else folder
    names = [
        f"{leaf.path.relative_to(root).as_posix()}/{name}".removeprefix("./") for leaf in leaves for name in leaf.names
    ]
    return Part(root, sorted(names), recursive=True)


def _best_pair(leaves: Sequence[Leaf], scale: tuple[int, ...] | None) -> _Pair | None:
    """The two folders that are most likely gt and lq. RefusedError when only --scale can tell which lq is meant."""
    pairs = [pair for gt, lq in permutations(leaves, 2) if (pair := _as_pair(gt, lq)) is not None]
    fitting = [pair for pair in pairs if scale is None or pair.scale == scale]
    if pairs and not fitting:
        scales = ", ".join(spelt(s) for s in sorted({pair.scale for pair in pairs}))
        raise RefusedError(
            f"--scale {spelt(scale or ())}: where gt is a whole number of times as large, it is {scales}"
        )
    if not fitting:
        return None
    most = max(pair.likeness for pair in fitting)
    best = [pair for pair in fitting if pair.likeness == most]
    if len({pair.scale for pair in best}) > 1:
        told = ", ".join(f"{pair.lq.where} (x{spelt(pair.scale)})" for pair in best)
        raise RefusedError(f"several folders fit as lq: {told}; choose one by --scale {spelt(best[0].scale)}")
    return best[0]


def _as_pair(gt: Leaf, lq: Leaf) -> _Pair | None:
    naming = infer_naming([_plain(n) for n in gt.names], [_plain(n) for n in lq.names])
    if naming is None:
        return None
    template, pattern = naming
    partners = _partners(gt.names, lq.names, template, pattern)
    scales = set()
    for k in picks(len(partners), _SIZES_LOOKED_AT):
        try:
            large, small = (leaf.size(name) for leaf, name in zip((gt, lq), partners[k]))
        except DataError:
            continue  # the check of the data set reports it
        scales.add(ratio(large, small))
    if len(scales) != 1 or None in scales or max(scale := next(s for s in scales if s)) == 1:
        return None
    return _Pair(gt, lq, scale, template, pattern, _likeness(gt, lq))


def ratio(large: Sequence[int], small: Sequence[int]) -> tuple[int, ...] | None:
    """Whole numbers that `large` is times `small`, one per axis; None where it is not."""
    factors = tuple(a // b for a, b in zip(large, small))
    return factors if min(factors) > 0 and all(a == b * f for a, b, f in zip(large, small, factors)) else None


def spelt(scale: Sequence[int]) -> str:
    """A scale as --scale takes it: 4, or 1,3,1."""
    return str(scale[0]) if len(scale) == 2 and len(set(scale)) == 1 else ",".join(map(str, scale))


def infer_naming(gt: Sequence[str], lq: Sequence[str]) -> tuple[str, str | None] | None:
    """(filename_tmpl, pair_pattern) that gives most of gt a partner in lq, by names without suffix; None if nothing does."""
    held = set(lq)
    templates = ["{}"]
    for name in sorted(lq)[:3]:
        inside = max((g for g in gt if g and g in name), key=len, default=None)
        if inside is not None:
            templates.append(name.replace(inside, "{}", 1))
    for template in templates:
        if sum(template.replace("{}", g) in held for g in gt) >= _LEAST_SHARE * len(gt):
            return template, None
    for pattern in _ID_PATTERNS:
        ids = [[pattern_key(pattern, name + ".x") for name in names] for names in (gt, lq)]
        unique = all(None not in found and len(set(found)) == len(found) for found in ids)
        if unique and len(set(ids[0]) & set(ids[1])) >= _LEAST_SHARE * len(gt):
            return "{}", pattern
    return None


def _partners(gt: Sequence[str], lq: Sequence[str], template: str, pattern: str | None) -> list[tuple[str, str]]:
    if pattern is None:
        held = {_plain(name): name for name in lq}
        wanted = {name: template.replace("{}", _plain(name)) for name in gt}
    else:
        held = {str(pattern_key(pattern, _plain(name) + ".x")): name for name in lq}
        wanted = {name: str(pattern_key(pattern, _plain(name) + ".x")) for name in gt}
    return [(name, held[key]) for name, key in wanted.items() if key in held]


def _plain(name: str) -> str:
    return volume_stem(name) if is_nifti(name) else stem(name)


def _likeness(gt: Leaf, lq: Leaf) -> int:
    """How much the folders' names say that the one is gt and the other its lq."""
    words = [_own_words(gt, lq), _own_words(lq, gt)]
    is_gt, is_lq = ([any(w.startswith(known) for w in own) for own in words] for known in (_GT_WORDS, _LQ_WORDS))
    same_place = gt.path.parent == lq.path.parent
    return 2 * is_gt[0] + 2 * is_lq[1] - 4 * is_lq[0] - 4 * is_gt[1] + same_place


def _own_words(leaf: Leaf, other: Leaf) -> Iterator[str]:
    """Words of the path that the other's does not have."""
    return (word for word in leaf.words if word not in other.words)


def _has_lq_word(leaves: Sequence[Leaf]) -> bool:
    return len(leaves) > 1 and any(w in _LQ_WORDS for leaf in leaves for w in leaf.words)


def with_names(part: Part, names: Sequence[str]) -> Part:
    """The same folders with some of the files."""
    return replace(part, names=names)
