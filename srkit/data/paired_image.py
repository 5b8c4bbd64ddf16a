"""Pairs out of two folders, LMDBs or archives, or one folder of gt from which lq is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from srkit.data.augment import Augment, sides
from srkit.data.colour_change import ColourChange
from srkit.data.damage import LqDamage
from srkit.data.folders import Folders
from srkit.data.grouping import groups_of
from srkit.data.names import stem
from srkit.data.pairing import require_pattern, require_template
from srkit.data.pairs import PictureDataset, PictureReader, Reading
from srkit.data.resident import ResidentDraw
from srkit.data.sources import ScaledSource, ShrunkSource, Source
from srkit.errors import RefusedError
from srkit.registry import DATASETS

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@DATASETS.register()
class PairedImageDataset(PictureDataset):
    """Low- and high-resolution pictures paired by name, never by listing order.

    Args:
        scale: gt size / lq size for height and width.
        dataroot_gt: Folder of the high-resolution pictures (or LMDB folder, or a .zip or .tar file, which stands for the
            folder that it would unpack to: gt.zip/HR is the folder HR in it). Pictures directly in it, PNG, JPEG, BMP,
            WebP or TIFF, any mixture; other files are passed over with one line.
        dataroot_lq: Folder of their partners; None makes lq from gt by antialiased bicubic.
        filename_tmpl: Name of lq, without suffix, from the name of gt: "{}x2" for DIV2K.
        pair_pattern: Regular expression with one group, the id: gt and lq with the same id are partners, such as
            "image_\\d+px_(\\d+)" for image_600px_0007.png and image_2400px_0007.png. Searched in the name without
            suffix. Instead of filename_tmpl.
        recursive: Take the pictures of all folders below the roots too; partners have the same folder.
        meta_info_file: BasicSR list of the gt names to use, one a line, relative to dataroot_gt; a name on k lines
            counts k times.
        io_backend: "lmdb" reads BasicSR's LMDB folders, "zip" and "tar" folders of such archives, all of them as one.
        gt_size: Side of the square gt crop in pixels, or height and width; None takes whole pictures, and gt may then exceed
            lq x scale by less than one scale step and is cut; with crops it must fit exactly.
        gt_size_max: Largest crop, when gt_size is one number: each batch then has a size drawn from gt_size, gt_size +
            gt_size_step, ... up to it. The network and the discriminator must take them all.
        gt_size_step: A multiple of the scale; None is the scale.
        crop_type: Where the crop lies.
        use_hflip: Mirror left and right with probability 1/2.
        use_rot: Mirror top and bottom, and transpose, each with probability 1/2.
        color_jitter_prob: Probability of adding one offset per RGB channel, the same to lq and gt, clipped to white.
        color_jitter_shift: The offset is uniform in +-shift/255 of white, in whole grey levels.
        brightness: Factor on intensities, uniform in 1 +- this. This and the next three, as in torchvision's ColorJitter
            but each by its own chance, change lq and gt alike.
        contrast: Factor on the distance from the crop's mean grey.
        saturation: Factor on the distance from each pixel's grey.
        hue: Turn of the hue in +- parts of the colour wheel, at most 0.5.
        color_change_prob: Probability of each of the four.
        color: "y" gives one channel, BT.601 limited-range luma in the file's units: float32, not rounded (it takes
            about as many bytes as RGB in integers); "y_full" the full-range luma of JPEG files. In evaluation gt keeps
            its file's integers and channels, so that every metric makes its own luma, and pictures are written in
            colour, with bicubic chroma; with "rgb" grey pictures become three equal channels, but for that gt.
        lq_dropout_prob: Probability that an lq crop gets black holes. These and the next damage lq alone, never gt, and
            never a picture that is evaluated.
        lq_dropout_holes: Most holes in a crop; their number is uniform from 1.
        lq_dropout_size: Longest side of a hole in lq pixels; height and width are uniform from 1.
        lq_jpeg_prob: Probability that an lq crop is compressed as JPEG (16-bit pictures pass through 8 bit).
        lq_jpeg_quality: Lowest and highest JPEG quality, 1 to 100.
        scale_augment: Sizes at which every picture is used, such as [1, 0.9, 0.8, 0.7]: gt is shrunk by the exact
            bicubic before lq is made from it. For training on crops, without dataroot_lq.
        lq_resize: Rounding when lq is made: as published sets ("bicubic-uint8"), or BasicSR's single rounding.
        bit_depth: Bits really used in 16-bit files (12 makes white 4095); None takes the whole type.
        cache: "auto" keeps decoded crops' sources in one memory-mapped file when training on crops, unless that
            needs above 64 GB or half the free disk; "disk" always; "none" decodes each time. "device" is "auto" and,
            beyond that, the whole set in the memory of the training device, where crops are then taken, flipped and
            normalised: the same ones, without workers. A set that needs more than half of what is free there, and one
            with options that change lq or colours in other ways, is read as in "auto", and a line says so.
        cache_dir: Where; None is $SRKIT_CACHE or ~/.cache/srkit.
        check: What `check` decodes: up to 2,000 files all, else 500 ("auto"), all ("full"), none ("off").
        on_error: Policy for files found unreadable in the run.
        max_pixels: Larger pictures are refused before decoding.
        group_pattern: Regular expression with one group, the slide, patient or person, searched in gt's name without
            suffix, folders before it: "^([^_]+)_". Pictures of one group are not independent: intervals and paired
            comparisons of a test are drawn over groups. Without it every picture counts as one.
        group_file: CSV with columns name and key that says the group instead, such as the one `srkit split` writes.

    Raises: DataError with every file that has no partner, and, of the others, what `check` finds.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        dataroot_gt: str,
        dataroot_lq: str | None = None,
        filename_tmpl: str = "{}",
        pair_pattern: str | None = None,
        recursive: bool = False,
        meta_info_file: str | None = None,
        io_backend: Literal["disk", "lmdb", "zip", "tar"] = "disk",
        gt_size: int | list[int] | None = None,
        gt_size_max: int | None = None,
        gt_size_step: int | None = None,
        crop_type: Literal["random", "center"] = "random",
        use_hflip: bool = False,
        use_rot: bool = False,
        color_jitter_prob: float = 0.0,
        color_jitter_shift: float = 20.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        color_change_prob: float = 0.5,
        lq_dropout_prob: float = 0.0,
        lq_dropout_holes: int = 8,
        lq_dropout_size: int = 2,
        lq_jpeg_prob: float = 0.0,
        lq_jpeg_quality: tuple[int, int] = (65, 100),
        color: Literal["rgb", "y", "y_full"] = "rgb",
        scale_augment: list[float] | None = None,
        lq_resize: Literal["bicubic-uint8", "bicubic-float"] = "bicubic-uint8",
        bit_depth: int | None = None,
        cache: Literal["auto", "disk", "none", "device"] = "auto",
        cache_dir: str | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = 100_000_000,
        group_pattern: str | None = None,
        group_file: str | None = None,
    ) -> None:
        require_template(filename_tmpl)
        if pair_pattern is not None:
            require_pattern(pair_pattern)
            if dataroot_lq is None or filename_tmpl != "{}":
                other = "without dataroot_lq" if dataroot_lq is None else f"with filename_tmpl '{filename_tmpl}'"
                raise RefusedError(f"pair_pattern pairs two folders by an id; found {other}: drop one")
        augment = Augment(
            scale=tuple(scale),
            gt_size=sides(gt_size, len(scale)),
            crop_type=crop_type,
            use_hflip=use_hflip,
            use_rot=use_rot,
            jitter_prob=color_jitter_prob,
            jitter_shift=color_jitter_shift,
        )
        damage = LqDamage(
            dropout_prob=lq_dropout_prob,
            dropout_holes=lq_dropout_holes,
            dropout_size=lq_dropout_size,
            jpeg_prob=lq_jpeg_prob,
            jpeg_quality=lq_jpeg_quality,
        )
        colours = ColourChange(
            prob=color_change_prob, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
        reading = Reading(
            color=color, bit_depth=bit_depth, cache=cache, cache_dir=cache_dir, check=check, on_error=on_error
        )
        folders = Folders(meta_info_file=meta_info_file, backend=io_backend, recursive=recursive, max_pixels=max_pixels)
        if scale_augment is not None:
            _require_factors(scale_augment, made=dataroot_lq is None, crops=gt_size is not None)
        gt: Source
        lq: Source
        if dataroot_lq is None:
            gt, problems = folders.open("dataroot_gt", dataroot_gt)
            if scale_augment is not None:
                gt = ScaledSource(gt, scale_augment)
            lq = ShrunkSource(gt, augment.scale, lq_resize)
        else:
            gt, lq, problems = folders.open_pairs(dataroot_gt, dataroot_lq, filename_tmpl, pair_pattern)
        groups: list[str] = []
        if group_pattern is not None or group_file is not None:
            names = (gt.inner if isinstance(gt, ScaledSource) else gt).names
            groups = groups_of([stem(name) for name in names], group_pattern, group_file, problems, "pictures")
        more = _larger_sizes(gt_size, gt_size_max, gt_size_step, augment.scale)
        reader = PictureReader(
            type(self).__name__, lq, gt, augment, reading, problems, damage, colours, more, groups=groups
        )
        super().__init__(reader, on_error)

    def hold(self, device: torch.device, room_bytes: float) -> str:
        """Puts the set into the memory of the device, if at most `room_bytes` are needed; returns why not, or nothing."""
        return self.reader.hold(device, room_bytes)

    @property
    def on_device(self) -> Callable[[Mapping[str, Tensor], Sequence[ResidentDraw]], dict[str, Tensor]] | None:
        """Makes the batches of a set that lies on the device out of the samples' draws; None of any other set."""
        held = self.reader.resident
        return None if held is None else lambda images, draws: held.batch(draws)


def _larger_sizes(
    smallest: int | list[int] | None, largest: int | None, step: int | None, scale: tuple[int, ...]
) -> list[tuple[int, ...]]:
    if largest is None:
        return []
    if not isinstance(smallest, int) or largest <= smallest:
        raise RefusedError(f"gt_size_max: found {largest} with gt_size {smallest}, expected one number above gt_size")
    if step is not None and (step < 1 or any(step % s for s in scale)):
        raise RefusedError(f"gt_size_step: found {step}, expected a multiple of scale {scale}")
    larger = range(smallest, largest + 1, step or math.lcm(*scale))[1:]
    if not larger:
        raise RefusedError(f"gt_size_max: no size between gt_size {smallest} and {largest} is a whole step further")
    return [(side,) * len(scale) for side in larger]


def _require_factors(factors: list[float], *, made: bool, crops: bool) -> None:
    if not made:
        raise RefusedError(
            "scale_augment makes lq from the shrunk gt; found with dataroot_lq, which brings lq: drop one"
        )
    if not crops:
        raise RefusedError("scale_augment is for training on crops; found without gt_size")
    if not factors or len(set(factors)) < len(factors) or not all(0 < factor <= 1 for factor in factors):
        raise RefusedError(f"scale_augment: found {factors}, expected different factors above 0 and at most 1")
