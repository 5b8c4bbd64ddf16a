"""Pairs out of two list files, as microscope tile sets come: line i with line i."""

from __future__ import annotations

from typing import Literal

from srkit.data.augment import Augment, sides
from srkit.data.names import NameList, read_lines, require_folder
from srkit.data.pairing import pair_lines, require_safe
from srkit.data.pairs import PictureDataset, PictureReader, Reading
from srkit.data.sources import FileSource
from srkit.registry import DATASETS


@DATASETS.register()
class MicroscopyPairedDataset(PictureDataset):
    """Low- and high-resolution tiles named line by line in two text files.

    Where both names say slide and field (`<slide>_40x_<res>px_x<X>_y<Y>_Patch<N>`), they must agree: a shifted list
    is found before training. A name met twice is an error.

    Args:
        lr_meta_file: Low-resolution tiles, one path a line.
        hr_meta_file: High-resolution tiles.
        root: Folder the paths are relative to; None is the working directory.

    All other arguments are those of `PairedImageDataset`.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        lr_meta_file: str,
        hr_meta_file: str,
        root: str | None = None,
        gt_size: int | list[int] | None = None,
        crop_type: Literal["random", "center"] = "random",
        use_hflip: bool = False,
        use_rot: bool = False,
        color_jitter_prob: float = 0.0,
        color_jitter_shift: float = 20.0,
        color: Literal["rgb", "y", "y_full"] = "rgb",
        bit_depth: int | None = None,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = 100_000_000,
    ) -> None:
        augment = Augment(
            scale=tuple(scale),
            gt_size=sides(gt_size, len(scale)),
            crop_type=crop_type,
            use_hflip=use_hflip,
            use_rot=use_rot,
            jitter_prob=color_jitter_prob,
            jitter_shift=color_jitter_shift,
        )
        reading = Reading(
            color=color, bit_depth=bit_depth, cache=cache, cache_dir=cache_dir, check=check, on_error=on_error
        )
        if root is not None:
            require_folder("root", root)
        names = {}
        for key, path in (("hr_meta_file", hr_meta_file), ("lr_meta_file", lr_meta_file)):
            names[key] = read_lines(key, path)
            require_safe(key, path, names[key])
        pairs = pair_lines(names["hr_meta_file"], names["lr_meta_file"], hr_meta_file, lr_meta_file)
        gt = FileSource(root or "", NameList(pairs.gt), origin=hr_meta_file, max_pixels=max_pixels)
        lq = FileSource(root or "", NameList(pairs.lq), origin=lr_meta_file, max_pixels=max_pixels)
        super().__init__(PictureReader(type(self).__name__, lq, gt, augment, reading, pairs.problems), on_error)
