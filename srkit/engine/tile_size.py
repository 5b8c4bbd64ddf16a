"""How a picture is cut into tiles: as the user says, or as large as memory allows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import nn

from srkit.engine.log import logger
from srkit.engine.memory import free_bytes, peak_bytes
from srkit.engine.restorer import Restorer
from srkit.errors import OutOfMemoryError, RefusedError
from srkit.imaging.tiles import Blend

UNKNOWN_REACH_PX = 32
"""Overlap for networks that look at everything, or do not say how far they look."""

_MEASURED_PX = {"cpu": {2: 32, 3: 16}, "cuda": {2: 256, 3: 64}}  # side of the tile, by the number of axes
_LEAST_PX = {2: 16, 3: 8}
_INDEXED = 2**31
"""Values that one tensor may have on a GPU: beyond these not every kernel counts far enough."""

_UNSEEN_BYTES = 3 * 64 * 4  # per output pixel, of networks that do not run in torch: three maps of 64 channels
_SLOW_CONV3D = 20_480


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How pictures are to be cut.

    Args:
        tile: "auto" takes a picture whole where memory allows it and else the largest tile that fits; None takes every
            picture whole; else lq pixels per axis, overlaps included.
        overlap: Lq pixels per axis; None is the network's reach, at most a quarter of the tile (beyond that most of the
            work would be overlap), and 32 for networks of infinite or unknown reach.
        blend: "auto" crops tiles of networks whose reach is finite: they equal the whole when the overlap covers it, and
            miss it by little otherwise, for what is far off hardly counts. Tiles of others fade into each other.
        batch: Tiles that run at once; None is 1, but 2 small tiles of a volume on the CPU.
        memory_bytes: Bound for "auto"; None is half of what is free, on a GPU as much as 2^31 values take at most.
    """

    tile: Literal["auto"] | tuple[int, ...] | None = "auto"
    overlap: tuple[int, ...] | None = None
    blend: Literal["auto", "crop", "fade"] = "auto"
    batch: int | None = None
    memory_bytes: float | None = None


class Cut(NamedTuple):
    """The tiles of one picture, as `Restorer.in_tiles` takes them; without a tile the picture stays whole."""

    tile: tuple[int, ...] | None
    overlap: tuple[int, ...]
    blend: Blend = "crop"
    batch: int = 1


