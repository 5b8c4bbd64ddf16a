"""Bicubic resizing as published benchmarks were made, bit for bit; also nearest enlarging and cropping to a multiple."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np

from srkit.errors import DataError

Border = Literal["symmetric", "replicate"]
Factor = Fraction | int | float
_BLOCK_VALUES = 32_768  # values worked on at a time: three such blocks stay in a core's cache


def imresize(
    image: np.ndarray,
    scale: Factor | Sequence[Factor],
    *,
    border: Border = "symmetric",
    intermediate: Literal["uint8", "float"] = "uint8",
) -> np.ndarray:
    """Resize by the antialiased bicubic kernel (a = -0.5), axis after axis, first axis (height) first.

    Args:
        image: (*S, C), uint8, uint16 or float; channels are independent.
        scale: Output size / input size, one for all axes or one per axis; `Fraction(1, 3)` shrinks by 3. A float
            is taken as the nearest fraction with a denominator up to 1000. Output sizes are rounded up.
        border: What lies outside: "symmetric" mirrors with the edge pixel, "replicate" repeats the edge pixel.
        intermediate: For integer pictures. "uint8" clips and rounds to the picture's own type after every axis
            (also for uint16), as published low-resolution sets were made; "float" once at the end.
            Float pictures are neither clipped nor rounded.

    Shape: returns (*ceil(S * scale), C), type of `image`. Computed in float64, rounding half up; float32 pictures in
        float32, which gives BasicSR's `imresize` to the last bit. Sums run in one fixed order: the same bits everywhere.

    Source: Keys 1981 (kernel); MATLAB's imresize (widened kernel, weights, borders). Which published set has which
        border is in the golden tests, `tests/test_imaging_resize_golden.py`.
    """
    factors = _factors(scale, image.ndim - 1)
    integer = np.issubdtype(image.dtype, np.integer)
    work_type = np.dtype(np.float32 if image.dtype == np.float32 else np.float64)
    result = image
    last = max((axis for axis, factor in enumerate(factors) if factor != 1), default=-1)
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        out_type = image.dtype if axis == last or (integer and intermediate == "uint8") else work_type
        result = _resize_axis(result, axis, factor, border, work_type, out_type)
    return np.ascontiguousarray(result) if last >= 0 else image.copy()


def nearest_upscale(image: np.ndarray, scale: int | Sequence[int]) -> np.ndarray:
    """(*S, C) with every pixel repeated `scale` times (one number, or one per axis)."""
    for axis, times in enumerate(_per_axis(scale, image.ndim - 1)):
        image = np.repeat(image, times, axis=axis)
    return image


def mod_crop(image: np.ndarray, scale: int | Sequence[int]) -> np.ndarray:
    """View of (*S, C) without the last rows and columns that are no multiple of `scale`.

    Raises: DataError when nothing would be left.
    """
    factors = _per_axis(scale, image.ndim - 1)
    if any(n < s for n, s in zip(image.shape, factors)):
        raise DataError(f"a picture of {image.shape[:-1]} is smaller than scale {tuple(factors)}")
    return image[tuple(slice(n - n % s) for n, s in zip(image.shape, factors))]


def as_fraction(factor: Factor) -> Fraction:
    """The factor `imresize` uses: a float's nearest fraction with a denominator up to 1000."""
    return Fraction(factor).limit_denominator(1000) if isinstance(factor, float) else Fraction(factor)


def _per_axis(scale: int | Sequence[int], axes: int) -> Sequence[int]:
    factors = [scale] * axes if isinstance(scale, int) else list(scale)
    if len(factors) != axes or min(factors) < 1:
        raise ValueError(f"scale must be 1 or more for each of {axes} axes, got {scale}")
    return factors


def _factors(scale: Factor | Sequence[Factor], axes: int) -> list[Fraction]:
    given = list(scale) if isinstance(scale, Sequence) else [scale] * axes
    factors = [as_fraction(s) for s in given]
    if len(factors) != axes or min(factors) <= 0:
        raise ValueError(f"scale must be above 0 for each of {axes} axes, got {scale}")
    return factors


def _cubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _taps(n_in: int, factor: Fraction, border: Border) -> tuple[np.ndarray, np.ndarray]:
    """Input indices and weights of every output sample, both (n_out, taps).

    With factor p/q, output i (from 1) sits at (2iq + p - q) / 2p: positions are kept as integer numerators, so that
    no rounding of 1/3 shifts a tap.
    """
    p, q = factor.numerator, factor.denominator
    n_out = -(-n_in * p // q)
    width = max(Fraction(1), 1 / factor)  # the kernel is widened when shrinking, never narrowed
    centre = 2 * q * np.arange(1, n_out + 1) + p - q  # in units of 1 / 2p
    first = (centre - int(4 * width * p)) // (2 * p)  # floor(u - support / 2), support = 4 * width
    index = first[:, None] + np.arange(ceil(4 * width) + 2)
    weights = _cubic((centre[:, None] - 2 * p * index) / float(2 * p * width))
    weights /= weights.sum(axis=1, keepdims=True)
    used = weights.any(axis=0)
    index, weights = index[:, used] - 1, weights[:, used]  # 0-based from here
    if border == "replicate":
        return index.clip(0, n_in - 1), weights
    index %= 2 * n_in  # symmetric: period 2 n, second half backwards
    return np.minimum(index, 2 * n_in - 1 - index), weights


def _resize_axis(
    image: np.ndarray, axis: int, factor: Fraction, border: Border, work_type: np.dtype, out_type: np.dtype
) -> np.ndarray:
    front = np.moveaxis(image, axis, 0)
    rows = np.ascontiguousarray(front).reshape(front.shape[0], -1)
    index, weights = _taps(rows.shape[0], factor, border)
    out = np.empty((index.shape[0], rows.shape[1]), out_type)
    step = max(1, _BLOCK_VALUES // rows.shape[1])
    for start in range(0, len(out), step):
        block = slice(start, start + step)
        out[block] = _cast(_weighted_rows(rows, index[block], weights[block].astype(work_type)), out_type)
    return np.moveaxis(out.reshape(-1, *front.shape[1:]), 0, axis)


def _weighted_rows(rows: np.ndarray, index: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over taps k of weights[:, k] * rows[index[:, k]], tap after tap, in the weights' type."""
    low = index.min()
    near = rows[low : index.max() + 1].astype(weights.dtype)
    total = np.zeros((len(index), rows.shape[1]), weights.dtype)
    term = np.empty_like(total)
    for k in range(index.shape[1]):
        np.take(near, index[:, k] - low, axis=0, out=term, mode="clip")
        term *= weights[:, k, None]
        total += term
    return total


def _cast(values: np.ndarray, out_type: np.dtype) -> np.ndarray:
    if not np.issubdtype(out_type, np.integer):
        return values.astype(out_type, copy=False)
    values += 0.5  # half up; np.round's banker's rounding changes 0.6 % of values at x2
    np.clip(values, 0, np.iinfo(out_type).max, out=values)
    return values.astype(out_type)
