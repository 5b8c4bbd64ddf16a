"""Pictures without a target, for testing on inputs whose truth nobody knows."""

from __future__ import annotations

from typing import Literal

from srkit.data.augment import Augment
from srkit.data.folders import Folders
from srkit.data.pairs import PictureDataset, PictureReader, Reading
from srkit.registry import DATASETS


@DATASETS.register()
class SingleImageDataset(PictureDataset):
    """Low-resolution pictures of one folder (or LMDB folder or archive); samples have no "gt" and are whole.

    All arguments are those of `PairedImageDataset`; the names in meta_info_file are lq's.
    """

    def __init__(
        self,
        *,
        dataroot_lq: str,
        meta_info_file: str | None = None,
        io_backend: Literal["disk", "lmdb", "zip", "tar"] = "disk",
        recursive: bool = False,
        color: Literal["rgb", "y", "y_full"] = "rgb",
        bit_depth: int | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = 100_000_000,
    ) -> None:
        folders = Folders(meta_info_file=meta_info_file, backend=io_backend, recursive=recursive, max_pixels=max_pixels)
        lq, problems = folders.open("dataroot_lq", dataroot_lq)
        reading = Reading(color=color, bit_depth=bit_depth, cache="none", check=check, on_error=on_error)
        augment = Augment(scale=(1, 1))
        super().__init__(PictureReader(type(self).__name__, lq, None, augment, reading, problems), on_error)
