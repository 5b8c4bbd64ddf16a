"""One volume made ready: gt and lq on fitting grids, where its body is, and which intensities are 0 and 1."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from srkit.data.volume_files import VolumeFiles
from srkit.errors import DataError
from srkit.imaging.geometry import corners, scaled_affine, world
from srkit.imaging.intensity import Normalization, body_mask, intensity_range
from srkit.imaging.slices import Profile, onto_grid, spline_zoom, thicken, whole_blocks
from srkit.imaging.volumes import VolumeHeader, read_header, read_volume

_FORMAT = 1
Recipe = Literal["box", "gaussian", "zoom1", "zoom3"]
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Making:
    """How volumes are made ready; `VolumeDataset` explains the settings."""

    scale: tuple[int, ...]
    profile: Recipe = "box"
    thickness: float = 1.0
    normalization: Normalization = "percentiles"
    foreground_threshold: float = 0.1
    volume: int | None = None
    spacing_mm: tuple[float, ...] | None = None
    repair_nan: bool = False
    resample_lq: bool = False

    @property
    def slice_profile(self) -> Profile | None:
        """The profile of the slices that lq is made by; None for easysr's sampling."""
        return self.profile if self.profile in ("box", "gaussian") else None

    @property
    def by_halves(self) -> bool:
        """Whether gt and lq each have a range of their own."""
        return self.normalization in ("easysr_g1", "easysr_g2")

    def lq_of(self, gt: np.ndarray) -> np.ndarray:
        """(I, J, K) gt to its lq, both in the file's units."""
        if self.slice_profile is not None:
            return thicken(gt, self.scale, profile=self.slice_profile, thickness=self.thickness)
        return spline_zoom(gt, [n // s for n, s in zip(gt.shape, self.scale)], 1 if self.profile == "zoom1" else 3)


@dataclass(frozen=True)
class Facts:
    """Plain values of one volume, in the file's units.

    Attributes:
        lq_range, gt_range: Black and white of each half; equal unless the normalization goes by halves.
        gt_span: Lowest and highest value of gt.
        spacing_mm: Of gt.
    """

    lq_range: Range
    gt_range: Range
    gt_span: Range
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class VolumePair:
    """gt (I, J, K) and lq (I/s, J/s, K/s) float32 in the file's units, mask (I, J, K) uint8, and the flat indices of
    the mask's voxels, int32. All may be read-only."""

    gt: np.ndarray
    lq: np.ndarray
    mask: np.ndarray
    body: np.ndarray
    facts: Facts

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {"gt": self.gt, "lq": self.lq, "mask": self.mask, "body": self.body}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> VolumePair:
        """The reverse of `arrays` and `asdict(facts)`, through JSON."""
        return cls(**arrays, facts=Facts(**{key: tuple(value) for key, value in facts.items()}))


class VolumePairs:
    """Volumes 0 to len - 1, made ready when asked for.

    Args:
        files: Where they are.
        making: What is made of them.
    """

    def __init__(self, files: VolumeFiles, making: Making) -> None:
        self.files, self.making = files, making

    def __len__(self) -> int:
        return len(self.files.gt)

    def paths(self, index: int) -> dict[str, str]:
        """By role; lq made from gt has gt's path."""
        return {"lq": (self.files.lq or self.files.gt)[index], "gt": self.files.gt[index]}

    def inputs(self, index: int) -> list[str]:
        """Every file that the volume is made of."""
        return [paths[index] for paths in (self.files.gt, self.files.lq, self.files.mask) if paths and paths[index]]

    def key(self, index: int) -> str:
        """Names of the files, and the settings."""
        return json.dumps([_FORMAT, asdict(self.making), [os.path.realpath(path) for path in self.inputs(index)]])

    def identity(self, index: int) -> str:
        """`key` and the files' sizes and times. Raises DataError when one is missing."""
        stats = []
        for path in self.inputs(index):
            try:
                status = os.stat(path)  # noqa: PTH116 - one call for both values
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
            stats.append([status.st_size, status.st_mtime_ns])
        return json.dumps([self.key(index), stats])

    def headers(self, index: int) -> dict[str, VolumeHeader]:
        """By role, lq's only when it was acquired. DataError naming a file that cannot be used or does not fit the others."""
        scale, gt = self.making.scale, read_header(self.files.gt[index], **self._choice("gt"))
        found = {"gt": gt}
        if self.files.lq:
            found["lq"] = read_header(self.files.lq[index], **self._choice("lq"))
            if self.making.resample_lq:
                require_same_space(found["lq"], gt, scale)
            else:
                require_same_place(found["lq"], gt, scale)
        elif any(n < s for n, s in zip(gt.shape, scale)):
            raise DataError(f"{gt.path}: {gt.shape} is smaller than one block of scale {scale}")
        if self.files.mask and self.files.mask[index]:
            found["mask"] = read_header(self.files.mask[index], **self._choice("mask"))
            require_same_place(found["mask"], gt, (1, 1, 1))
        return found

    def output_grid(self, index: int) -> tuple[VolumeHeader, np.ndarray]:
        """Whose types and codes a restored volume takes over, and its affine (4, 4)."""
        headers = self.headers(index)
        if "lq" not in headers or self.making.resample_lq:
            return headers.get("lq", headers["gt"]), headers["gt"].affine
        return headers["lq"], scaled_affine(headers["lq"].affine, self.making.scale)

    def make(self, index: int) -> VolumePair:
        """Decodes and prepares the volume. DataError naming the file that cannot be used."""
        making = self.making
        headers = self.headers(index)
        whole = {
            role: read_volume(
                header.path, repair_nan=making.repair_nan, may_be_constant=role == "mask", **self._choice(role)
            )[0]
            for role, header in headers.items()
        }
        if "lq" in whole and making.resample_lq:
            gt = whole_blocks(whole["gt"], making.scale)
            there = scaled_affine(headers["gt"].affine, [1 / s for s in making.scale])
            shape = [n // s for n, s in zip(gt.shape, making.scale)]
            lq = onto_grid(whole["lq"], headers["lq"].affine, there, shape)
        elif "lq" in whole:
            lq = whole["lq"]
            gt = whole["gt"][tuple(slice(n * s) for n, s in zip(lq.shape, making.scale))]
        else:
            gt = whole_blocks(whole["gt"], making.scale)
            lq = making.lq_of(gt)
        source = self.paths(index)["lq"]
        try:
            lq_range = intensity_range(lq, making.normalization)
            gt_range = intensity_range(gt, making.normalization) if making.by_halves else lq_range
            source = str(headers.get("mask", headers["gt"]).path)
            mask = (
                whole["mask"][tuple(slice(n) for n in gt.shape)] != 0
                if "mask" in whole
                else body_mask(gt, making.foreground_threshold)
            )
            if not mask.any():
                raise DataError("no voxel of it belongs to the body")
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
        facts = Facts(lq_range, gt_range, (float(gt.min()), float(gt.max())), headers["gt"].spacing_mm)
        return VolumePair(
            np.ascontiguousarray(gt), lq, mask.astype(np.uint8), np.flatnonzero(mask).astype(np.int32), facts
        )

    def _choice(self, role: str) -> dict[str, Any]:
        """How a file of that role is read: which volume, and its true spacing.

        Of lq that follows from gt's only where its voxels are whole blocks of gt's; what is resampled has its own.
        """
        spacing = self.making.spacing_mm
        if spacing is not None and role == "lq":
            resampled = self.making.resample_lq
            spacing = None if resampled else tuple(mm * s for mm, s in zip(spacing, self.making.scale))
        return {"volume": None if role == "mask" else self.making.volume, "spacing_mm": spacing}


def require_same_place(lq: VolumeHeader, gt: VolumeHeader, scale: Sequence[int]) -> None:
    """DataError unless gt is lq times the scale, but for less than one block at the far end, and both lie at one place:
    the corners of lq and of gt's whole blocks no further apart than half a voxel of lq along each of its axes."""
    covered = tuple(n * s for n, s in zip(lq.shape, scale))
    if not all(c <= g < c + s for c, g, s in zip(covered, gt.shape, scale)):
        raise DataError(
            f"{gt.path} is {gt.shape}, expected {covered}: scale {tuple(scale)} times {lq.path} {lq.shape}; where spacings "
            "have no whole ratio, resample_lq: true brings lq onto gt's grid"
        )
    there = world(np.linalg.inv(lq.affine), world(gt.affine, corners(covered)))
    apart = np.abs(there - corners(lq.shape)).max()
    if apart > 0.5:
        mm = np.linalg.norm(world(gt.affine, corners(covered)) - world(lq.affine, corners(lq.shape)), axis=1).max()
        raise DataError(
            f"{lq.path} and {gt.path} do not cover the same place in the scanner: their corners lie up to {mm:.3g} mm or "
            f"{apart:.2g} voxels of lq apart, expected at most half a voxel; register or reorient one of them"
        )


def require_same_space(lq: VolumeHeader, gt: VolumeHeader, scale: Sequence[int]) -> None:
    """DataError unless lq, whatever its grid, covers gt's whole blocks to half a voxel, in voxels that are between half and
    twice as long as those of gt over the scale."""
    blocks = [n // s for n, s in zip(gt.shape, scale)]
    if min(blocks) < 1:
        raise DataError(f"{gt.path}: {gt.shape} is smaller than one block of scale {tuple(scale)}")
    inside = world(np.linalg.inv(lq.affine), world(gt.affine, corners([n * s for n, s in zip(blocks, scale)])))
    beyond = max(float((-0.5 - inside).max()), float((inside - (np.array(lq.shape) - 0.5)).max()))
    if beyond > 0.5:
        raise DataError(
            f"{gt.path} reaches {beyond:.2g} voxels of lq beyond {lq.path}, expected at most half a voxel; register one to "
            "the other, or cut gt to what both cover"
        )
    wanted = np.array(gt.spacing_mm) * scale
    steps = np.linalg.inv(lq.affine)[:3, :3] @ (gt.affine[:3, :3] * scale)  # columns: a wanted step in voxels of lq
    lengths = np.linalg.norm(steps, axis=0)
    if lengths.min() < 0.5 or lengths.max() > 2:
        raise DataError(
            f"{lq.path}: voxels of {_mm(lq.spacing_mm)} mm are too far from the {_mm(wanted)} mm of {gt.path} over scale "
            f"{tuple(scale)} to be resampled, expected half to twice as long"
        )


def _mm(lengths: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{n:.3g}" for n in lengths)
