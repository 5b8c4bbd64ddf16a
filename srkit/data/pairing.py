"""Pairs by name: which lq belongs to which gt, and every file for which that has no answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from srkit.data.names import read_lines, stem, tile_key, unsafe
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES

_SHOWN = 3


@dataclass
class Pairing:
    """Names of partners at equal places, sorted or in the list's order, and what is wrong, a line each."""

    gt: list[str] = field(default_factory=list)
    lq: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def first_names(names: Iterable[str]) -> str:
    """The first few of them, for a message."""
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def list_pictures(root: str, folders: Iterable[str] = ("",)) -> list[str]:
    """Sorted names of the pictures directly in `root`, or in the given folders below it. Others are passed over.

    Hidden files (macOS leaves "._a.png") are no pictures.
    """
    found = []
    for folder in sorted(set(folders)):
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                names = [e.name for e in entries if _is_picture(e.name)]
        except (FileNotFoundError, NotADirectoryError):
            continue  # a list file may name folders that are gone; its lines are then reported as missing
        found += [f"{folder}/{name}" if folder else name for name in names]
    return sorted(found)


def _is_picture(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def require_pictures(key: str, root: str, names: list[str]) -> None:
    """DataError for an empty folder, naming what is in it instead."""
    if names:
        return
    entries = sorted(e.name + ("/" if e.is_dir() else "") for e in os.scandir(root))
    holds = f"it holds {first_names(entries)}" if entries else "it is empty"
    raise DataError(f"{key}: no pictures ({', '.join(IMAGE_SUFFIXES)}) directly in '{root}'; {holds}")


def require_template(template: str) -> None:
    """RefusedError unless `{}` stands in it exactly once."""
    if template.count("{}") != 1 or "/" in template:
        raise RefusedError(f"filename_tmpl must be a name holding '{{}}' once, such as '{{}}x2', got '{template}'")


def fill(template: str, key: str) -> str:
    """Key of the lq partner: the template filled with the last part of gt's key."""
    folder, _, last = key.rpartition("/")
    filled = template.replace("{}", last)
    return f"{folder}/{filled}" if folder else filled


def by_key(names: Iterable[str], where: str, problems: list[str]) -> dict[str, str]:
    """Key (name without suffix) -> name. Keys met twice, such as a.png and a.jpg, are reported."""
    keyed: dict[str, str] = {}
    twice = []
    for name in names:
        held = keyed.setdefault(stem(name), name)
        if held != name:
            twice.append(f"{held} = {name}")
    if twice:
        problems.append(f"{len(twice)} names in {where} differ only by suffix ({first_names(twice)}); keep one of each")
    return keyed


def pair(
    gt_names: Sequence[str], lq_names: Iterable[str], *, template: str, gt_root: str, lq_root: str, strays: bool = True
) -> Pairing:
    """Partners by key, in the order of `gt_names`; a name listed several times counts several times.

    Args:
        template: Key of lq from the key of gt.
        strays: Report lq pictures that no gt asks for (not when a list file picks some of a folder).
    """
    result = Pairing()
    gt, lq = by_key(gt_names, gt_root, result.problems), by_key(lq_names, lq_root, result.problems)
    missing: dict[str, str] = {}
    for name in gt_names:
        partner = lq.get(fill(template, stem(name)))
        if partner is None:
            missing.setdefault(stem(name), name)
        else:
            result.gt.append(name)
            result.lq.append(partner)
    if missing:
        key = next(iter(missing))
        better = _better_template(gt, lq, key)
        partner = fill(better or "{}", key).rpartition("/")[2]
        hint = f"; with filename_tmpl '{better}' it would be {partner}" if better else ""
        result.problems.append(
            f"{len(missing)} of {len(gt)} files in {gt_root} have no partner in {lq_root} "
            f"(first: {first_names(missing.values())}){hint}"
        )
    asked = {fill(template, key) for key in gt} if strays and len(lq) > len(result.lq) else lq.keys()
    stray = sorted(lq[key] for key in lq.keys() - asked)
    if stray:
        result.problems.append(
            f"{len(stray)} of {len(lq)} files in {lq_root} have no partner in {gt_root} (first: {first_names(stray)}); "
            "remove them, or name the pairs to use in a meta_info_file"
        )
    return result


def _better_template(gt: dict[str, str], lq: dict[str, str], key: str) -> str | None:
    """A template that gives every gt a partner, guessed from one gt's key."""
    last = key.rpartition("/")[2]
    guesses = {k.rpartition("/")[2].replace(last, "{}", 1) for k in lq if last in k}
    for guess in sorted(guesses, key=lambda g: (len(g), g))[:20]:
        if "{}" in guess and all(fill(guess, k) in lq for k in gt):
            return guess
    return None


def meta_info_names(path: str) -> list[str]:
    """Names out of a BasicSR list: "0001.png (480,480,3)" or a bare name a line; unsafe ones raise DataError."""
    names = [
        re.sub(r"\s+\(\d+\s*,\s*\d+\s*(,\s*\d+\s*)?\)(\s+\d+)?$", "", line)
        for line in read_lines("meta_info_file", path)
    ]
    require_safe("meta_info_file", path, names)
    return names


def require_safe(key: str, path: str, names: list[str]) -> None:
    """DataError naming the lines that would lead out of the root."""
    bad = [f"line {n}: '{name}' {why}" for n, name in enumerate(names, 1) if (why := unsafe(name))]
    if bad:
        raise DataError(f"{key} '{path}': {first_names(bad)}")


def pair_lines(gt_names: list[str], lq_names: list[str], gt_list: str, lq_list: str) -> Pairing:
    """Line i with line i. Repeated lines, and lines whose tiles are of different fields, are reported."""
    result = Pairing(gt_names, lq_names)
    if len(gt_names) != len(lq_names):
        raise DataError(
            f"'{gt_list}' has {len(gt_names)} lines and '{lq_list}' {len(lq_names)}; line i pairs with line i"
        )
    for names, path in ((gt_names, gt_list), (lq_names, lq_list)):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        if repeated:
            result.problems.append(f"{len(repeated)} names stand twice in '{path}' (first: {first_names(repeated)})")
    apart = [
        f"line {n}: {a} / {b}"
        for n, (a, b) in enumerate(zip(lq_names, gt_names), 1)
        if (key := tile_key(b)) is not None and tile_key(a) not in (None, key)
    ]
    if apart:
        result.problems.append(f"{len(apart)} lines pair different slides or fields (first: {first_names(apart)})")
    return result
