"""Opens folders, LMDBs and archives of pictures, all of them or those a list file names, alone or as pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from srkit.data.archives import ArchiveSource, archives_of, list_archives
from srkit.data.lmdb_backend import LmdbSource, lmdb_names
from srkit.data.names import NameList, require_folder
from srkit.data.pairing import (
    by_key,
    first_names,
    folders_below,
    list_pictures,
    meta_info_names,
    pair,
    require_pictures,
    require_safe,
)
from srkit.data.sources import FileSource, StoredSource
from srkit.errors import RefusedError
from srkit.imaging.files import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class Folders:
    """How to read folders: see `PairedImageDataset` for the settings."""

    meta_info_file: str | None = None
    backend: Literal["disk", "lmdb", "zip", "tar"] = "disk"
    recursive: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.recursive and (self.backend == "lmdb" or self.meta_info_file):
            what = "an LMDB" if self.backend == "lmdb" else "meta_info_file"
            raise RefusedError(f"recursive searches folders; found with {what}, which names its pictures: drop one")

    def open(self, key: str, root: str) -> tuple[StoredSource, list[str]]:
        """All pictures of one root, and problems with their names."""
        listed = self._list(key, root, None)
        names, problems = self._wanted(listed.names, root)
        by_key(names, root, problems)
        return listed.open(names), problems

    def open_pairs(
        self, gt_root: str, lq_root: str, template: str, pattern: str | None = None
    ) -> tuple[StoredSource, StoredSource, list[str]]:
        """gt, lq and what is wrong with their pairing."""
        gt = self._list("dataroot_gt", gt_root, None)
        wanted, problems = self._wanted(gt.names, gt_root)
        lq = self._list("dataroot_lq", lq_root, wanted if self.meta_info_file else None)
        pairs = pair(
            wanted,
            lq.names,
            template=template,
            pattern=pattern,
            gt_root=gt_root,
            lq_root=lq_root,
            strays=self.meta_info_file is None,
        )
        return gt.open(pairs.gt), lq.open(pairs.lq), problems + pairs.problems

    def _list(self, key: str, root: str, partners: list[str] | None) -> _Listing:
        """What a root holds; with a list file, only in the folders its names mention."""
        origin, limit = self.meta_info_file or "", self.max_pixels
        if self.backend == "lmdb":
            shapes = lmdb_names(key, root)
            require_safe(key, f"{root}/meta_info.txt", list(shapes))
            return _Listing(list(shapes), lambda names: LmdbSource(root, names, shapes, max_pixels=limit))
        archives = archives_of(key, root, self.backend)
        if archives is not None:
            held = list_archives(key, root, *archives, below=self.recursive or bool(origin))
            return _Listing(
                list(held.places), lambda names: ArchiveSource(root, names, held, origin=origin, max_pixels=limit)
            )
        require_folder(key, root)
        if self.meta_info_file is None:
            names = list_pictures(root, folders_below(root) if self.recursive else ("",))
            require_pictures(key, root, names)
        else:
            mentioned = meta_info_names(self.meta_info_file) if partners is None else partners
            names = list_pictures(root, {name.rpartition("/")[0] for name in mentioned})
        return _Listing(names, lambda names: FileSource(root, NameList(names), origin=origin, max_pixels=limit))

    def _wanted(self, names: list[str], root: str) -> tuple[list[str], list[str]]:
        if self.meta_info_file is None:
            return names, []
        wanted = meta_info_names(self.meta_info_file)
        held = set(names)
        absent = [name for name in wanted if name not in held]
        problems = []
        if absent:
            problems.append(
                f"{len(absent)} of {len(wanted)} names in {self.meta_info_file} are not in {root} "
                f"(first: {first_names(absent)})"
            )
        return [name for name in wanted if name in held], problems


@dataclass(frozen=True)
class _Listing:
    """What a root holds, and how to open some of it."""

    names: list[str]
    open: Callable[[list[str]], StoredSource]
