"""Pictures cut into overlapping tiles on a grid, and put together again: to the last bit where nothing changed them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from srkit.errors import RefusedError


@dataclass(frozen=True)
class TileGrid:
    """Where tiles lie along either axis, in pixels.

    Tile k covers stride * k - pad / 2 and the `size` pixels from there. The last one is moved back, to end pad / 2 beyond
    the far edge, so that all are equally large and none is mostly border. An axis shorter than size - pad is one tile of
    its length plus pad. What lies outside the picture is mirrored, edge pixels included: cutting lq and gt that way, and
    shrinking gt, then commute.

    Args:
        size: Side of a tile, border included.
        stride: From tile to tile; smaller than size - pad where neighbours share more than the border.
        pad: Border beyond the picture, both sides together; even.

    Raises: RefusedError for numbers that leave gaps or nothing.
    """

    size: int
    stride: int
    pad: int = 0

    def __post_init__(self) -> None:
        if min(self.size, self.stride) < 1 or self.pad < 0 or self.pad % 2:
            raise RefusedError(f"tiles need size and stride above 0 and an even pad, found {self}")
        if self.size <= self.pad or self.stride > self.size:
            raise RefusedError(f"tiles need a size above pad and at least stride, found {self}")

    def times(self, scale: int) -> TileGrid:
        """The grid of the same places in a picture `scale` times as large."""
        return TileGrid(self.size * scale, self.stride * scale, self.pad * scale)

    def side(self, length: int) -> int:
        """Pixels of a tile along an axis of `length`."""
        return min(self.size, length + self.pad)

    def starts(self, length: int) -> list[int]:
        """First pixel of each tile along an axis of `length`; negative in the border."""
        first, last = -(self.pad // 2), length + self.pad // 2 - self.side(length)
        return [*range(first, last, self.stride), last]

    def places(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """(row, column) of every tile of a picture (H, W), counted from 0, row after row."""
        rows, columns = (len(self.starts(n)) for n in shape[:2])
        return [(row, column) for row in range(rows) for column in range(columns)]

    def cut(self, image: np.ndarray) -> Iterator[np.ndarray]:
        """The tiles of (H, W, C), in the order of `places`."""
        margin = self.pad // 2
        wide = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="symmetric")
        height, width = (self.side(n) for n in image.shape[:2])
        for top, left in itertools.product(*map(self.starts, image.shape[:2])):
            yield wide[top + margin :, left + margin :][:height, :width]

    def join(self, tile: Callable[[int, int], np.ndarray], shape: Sequence[int], *, blend: bool) -> np.ndarray:
        """The picture (H, W) whose tile at (row, column) is `tile(row, column)`; the reverse of `cut`.

        Args:
            tile: (side, side, C) uint8 or uint16, of one type and C.
            blend: Fade from tile to tile across what they share; else change over in its middle. What a network makes of a
                place is best far from its tile's edge, so weights grow with the distance to it.

        Returns: (H, W, C), type of the tiles.
        """
        margin = self.pad // 2
        total: np.ndarray | None = None
        tops, lefts = (self._shares(n, blend) for n in shape[:2])
        for (row, (top, down)), (column, (left, across)) in itertools.product(enumerate(tops), enumerate(lefts)):
            part = tile(row, column)
            if total is None:  # float32 is exact enough: weights sum to 1 within 1e-6, of at most 65535
                dtype, total = part.dtype, np.zeros((*(n + self.pad for n in shape[:2]), part.shape[2]), np.float32)
            height, width = part.shape[:2]
            total[top : top + height, left : left + width] += part * (down[:, None, None] * across[None, :, None])
        assert total is not None
        inner = total[margin : margin + shape[0], margin : margin + shape[1]]
        return (inner + np.float32(0.5)).astype(dtype)

    def _shares(self, length: int, blend: bool) -> list[tuple[int, np.ndarray]]:
        """Start in the bordered picture, and weight of each of its pixels, of every tile along an axis."""
        side = self.side(length)
        starts = [start + self.pad // 2 for start in self.starts(length)]
        depth = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
        if blend:
            total = np.zeros(length + self.pad, np.float32)
            for start in starts:
                total[start : start + side] += depth
            return [(start, depth / total[start : start + side]) for start in starts]
        deepest, owner = np.zeros(length + self.pad, np.float32), np.zeros(length + self.pad, np.int64)
        for k, start in enumerate(starts):
            here = slice(start, start + side)
            owner[here] = np.where(depth > deepest[here], k, owner[here])
            deepest[here] = np.maximum(deepest[here], depth)
        return [(start, (owner[start : start + side] == k).astype(np.float32)) for k, start in enumerate(starts)]
