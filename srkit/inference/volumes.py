"""NIfTI volumes through a network: in the file's units, at the same place in the scanner."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from srkit.engine.log import logger
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.geometry import corners, scaled_affine, spacing_mm, world
from srkit.imaging.montage import three_planes
from srkit.imaging.slices import enlarge, resample
from srkit.imaging.tiles import Tick
from srkit.imaging.volume_headers import MAX_VOXELS, STORED_TYPES, VolumeHeader
from srkit.imaging.volumes import VOLUME_SUFFIXES, is_nifti, read_header, read_volume, volume_stem, write_volume
from srkit.inference.axes import axis_order
from srkit.inference.confidence import Confidence
from srkit.inference.itk import bias_corrected, require_simpleitk, transform_between
from srkit.inference.settings import VolumeSettings
from srkit.inference.upscaler import Upscaler


class Volumes:
    """.nii and .nii.gz, see `Kind`. Beside each result goes a picture of its middle slices.

    Raises: RefusedError for settings that cannot be, DataError for a truth or a reference that is no volume.
    """

    name = "volumes"
    suffixes: tuple[str, ...] = VOLUME_SUFFIXES
    extensions: tuple[str, ...] = VOLUME_SUFFIXES
    unit = "voxels"

    def __init__(self, upscaler: Upscaler, settings: VolumeSettings, confidence: Confidence | None = None) -> None:
        self._upscaler, self._settings, self._confidence = upscaler, settings, confidence
        if confidence is not None:
            confidence.require_volumes(settings)
        if settings.dtype != "input" and settings.dtype not in STORED_TYPES.values():
            raise RefusedError(f"--dtype: found '{settings.dtype}', expected input, {', '.join(STORED_TYPES.values())}")
        if settings.bias_correct or settings.register:
            require_simpleitk("--register" if settings.register else "--bias_correct")
        for path in (settings.register, settings.gt):
            if path is not None:
                read_header(path)

    def takes(self, source: Path) -> bool:
        return is_nifti(source)

    def stem(self, source: Path) -> str:
        return volume_stem(source)

    def extension(self, source: Path) -> str:
        return ".nii.gz"

    def require(self, source: Path, out: Path) -> None:
        """Names show nothing that could be wrong."""

    def restore(self, source: Path, out: Path, tick: Tick) -> int:
        settings = self._settings
        scan, header = read_volume(
            source, volume=settings.volume, spacing_mm=settings.spacing_mm, repair_nan=settings.repair_nan
        )
        if header.n_volumes > 1:
            logger.info("%s: volume %d of 0 to %d", source, settings.volume, header.n_volumes - 1)
        volume = bias_corrected(scan, header.spacing_mm) if settings.bias_correct else scan
        order = axis_order(source, self._upscaler.scale, header.spacing_mm, settings.axis)
        scale = tuple(self._upscaler.scale[axis] for axis in order)
        try:
            seen, spread = np.ascontiguousarray(volume.transpose(order)), None
            black, white = self._upscaler.intensity_range(seen)
            given = (seen, tick, (black, white))
            if self._confidence is None:
                sr = self._upscaler.volume(*given).transpose(order)
            else:
                sr, spread = (part.transpose(order) for part in self._upscaler.volume_and_spread(*given))
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
        caption = "lq, N4" if settings.bias_correct else "lq"
        shown = {caption: enlarge(volume, scale, 0), "sr": sr} if settings.preview else {"sr": sr}
        affine, like = scaled_affine(header.affine, scale), header
        if settings.target_spacing_mm is not None:
            shape = _isotropic(source, sr.shape, affine, settings.target_spacing_mm)
            affine = scaled_affine(affine, [m / n for m, n in zip(shape, sr.shape)])
            shown = {name: resample(part, shape, 3 if name == "sr" else 0) for name, part in shown.items()}
        if settings.register is not None:
            reference, there = read_volume(settings.register)
            move = transform_between((shown["sr"], affine), (reference, there.affine), settings.transform)
            shown = {name: move(part, 1 if name == "sr" else 0) for name, part in shown.items()}
            affine = there.affine
            like = replace(header, qform_code=there.qform_code, sform_code=there.sform_code)
        if settings.gt is not None:
            shown["gt"] = _truth(settings.gt, shown["sr"], affine, scale)
        if self._confidence is not None and spread is not None:
            self._confidence.write_volume(source, out, spread, white - black, affine, like)
        write_volume(out, shown["sr"], affine, like=like, dtype=settings.dtype)
        if settings.preview:
            write_image(out.with_name(f"{volume_stem(out)}_preview.png"), three_planes(shown, black, white))
        return int(shown["sr"].size)


def _isotropic(source: Path, shape: tuple[int, ...], affine: np.ndarray, target_mm: float) -> list[int]:
    """Sides of the grid over the same space whose voxels come nearest to `target_mm`. Raises DataError for too many."""
    sides = [max(1, round(n * mm / target_mm)) for n, mm in zip(shape, spacing_mm(affine))]
    if math.prod(sides) > MAX_VOXELS:
        raise DataError(
            f"{source}: --target_spacing {target_mm:g} makes {' x '.join(map(str, sides))} voxels, more than {MAX_VOXELS:,}"
        )
    return sides


def _truth(path: Path, sr: np.ndarray, affine: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
    """The volume of that file, without the far end that no whole thick slice covers.

    Raises: DataError unless it lies on the result's grid, within half a voxel.
    """
    truth, header = read_volume(path)
    longer = [n - m for n, m in zip(header.shape, sr.shape)]
    if not all(0 <= n < s for n, s in zip(longer, scale)) or not _agree(header, sr.shape, affine):
        raise DataError(
            f"{path}: --gt of {truth.shape} lies on another grid than the result of {sr.shape}; --register {path} puts the "
            "result on it"
        )
    if any(longer):
        logger.info("%s: --gt of %s is cut at the far end to the result's %s", path, truth.shape, sr.shape)
    return truth[tuple(slice(n) for n in sr.shape)]


def _agree(header: VolumeHeader, shape: tuple[int, ...], affine: np.ndarray) -> bool:
    """Whether a grid of that shape lies at the beginning of the header's."""
    apart = world(np.linalg.inv(affine), world(header.affine, corners(shape))) - corners(shape)
    return bool(np.abs(apart).max() <= 0.5)
