"""A trained network as users meet it: a picture in [0, 1] goes in, the enlarged picture in [0, 1] comes out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from copy import copy

import numpy as np
import torch
from torch import Tensor, nn

from srkit.engine.precision import Precision
from srkit.engine.transfer import Normalization, to_float
from srkit.errors import OutOfMemoryError
from srkit.imaging.tiles import tiled

_log = logging.getLogger("srkit")


class Restorer:
    """Normalises, runs the network (whole or in tiles), turns the output back. Validation, test and inference share it.

    Args:
        network: lq -> sr, on `device`. One with a method `guide(lq)` is tiled with that map, (B, C, *S * scale): it is
            made once on the whole picture, cut alongside the tiles, and given to the network as second argument. With an
            attribute `tile_step` its tiles start at multiples of that many lq pixels.
        scale: Output size over input size, per axis.
        precision: fp32 unless asked otherwise.
        tile: Tile size in lq pixels per axis, or None for the whole picture.
        overlap: Context around each tile in lq pixels; tiles equal the whole when it covers the receptive field.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        normalization: Normalization,
        scale: tuple[int, ...],
        device: torch.device,
        precision: Precision,
        tile: tuple[int, ...] | None = None,
        overlap: tuple[int, ...] | None = None,
    ) -> None:
        self.network = network
        self.normalization = normalization
        self.scale = scale
        self.device = device
        self.precision = precision
        self.tile = tile
        self.overlap = overlap or (0,) * len(scale)
        self._call: dict[str, int] = {}
        reach = getattr(network, "receptive_radius_px", None)
        if tile and reach == math.inf:
            _log.warning("%s looks at a whole picture at once: its tiles differ from it", type(network).__name__)
        elif tile and reach and min(self.overlap) < reach:
            _log.warning(
                "val.tile_overlap %s is below the network's reach of %d lq pixels: tiles differ a little from the whole picture",
                min(self.overlap),
                reach,
            )

    def _run(self, lq: Tensor, *guide: Tensor) -> Tensor:
        with self.precision.autocast():
            sr = self.network(self.normalization.apply(lq), *guide, **self._call)
        return self.normalization.invert(sr.float())

    def _guide(self, lq: Tensor) -> tuple[Tensor, ...]:
        """What the network wants to know of the whole picture: one map, or nothing."""
        make: Callable[[Tensor], Tensor] | None = getattr(self.network, "guide", None)
        if make is None:
            return ()
        try:
            with self.precision.autocast():
                return (make(self.normalization.apply(lq)),)
        except (torch.OutOfMemoryError, MemoryError) as error:
            size = "x".join(str(n) for n in lq.shape[2:])
            raise OutOfMemoryError(
                f"out of memory while {type(self.network).__name__} made the guide of a whole picture of {size} pixels, which "
                "tiles cannot replace; cut the picture into parts that overlap, or use a device with more memory"
            ) from error

    def at_scale(self, scale: tuple[int, ...]) -> Restorer:
        """The same for another scale, of a network that takes one with each call."""
        if scale == self.scale:
            return self
        other = copy(self)
        other.scale, other._call = scale, {"scale": scale[0]}
        return other

    @torch.no_grad()
    def __call__(self, image: np.ndarray, white: float) -> np.ndarray:
        """(*S, C) integers of any depth -> (*S * scale, C) float32, not clipped.

        Raises: OutOfMemoryError with advice on tiles.
        """
        was_training = self.network.training
        self.network.eval()
        try:
            lq = to_float(torch.from_numpy(np.ascontiguousarray(image))[None].to(self.device), white)
            if self.tile is None:
                sr = self._run(lq)
            else:
                sr = tiled(
                    self._run,
                    lq,
                    scale=self.scale,
                    tile=self.tile,
                    overlap=self.overlap,
                    extras=self._guide(lq),
                    step=getattr(self.network, "tile_step", 1),
                )
            return sr[0].movedim(0, -1).cpu().numpy()
        except (torch.OutOfMemoryError, MemoryError) as error:
            size = "x".join(str(n) for n in image.shape[:-1])
            half = max(32, min(self.tile or image.shape[:-1]) // 2)
            fitting = f" and val.tile_overlap to {half // 4}" if half <= 2 * max(self.overlap) else ""
            raise OutOfMemoryError(
                f"out of memory on a picture of {size} pixels; set val.tile to {half} or less{fitting}"
            ) from error
        finally:
            self.network.train(was_training)
