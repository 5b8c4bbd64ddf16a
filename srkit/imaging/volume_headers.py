"""What a NIfTI file says about itself, read without a single voxel: its size, type, scaling and place in the scanner."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from srkit.errors import RefusedError
from srkit.imaging.geometry import corners, respaced_affine, spacing_mm, world

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

MAX_VOXELS = 500_000_000  # 2 GB of float32
# NIfTI datatype code -> what numpy calls it; every other code is complex, colour, single bits or 128 bits wide.
STORED_TYPES = {
    2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64",
    256: "int8", 512: "uint16", 768: "uint32", 1024: "int64", 1280: "uint64",
}  # fmt: skip
_OTHER_TYPES = {1: "single bits", 32: "complex64", 128: "RGB", 1536: "float128", 1792: "complex128", 2304: "RGBA"}
# Low three bits of xyzt_units -> name, millimetres.
_UNITS = {1: ("m", 1000.0), 2: ("mm", 1.0), 3: ("um", 0.001)}
# First four bytes as a number -> its magic, where that stands, and the first byte voxels may have.
_VERSIONS = {348: (b"n+1\0", 344, 352), 540: (b"n+2\0\r\n\x1a\n", 4, 544)}
_SPACING_MM = (0.001, 100.0)
_FAR = 1e12  # in any unit; what lies beyond is as good as infinite
# Unit vectors along the axes of a right-angled grid span a volume of 1; below this they lie in a plane.
_FLAT = 1e-3
_log = logging.getLogger("srkit")


@dataclass(frozen=True, eq=False)
class VolumeHeader:
    """Geometry and storage of one volume in a NIfTI file.

    Attributes:
        path: The file.
        shape: (I, J, K) in voxels, in the file's own order.
        affine: (4, 4) float64, voxel index to millimetres.
        dtype: Type of the stored numbers, before slope and inter.
        units: The header's unit of length and what was made of it: "mm", "um, converted into mm", ...
        qform_code, sform_code: What the coordinates mean, 0 to 5 (0 unknown, 1 scanner, 2 aligned, 3 Talairach, 4 MNI,
            5 another template). Where the two forms disagree, both are the sform's, which `affine` then is.
        slope, inter: Value = stored * slope + inter; 1 and 0 when the file states none.
        n_volumes: How many the file holds; 1 for a 3D file.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: np.ndarray
    dtype: np.dtype
    units: str
    qform_code: int
    sform_code: int
    slope: float
    inter: float
    n_volumes: int

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between voxels along each axis."""
        return spacing_mm(self.affine)


class Stored(NamedTuple):
    """A header and where its voxels lie in the (unpacked) file."""

    header: VolumeHeader
    offset: int
    dtype: np.dtype  # with the file's byte order


class Unfit(Exception):
    """A file srkit does not take; the reader puts the path before the reason."""


@functools.lru_cache(maxsize=4096)
def say_once(message: str) -> None:
    """A warning about a file, however often it is read."""
    _log.warning(message)


def parse_header(
    file: BinaryIO,
    path: Path,
    *,
    volume: int | None,
    spacing: Sequence[float] | None,
    max_voxels: int,
    room: int,
) -> Stored:
    """Header of an open, unpacked NIfTI file; leaves the file somewhere behind it.

    Args:
        room: Bytes the file can hold at most, header included.

    Others: see `srkit.imaging.volumes.read_header`.
    Raises: Unfit with the reason.
    """
    raw, first = _raw_header(file)
    shape, count = _shape(raw, volume, max_voxels)
    dtype = _stored_type(raw)
    offset = float(raw["vox_offset"])
    if not (first <= offset < 2**62 and offset.is_integer()):
        raise Unfit(f"voxels begin at byte {offset:g} (vox_offset), expected a whole number from {first} on")
    size = math.prod(shape) * dtype.itemsize
    end = int(offset) + count * size
    if end > room:
        raise Unfit(f"is cut short: the header promises {end:,} bytes, at most {room:,} are there")
    slope, inter = _scaling(raw)
    with np.errstate(all="ignore"):  # absurd numbers overflow and are refused as not finite
        affine, codes = _affine(raw, path, shape)
    affine, units = _in_mm(raw, path, affine)
    header = VolumeHeader(
        path, shape, affine, dtype.newbyteorder("="), units, *codes, slope=slope, inter=inter, n_volumes=count
    )
    if spacing is not None:
        header = _respaced(header, spacing)
    low, high = _SPACING_MM
    if not all(low <= s <= high for s in header.spacing_mm):
        raise Unfit(
            f"voxels are {_triple(header.spacing_mm)} mm apart, expected {low:g} to {high:g} mm; "
            f"the unit may be wrong (the header says {units}): state the true distances with spacing_mm (infer: --spacing)"
        )
    return Stored(header, int(offset) + (volume or 0) * size, dtype)


def _raw_header(file: BinaryIO) -> tuple[Nifti1Header, int]:
    """nibabel's header, unchecked, and the first byte at which voxels may begin."""
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    block = file.read(540)
    if not block:
        raise Unfit("the file is empty (0 bytes)")
    orders = {"<": int.from_bytes(block[:4], "little"), ">": int.from_bytes(block[:4], "big")}
    order = next((o for o, size in orders.items() if size in _VERSIONS), None)
    if order is None:
        raise Unfit(f"not a NIfTI file (its first bytes are {block[:16]!r})")
    size = orders[order]
    magic, place, first = _VERSIONS[size]
    found = block[place : place + len(magic)]
    if found != magic:
        pair = found[:2] == b"ni" or not any(found)
        kind = "header of an Analyze or two-file NIfTI; save it as one .nii" if pair else "not a NIfTI file"
        raise Unfit(f"{kind} (magic {found!r}, expected {magic!r})")
    if len(block) < size:
        raise Unfit(f"is cut short: {len(block)} bytes, a NIfTI header has {size}")
    return (Nifti1Header if size == 348 else Nifti2Header)(block[:size], endianness=order, check=False), first


