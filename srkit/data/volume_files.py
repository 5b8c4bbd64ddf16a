"""Which volume files belong together: gt, acquired lq, mask and animal, by name, and what is wrong with the names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from srkit.data.grouping import groups_of
from srkit.data.names import require_folder, stem
from srkit.data.pairing import first_names, meta_info_names, pair, require_template
from srkit.errors import DataError, RefusedError
from srkit.imaging.volumes import VOLUME_SUFFIXES, find_volumes


@dataclass
class VolumeFiles:
    """Paths at equal places, sorted by name or in the list file's order.

    Attributes:
        keys: Names without suffix, folders kept, relative to dataroot_gt.
        lq: Empty when lq is made from gt.
        mask: Empty without mask_root; "" for one that is missing.
        groups: Animal or patient of each; "" where nothing says it.
        problems: What is wrong with the names, a line each.
    """

    keys: list[str] = field(default_factory=list)
    gt: list[str] = field(default_factory=list)
    lq: list[str] = field(default_factory=list)
    mask: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_files(
    *,
    dataroot_gt: str,
    dataroot_lq: str | None,
    filename_tmpl: str,
    meta_info_file: str | None,
    recursive: bool,
    mask_root: str | None,
    group_pattern: str | None,
    group_file: str | None,
) -> VolumeFiles:
    """See `VolumeDataset` for the arguments.

    Raises: RefusedError for what contradicts itself; DataError for a folder or table that is not there or of another form.
    """
    require_template(filename_tmpl)
    if recursive and meta_info_file:
        raise RefusedError("recursive searches folders; found with meta_info_file, which names its volumes: drop one")
    if dataroot_lq is None and filename_tmpl != "{}":
        raise RefusedError(f"filename_tmpl: found '{filename_tmpl}' without dataroot_lq: drop it")
    deep = recursive or meta_info_file is not None
    files = VolumeFiles()
    gt = _listed("dataroot_gt", dataroot_gt, deep, files.problems)
    wanted = list(gt)
    if meta_info_file is not None:
        named = [_plain(name) for name in meta_info_names(meta_info_file)]
        wanted = [name for name in named if name in gt]
        if absent := [name for name in named if name not in gt]:
            files.problems.append(
                f"{len(absent)} of {len(named)} names in {meta_info_file} are not in {dataroot_gt} "
                f"(first: {first_names(absent)})"
            )
    if dataroot_lq is not None:
        lq = _listed("dataroot_lq", dataroot_lq, deep, files.problems)
        pairs = pair(
            wanted, lq, template=filename_tmpl, gt_root=dataroot_gt, lq_root=dataroot_lq, strays=meta_info_file is None
        )
        wanted, files.lq = pairs.gt, [lq[name] for name in pairs.lq]
        files.problems += pairs.problems
    files.gt, files.keys = [gt[name] for name in wanted], [stem(name) for name in wanted]
    if mask_root is not None:
        masks = {stem(name): path for name, path in _listed("mask_root", mask_root, deep, files.problems).items()}
        files.mask = [masks.get(key, "") for key in files.keys]
        if without := [key for key in files.keys if key not in masks]:
            files.problems.append(f"{len(without)} volumes have no mask in {mask_root}: {first_names(without)}")
    files.groups = groups_of(files.keys, group_pattern, group_file, files.problems, "volumes", _bare)
    return files


def _plain(name: str) -> str:
    """The name as if it were not packed: the rest of the data layer takes off one suffix."""
    return name[:-3] if name.lower().endswith(".nii.gz") else name


def _listed(key: str, root: str, deep: bool, problems: list[str]) -> dict[str, str]:
    """Name relative to root, as if not packed -> path, sorted. DataError for a folder that is missing or holds none."""
    require_folder(key, root)
    found = find_volumes(Path(root), recursive=deep)
    if not found:
        raise DataError(f"{key}: no volumes ({', '.join(VOLUME_SUFFIXES)}) in '{root}'{'' if deep else ' itself'}")
    paths: dict[str, str] = {}
    for path in found:
        name = _plain(path.relative_to(root).as_posix())
        if (held := paths.setdefault(name, str(path))) != str(path):
            problems.append(f"{held} and {path} are one volume by name; keep one of them")
    return dict(sorted(paths.items()))


def _bare(name: str) -> str:
    plain = _plain(name)
    return stem(plain) if plain.lower().endswith(".nii") else plain


def unique_names(keys: Iterable[str]) -> list[str]:
    """Stems for output files: the last part of each key, or where those are not unique all of it, "/" written "__"."""
    keys = list(keys)
    last = [key.rpartition("/")[2] for key in keys]
    return last if len(set(last)) == len(set(keys)) else [key.replace("/", "__") for key in keys]