class TileSize:
    """Decides for each picture; says what it took when that changes."""

    def __init__(self, restorer: Restorer, wanted: Tiling) -> None:
        self.restorer, self.wanted = restorer, wanted
        self._axes = len(restorer.scale)
        for name, sides in (("tile", wanted.tile), ("overlap", wanted.overlap)):
            if isinstance(sides, tuple) and len(sides) != self._axes:
                raise RefusedError(
                    f"--{name}: found {len(sides)} numbers, expected one, or {self._axes} for this network"
                )
        if isinstance(wanted.tile, tuple) and wanted.overlap:
            _require_room(zip(wanted.tile, wanted.overlap), restorer.step)
        self._room: dict[int, float] = {}  # lq pixels that fit, by the number of channels
        self._said: set[str] = set()

    def cut(self, shape: Sequence[int]) -> Cut:
        """The tiles of a picture (*S, C) as the network is shown it.

        Raises: RefusedError when not even a small tile fits.
        """
        space, wanted = tuple(shape[:-1]), self.wanted
        whole = Cut(None, (0,) * self._axes)
        if wanted.tile is None:
            return whole
        if wanted.tile != "auto":
            return whole if _covers(wanted.tile, space) else self._finished(wanted.tile)
        if math.prod(space) <= _MEASURED_PX["cpu"][self._axes] ** self._axes:
            return whole  # what would be measured is no smaller
        room = self._fitting(shape[-1])
        if math.prod(space) <= room:
            return whole
        tile = largest_tile(space, room / (wanted.batch or 1), self.restorer.step)
        if self._batch(tile) > (wanted.batch or 1):
            tile = largest_tile(space, room / self._batch(tile), self.restorer.step)
        if min(t - min(_LEAST_PX[self._axes], n) for t, n in zip(tile, space)) < 0:
            raise RefusedError(
                f"memory for {room:,.0f} lq pixels at once makes tiles of {_by(tile)}, too small to be of use; raise --memory, "
                "or choose another device"
            )
        cut = self._finished(tile)
        _require_room([(t, o) for t, n, o in zip(tile, space, cut.overlap) if t < n], self.restorer.step)
        return cut._replace(tile=tuple(map(self._evened, space, tile, cut.overlap)))

    def square(self, longest: int, channels: int) -> Cut:
        """Tiles for what is never held whole: of `longest` lq pixels a side, or smaller ones that fit."""
        cut = self.cut((*(longest,) * self._axes, channels))
        return cut if cut.tile else self._finished((longest,) * self._axes)

    def shrink(self, cut: Cut, shape: Sequence[int]) -> bool:
        """Halves what is believed to fit after `cut` did not; False when that cannot help."""
        if self.wanted.tile != "auto":
            return False
        held = math.prod(cut.tile or shape[:-1]) * cut.batch
        if held <= 4 * _LEAST_PX[self._axes] ** self._axes:
            return False
        self._room[shape[-1]] = held / 2
        logger.warning("out of memory with %s lq pixels at once; going on with half as many", f"{held:,}")
        return True

    def _fitting(self, channels: int) -> float:
        """Lq pixels that may be in the network at once."""
        if channels not in self._room:
            device = self.restorer.device
            per_pixel = self._bytes_per_pixel(channels)
            free = free_bytes(device)
            most = _INDEXED * self.restorer.precision.dtype.itemsize if device.type == "cuda" else math.inf
            budget = self.wanted.memory_bytes or min(free / 2, most)
            self._room[channels] = budget / per_pixel
            share = "half" if budget == free / 2 else "what its kernels can index"
            origin = "--memory" if self.wanted.memory_bytes else f"{share} of the {_size(free)} free"
            logger.info(
                "tile auto: %s a pixel %s, %s (%s) hold %s lq pixels at once",
                _size(per_pixel),
                "measured" if device.type == "cuda" else "estimated",
                _size(budget),
                origin,
                f"{self._room[channels]:,.0f}",
            )
        return self._room[channels]

    def _bytes_per_pixel(self, channels: int) -> float:
        restorer = self.restorer
        if not any(True for _ in restorer.network.parameters()):
            return float(_UNSEEN_BYTES * math.prod(restorer.scale))
        side = _MEASURED_PX["cuda" if restorer.device.type == "cuda" else "cpu"][self._axes]
        while True:
            side = -(-side // restorer.step) * restorer.step
            lq = torch.full((1, channels, *(side,) * self._axes), 0.5, device=restorer.device)
            try:
                return max(1.0, peak_bytes(restorer.run_once, lq, restorer.device) / side**self._axes)
            except torch.OutOfMemoryError as error:
                if side <= max(_LEAST_PX[self._axes], restorer.step):
                    text = f"not even a tile of {side} lq pixels a side fits into the memory of {restorer.device}"
                    raise OutOfMemoryError(f"{text}; choose another --device, or --precision fp16") from error
                side //= 2

    def _finished(self, tile: tuple[int, ...]) -> Cut:
        """Overlap, blending and batch that go with a tile."""
        wanted, reach = self.wanted, self.restorer.reach
        finite = reach is not None and math.isfinite(reach)
        needed = math.ceil(reach) if reach is not None and finite else UNKNOWN_REACH_PX
        overlap = wanted.overlap or tuple(min(needed, max(1, side // 4)) for side in tile)
        exact = finite and min(overlap) >= needed
        blend: Blend = ("crop" if finite else "fade") if wanted.blend == "auto" else wanted.blend
        batch = self._batch(tile)
        name = type(self.restorer.network).__name__
        why = (
            "equal to the whole"
            if exact and blend == "crop"
            else f"close to the whole; {name} looks {needed} pixels far, and cropped tiles that overlap as far equal it"
            if finite
            else f"close to the whole; {name} looks at everything, or does not say how far"
        )
        if hasattr(self.restorer.network, "guide"):
            why += "; the map that guides it is made of the whole picture, whatever that takes"
        ending = {"crop": "cropped", "fade": "fading into each other"}[blend]
        self._say(f"tiles of up to {_by(tile)} lq pixels, overlap {_by(overlap)}, {ending}, {batch} at once: {why}")
        return Cut(tile, overlap, blend, batch)

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.info(text)

    def _evened(self, length: int, tile: int, overlap: int) -> int:
        """The smallest tile that needs as many of them along the axis: the last one is not moved back over the others."""
        step = self.restorer.step
        if tile >= length:
            return length
        count = -(-(length - 2 * overlap) // (tile - 2 * overlap))
        side = -(-(length + 2 * overlap * (count - 1)) // count)
        return max(-(-side // step) * step, 2 * overlap + step)

    def _batch(self, tile: tuple[int, ...]) -> int:
        """Tiles of that size to run at once; smaller ones run by no fewer."""
        return self.wanted.batch or (2 if self._is_slow_alone(tile) else 1)

    def _is_slow_alone(self, tile: tuple[int, ...]) -> bool:
        """Whether torch would take its slow 3D convolution for one tile: in float32 on the CPU, when batch x channels x
        the first two axes are at most 20,480 (measured: 9 GFLOP/s against 80). Two tiles at once take the fast one at any
        size; showing one tile twice instead costs more than it gains but for the smallest.
        """
        layers = [m for m in self.restorer.network.modules() if isinstance(m, nn.Conv3d)]
        if not layers or self.restorer.device.type != "cpu" or self.restorer.precision.name != "fp32":
            return False
        return max(layer.in_channels for layer in layers) * tile[0] * tile[1] <= _SLOW_CONV3D


def largest_tile(space: Sequence[int], pixels: float, step: int = 1) -> tuple[int, ...]:
    """Sides of a tile of at most so many pixels, as equal as the picture's axes allow, multiples of `step` where cut."""
    sides = dict.fromkeys(range(len(space)), 0)
    left, room = len(space), pixels
    for axis in sorted(sides, key=lambda a: space[a]):  # an axis shorter than its share leaves the rest to the others
        share = math.floor(room ** (1 / left) + 1e-9)
        sides[axis] = space[axis] if space[axis] <= share else max(1, share // step) * step
        room /= max(1, sides[axis])
        left -= 1
    return tuple(sides[axis] for axis in range(len(space)))


def _require_room(sides: Iterable[tuple[int, int]], step: int) -> None:
    """RefusedError where a tile and its overlap leave nothing to keep."""
    for side, margin in sides:
        if side < 2 * margin + step:
            raise RefusedError(
                f"a tile of {side} lq pixels leaves nothing between two overlaps of {margin}; "
                "lower --overlap, or let tiles be larger (--tile, --memory)"
            )


def _covers(tile: Sequence[int], space: Sequence[int]) -> bool:
    return all(t >= n for t, n in zip(tile, space))


def _by(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides))


def _size(count: float) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("KB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return f"{count:.0f} bytes"