def _shape(raw: Nifti1Header, volume: int | None, max_voxels: int) -> tuple[tuple[int, int, int], int]:
    """(I, J, K) and the number of volumes."""
    count, *dims = (int(n) for n in raw["dim"])
    dims = dims[:count] if 1 <= count <= 7 else []
    if not dims or min(dims) < 1:
        raise Unfit(f"its dimensions are {count} {tuple(int(n) for n in raw['dim'][1:])}: damaged header")
    found = " x ".join(map(str, dims))
    if any(n > 1 for n in dims[4:]):
        raise Unfit(f"is {len(dims)}D ({found}), expected a 3D scan or one volume of a 4D series")
    i, j, k, volumes = (*dims, 1, 1, 1)[:4]
    if min(i, j, k) < 2:
        raise Unfit(f"is {found}: a single slice, expected a 3D scan with 2 voxels or more along each axis")
    if volumes > 1 and volume is None:
        raise Unfit(
            f"is 4D ({found}) and holds {volumes} volumes; choose one with volume: 0 to {volumes - 1} (infer: --volume)"
        )
    if volume is not None and not 0 <= volume < volumes:
        raise Unfit(f"has no volume {volume}: it holds {volumes}, numbered from 0")
    if i * j * k > max_voxels:
        raise Unfit(f"is {i} x {j} x {k} = {i * j * k:,} voxels, above the limit of {max_voxels:,} (max_voxels)")
    return (i, j, k), volumes


def _stored_type(raw: Nifti1Header) -> np.dtype:
    code = int(raw["datatype"])
    if code not in STORED_TYPES:
        name = _OTHER_TYPES.get(code, "unknown")
        raise Unfit(f"stores {name} values (datatype {code}); whole numbers, float32 and float64 are read")
    return np.dtype(STORED_TYPES[code]).newbyteorder(raw.endianness)


def _scaling(raw: Nifti1Header) -> tuple[float, float]:
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0 or math.isnan(slope):  # 0 by the standard, NaN by nibabel: the stored numbers are the values
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise Unfit(f"its values cannot be scaled: scl_slope is {slope:g}, scl_inter {inter:g}")
    return slope, inter


