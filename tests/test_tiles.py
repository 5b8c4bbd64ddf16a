"""Tiled restoration equals the whole."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional

from srkit.errors import RefusedError
from srkit.imaging.tiles import tile_spans, tiled


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def nearest(scale):
    def restore(lq):
        for axis, times in enumerate(scale):
            lq = lq.repeat_interleave(times, dim=2 + axis)
        return lq

    return restore


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), list(itertools.product([1, 7, 16, 17, 31, 100], [5, 16, 40], [0, 1, 2]))
)
def test_kept_parts_cover_an_axis_once_and_lie_overlap_deep(length, tile, overlap):
    spans = tile_spans(length, tile, overlap)
    assert [i for s in spans for i in range(s.keep_from, s.keep_to)] == list(range(length))
    assert {s.stop - s.start for s in spans} == {min(tile, length)}
    for s in spans:
        assert s.start == 0 or s.keep_from - s.start >= overlap
        assert s.stop == length or s.stop - s.keep_to >= overlap


@pytest.mark.parametrize("overlap", [0, 3])
@pytest.mark.parametrize(
    ("size", "tile", "scale"),
    [
        ((20, 33), (8, 9), (2, 2)),
        ((20, 33), (64, 64), (4, 4)),
        ((9, 10, 11), (8, 7, 20), (1, 1, 4)),
        ((7, 30), (8, 8), (1, 3)),
    ],
)
def test_nearest_enlarging_in_tiles_is_exact(size, tile, scale, overlap):
    lq = noise(2, 3, *size)
    axes = len(size)
    whole = nearest(scale)(lq)
    assert torch.equal(tiled(nearest(scale), lq, scale=scale, tile=tile, overlap=(overlap,) * axes), whole)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_network_whose_reach_is_the_overlap_equals_the_whole(axes):
    convolve = (functional.conv2d, functional.conv3d)[axes - 2]
    weights = [noise(4, c, *(3,) * axes) / 6 for c in (1, 4, 4)]

    def restore(lq):  # three convolutions with zero padding: every output pixel sees 3 pixels to each side
        for weight in weights:
            lq = torch.tanh(convolve(lq, weight, padding=1))
        return nearest((2,) * axes)(lq)

    lq = noise(1, 1, *(19, 23, 14)[:axes])
    arguments = {"scale": (2,) * axes, "tile": (11,) * axes}
    whole = restore(lq)
    assert (tiled(restore, lq, overlap=(3,) * axes, **arguments) - whole).abs().max() < 1e-12
    assert (tiled(restore, lq, overlap=(2,) * axes, **arguments) - whole).abs().max() > 1e-6


def test_all_tiles_have_one_shape():
    shapes = set()

    def restore(lq):
        shapes.add(tuple(lq.shape))
        return lq

    tiled(restore, noise(1, 1, 21, 30), scale=(1, 1), tile=(8, 12), overlap=(1, 2))
    assert shapes == {(1, 1, 8, 12)}


def test_extras_are_cut_with_the_picture():
    lq, edges = noise(1, 3, 20, 21), noise(1, 1, 20, 21)
    out = tiled(lambda a, b: a * b, lq, scale=(1, 1), tile=(8, 8), overlap=(2, 2), extras=[edges])
    assert torch.equal(out, lq * edges)


def test_the_result_has_the_networks_channels_and_type():
    out = tiled(lambda a: a[:, :1].float(), noise(1, 3, 9, 9), scale=(1, 1), tile=(4, 4), overlap=(1, 1))
    assert out.shape == (1, 1, 9, 9)
    assert out.dtype == torch.float32


def test_a_tile_without_room_between_overlaps_is_refused():
    with pytest.raises(RefusedError, match="tile of 8 leaves no pixel between two overlaps of 4"):
        tiled(lambda a: a, noise(1, 1, 20, 20), scale=(1, 1), tile=(8, 8), overlap=(4, 4))


def test_a_network_of_another_scale_is_refused():
    with pytest.raises(RefusedError, match=r"\(8, 8\).*wants \(16, 16\)"):
        tiled(lambda a: a, noise(1, 1, 20, 20), scale=(2, 2), tile=(8, 8), overlap=(1, 1))


@pytest.mark.parametrize(("length", "tile"), [(50, 23), (51, 24), (97, 21)])
def test_tiles_on_a_step_start_at_its_multiples_and_still_cover_the_axis(length, tile):
    spans = tile_spans(length, tile, 5, 4)
    assert all(span.start % 4 == 0 and tile <= span.stop - span.start < tile + 4 for span in spans)
    assert [n for span in spans for n in range(span.keep_from, span.keep_to)] == list(range(length))
    for span in spans:
        assert span.keep_from - span.start >= 5 or span.start == 0
        assert span.stop - span.keep_to >= 5 or span.stop == length
