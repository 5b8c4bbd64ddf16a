"""JPEG, there and back, on the device and in batches: what an encoder loses, without its entropy coding."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# ITU-T T.81, tables K.1 and K.2, which encoders take for quality 50.
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_CORNER = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
# JFIF: full-range YCbCr of BT.601.
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def jpeg(images: Tensor, quality: Sequence[int]) -> Tensor:
    """Pictures as they come out of a JPEG file of that quality, colour stored at half size (4:2:0).

    Follows libjpeg step by step, roundings included: 8-bit YCbCr, 2 x 2 means of the colour planes, edges repeated to
    whole blocks, DCT, tables scaled by the quality, and back with the decoder's smooth enlarging of colour. Only the
    DCT is exact here and of 13-bit constants there, so single coefficients fall to the other side of a rounding: on
    photographs 99 % of the values equal Pillow's and OpenCV's at quality 10, 93 % at 75, 86 % at 95, and the mean
    difference is 0.1 to 0.2 grey levels, where the compression itself changes 8 to 2.

    Args:
        images: RGB in 0 to 1; rounded to 8 bit first, as a file would hold it.
        quality: 1 to 100, one for each picture.

    Shape: (B, 3, H, W) in and out, any H and W.
    Source: ITU-T T.81 annex A; the quality scale and the samplings are those of the Independent JPEG Group's library.
    """
    height, width = images.shape[-2:]
    rgb = (images * 255.0).round().clamp(0, 255)
    ycc = _mix(rgb, _TO_YCC)
    ycc[:, 1:] += 128.0
    # Columns are repeated before the colour planes shrink and rows after, as encoders do.
    wide = F.pad(ycc, (0, -width % 16, 0, height % 2), mode="replicate")
    luma_base, chroma_base, dct = _constants(images.device, images.dtype)
    luma = _through_blocks(wide[:, :1], _scaled(luma_base, quality), dct)
    chroma = _through_blocks(_halved(wide[:, 1:]), _scaled(chroma_base, quality), dct)
    colour = _doubled(chroma[..., : math.ceil(height / 2), : math.ceil(width / 2)])
    decoded = torch.cat([luma[..., :height, :width], colour[..., :height, :width] - 128.0], dim=1)
    return _mix(decoded, _TO_RGB).clamp(0, 255) / 255.0


def _mix(planes: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """(B, 3, H, W) times a 3 x 3 matrix, rounded. Written out: a matrix product may run in reduced precision."""
    rows = [sum(weight * planes[:, k] for k, weight in enumerate(row) if weight) for row in matrix]
    return torch.stack(rows, dim=1).add_(0.5).floor_()  # type: ignore[arg-type]


@functools.cache
def _constants(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tables of luma and colour, and the orthonormal DCT-II (row u: the wave of frequency u); (8, 8) each.

    Kept, because every copy to a GPU would wait for what the GPU is doing.
    """
    chroma = [[_CHROMA_CORNER[v][u] if u < 4 and v < 4 else 99 for u in range(8)] for v in range(8)]
    dct = [
        [math.sqrt((1 if u == 0 else 2) / 8) * math.cos((2 * x + 1) * u * math.pi / 16) for x in range(8)]
        for u in range(8)
    ]
    luma_base, chroma_base, waves = (
        torch.tensor(values, dtype=dtype, device=device) for values in (_LUMA, chroma, dct)
    )
    return luma_base, chroma_base, waves


def _scaled(table: Tensor, quality: Sequence[int]) -> Tensor:
    """(B, 8, 8) divisors: the table for quality 50 in percent that depend on the quality, in whole numbers of 1 to 255."""
    if not all(1 <= q <= 100 for q in quality):
        raise ValueError(f"JPEG quality is 1 to 100, got {list(quality)}")
    percent = [5000 // q if q < 50 else 200 - 2 * q for q in quality]
    return torch.stack([((table * p + 50) / 100).floor_().clamp_(1, 255) for p in percent])


def _halved(planes: Tensor) -> Tensor:
    """Means of 2 x 2, rounded down and up by turns along a row, so that they do not drift."""
    sums = F.avg_pool2d(planes, 2, divisor_override=1)
    bias = 1.0 + torch.arange(sums.shape[-1], device=planes.device) % 2
    return ((sums + bias) / 4).floor_()


def _doubled(planes: Tensor) -> Tensor:
    """Twice the size, linear between samples (weights 9, 3, 3, 1 of 16), rounded as the decoder does."""
    smooth = F.interpolate(planes, scale_factor=2, mode="bilinear", align_corners=False)
    bias = (8.0 - torch.arange(smooth.shape[-1], device=planes.device) % 2) / 16
    return (smooth + bias).floor_()


def _through_blocks(planes: Tensor, tables: Tensor, dct: Tensor) -> Tensor:
    """(B, C, H, W) planes of 0 to 255 through DCT, division, rounding, and back; W a multiple of 8."""
    batch, channels, height, width = planes.shape
    whole = F.pad(planes, (0, 0, 0, -height % 8), mode="replicate") - 128.0
    rows = whole.reshape(-1, 8, width)  # 8 rows of pixels in one matrix
    coefficients = (dct @ rows).reshape(batch, -1, 8, width // 8, 8) @ dct.T
    steps = tables.reshape(batch, 1, 8, 1, 8)
    share = (coefficients * 8).round_() / 8 / steps  # libjpeg's DCT ends in eighths, so halves are frequent
    kept = share.sign() * (share.abs() + 0.5).floor_() * steps
    back = dct.T @ (kept @ dct).reshape(-1, 8, width)
    return (back.reshape(batch, channels, -1, width)[..., :height, :] + 128.5).floor_().clamp_(0, 255)