def _affine(raw: Nifti1Header, path: Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The affine in the header's own unit, and the codes of qform and sform."""
    qform_code, sform_code = (c if 0 < c <= 5 else 0 for c in (int(raw["qform_code"]), int(raw["sform_code"])))
    steps = raw["pixdim"][1:4].astype(np.float64)
    qform = _qform(raw, steps) if qform_code else None
    if sform_code:
        affine, origin = raw.get_sform().astype(np.float64), "sform"
    elif qform is not None:
        affine, origin = qform, "qform"
    elif qform_code:
        raise Unfit("its qform is no rotation with three spacings above 0, and it has no sform; set one")
    else:
        _require_spacing("pixdim", steps)
        affine, origin = raw.get_base_affine().astype(np.float64), "pixdim"
        say_once(f"{path}: neither qform nor sform is set; taken as centred, with the axes left, front, top")
    require_invertible(origin, affine)
    found = spacing_mm(affine)
    if not np.allclose(steps, found, rtol=0.01):
        say_once(f"{path}: pixdim says {_triple(steps)}, the {origin} {_triple(found)}; the {origin} is used")
    if sform_code and qform_code:
        apart = np.inf if qform is None else np.abs(world(affine - qform, corners(shape))).max()
        # Three float32 hold a turn near 180 degrees (LAS and LPS scans) to a thousandth of a radian: less than a
        # voxel is no disagreement.
        if apart > max(found):
            say_once(f"{path}: qform and sform disagree by {apart:.3g} at the corners; the sform is used")
            qform_code = sform_code
    return affine, (qform_code, sform_code)


def _qform(raw: Nifti1Header, steps: np.ndarray) -> np.ndarray | None:
    """None for what is no rotation and spacing."""
    if not (np.isfinite(steps) & (steps > 0)).all():
        return None
    # The standard's own library takes all but negative numbers (a 0 left by older writers among them) for "not mirrored".
    raw["pixdim"][0] = -1 if raw["pixdim"][0] < 0 else 1
    try:
        qform = raw.get_qform().astype(np.float64)
    except ValueError:  # nibabel: a quaternion longer than 1
        return None
    return qform if np.isfinite(qform).all() else None


def _require_spacing(origin: str, steps: np.ndarray) -> None:
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise Unfit(f"its {origin} gives voxels {_triple(steps)} apart, expected three distances above 0; correct it")


def require_invertible(origin: str, affine: np.ndarray) -> None:
    """Unfit for what gives voxels no place of their own."""
    if not (np.abs(affine) < _FAR).all():
        raise Unfit(f"its {origin} holds numbers that are not finite: {affine[:3].tolist()}")
    steps = np.array(spacing_mm(affine))
    _require_spacing(origin, steps)
    if abs(np.linalg.det(affine[:3, :3] / steps)) < _FLAT:
        raise Unfit(f"its {origin} is singular, two voxel axes point the same way: {affine[:3, :3].tolist()}")


def _in_mm(raw: Nifti1Header, path: Path, affine: np.ndarray) -> tuple[np.ndarray, str]:
    name, factor = _UNITS.get(int(raw["xyzt_units"]) & 7, ("", 1.0))
    if not name:
        say_once(f"{path}: the header names no unit of length; taken as mm")
        return affine, "unknown, taken as mm"
    return np.diag([factor, factor, factor, 1.0]) @ affine, name if factor == 1 else f"{name}, converted into mm"


def _respaced(header: VolumeHeader, spacing: Sequence[float]) -> VolumeHeader:
    try:
        affine = respaced_affine(header.affine, header.shape, spacing)
    except RefusedError as error:
        raise Unfit(str(error)) from None
    say_once(f"{header.path}: spacing {_triple(header.spacing_mm)} mm replaced by {_triple(spacing)} mm (spacing_mm)")
    return replace(header, affine=affine)


def _triple(values: Sequence[float] | np.ndarray) -> str:
    return " x ".join(f"{float(v):.6g}" for v in values)
