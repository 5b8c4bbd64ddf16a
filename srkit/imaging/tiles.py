"""Restore a large picture or volume in tiles: with the same result as the whole, to the last voxel, where that can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Literal, NamedTuple

from srkit.errors import RefusedError

if TYPE_CHECKING:
    from torch import Tensor

Blend = Literal["crop", "fade"]
Tick = Callable[[int, int], None]
"""Told after each step how many of how many are done."""


class Span(NamedTuple):
    """One tile along one axis, in lq pixels: the network sees start to stop, keep_from to keep_to is used."""

    start: int
    stop: int
    keep_from: int
    keep_to: int


def tile_spans(length: int, tile: int, overlap: int, step: int = 1) -> list[Span]:
    """Tiles along an axis of `length`: all `min(tile, length)` long, the last one moved back to end at the edge.

    The kept parts follow each other without gap and cover the axis; each lies `overlap` or more inside its tile,
    except at the picture's own edges. Tiles start at multiples of `step`, for which the last may be up to step - 1 longer.
    """
    size = min(tile, length)
    if overlap < 0 or tile < 1 or (size < length and size < 2 * overlap + step):
        text = f"a tile of {tile} leaves no pixel between two overlaps of {overlap}"
        raise RefusedError(
            f"{text}, starting at multiples of {step}; enlarge it" if step > 1 else f"{text}; enlarge it"
        )
    spans: list[Span] = []
    keep_from = 0
    while keep_from < length:
        start = min(max(keep_from - overlap, 0), length - size) // step * step
        stop = start + size if start + size <= length - step else length
        keep_to = length if stop == length else stop - overlap
        spans.append(Span(start, stop, keep_from, keep_to))
        keep_from = keep_to
    return spans


def tiled(
    restore: Callable[..., Tensor],
    lq: Tensor,
    *,
    scale: Sequence[int],
    tile: Sequence[int],
    overlap: Sequence[int],
    extras: Sequence[Tensor] = (),
    step: int = 1,
    batch: int = 1,
    blend: Blend = "crop",
    tick: Tick = lambda done, total: None,
) -> Tensor:
    """`restore(lq, *extras)`, computed tile by tile.

    With `blend="crop"` each tile is cropped to its kept part and put in its place. The result equals the whole's when
    `overlap` is at least the distance at which a pixel of lq still reaches the output (half the receptive field, in lq
    pixels) and `restore` treats every place alike. Networks that look further, or at everything (attention by global
    mean, instance norm), cannot be tiled exactly; `blend="fade"` leaves no seams between their tiles, which then change
    over linearly across the inner half of what they share: a tile is worst at its edge.

    Args:
        restore: Maps (B, C, *tile) to (B, C_out, *tile * scale). All calls have the same spatial shape when step is 1.
        lq: (B, C, *S), 2 or 3 spatial axes, on any device; `restore` may move its tile elsewhere.
        scale: Output size / input size per axis.
        tile: Size the network sees per axis, overlaps included; an axis shorter than it is taken whole.
        overlap: Lq pixels per axis by which a tile reaches beyond its kept part on inner sides.
        step: Tiles start at multiples of it: what `restore` gathers into one feature pixel.
        extras: Maps cut alongside, (B, C_any, *S) or at the output's size (an edge map computed once on the whole).
        batch: Tiles that `restore` gets at once, along the batch axis.
        blend: How tiles become one: "crop" or "fade".
        tick: Told how many of how many tiles are done.

    Shape: returns (B, C_out, *S * scale) on lq's device, in the type `restore` returns.
    Raises: RefusedError when tile and overlap leave nothing, or a result has not `scale` times its tile's size.
    """
    space = lq.shape[2:]
    if not len(space) == len(scale) == len(tile) == len(overlap):
        raise RefusedError(f"lq has {len(space)} axes; scale {scale}, tile {tile}, overlap {overlap} must have as many")
    if min(space) < 1:
        raise RefusedError(f"lq of {tuple(lq.shape)} has no pixels")
    maps = [(lq, (1,) * len(space)), *((extra, _map_factors(extra, space, scale)) for extra in extras)]
    spans = [tile_spans(*axis, step) for axis in zip(space, tile, overlap)]
    results = _results(restore, maps, list(itertools.product(*spans)), scale, batch, tick)
    return (_cropped if blend == "crop" else _faded)(spans, results, lq, scale, overlap)


def _results(
    restore: Callable[..., Tensor],
    maps: Sequence[tuple[Tensor, Sequence[int]]],
    places: Sequence[tuple[Span, ...]],
    scale: Sequence[int],
    batch: int,
    tick: Tick,
) -> Iterator[Tensor]:
    """What `restore` makes of each place, in order; up to `batch` places of one shape go to it at once."""
    import torch

    together, done = maps[0][0].shape[0], 0
    for size, alike in itertools.groupby(places, lambda spans: tuple(s.stop - s.start for s in spans)):
        wanted = tuple(n * f for n, f in zip(size, scale))
        waiting = list(alike)
        while waiting:
            group, waiting = waiting[:batch], waiting[batch:]
            cut = (torch.cat([whole[_seen(spans, times)] for spans in group]) for whole, times in maps)
            made = restore(*cut)
            if tuple(made.shape[2:]) != wanted:
                raise RefusedError(f"the network made {tuple(made.shape[2:])} of a tile, scale {scale} wants {wanted}")
            done += len(group)
            tick(done, len(places))
            yield from made.split(together)


def _cropped(
    spans: Sequence[Sequence[Span]],
    results: Iterator[Tensor],
    lq: Tensor,
    scale: Sequence[int],
    overlap: Sequence[int],
) -> Tensor:
    """The kept parts side by side."""
    out: Tensor | None = None
    for place, result in zip(itertools.product(*spans), results):
        if out is None:
            whole = [n * f for n, f in zip(lq.shape[2:], scale)]
            out = lq.new_empty((*result.shape[:2], *whole), dtype=result.dtype)
        inner = _spatial(slice((s.keep_from - s.start) * f, (s.keep_to - s.start) * f) for s, f in zip(place, scale))
        out[_spatial(slice(s.keep_from * f, s.keep_to * f) for s, f in zip(place, scale))] = result[inner].to(
            out.device
        )
    assert out is not None
    return out


def _faded(
    spans: Sequence[Sequence[Span]],
    results: Iterator[Tensor],
    lq: Tensor,
    scale: Sequence[int],
    overlap: Sequence[int],
) -> Tensor:
    """Tiles joined to rows along the last axis, rows to planes along the one before, each fading into the next.

    Painting the new over the old (old + weight * (new - old)) leaves equal values as they are, to the last bit.
    """
    import torch

    def joined(axis: int) -> Tensor:
        if axis == len(spans):
            return next(results).to(lq.device)
        if len(spans[axis]) == 1:
            return joined(axis + 1)
        out: Tensor | None = None
        for span in spans[axis]:
            part = joined(axis + 1)
            if out is None:
                size = list(part.shape)
                size[2 + axis] = spans[axis][-1].stop * scale[axis]
                out = part.new_empty(size)
            # Earlier tiles end `overlap` behind the border at keep_from, and this one begins as far or further before it.
            half = (overlap[axis] + 1) // 2
            here = [n * scale[axis] for n in (span.keep_from - half, span.keep_from + half, span.stop)]
            begin, ready, stop = here if span.keep_from else (0, 0, here[2])
            fresh = part.narrow(2 + axis, begin - span.start * scale[axis], stop - begin)
            out.narrow(2 + axis, ready, stop - ready).copy_(fresh.narrow(2 + axis, ready - begin, stop - ready))
            ramp = (torch.arange(ready - begin, device=part.device, dtype=part.dtype) + 0.5) / max(1, ready - begin)
            weight = ramp.view([-1 if n == 2 + axis else 1 for n in range(part.ndim)])
            out.narrow(2 + axis, begin, ready - begin).lerp_(fresh.narrow(2 + axis, 0, ready - begin), weight)
        assert out is not None
        return out

    return joined(0)


def _map_factors(extra: Tensor, space: Sequence[int], scale: Sequence[int]) -> Sequence[int]:
    """Pixels of a map per lq pixel, for each axis."""
    for times in ((1,) * len(space), scale):
        if tuple(extra.shape[2:]) == tuple(n * f for n, f in zip(space, times)):
            return times
    raise RefusedError(
        f"a map of {tuple(extra.shape[2:])} fits neither lq of {tuple(space)} nor its enlargement by {tuple(scale)}"
    )


def _seen(spans: Sequence[Span], times: Sequence[int]) -> tuple[EllipsisType | slice, ...]:
    """Index of what a tile sees of a map with so many pixels per lq pixel."""
    return _spatial(slice(s.start * f, s.stop * f) for s, f in zip(spans, times))


def _spatial(slices: Iterable[slice]) -> tuple[EllipsisType | slice, ...]:
    """Index of a region of the trailing axes."""
    return (..., *slices)
