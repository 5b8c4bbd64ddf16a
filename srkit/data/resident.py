"""A whole data set in the device's memory: crops and flips are taken there, all of a batch at once.

A crop that is mirrored and transposed is an offset and two strides into the picture's pixels, so that a batch is one
gather, whatever was drawn for its samples. The draws are those of the loader: the same crops come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from srkit.data.augment import Draw
from srkit.errors import DataError, RefusedError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class ResidentDraw:
    """Which picture, what chance decided for it, and the crop's size in lq pixels."""

    index: int
    draw: Draw
    size: tuple[int, ...]


class ResidentPictures:
    """The pictures of one role, (pixels, channels) in one tensor.

    Args:
        pictures: (H, W, C) each; None for one that cannot be read. All of one type and number of channels.
        factor: Size over lq's, for height and width.

    Raises: RefusedError when types or channels differ.
    """

    def __init__(self, pictures: Sequence[np.ndarray | None], factor: tuple[int, ...], device: torch.device) -> None:
        import torch

        there = [p for p in pictures if p is not None]
        kinds = {(p.dtype, p.shape[-1]) for p in there}
        if len(kinds) != 1:
            raise RefusedError(f"pictures of different kinds: {', '.join(f'{d} with {c} channels' for d, c in kinds)}")
        self.dtype, self.channels = next(iter(kinds))
        self.factor = factor
        counts = [0 if p is None else p.shape[0] * p.shape[1] for p in pictures]
        self.offsets = np.concatenate([[0], np.cumsum(counts)])[:-1].astype(np.int64)
        self.sizes = np.array([(0, 0) if p is None else p.shape[:2] for p in pictures], np.int64)
        # 16-bit integers without a sign can be stored and turned into floats on every device, but not gathered on all.
        self._kind = torch.int16 if self.dtype == np.uint16 else torch.from_numpy(np.empty(0, self.dtype)).dtype
        self._pixels = torch.empty(sum(counts), self.channels, dtype=self._kind, device=device)
        for picture, offset, count in zip(pictures, self.offsets, counts):
            if picture is not None:
                rows = np.array(picture).reshape(-1, self.channels)
                rows = rows.view(np.int16) if self.dtype == np.uint16 else rows
                self._pixels[offset : offset + count] = torch.from_numpy(rows)

    @property
    def nbytes(self) -> int:
        return self._pixels.numel() * self._pixels.element_size()

    def crops(self, draws: Sequence[ResidentDraw]) -> Tensor:
        """(B, C, *size) float32 intensities in the file's units, turned as drawn."""
        import torch

        height, width = (n * f for n, f in zip(draws[0].size, self.factor))
        start, down, right = self._strides(draws, height, width)
        device = self._pixels.device
        place = torch.from_numpy(np.stack([start, down, right])).to(device, non_blocking=True)[..., None, None]
        rows = torch.arange(height, device=device)[:, None]
        columns = torch.arange(width, device=device)[None, :]
        pixels = self._pixels[place[0] + rows * place[1] + columns * place[2]]  # (B, height, width, C)
        if self.dtype == np.uint16:
            return (pixels.movedim(-1, 1).int() & 0xFFFF).float()
        return pixels.movedim(-1, 1).float()

    def _strides(
        self, draws: Sequence[ResidentDraw], height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each sample the pixel that becomes the first of the crop, and the steps to the one below and to the right.

        `Augment.turn` mirrors columns, then rows, then swaps the axes (a square crop, for which it is allowed).
        """
        index = np.array([d.index for d in draws])
        top, left = (np.array([d.draw.corner[axis] for d in draws]) * self.factor[axis] for axis in (0, 1))
        mirrored, flipped, swapped = (
            np.array([getattr(d.draw, name) for d in draws]) for name in ("hflip", "vflip", "transpose")
        )
        line = self.sizes[index, 1]
        start = self.offsets[index] + (top + flipped * (height - 1)) * line + left + mirrored * (width - 1)
        down, right = np.where(flipped, -line, line), np.where(mirrored, -1, 1)
        return start, np.where(swapped, right, down), np.where(swapped, down, right)


class ResidentSet:
    """All roles of a data set on the device, "lq" among them, and the batches made there.

    Args:
        white: Intensity of 1.0.
        unreadable: Why, by index, for pictures that are not there.
    """

    def __init__(self, roles: Mapping[str, ResidentPictures], white: float, unreadable: Mapping[int, str]) -> None:
        self.roles, self.white, self.unreadable = roles, white, unreadable

    @property
    def nbytes(self) -> int:
        return sum(pictures.nbytes for pictures in self.roles.values())

    def lq_size(self, index: int) -> tuple[int, ...]:
        """Height and width. DataError when that picture could not be read."""
        if index in self.unreadable:
            raise DataError(self.unreadable[index])
        return tuple(self.roles["lq"].sizes[index].tolist())

    def batch(self, draws: Sequence[ResidentDraw]) -> dict[str, Tensor]:
        """(B, C, *S) floats, 0 is black and 1 white, to the last bit those that the loader's arrays become."""
        import torch

        white = self.white
        offsets = [d.draw.offset for d in draws]
        out = {}
        for role, pictures in self.roles.items():
            crops = pictures.crops(draws)
            if any(offset is not None for offset in offsets):
                moved = np.stack([np.zeros(3) if o is None else o for o in offsets])[:, : pictures.channels]
                most = [math.inf if o is None else white for o in offsets]  # a picture without jitter is not clipped
                added, limit = (
                    torch.tensor(np.asarray(v), dtype=torch.float32).to(crops.device, non_blocking=True)
                    for v in (moved, most)
                )
                crops = torch.minimum((crops + added[:, :, None, None]).clamp_min(0), limit[:, None, None, None])
            out[role] = crops.div(white).contiguous()
        return out
