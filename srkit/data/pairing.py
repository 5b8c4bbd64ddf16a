"""Pairs by name: which lq belongs to which gt, and every file for which that has no answer."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from srkit.data.names import read_lines, stem, tile_key, unsafe
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES

_SHOWN = 3
_log = logging.getLogger("srkit")


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

    Hidden files (macOS leaves "._a.png") are no pictures; visible ones of other kinds are logged in one line.
    """
    found, others = [], []
    for folder in sorted(set(folders)):
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                visible = [e for e in entries if not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            continue  # a list file may name folders that are gone; its lines are then reported as missing
        names = [e.name for e in visible if e.name.lower().endswith(IMAGE_SUFFIXES)]
        if len(names) < len(visible):
            others += [e.name for e in visible if not e.name.lower().endswith(IMAGE_SUFFIXES) and e.is_file()]
        found += [f"{folder}/{name}" if folder else name for name in names]
    if others:
        _log.info(
            "%s: %d files that are no pictures are passed over: %s", root, len(others), first_names(sorted(others))
        )
    return sorted(found)


def folders_below(root: str) -> list[str]:
    """ "" and every folder below `root` at any depth, links followed, each real folder once; hidden ones left out."""
    found, seen = [], set()
    for path, folders, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(path)
        folders[:] = sorted(f for f in folders if not f.startswith(".")) if real not in seen else []
        if real not in seen:
            seen.add(real)
            found.append(os.path.relpath(path, root).replace(os.sep, "/").removeprefix("."))
    return found


def require_pictures(key: str, root: str, names: list[str]) -> None:
    """DataError for an empty folder, naming what is in it instead."""
    if names:
        return
    entries = sorted(e.name + ("/" if e.is_dir() else "") for e in os.scandir(root))
    holds = f"it holds {first_names(entries)}" if entries else "it is empty"
    kinds = sorted({kind for kind in ("tar", "zip") if any(e.endswith(f".{kind}") for e in entries)})
    if kinds:
        holds += f"; archives: name one of them, or write io_backend: {{type: {kinds[0]}}} for all of them"
    raise DataError(f"{key}: no pictures ({', '.join(IMAGE_SUFFIXES)}) directly in '{root}'; {holds}")


def require_template(template: str) -> None:
    """RefusedError unless `{}` stands in it exactly once."""
    if template.count("{}") != 1 or "/" in template:
        raise RefusedError(f"filename_tmpl must be a name holding '{{}}' once, such as '{{}}x2', got '{template}'")


def require_pattern(pattern: str) -> None:
    """RefusedError unless it is a regular expression with exactly one group."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise RefusedError(f"pair_pattern: '{pattern}' is no regular expression ({error})") from None
    if groups != 1:
        raise RefusedError(f"pair_pattern: '{pattern}' has {groups} groups, expected one, round the id: 'px_(\\d+)'")


def pattern_key(pattern: str, name: str) -> str | None:
    """The group's text where the pattern is found in the stem, folders before it; None where it is not."""
    folder, _, last = stem(name).rpartition("/")
    match = re.search(pattern, last)
    return match and (f"{folder}/{match[1]}" if folder else match[1])


def fill(template: str, key: str) -> str:
    """Key of the lq partner: the template filled with the last part of gt's key."""
    folder, _, last = key.rpartition("/")
    filled = template.replace("{}", last)
    return f"{folder}/{filled}" if folder else filled


def by_key(names: Iterable[str], where: str, problems: list[str], pattern: str | None = None) -> dict[str, str]:
    """Key (name without suffix, or what `pattern` finds) -> name. Keys met twice, and names without, are reported."""
    keyed: dict[str, str] = {}
    twice, without = [], []
    for name in names:
        key = stem(name) if pattern is None else pattern_key(pattern, name)
        if key is None:
            without.append(name)
            continue
        held = keyed.setdefault(key, name)
        if held != name:
            twice.append(f"{held} = {name}")
    if twice:
        alike = "differ only by suffix" if pattern is None else f"have the same id by pair_pattern '{pattern}'"
        problems.append(f"{len(twice)} names in {where} {alike} ({first_names(twice)}); keep one of each")
    if without:
        problems.append(
            f"{len(without)} names in {where} hold no id by pair_pattern '{pattern}': {first_names(without)}"
        )
    return keyed


def pair(
    gt_names: Sequence[str],
    lq_names: Iterable[str],
    *,
    template: str,
    gt_root: str,
    lq_root: str,
    pattern: str | None = None,
    strays: bool = True,
) -> Pairing:
    """Partners by key, in the order of `gt_names`; a name listed several times counts several times.

    Args:
        template: Key of lq from the key of gt.
        pattern: Finds the key in both halves' names; None takes the whole stem.
        strays: Report lq pictures that no gt asks for (not when a list file picks some of a folder).
    """
    result = Pairing()
    gt = by_key(gt_names, gt_root, result.problems, pattern)
    lq = by_key(lq_names, lq_root, result.problems, pattern)
    missing: dict[str, str] = {}
    for name in gt_names:
        key = stem(name) if pattern is None else pattern_key(pattern, name)
        if key is None:
            continue  # reported by by_key
        partner = lq.get(fill(template, key))
        if partner is None:
            missing.setdefault(key, name)
        else:
            result.gt.append(name)
            result.lq.append(partner)
    if missing:
        key = next(iter(missing))
        better = _better_template(gt, lq, key) if pattern is None else None
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
    """Names out of a BasicSR list: "0001.png (480,480,3)" or a bare name a line; unsafe ones raise DataError.

    Either slash separates folders: lists are written on Windows too.
    """
    names = [
        re.sub(r"\s+\(\d+\s*,\s*\d+\s*(,\s*\d+\s*)?\)(\s+\d+)?$", "", line).replace("\\", "/")
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
