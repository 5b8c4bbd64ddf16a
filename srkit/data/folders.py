"""Opens folders and LMDBs of pictures, all of them or those a list file names, alone or as pairs."""

from __future__ import annotations

from dataclasses import dataclass

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
from srkit.data.sources import FileSource, Shape, Source
from srkit.errors import RefusedError
from srkit.imaging.files import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class Folders:
    """How to read folders: see `PairedImageDataset` for the settings."""

    meta_info_file: str | None = None
    lmdb: bool = False
    recursive: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if self.recursive and (self.lmdb or self.meta_info_file):
            what = "an LMDB" if self.lmdb else "meta_info_file"
            raise RefusedError(f"recursive searches folders; found with {what}, which names its pictures: drop one")

    def open(self, key: str, root: str) -> tuple[Source, list[str]]:
        """All pictures of one root, and problems with their names."""
        listed = self._list(key, root, None)
        names, problems = self._wanted(listed.names, root)
        by_key(names, root, problems)
        return self._source(listed, names), problems

    def open_pairs(
        self, gt_root: str, lq_root: str, template: str, pattern: str | None = None
    ) -> tuple[Source, Source, list[str]]:
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
        return self._source(gt, pairs.gt), self._source(lq, pairs.lq), problems + pairs.problems

    def _list(self, key: str, root: str, partners: list[str] | None) -> _Listing:
        """What a root holds; with a list file, only in the folders its names mention."""
        if self.lmdb:
            shapes = lmdb_names(key, root)
            require_safe(key, f"{root}/meta_info.txt", list(shapes))
            return _Listing(root, list(shapes), shapes)
        require_folder(key, root)
        if self.meta_info_file is None:
            names = list_pictures(root, folders_below(root) if self.recursive else ("",))
            require_pictures(key, root, names)
        else:
            mentioned = meta_info_names(self.meta_info_file) if partners is None else partners
            names = list_pictures(root, {name.rpartition("/")[0] for name in mentioned})
        return _Listing(root, names, None)

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

    def _source(self, listed: _Listing, names: list[str]) -> Source:
        if listed.shapes is not None:
            return LmdbSource(listed.root, names, listed.shapes, max_pixels=self.max_pixels)
        return FileSource(listed.root, NameList(names), origin=self.meta_info_file or "", max_pixels=self.max_pixels)


@dataclass(frozen=True)
class _Listing:
    root: str
    names: list[str]
    shapes: dict[str, Shape] | None
