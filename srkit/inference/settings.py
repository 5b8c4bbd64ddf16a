"""What a user of the command can say, as values; read without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from srkit.errors import OptionError, RefusedError
from srkit.options.reader import read_value

Precision = Literal["fp32", "bf16", "fp16"]
Color = Literal["rgb", "y", "y_full"]
Intensity = Literal["percentiles", "zscore", "easysr_g1", "easysr_g2"]
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY_UNITS = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_FIELDS = ("stem", "model", "scale", "ext")


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Which network, and what its file may not say.

    Args:
        path: Model file: .pth, .safetensors or .onnx.
        weights: Which of the two an own file has; None takes params_ema where there is one.
        arch, arch_options: The network of a file that does not say it.
        scale: Output size / input size: one number, or one per axis. None is what the file says.
        color: What pictures of a file that does not say it were read as: rgb, or luma of limited or full range.
        intensity: How volumes of a file that does not say it were normalised.
        imports: Modules or .py files that define networks.
    """

    path: Path
    weights: Literal["params", "params_ema"] | None = None
    arch: str | None = None
    arch_options: Mapping[str, Any] = field(default_factory=dict)
    scale: tuple[int, ...] | None = None
    color: Color | None = None
    intensity: Intensity | None = None
    imports: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How it runs. `tile` and `overlap` hold one number, or one per axis; others: see `srkit.engine.tile_size.Tiling`.

    Args:
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network's arithmetic.
        ensemble: Take the mean over the flips (and quarter turns) of each picture.
        confidence: File of `srkit calibrate`; results are then that mean, with a map beside each.
    """

    device: str = "auto"
    precision: Precision = "fp32"
    ensemble: bool = False
    confidence: Path | None = None
    tile: Literal["auto"] | tuple[int, ...] | None = "auto"
    overlap: tuple[int, ...] | None = None
    blend: Literal["auto", "crop", "fade"] = "auto"
    batch: int | None = None
    memory_bytes: float | None = None


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """What is read and what the results are called.

    Args:
        inputs: Files and folders.
        out: A file, when there is one input file and `out` has a suffix, else a folder.
        out_is_folder: A folder in any case.
        suffix: Put behind the stem of each input.
        template: Names by fields in braces instead: stem, model, scale, ext.
    """

    inputs: tuple[Path, ...]
    out: Path
    out_is_folder: bool = False
    recursive: bool = False
    suffix: str = "_sr"
    template: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """Args:
    format: Suffix of the results, with its dot; None is that of each input, but PNG for a JPEG.
    quality: 1 to 100, of JPEG and WebP; None is 95 for JPEG and no loss for WebP.
    max_pixels: Larger pictures are refused before decoding.
    """

    format: str | None = None
    quality: int | None = None
    max_pixels: int = 100_000_000


@dataclass(frozen=True, kw_only=True)
class SlideSettings:
    """Args:
    mpp: Microns per pixel at which slides are read; None is their finest level.
    slide_mpp: Microns per pixel of the finest level of slides that do not say it.
    compression: Of the results' tiles.
    quality: 1 to 100, of JPEG.
    ome: Write OME-TIFF.
    everything: Restore the background too, which is enlarged by bicubic otherwise.
    """

    mpp: float | None = None
    slide_mpp: float | None = None
    compression: Literal["jpeg", "deflate"] = "jpeg"
    quality: int = 90
    ome: bool = False
    everything: bool = False


@dataclass(frozen=True, kw_only=True)
class VolumeSettings:
    """Args:
    axis: The voxel axis to enlarge; None finds the one with the thick slices.
    dtype: "float32", "input", or another type of numbers that NIfTI holds.
    volume: Which volume of 4D files.
    spacing_mm: True distances along the voxel axes, for headers that are wrong.
    repair_nan: Put 0 where a file holds NaN or infinity.
    target_spacing_mm: Resample the result to this distance between voxels along all axes.
    bias_correct: Remove the slow change of brightness (N4) first.
    register: Volume on whose grid the result is put.
    transform: What that may do to it.
    gt: The truth, for the picture of the difference.
    preview: Write a picture of the middle slices beside each result.
    """

    axis: Literal[0, 1, 2] | None = None
    dtype: str = "float32"
    volume: int | None = None
    spacing_mm: tuple[float, ...] | None = None
    repair_nan: bool = False
    target_spacing_mm: float | None = None
    bias_correct: bool = False
    register: Path | None = None
    transform: Literal["rigid", "affine"] = "rigid"
    gt: Path | None = None
    preview: bool = True


def sides_of(text: str) -> tuple[int, ...]:
    """ "512" or "96,64,64". Raises ValueError."""
    numbers = tuple(int(part) for part in text.split(","))
    if min(numbers) < 0 or len(numbers) > 3:
        raise ValueError(text)
    return numbers


def tile_of(text: str) -> Literal["auto"] | tuple[int, ...] | None:
    """ "auto", "none", or sides above 0. Raises ValueError."""
    if text == "auto":
        return "auto"
    if text == "none":
        return None
    sides = sides_of(text)
    if min(sides) < 1:
        raise ValueError(text)
    return sides


def bytes_of(text: str) -> float:
    """ "4GB", "512 MiB" or a number of bytes. Raises ValueError."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([A-Za-z]*)", text.strip())
    unit = match[2].upper() if match else None
    units = _UNITS | _BINARY_UNITS
    if match is None or unit not in units or float(match[1]) <= 0:
        raise ValueError(text)
    return float(match[1]) * units[unit]


def spacing_of(text: str) -> tuple[float, ...]:
    """Three distances above 0. Raises ValueError."""
    numbers = tuple(float(part) for part in text.split(","))
    if len(numbers) != 3 or not all(0 < n < float("inf") for n in numbers):
        raise ValueError(text)
    return numbers


def suffix_of(text: str) -> str:
    """What is put behind a name. Raises ValueError."""
    if "/" in text or "\\" in text:
        raise ValueError(text)
    return text


def template_of(text: str) -> str:
    """A template of file names. Raises ValueError saying what is wrong with it."""
    try:
        named = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from None
    if unknown := named - set(_FIELDS):
        known = ", ".join("{" + name + "}" for name in _FIELDS)
        raise ValueError(f"'{text}' has the field {{{min(unknown)}}}; known are {known}")
    if "stem" not in named:
        raise ValueError(f"'{text}' has no {{stem}}, so that all results would have one name")
    if "/" in text or "\\" in text:
        raise ValueError(f"'{text}' has a slash; it is the name of a file, the folder is given by -o")
    try:
        text.format(**dict.fromkeys(_FIELDS, "text"))
    except (ValueError, LookupError) as error:  # '{stem:d}', '{stem!z}'
        raise ValueError(f"'{text}': {error}") from None
    return text


def arch_options_of(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE words, values by the rules of option files. Raises RefusedError."""
    options = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RefusedError(f"--arch_opt: found '{word}', expected KEY=VALUE such as num_feat=64")
        try:
            options[key] = read_value(text)
        except OptionError as error:
            raise RefusedError(f"--arch_opt {key}: {'; '.join(error.problems)}") from None
    return options
