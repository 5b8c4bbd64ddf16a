"""Restore a large picture or volume in tiles that give the same result as the whole, to the last voxel."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple

from srkit.errors import RefusedError

if TYPE_CHECKING:
    from torch import Tensor


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
) -> Tensor:
    """`restore(lq, *extras)`, computed tile by tile: each tile is cropped to its kept part and put in its place.

    The result equals the whole's when `overlap` is at least the distance at which a pixel of lq still reaches the
    output (half the receptive field, in lq pixels) and `restore` treats every place alike; there is no blending.
    Networks that pool over the whole picture (attention by global mean, instance norm) cannot be tiled exactly.

    Args:
        restore: Maps (B, C, *tile) to (B, C_out, *tile * scale). All calls have the same shape when step is 1.
        lq: (B, C, *S), 2 or 3 spatial axes, on any device; `restore` may move its tile elsewhere.
        scale: Output size / input size per axis.
        tile: Size the network sees per axis, overlaps included; an axis shorter than it is taken whole.
        overlap: Lq pixels per axis by which a tile reaches beyond its kept part on inner sides.
        step: Tiles start at multiples of it: what `restore` gathers into one feature pixel.
        extras: Maps cut alongside, (B, C_any, *S) or at the output's size (an edge map computed once on the whole).

    Shape: returns (B, C_out, *S * scale) on lq's device, in the type `restore` returns.
    Raises: RefusedError when tile and overlap leave nothing, or a result has not `scale` times its tile's size.
    """
    space = lq.shape[2:]
    if not len(space) == len(scale) == len(tile) == len(overlap):
        raise RefusedError(f"lq has {len(space)} axes; scale {scale}, tile {tile}, overlap {overlap} must have as many")
    factors = [_map_factors(extra, space, scale) for extra in extras]
    out: Tensor | None = None
    for spans in itertools.product(*(tile_spans(*axis, step) for axis in zip(space, tile, overlap))):
        seen = _spatial(slice(s.start, s.stop) for s in spans)
        cut = (
            extra[_spatial(slice(s.start * f, s.stop * f) for s, f in zip(spans, times))]
            for extra, times in zip(extras, factors)
        )
        result = restore(lq[seen], *cut)
        wanted = tuple((s.stop - s.start) * f for s, f in zip(spans, scale))
        if tuple(result.shape[2:]) != wanted:
            raise RefusedError(f"the network made {tuple(result.shape[2:])} of a tile, scale {scale} wants {wanted}")
        if out is None:
            whole = [n * f for n, f in zip(space, scale)]
            out = lq.new_empty((*result.shape[:2], *whole), dtype=result.dtype)
        inner = _spatial(slice((s.keep_from - s.start) * f, (s.keep_to - s.start) * f) for s, f in zip(spans, scale))
        place = _spatial(slice(s.keep_from * f, s.keep_to * f) for s, f in zip(spans, scale))
        out[place] = result[inner].to(out.device)
    if out is None:
        raise RefusedError(f"lq of {tuple(lq.shape)} has no pixels")
    return out


def _map_factors(extra: Tensor, space: Sequence[int], scale: Sequence[int]) -> Sequence[int]:
    """Pixels of a map per lq pixel, for each axis."""
    for times in ((1,) * len(space), scale):
        if tuple(extra.shape[2:]) == tuple(n * f for n, f in zip(space, times)):
            return times
    raise RefusedError(
        f"a map of {tuple(extra.shape[2:])} fits neither lq of {tuple(space)} nor its enlargement by {tuple(scale)}"
    )


def _spatial(slices: Iterable[slice]) -> tuple[EllipsisType | slice, ...]:
    """Index of a region of the trailing axes."""
    return (..., *slices)
