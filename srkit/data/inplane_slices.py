"""Slices of thick-sliced scans as their own ground truth: what a network for the thick axis can learn without any other."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from srkit.data.augment import Augment
from srkit.data.cache import cache_root
from srkit.data.checks import Findings
from srkit.data.ranges import require_within
from srkit.data.sample import Sample
from srkit.data.slice_cuts import SliceCuts
from srkit.data.slice_geometry import SliceGeometry, ThickSlices
from srkit.data.volume_cache import VolumeCache
from srkit.data.volume_checks import check_volumes
from srkit.data.volume_files import VolumeFiles, find_files, unique_names
from srkit.data.volume_pairs import Making, VolumePairs
from srkit.errors import DataError, RefusedError
from srkit.imaging.volumes import is_nifti, volume_stem
from srkit.registry import DATASETS

_log = logging.getLogger("srkit")


@DATASETS.register()
class SelfSupervisedSlices:
    """Patches (H, W) of the sharp slices of scans whose slices are thick, for networks such as ThroughPlane.

    gt is a patch of a slice as it is; lq is the same with its rows averaged as the scanner averages across the slices:
    blocks of scale voxels, by a profile as wide as slices are thick over their distance. Both directions in the slices
    are drawn, and turned so that the first axis is the thick one. Black and white are those of the whole scan, as at
    inference. The scans' slices have no truth beyond them: a validation needs a VolumeDataset of other, isotropic scans.

    Args:
        scale: Enlargement of each voxel axis, above 1 for the thick one alone: [1, 1, 6]. It should be the distance of the
            slices over the distance of voxels in them; which axis is thick in the scans does not matter for training.
        dataroot_gt: One scan, .nii or .nii.gz, or a folder of them.
        gt_size: Side of the square gt patch in voxels, a multiple of the factor.
        meta_info_file: List of the scans of the folder to use, one a line; a name on k lines counts k times.
        recursive: Take the scans of all folders below too.
        volume: Which volume of 4D files, from 0.
        spacing_mm: True distance of the voxels along each axis, for headers that are wrong.
        repair_nan: Put 0 where a file holds NaN or infinity instead of refusing it.
        thick_axis: Voxel axis across the slices; None takes the header's axis of the largest spacing.
        ignore_spacing: Take scans whose spacings differ by more than a tenth from what scale says, or in the slices.
        slice_thickness_mm: Thickness of a slice; None is the distance of the slices without the gap.
        slice_gap_mm: Between one slice and the next, below 0 where slices overlap; None is the distance without the
            thickness, which is 0 where neither is given. Their sum is the distance in the header.
        profile: Sensitivity across a slice: "box", or "gaussian" of that full width at half maximum.
        normalization: What a scan's black and white are: the 0.5th and 99.5th "percentiles" of what is not 0, or mean and
            mean plus standard deviation of that ("zscore").
        foreground_threshold: Where between the 0.5th and the 99.5th percentile the body begins, in scans that have less
            than a fifth of exact zeros.
        foreground_prob: Share of the patches whose centre is drawn from the body; the others lie anywhere.
        use_flip: Mirror either axis of the patch with probability 1/2.
        cache: "auto" keeps the decoded scans in memory-mapped files, in memory where those cannot be written; "disk" always
            in files; "none" in memory.
        cache_dir: Where; None is $SRKIT_CACHE or ~/.cache/srkit.
        check: What is looked at before training besides names and headers: voxels of all scans ("auto", "full"), nothing, not
            even headers ("off").
        on_error: Policy for files found unreadable in the run.

    Raises: RefusedError for options that cannot be; DataError with all that `check` finds.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        dataroot_gt: str,
        gt_size: int,
        meta_info_file: str | None = None,
        recursive: bool = False,
        volume: int | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        repair_nan: bool = False,
        thick_axis: Literal[0, 1, 2] | None = None,
        ignore_spacing: bool = False,
        slice_thickness_mm: float | None = None,
        slice_gap_mm: float | None = None,
        profile: Literal["box", "gaussian"] = "box",
        normalization: Literal["percentiles", "zscore"] = "percentiles",
        foreground_threshold: float = 0.1,
        foreground_prob: float = 0.7,
        use_flip: bool = True,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.title, self.on_error = type(self).__name__, on_error
        self._check = check
        factor = _factor(scale)
        Augment(scale=(factor,), gt_size=(gt_size,))  # refuses what is no multiple
        require_within("foreground_prob", foreground_prob)
        self.cuts = SliceCuts(
            factor=factor, gt_size=gt_size, profile=profile, foreground_prob=foreground_prob, use_flip=use_flip
        )
        self.geometry = SliceGeometry(
            factor=factor,
            thick_axis=thick_axis,
            ignore_spacing=ignore_spacing,
            slice_thickness_mm=slice_thickness_mm,
            slice_gap_mm=slice_gap_mm,
        )
        making = Making(
            scale=(1, 1, 1),
            normalization=normalization,
            foreground_threshold=foreground_threshold,
            volume=volume,
            spacing_mm=spacing_mm,
            repair_nan=repair_nan,
        )
        self.volumes = VolumePairs(_files(dataroot_gt, meta_info_file, recursive), making)
        self._names = unique_names(self.volumes.files.keys)
        folder = None if cache == "none" else cache_root(cache_dir) / "volumes"
        self.cache = VolumeCache(self.volumes, folder, keep=True, insist=cache == "disk")
        if self.volumes.files.problems:
            self.check()

    def __len__(self) -> int:
        return len(self.volumes)

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """A patch of scan `index`, drawn by `rng`: lq (H / factor, W, 1) and gt (H, W, 1) float32 of unit intensity.

        Raises: DataError naming a scan that cannot be used; RefusedError without `rng`.
        """
        if rng is None:
            raise RefusedError(
                f"{self.title}: scans of thick slices have no truth across them, so nothing can be measured on them; evaluate "
                "on isotropic volumes with VolumeDataset"
            )
        path = self.volumes.files.gt[index]
        try:
            scan = self.cache.get(index)
            images = self.cuts.draw(scan, self.geometry.of(scan.facts.spacing_mm), rng)
        except DataError as error:
            raise DataError(_named(path, error)) from None
        arrays = {role: image[..., None] for role, image in images.items()}
        return Sample(arrays, self._names[index], {"gt": path}, white=1.0)

    def prepare(self, progress: bool) -> None:
        """Decode every scan once; later calls find it done."""
        self.cache.build(range(len(self)), progress=progress)

    def check(self) -> None:
        """DataError naming every problem of names, headers, spacings, sizes and voxels."""
        findings = Findings(self.title, list(self.volumes.files.problems))
        if self._check != "off":
            check_volumes(
                self.volumes,
                findings,
                gt_size=None,
                all_voxels=True,
                skips=self.on_error == "skip",
                build=lambda indices: self.cache.build(indices, progress=True),
            )
            findings.add("scans do not fit the options", list(filter(None, map(self._misfit, range(len(self))))))
        findings.refuse()

    def _misfit(self, index: int) -> str | None:
        """Why the scan's slices are not what the options say; None also for headers that cannot be read at all."""
        try:
            header = self.volumes.headers(index)["gt"]
        except DataError:
            return None  # found before
        try:
            slices = self.geometry.of(header.spacing_mm)
            self.cuts.require_room(header.shape, slices)
        except DataError as error:
            return _named(str(header.path), error)
        return None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of names and sizes of the files in order, and of how lq is made and normalised."""
        making = self.volumes.making
        recipe = [repr(self.geometry), self.cuts.profile, making.normalization, str(making.volume)]
        digest = hashlib.sha256("\n".join(recipe).encode())
        for key, path in zip(self.volumes.files.keys, self.volumes.files.gt):
            size = Path(path).stat().st_size if Path(path).exists() else -1
            digest.update(f"{key}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> str:
        """One line: how many, the first, its slices, and that they bring no truth."""
        path = self.volumes.files.gt[0]
        slices = self._first()
        lies = (
            ""
            if slices is None
            else f", slices along axis {slices.axis} {slices.thickness:.0%} of their distance thick"
        )
        return (
            f"{self.title}: {len(self)} scans, first {path}{lies}; lq made by {self.cuts.profile} slices, "
            f"{self.volumes.making.normalization}; no truth to validate on; cache {self.cache.note}"
        )

    def _first(self) -> ThickSlices | None:
        try:
            return self.geometry.of(self.volumes.headers(0)["gt"].spacing_mm)
        except DataError:
            return None  # passed over under on_error: skip


def _factor(scale: Sequence[int]) -> int:
    if len(scale) != 3 or sorted(scale)[:2] != [1, 1] or max(scale) < 2:
        raise RefusedError(
            f"scale: found {list(scale)}, expected three numbers, above 1 for the thick axis alone, such as [1, 1, 6]"
        )
    return max(scale)


def _files(dataroot_gt: str, meta_info_file: str | None, recursive: bool) -> VolumeFiles:
    if is_nifti(dataroot_gt) and not Path(dataroot_gt).is_dir():
        if meta_info_file or recursive:
            raise RefusedError(
                f"meta_info_file and recursive choose from a folder; found with one scan, {dataroot_gt}: drop them"
            )
        return VolumeFiles(keys=[volume_stem(dataroot_gt)], gt=[dataroot_gt], groups=[""])
    return find_files(
        dataroot_gt=dataroot_gt,
        dataroot_lq=None,
        filename_tmpl="{}",
        meta_info_file=meta_info_file,
        recursive=recursive,
        mask_root=None,
        group_pattern=None,
        group_file=None,
    )


def _named(path: str, error: DataError) -> str:
    """The message, with the path where it does not name it yet."""
    text = str(error)
    return text if path in text else f"{path}: {text}"
