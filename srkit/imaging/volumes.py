"""NIfTI volumes to arrays and back, at the same place in the scanner.

Voxel axes are the file's own, never reordered or flipped. A file is known by its content (NIfTI-1 or NIfTI-2, packed
by gzip or not); names decide what `find_volumes` lists and how `write_volume` writes.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from srkit.disk import require_no_pipe
from srkit.errors import DataError, StorageError
from srkit.imaging.geometry import shear_mm
from srkit.imaging.volume_headers import (
    MAX_VOXELS,
    STORED_TYPES,
    Stored,
    Unfit,
    VolumeHeader,
    parse_header,
    require_invertible,
)

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

VOLUME_SUFFIXES = (".nii", ".nii.gz")
_PAIR_SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
_DEFLATE_LIMIT = 1032  # bytes that one packed byte can unfold to: 258 for two bits
_PIECE = 1 << 22  # voxels converted at a time
_TAIL = 1 << 20  # bytes read behind the last voxel to reach a packed file's checksum
_RIGHT_ANGLED_MM = 1e-3
_GZIP_LEVEL = 1  # noise hardly packs any smaller, only slower
_log = logging.getLogger("srkit")


def read_header(
    path: str | os.PathLike[str],
    *,
    volume: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    max_voxels: int = MAX_VOXELS,
) -> VolumeHeader:
    """Shape, affine and storage of a volume; no voxel is read.

    Args:
        path: A NIfTI file.
        volume: Which one of a 4D series, from 0.
        spacing_mm: True distances along the voxel axes, for a header that is wrong; the directions and the centre
            of the scan are kept.
        max_voxels: Larger volumes are refused.

    Raises: DataError naming the path and the reason: missing, empty, cut short, not NIfTI (or an Analyze pair), not
        one 3D volume, too large, complex or colour, no usable affine, spacing outside 0.001 to 100 mm.
    """
    with _opened(Path(path)) as (file, room):
        return parse_header(
            file, Path(path), volume=volume, spacing=spacing_mm, max_voxels=max_voxels, room=room
        ).header


def read_volume(
    path: str | os.PathLike[str],
    *,
    volume: int | None = None,
    spacing_mm: Sequence[float] | None = None,
    repair_nan: bool = False,
    may_be_constant: bool = False,
    max_voxels: int = MAX_VOXELS,
) -> tuple[np.ndarray, VolumeHeader]:
    """A volume as (I, J, K) float32, C-contiguous, in the file's units: scl_slope and scl_inter are applied.

    Args:
        repair_nan: Put 0 where the file holds NaN or infinity, and log how many.
        may_be_constant: Take a volume of one value, which is no scan but may be a mask.

    Others: see `read_header`.
    Raises: DataError as `read_header` does, and for damaged or missing voxels, NaN or infinity, a constant volume.
    """
    path = Path(path)
    with _opened(path) as (file, room):
        stored = parse_header(file, path, volume=volume, spacing=spacing_mm, max_voxels=max_voxels, room=room)
        flat = _values(file, stored)
        if (volume or 0) == stored.header.n_volumes - 1:
            file.read(_TAIL)
    header = stored.header
    finite = np.isfinite(flat)
    if not finite.all():
        count, first = flat.size - int(finite.sum()), np.unravel_index(finite.argmin(), header.shape, order="F")
        bad = f"NaN or infinite values (in float32): {count:,} of {flat.size:,} voxels, the first at {tuple(map(int, first))}"
        if not repair_nan:
            raise DataError(f"{path}: {bad}; mend the file, or put 0 there with repair_nan: true (infer: --repair_nan)")
        flat[~finite] = 0
        _log.warning("%s: %s; 0 is put there (repair_nan)", path, bad)
    if not may_be_constant and flat.min() == flat.max():
        raise DataError(f"{path}: every voxel is {flat[0]:g}; a scan with more than one value is needed")
    return np.ascontiguousarray(flat.reshape(header.shape, order="F")), header


def write_volume(
    path: str | os.PathLike[str],
    data: np.ndarray,
    affine: np.ndarray,
    *,
    like: VolumeHeader | None = None,
    dtype: str = "float32",
) -> None:
    """Write (I, J, K) as .nii or .nii.gz, whole or not at all; missing folders are made.

    qform and sform are both set; an affine with shear fits no qform, which is then left unset and said. The sform is
    the exact one: near turns of 180 degrees a NIfTI-1 qform is good to a thousandth of a radian. Lengths are in mm.
    Equal volumes make equal files.

    Args:
        affine: (4, 4), voxel index to millimetres.
        like: Header of the volume this one came from: its coordinate codes are kept and its type and scaling used.
        dtype: "float32", "input" for the type of `like`, or another numpy name of a type NIfTI holds. Whole-number
            types store (value - inter) / slope of `like`, rounded and clipped to the type, and say how many were.

    Raises: DataError for a suffix, array, affine or type that cannot be written; StorageError when the disk refuses.
    """
    path = Path(path)
    if not is_nifti(path):
        raise DataError(f"{path}: volumes are written as {' or '.join(VOLUME_SUFFIXES)}")
    if data.ndim != 3 or not np.isfinite(data).all():
        what = "values that are not finite" if data.ndim == 3 else f"an array of shape {data.shape}"
        raise DataError(f"{path}: {what} cannot be written, expected a finite (I, J, K) volume")
    try:
        if affine.shape != (4, 4):
            raise Unfit(f"its affine has shape {affine.shape}, expected (4, 4)")
        require_invertible("affine", affine)
    except Unfit as problem:
        raise DataError(f"{path}: {problem}") from None
    slope, inter = (like.slope, like.inter) if like is not None else (1.0, 0.0)
    stored = _stored(path, data, _stored_type(path, dtype, like), slope, inter)
    if stored.dtype.kind == "f":
        slope, inter = 1.0, 0.0
    header = _header(path, stored, affine, like)
    header["scl_slope"], header["scl_inter"] = slope, inter
    _replace(path, header, stored)


def is_nifti(path: str | os.PathLike[str]) -> bool:
    """Whether the name ends in .nii or .nii.gz."""
    return os.fspath(path).lower().endswith(VOLUME_SUFFIXES)


def volume_stem(path: str | os.PathLike[str]) -> str:
    """Name without .nii or .nii.gz: `rat.01.nii.gz` is `rat.01`."""
    name = Path(path).name
    return next((name[: -len(s)] for s in VOLUME_SUFFIXES if name.lower().endswith(s)), name)


def find_volumes(folder: str | os.PathLike[str], recursive: bool = False) -> list[Path]:
    """NIfTI files of a folder, sorted; hidden ones (macOS leaves "._a.nii") are passed over.

    Args:
        recursive: Also in all folders below, links followed, each real folder once.

    Raises: DataError when there is no such folder.
    """
    if not Path(folder).is_dir():
        raise DataError(
            f"{os.fspath(folder)}: {'is a file, not a folder' if Path(folder).exists() else 'no such folder'}"
        )
    found, seen = [], set()
    for place, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real not in seen:
            found += [Path(place, name) for name in names if is_nifti(name) and not name.startswith(".")]
        below[:] = [b for b in below if not b.startswith(".")] if recursive and real not in seen else []
        seen.add(real)
    return sorted(found)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file, unpacked, and how many bytes it can hold at most; what goes wrong inside becomes a DataError."""
    if path.name.lower().endswith(_PAIR_SUFFIXES):
        raise DataError(f"{path}: Analyze and two-file NIfTI are not read; save the pair as one .nii or .nii.gz")
    try:
        require_no_pipe(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
                    yield cast(BinaryIO, unpacked), size * _DEFLATE_LIMIT
            else:
                yield file, size
    except Unfit as problem:
        raise DataError(f"{path}: {problem}") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cannot be unpacked ({error}); damaged or cut short, copy it anew") from error
    except OSError as error:
        reasons = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not a volume"}
        reason = reasons.get(type(error), f"cannot be read ({error.strerror or error})")
        raise DataError(f"{path}: {reason}") from error


def _values(file: BinaryIO, stored: Stored) -> np.ndarray:
    """The volume's values, first axis fastest: (I * J * K,) float32."""
    header, offset, dtype = stored
    flat = np.empty(int(np.prod(header.shape, dtype=np.int64)), np.float32)
    file.seek(offset)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        block = file.read(piece.size * dtype.itemsize)
        if len(block) < piece.size * dtype.itemsize:
            found = start + len(block) // dtype.itemsize
            raise Unfit(f"is cut short: {flat.size:,} voxels promised, {found:,} found; copy it anew")
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported so
            values = np.frombuffer(block, dtype)
            scaled = (header.slope, header.inter) != (1, 0)
            piece[:] = values.astype(np.float64) * header.slope + header.inter if scaled else values
    return flat


def _stored_type(path: Path, name: str, like: VolumeHeader | None) -> np.dtype:
    if name == "input":
        if like is None:
            raise DataError(f"{path}: dtype 'input' needs the header of an input")
        return like.dtype
    if name not in STORED_TYPES.values():
        raise DataError(f"{path}: dtype '{name}' is not written; known: input, {', '.join(STORED_TYPES.values())}")
    return np.dtype(name)


def _stored(path: Path, data: np.ndarray, dtype: np.dtype, slope: float, inter: float) -> np.ndarray:
    """What the file holds for these values."""
    if dtype.kind == "f":
        return data.astype(dtype)
    low, high = (float(n) for n in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    if high > np.iinfo(dtype).max:  # 2**63 - 1 has no float64; the nearest one above would overflow
        high = float(np.nextafter(high, 0))
    steps = np.rint((data.astype(np.float64) - inter) / slope)
    outside = int(((steps < low) | (steps > high)).sum())
    if outside:
        _log.warning("%s: %d of %d voxels do not fit in %s and are clipped", path, outside, data.size, dtype)
    return steps.clip(low, high).astype(dtype)


def _header(path: Path, stored: np.ndarray, affine: np.ndarray, like: VolumeHeader | None) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    header = Nifti1Header() if max(stored.shape) < 2**15 else Nifti2Header()  # NIfTI-1 counts voxels in 16 bits
    header.set_data_shape(stored.shape)
    header.set_data_dtype(stored.dtype)
    header["vox_offset"] = header.single_vox_offset
    header.set_xyzt_units("mm")
    qform_code, sform_code = (like.qform_code, like.sform_code) if like is not None else (0, 0)
    sform_code, qform_code = sform_code or qform_code or 1, qform_code or sform_code or 1
    if shear_mm(affine, stored.shape) > _RIGHT_ANGLED_MM:
        _log.info("%s: its axes are not at right angles, which only the sform can say; the qform is left unset", path)
        qform_code = 0
    header.set_qform(affine, qform_code, strip_shears=True)
    header.set_sform(affine, sform_code)
    return header


def _replace(path: Path, header: Nifti1Header, stored: np.ndarray) -> None:
    """Put the file at `path` through a neighbour, so that no reader ever sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                if path.name.lower().endswith(".gz"):
                    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                        _put(cast(BinaryIO, packed), header, stored)
                else:
                    _put(file, header, stored)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _put(file: BinaryIO, header: Nifti1Header, stored: np.ndarray) -> None:
    block = header.binaryblock
    file.write(block + bytes(int(header["vox_offset"]) - len(block)))
    for slab in stored.transpose(2, 1, 0):  # first axis fastest
        file.write(slab.tobytes())
