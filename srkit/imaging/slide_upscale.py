"""A whole slide through a network, tile after tile, into a file: in memory of one row of restored tiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from srkit.errors import RefusedError
from srkit.imaging.resize import imresize
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.slides import SlideView
from srkit.imaging.tiles import Tick, tile_spans
from srkit.imaging.tissue import TissueMask


def upscale_slide(
    view: SlideView,
    restore: Callable[[np.ndarray], np.ndarray],
    writer: SlideWriter,
    *,
    scale: int,
    tile: int,
    overlap: int,
    step: int = 1,
    tissue: TissueMask | None = None,
    tick: Tick = lambda done, total: None,
) -> int:
    """Restore `view` into `writer`, which is entered and has `scale` times its size.

    The result equals the whole's under the conditions of `imaging.tiles.tiled`. Where `tissue` has none in all that a tile
    sees, the tile is enlarged by the exact bicubic instead, which reaches 2 pixels.

    Args:
        view: The slide at the size of pixels that the network is for.
        restore: (H, W, 3) uint8 RGB -> (H * scale, W * scale, 3) uint8.
        tile: Side of what the network sees, overlaps included, in pixels of the view.
        overlap: Pixels of the view by which a tile reaches beyond its kept part.
        step: Tiles start at multiples of it.
        tissue: Mask of the slide; None restores everything.
        tick: Called after every tile with how many are done, and of how many; may raise to give up.

    Returns: how many tiles were restored by the network.
    Raises: RefusedError when tile and overlap leave nothing, the writer has another size or a result another one than
        `scale` says; DataError when a place of the slide cannot be decoded; StorageError when the disk refuses.
    """
    wanted = (view.width * scale, view.height * scale)
    if (writer.width, writer.height) != wanted:
        raise RefusedError(f"{writer.path} is to have {writer.width}x{writer.height} pixels, the result has {wanted}")
    rows = SlideRows(view, restore, scale=scale, tile=tile, overlap=overlap, step=step, tissue=tissue)
    write_rows(rows, writer, tick)
    return rows.restored


class SlideRows:
    """A slide as rows of tiles, of which each can be restored without the others; see `upscale_slide`.

    Attributes:
        restored: How many tiles the network has restored until now.
    """

    def __init__(
        self,
        view: SlideView,
        restore: Callable[[np.ndarray], np.ndarray],
        *,
        scale: int,
        tile: int,
        overlap: int,
        step: int,
        tissue: TissueMask | None,
    ) -> None:
        self._view, self._restore, self._scale, self._tissue = view, restore, scale, tissue
        self._rows, self._columns = (tile_spans(length, tile, overlap, step) for length in (view.height, view.width))
        self.restored = 0

    def __len__(self) -> int:
        return len(self._rows)

    def shape(self, number: int) -> tuple[int, int, int]:
        """Of what `restore_row` returns."""
        row = self._rows[number]
        return ((row.keep_to - row.keep_from) * self._scale, self._view.width * self._scale, 3)

    def restore_row(self, number: int, tick: Tick) -> np.ndarray:
        """The pixels that one row of tiles adds, (H, width, 3) uint8 RGB. `tick` counts tiles of the row. Raises as `upscale_slide`."""
        row, scale, view = self._rows[number], self._scale, self._view
        strip = np.empty(self.shape(number), np.uint8)
        for done, column in enumerate(self._columns, 1):
            lq = view.read(column.start, row.start, column.stop - column.start, row.stop - row.start)
            if self._tissue is None or _has_tissue(self._tissue, view, column.start, row.start, lq.shape):
                sr = self._restore(lq)
                self.restored += 1
            else:
                sr = imresize(lq, scale)
            if sr.shape != (lq.shape[0] * scale, lq.shape[1] * scale, 3) or sr.dtype != np.uint8:
                raise RefusedError(f"a tile of {lq.shape} became {sr.dtype} {sr.shape}; expected uint8, scale {scale}")
            strip[:, column.keep_from * scale : column.keep_to * scale] = sr[
                (row.keep_from - row.start) * scale : (row.keep_to - row.start) * scale,
                (column.keep_from - column.start) * scale : (column.keep_to - column.start) * scale,
            ]
            tick(done, len(self._columns))
        return strip


def write_rows(rows: SlideRows, writer: SlideWriter, tick: Tick) -> None:
    """Restores one row of tiles after another into the writer. `tick` counts all tiles. Raises as `upscale_slide`."""
    for number in range(len(rows)):
        writer.append(rows.restore_row(number, lambda k, n, row=number: tick(row * n + k, len(rows) * n)))  # type: ignore[misc]


def _has_tissue(tissue: TissueMask, view: SlideView, x: int, y: int, shape: tuple[int, ...]) -> bool:
    scale = view.downsample
    return bool(tissue.share(x * scale, y * scale, shape[1] * scale, shape[0] * scale) > 0)
