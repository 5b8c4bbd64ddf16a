"""A trained network as users meet it: a picture in [0, 1] goes in, the enlarged picture in [0, 1] comes out."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy

import numpy as np
import torch
from torch import Tensor, nn

from srkit.engine.ensemble import Spread, each_turn, mean_over_turns, turns
from srkit.engine.memory import is_out_of_memory
from srkit.engine.precision import Precision
from srkit.engine.transfer import Normalization, to_float
from srkit.errors import OutOfMemoryError
from srkit.imaging.tiles import Blend, Tick, tiled

_log = logging.getLogger("srkit")


class GuideTooLarge(OutOfMemoryError):
    """What a network wants to know of the whole picture does not fit, however small the tiles are."""


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
        ensemble: Take the mean over all flips, of pictures over all quarter turns too.
        flags: What the user calls tile and overlap, for messages.
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
        ensemble: bool = False,
        flags: tuple[str, str] = ("val.tile", "val.tile_overlap"),
    ) -> None:
        self.network = network
        self.normalization = normalization
        self.scale = scale
        self.device = device
        self.precision = precision
        self.tile = tile
        self.overlap = overlap or (0,) * len(scale)
        self.ensemble, self.flags = ensemble, flags
        self.blend: Blend = "crop"
        self.batch = 1
        self._call: dict[str, int] = {}
        reach = self.reach
        if tile and reach == math.inf:
            _log.warning("%s looks at a whole picture at once: its tiles differ from it", type(network).__name__)
        elif tile and reach and min(self.overlap) < reach:
            _log.warning(
                "%s %s is below the network's reach of %d lq pixels: tiles differ a little from the whole picture",
                flags[1],
                min(self.overlap),
                reach,
            )

    @property
    def reach(self) -> float | None:
        """No output pixel depends on an lq pixel further away than this; None where the network does not say it."""
        reach: float | None = getattr(self.network, "receptive_radius_px", None)
        return reach

    @property
    def step(self) -> int:
        """Tiles start at multiples of it."""
        return int(getattr(self.network, "tile_step", 1))

    def _run(self, lq: Tensor, *guide: Tensor) -> Tensor:
        with self.precision.autocast():
            sr = self.network(self.normalization.apply(lq.to(self.device)), *guide, **self._call)
        return self.normalization.invert(sr.float())

    def _guide(self, lq: Tensor) -> tuple[Tensor, ...]:
        """What the network wants to know of the whole picture: one map, or nothing."""
        make: Callable[[Tensor], Tensor] | None = getattr(self.network, "guide", None)
        if make is None:
            return ()
        try:
            with self.precision.autocast():
                return (make(self.normalization.apply(lq.to(self.device))),)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = "x".join(str(n) for n in lq.shape[2:])
            raise GuideTooLarge(
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

    def in_tiles(
        self, tile: tuple[int, ...] | None, overlap: tuple[int, ...], blend: Blend = "crop", batch: int = 1
    ) -> Restorer:
        """The same with these tiles, of which `batch` run at once; the caller knows what they cost in accuracy."""
        other = copy(self)
        other.tile, other.overlap, other.blend, other.batch = tile, overlap, blend, batch
        return other

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """The network in eval mode without gradients, and back in its own mode afterwards."""
        was_training = self.network.training
        self.network.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.network.train(was_training)

    def run_once(self, lq: Tensor) -> Tensor:
        """(B, C, *S) to (B, C_out, *S * scale), whole: what a tile goes through."""
        with self._evaluating():
            return self._run(lq)

    def __call__(
        self, image: np.ndarray, white: float, black: float = 0.0, tick: Tick = lambda done, total: None
    ) -> np.ndarray:
        """(*S, C) intensities of any type -> (*S * scale, C) float32, 0 is black and 1 white, not clipped.

        `tick` is told how many of how many runs of the network are done.

        Raises: OutOfMemoryError with advice on tiles.
        """
        with self._advising(image), self._evaluating():
            lq = self._tensor(image, white, black)
            sr = self._ensembled(lq, tick) if self.ensemble else self._restored(lq, self.tile, self.overlap, tick)
            return _array(sr)

    def spread(
        self,
        image: np.ndarray,
        white: float,
        black: float = 0.0,
        view: Callable[[np.ndarray], np.ndarray] = lambda sr: sr,
        tick: Tick = lambda done, total: None,
    ) -> Spread:
        """Mean and standard deviation over all turns, of `view` of what calling without ensemble returns.

        Raises: OutOfMemoryError with advice on tiles.
        """
        with self._advising(image), self._evaluating():
            lq = self._tensor(image, white, black)
            return Spread.of(view(_array(sr)) for sr in each_turn(self._one_turn(tick), lq, self.scale))

    def _tensor(self, image: np.ndarray, white: float, black: float) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(image))[None]
        # Of a picture in tiles, the device holds one tile: what is large stays on the host.
        return to_float(pixels if self.tile else pixels.to(self.device), white, black)

    @contextmanager
    def _advising(self, image: np.ndarray) -> Iterator[None]:
        """Out of memory becomes OutOfMemoryError with advice on tiles."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = "x".join(str(n) for n in image.shape[:-1])
            half = max(32, min(self.tile or image.shape[:-1]) // 2)
            tile, overlap = self.flags
            fitting = f" and {overlap} to {half // 4}" if half <= 2 * max(self.overlap) else ""
            raise OutOfMemoryError(
                f"out of memory on a picture of {size} pixels; set {tile} to {half} or less{fitting}"
            ) from error

    def _restored(self, lq: Tensor, tile: tuple[int, ...] | None, overlap: tuple[int, ...], tick: Tick) -> Tensor:
        if tile is None:
            sr = self._run(lq)
            tick(1, 1)
            return sr
        return tiled(
            self._run,
            lq,
            scale=self.scale,
            tile=tile,
            overlap=overlap,
            extras=self._guide(lq),
            step=self.step,
            batch=self.batch,
            blend=self.blend,
            tick=tick,
        )

    def _ensembled(self, lq: Tensor, tick: Tick) -> Tensor:
        return mean_over_turns(self._one_turn(tick), lq, self.scale)

    def _one_turn(self, tick: Tick) -> Callable[[Tensor, bool], Tensor]:
        """Restores one turned picture after another. Whole pictures are averaged, not tiles: a guide is made of each."""
        count, done = len(turns(self.scale)), 0

        def one(turned: Tensor, exchanged: bool) -> Tensor:
            nonlocal done
            tile = self.tile[::-1] if self.tile and exchanged else self.tile
            overlap = self.overlap[::-1] if exchanged else self.overlap
            sr = self._restored(turned, tile, overlap, lambda k, n: tick(done * n + k, count * n))
            done += 1
            return sr

        return one


def _array(sr: Tensor) -> np.ndarray:
    """(1, C, *S) to (*S, C)."""
    return sr[0].movedim(0, -1).cpu().numpy()
