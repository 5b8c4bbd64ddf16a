"""Volumes and their low-resolution partners, made by thick slices or acquired: patches to train on, whole ones to measure."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from srkit.data.augment import Augment, sides
from srkit.data.cache import cache_root
from srkit.data.checks import Findings
from srkit.data.forms import VolumeForm
from srkit.data.ranges import require_within
from srkit.data.sample import Sample
from srkit.data.volume_augment import VolumeAugment
from srkit.data.volume_cache import VolumeCache
from srkit.data.volume_checks import check_volumes
from srkit.data.volume_files import find_files, unique_names
from srkit.data.volume_pairs import Making, VolumePair, VolumePairs
from srkit.data.volume_patches import VolumePatches
from srkit.disk import free_disk_bytes
from srkit.errors import DataError, RefusedError
from srkit.imaging.intensity import to_unit
from srkit.imaging.slices import require_thickness
from srkit.registry import DATASETS

_BYTES_PER_VOXEL = 13  # of a volume made ready, at most: gt 4, lq 4, mask 1, indices of the body 4
_PRESET_WHITE = 255.0
_log = logging.getLogger("srkit")


@DATASETS.register()
class VolumeDataset:
    """NIfTI volumes (I, J, K) in the file's own voxel order, and lq made from them by thick slices, or acquired lq.

    Training samples are patches of unit intensity; evaluation samples are whole volumes in the file's units, with a mask.
    Black and white are those of lq alone, for lq is all that inference has. Where gt is no multiple of the scale, its far
    end is cut off.

    Args:
        scale: gt size / lq size for each voxel axis: [1, 1, 4] thickens along the last one.
        dataroot_gt: Folder of the high-resolution volumes, .nii or .nii.gz; hidden files are passed over.
        dataroot_lq: Folder of acquired partners of the same name, which must lie at the same place in the scanner, within
            half a voxel of theirs; None makes lq from gt.
        filename_tmpl: Name of lq, without suffix, from the name of gt: "{}_thick".
        resample_lq: Bring acquired lq onto the grid of gt over the scale by cubic splines first: for spacings whose ratio is
            no whole number, or grids that are turned against each other. It must cover gt, in voxels of about that size.
        meta_info_file: List of the gt names to use, one a line, relative to dataroot_gt; a name on k lines counts k times.
        recursive: Take the volumes of all folders below the roots too; partners have the same folder.
        gt_size: Side of the gt patch in voxels, or one number per axis, multiples of the scale; None takes whole volumes.
        volume: Which volume of 4D files, from 0.
        spacing_mm: True distance of gt's voxels along each axis, for headers that are wrong. Acquired lq is then taken to have
            that over the scale, but with resample_lq what its own header says.
        repair_nan: Put 0 where a file holds NaN or infinity instead of refusing it.
        mask_root: Folder of masks (not 0 is inside) named like gt, for metrics and for foreground_prob. Without it the mask
            is what is not 0 in volumes with a fifth or more of exact zeros, else what exceeds foreground_threshold.
        foreground_threshold: Where between the 0.5th and the 99.5th percentile of gt the body begins.
        foreground_prob: Share of the training patches whose centre is drawn from the mask; the others lie anywhere.
        group_pattern: Regular expression with one group, the animal or patient, searched in the name without suffix, folders
            before it: "^([^_]+)_". Volumes of one group are not independent.
        group_file: CSV with columns name and key that says the group instead.
        profile: How lq is made: "box" or "gaussian" slices, or "zoom1" and "zoom3", easysr's sampling by linear and cubic
            splines, which repeats its numbers and nothing else.
        thickness: Width of a slice over the distance between slices: 0.8 leaves gaps of a fifth.
        normalization: What lq's black and white are: the 0.5th and 99.5th "percentiles" of what is not 0, or mean and mean
            plus standard deviation of that ("zscore"). "easysr_g1" and "easysr_g2" repeat easysr's two generations: lq and
            gt each by its own extremes (g2 after clipping at 2.58 standard deviations), and values 0 to 255.
        flip_axes: Axes along which lq and gt are mirrored, each with probability 1/2.
        affine_prob: Probability that a patch is turned, stretched and shifted, before lq is made from it. Needs lq made by
            slices, as does elastic_prob.
        rotation_deg: Largest turn about each axis.
        translation: Largest shift along each axis, in parts of the patch.
        scaling: Smallest and largest size along each axis.
        elastic_prob: Probability of elastic bending.
        elastic_voxels: Largest bend along each axis in gt voxels; control points stand five times as far apart.
        gamma_prob: Probability that unit intensities of lq and gt are raised to one power.
        gamma_log: Largest logarithm of that power, either way.
        bias_prob: Probability that lq and gt are multiplied by one smooth field over the whole volume, the exponential of a
            polynomial of third degree.
        bias_coefficient: Largest coefficient of the polynomial, either way; coordinates run from -1 to 1.
        cache: "auto" keeps what is made of the volumes in memory-mapped files when training on patches, unless that needs
            more than half the free disk; "disk" always; "none" holds it in memory when training on patches, else makes it at
            each look.
        cache_dir: Where; None is $SRKIT_CACHE or ~/.cache/srkit.
        check: What is looked at before training besides names: headers of all volumes and voxels of all up to 2,000, else of
            500 ("auto"), voxels of all ("full"), nothing ("off").
        on_error: Policy for files found unreadable in the run.

    Raises: RefusedError for options that contradict each other; DataError with every volume that has no partner, and, of
        the others, what `check` finds.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        dataroot_gt: str,
        dataroot_lq: str | None = None,
        filename_tmpl: str = "{}",
        resample_lq: bool = False,
        meta_info_file: str | None = None,
        recursive: bool = False,
        gt_size: int | list[int] | None = None,
        volume: int | None = None,
        spacing_mm: tuple[float, float, float] | None = None,
        repair_nan: bool = False,
        mask_root: str | None = None,
        foreground_threshold: float = 0.1,
        foreground_prob: float = 0.7,
        group_pattern: str | None = None,
        group_file: str | None = None,
        profile: Literal["box", "gaussian", "zoom1", "zoom3"] = "box",
        thickness: float = 1.0,
        normalization: Literal["percentiles", "zscore", "easysr_g1", "easysr_g2"] = "percentiles",
        flip_axes: Sequence[int] = (),
        affine_prob: float = 0.0,
        rotation_deg: float = 15.0,
        translation: float = 0.1,
        scaling: tuple[float, float] = (0.9, 1.1),
        elastic_prob: float = 0.0,
        elastic_voxels: float = 5.0,
        gamma_prob: float = 0.0,
        gamma_log: float = 0.3,
        bias_prob: float = 0.0,
        bias_coefficient: float = 0.5,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        self.title, self.on_error = type(self).__name__, on_error
        self._check, self._cache_mode, self._root = check, cache, cache_root(cache_dir) / "volumes"
        self.scale = _three_axes(scale)
        require_within("foreground_prob", foreground_prob)
        augment = VolumeAugment(
            flip_axes=flip_axes,
            affine_prob=affine_prob,
            rotation_deg=rotation_deg,
            translation=translation,
            scaling=scaling,
            elastic_prob=elastic_prob,
            elastic_voxels=elastic_voxels,
            gamma_prob=gamma_prob,
            gamma_log=gamma_log,
            bias_prob=bias_prob,
            bias_coefficient=bias_coefficient,
        )
        making = Making(
            scale=self.scale,
            profile=profile,
            thickness=thickness,
            normalization=normalization,
            foreground_threshold=foreground_threshold,
            volume=volume,
            spacing_mm=spacing_mm,
            repair_nan=repair_nan,
            resample_lq=resample_lq,
        )
        if resample_lq and dataroot_lq is None:
            raise RefusedError(
                "resample_lq is for acquired lq; found without dataroot_lq: drop it, or name that folder"
            )
        _require_sense(making, augment, acquired=dataroot_lq is not None)
        patch = Augment(scale=self.scale, gt_size=sides(gt_size, 3)).gt_size  # refuses what is no multiple of the scale
        self.patches = VolumePatches(making, augment, patch, foreground_prob)
        files = find_files(
            dataroot_gt=dataroot_gt,
            dataroot_lq=dataroot_lq,
            filename_tmpl=filename_tmpl,
            meta_info_file=meta_info_file,
            recursive=recursive,
            mask_root=mask_root,
            group_pattern=group_pattern,
            group_file=group_file,
        )
        self.volumes = VolumePairs(files, making)
        self._names = unique_names(files.keys)
        self._cache: VolumeCache | None = None
        self._span: float | None = None
        if files.problems:
            self.check()

    def __len__(self) -> int:
        return len(self.volumes)

    @property
    def cache(self) -> VolumeCache:
        """Where volumes that were made ready are kept; decided at the first question."""
        if self._cache is None:
            folder, note = self._judge_cache()
            keep, insist = self.patches.gt_size is not None, self._cache_mode == "disk"
            self._cache = VolumeCache(self.volumes, folder, keep=keep, insist=insist, note=note)
        return self._cache

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """Sample `index`: a patch drawn by `rng`, of unit intensity, or the whole volume in its units (None).

        Shape: lq and gt (I, J, K, 1) float32, mask in evaluation (I, J, K, 1) uint8 of gt's size.
        Raises: DataError naming a file that cannot be used or is smaller than the patch.
        """
        pair, paths, name = self.cache.get(index), self.volumes.paths(index), self._names[index]
        group = self.volumes.files.groups[index]
        if rng is None:
            return self._whole(index, pair, Sample({}, name, paths, white=1.0, group=group))
        try:
            patches = self.patches.draw(pair, rng)
        except DataError as error:
            raise DataError(f"{paths['gt']}: {error}") from None
        return Sample({role: p[..., None] for role, p in patches.items()}, name, paths, white=1.0, group=group)

    def _whole(self, index: int, pair: VolumePair, sample: Sample) -> Sample:
        """`sample` with what only evaluation needs."""
        facts, images = pair.facts, {"lq": pair.lq, "gt": pair.gt}
        black, white = facts.lq_range
        if self.volumes.making.by_halves:
            black, white = 0.0, _PRESET_WHITE
            ranges = {"lq": facts.lq_range, "gt": facts.gt_range}
            images = {
                role: to_unit(image, *ranges[role], clip=True) * np.float32(white) for role, image in images.items()
            }
        images["mask"] = pair.mask
        header, affine = self.volumes.output_grid(index)
        whole = {role: np.require(image, requirements=["C", "W"])[..., None] for role, image in images.items()}
        making = self.volumes.making
        form = VolumeForm(
            header=header,
            affine=affine,
            black=black,
            white=white,
            data_range=self.data_range,
            profile=making.slice_profile or "box",
            thickness=making.thickness,
        )
        return replace(sample, images=whole, white=white, black=black, form=form)

    @property
    def data_range(self) -> float:
        """Maximum minus minimum over the gt volumes of the set, in what evaluation samples hold. Reads them once."""
        if self._span is None:
            if self.volumes.making.by_halves:
                self._span = _PRESET_WHITE
            else:
                unusable = self.cache.build(range(len(self)))
                spans = [self.cache.facts(k).gt_span for k in range(len(self)) if k not in unusable]
                if not spans:
                    raise DataError(next(iter(unusable.values())))
                self._span = max(high for _, high in spans) - min(low for low, _ in spans)
        return self._span

    def prepare(self, progress: bool) -> None:
        """Make every volume ready where that is kept; later calls find it done."""
        if self.cache.is_lasting:
            self.cache.build(range(len(self)), progress=progress)

    def _judge_cache(self) -> tuple[Path | None, str]:
        crops = self.patches.gt_size is not None
        if self._cache_mode == "none" or (self._cache_mode == "auto" and not crops):
            return None, "in memory" if crops else "off"
        if self._cache_mode == "auto":
            wanted = VolumeCache(self.volumes, self._root, keep=False).missing()
            need = sum(_BYTES_PER_VOXEL * self._voxels(k) for k in wanted)
            free = free_disk_bytes(self._root)
            if need > free / 2:
                note = f"in memory ({need / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} free in {self._root})"
                _log.warning("%s: no cache on disk, volumes are held %s", self.title, note)
                return None, note
        return self._root, str(self._root)

    def _voxels(self, index: int) -> int:
        try:
            return math.prod(self.volumes.headers(index)["gt"].shape)
        except DataError:
            return 0  # `check` reports it

    def check(self) -> None:
        """DataError naming every problem of names, headers, sizes, places in the scanner and voxels."""
        findings = Findings(self.title, list(self.volumes.files.problems))
        if self._check != "off":
            check_volumes(
                self.volumes,
                findings,
                gt_size=self.patches.gt_size,
                all_voxels=self._check == "full" or self.cache.is_lasting,
                skips=self.on_error == "skip",
                build=lambda indices: self.cache.build(indices, progress=True),
            )
        findings.refuse()

    def fingerprint(self) -> str:
        """SHA-256 (hex) of names and sizes of the files in order, and of how lq is made and normalised."""
        making = self.volumes.making
        made = f"{making.profile} {making.thickness}"
        recipe = ("resampled" if making.resample_lq else "") if self.volumes.files.lq else made
        digest = hashlib.sha256(f"{recipe} {making.normalization} {making.volume}\n".encode())
        for index, key in enumerate(self.volumes.files.keys):
            sizes = [_size(path) for path in self.volumes.inputs(index)]
            digest.update(f"{key}\0{sizes}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> str:
        """One line: how many, the first, where lq comes from, what is augmented, the cache."""
        making, paths = self.volumes.making, self.volumes.paths(0)
        made = f"{making.profile} slices of thickness {making.thickness:g}" if making.slice_profile else making.profile
        lq = f"lq {paths['lq']}" if self.volumes.files.lq else f"lq made by {made}"
        return (
            f"{self.title}: {len(self)} volumes, first gt {paths['gt']}, {lq}; {making.normalization}; "
            f"augmentation {self.patches.augment.describe()}; cache {self.cache.note}"
        )


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def _three_axes(scale: Sequence[int]) -> tuple[int, ...]:
    if len(scale) != 3 or min(scale) < 1:
        raise RefusedError(
            f"scale of volumes is three whole numbers from 1, one for each voxel axis, such as [1, 1, 4]; got {tuple(scale)}"
        )
    return tuple(scale)


def _require_sense(making: Making, augment: VolumeAugment, *, acquired: bool) -> None:
    require_thickness(making.thickness)
    slices = making.slice_profile is not None
    if acquired and (making.profile != "box" or making.thickness != 1):
        raise RefusedError(
            f"profile and thickness say how lq is made; found {making.profile}, {making.thickness} with dataroot_lq, which "
            "brings lq: drop them"
        )
    if not slices and making.thickness != 1:
        raise RefusedError(f"thickness is of slices; found {making.thickness} with profile {making.profile}: drop it")
    if augment.warps and (acquired or not slices):
        why = "dataroot_lq, whose volumes were acquired as they are" if acquired else f"profile {making.profile}"
        raise RefusedError(
            f"affine_prob and elastic_prob change gt before lq is made from it by slices; found {why}: set both to 0"
        )
