"""Bicubic enlargement of tensors inside a network: the same picture as `imresize`, with gradients, on any device."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from srkit.imaging.resize import imresize


def enlarge_bicubic(x: Tensor, scale: int) -> Tensor:
    """`imresize` by a whole number: Keys' kernel (a = -0.5), mirrored borders, height first, then width.

    Taps are added in the order of `imresize`, in the type of `x`; both give float32 pictures that differ by its rounding
    alone. Integer pictures that `imresize` rounds between its two passes are not rounded here.

    Shape: (B, C, H, W) -> (B, C, H * scale, W * scale); scale 1 returns `x`.
    """
    if scale == 1:
        return x
    return _enlarge_axis(_enlarge_axis(x, 2, scale), 3, scale)


def _enlarge_axis(x: Tensor, axis: int, scale: int) -> Tensor:
    length = x.shape[axis]
    index = torch.arange(-2, length + 2, device=x.device) % (2 * length)
    padded = x.index_select(axis, torch.minimum(index, 2 * length - 1 - index))  # mirrored with the edge pixel
    shifted = [padded.narrow(axis, tap, length) for tap in range(5)]
    phases = [
        functools.reduce(torch.add, (part * weight for part, weight in zip(shifted, row)))
        for row in _phase_weights(scale)
    ]
    return torch.stack(phases, dim=axis + 1).flatten(axis, axis + 1)


@functools.cache
def _phase_weights(scale: int) -> tuple[tuple[float, ...], ...]:
    """For each of the `scale` pixels a pixel becomes, the weights of its five neighbours (-2 to +2): what `imresize`
    makes of five pictures with one bright pixel each."""
    bright = imresize(np.eye(5)[:, :, None], (scale, 1))
    return tuple(tuple(row) for row in bright[2 * scale : 3 * scale, :, 0].tolist())
