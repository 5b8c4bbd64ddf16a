"""Tiles in batches, tiles that fade, the size that memory allows, and the mean over all sides."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from infer_made import BoxNet, MeanNet, RepeatingNet, picture
from torch import nn
from torch.nn import functional

from srkit.engine.ensemble import mean_over_turns, turns
from srkit.engine.memory import peak_bytes
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.tile_size import Cut, TileSize, Tiling, largest_tile
from srkit.engine.transfer import Normalization
from srkit.errors import RefusedError
from srkit.imaging.tiles import tiled

CPU = torch.device("cpu")


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def restorer(network, scale=(2, 2), **settings):
    torch.manual_seed(0)
    return Restorer(
        network, normalization=Normalization(), scale=scale, device=CPU, precision=Precision("fp32", CPU), **settings
    )


def box(*scale):
    torch.manual_seed(0)
    return BoxNet(3 if len(scale) == 2 else 1, scale)


@pytest.mark.parametrize("batch", [2, 3, 100])
def test_tiles_that_run_at_once_give_what_they_give_alone(batch):
    weight, sizes = noise(4, 3, 3, 3), []

    def restore(lq):
        sizes.append(lq.shape[0])
        return functional.conv2d(lq, weight, padding=1)

    lq = noise(1, 3, 25, 31)
    arguments = {"scale": (1, 1), "tile": (9, 11), "overlap": (1, 1)}
    alone = tiled(restore, lq, **arguments)
    count, sizes[:] = len(sizes), []
    assert torch.allclose(tiled(restore, lq, **arguments, batch=batch), alone, atol=1e-13)
    assert max(sizes) == min(batch, count)
    assert sum(sizes) == count


def test_tiles_of_different_size_never_share_a_batch():
    lq = noise(1, 3, 18, 30)
    out = tiled(lambda x: x, lq, scale=(1, 1), tile=(8, 8), overlap=(2, 2), step=4, batch=5)
    assert torch.equal(out, lq)


def test_extras_are_batched_with_their_tiles():
    lq, edges = noise(1, 3, 20, 21), noise(1, 1, 40, 42)

    def restore(a, b):
        return nn.Upsample(scale_factor=2)(a) * b

    out = tiled(restore, lq, scale=(2, 2), tile=(8, 8), overlap=(2, 2), extras=[edges], batch=4)
    assert torch.equal(out, restore(lq, edges))


@pytest.mark.parametrize(("size", "scale"), [((33, 20), (2, 2)), ((7, 41), (1, 3)), ((13, 9, 17), (1, 3, 2))])
@pytest.mark.parametrize(("tile", "overlap"), list(itertools.product([5, 8], [0, 1, 2])))
def test_fading_tiles_of_a_network_that_repeats_pixels_are_exact_to_the_last_bit(size, scale, tile, overlap):
    lq = noise(2, 3, *size).float()
    whole = RepeatingNet(3, scale)(lq)
    axes = len(size)
    out = tiled(RepeatingNet(3, scale), lq, scale=scale, tile=(tile,) * axes, overlap=(overlap,) * axes, blend="fade")
    assert torch.equal(out, whole)


def test_a_tile_fades_linearly_into_the_next_across_the_inner_half_of_what_they_share():
    numbers = itertools.count()
    # Two tiles of 12 on 16 pixels, overlap 4: they meet at pixel 8 and share 4 to 12, of which 6 to 10 is the inner half.
    lq = torch.zeros(1, 1, 1, 16)
    out = tiled(
        lambda x: torch.full_like(x, next(numbers)), lq, scale=(1, 1), tile=(1, 12), overlap=(0, 4), blend="fade"
    )
    assert out.flatten().tolist() == [0.0] * 6 + [0.125, 0.375, 0.625, 0.875] + [1.0] * 6


def test_fading_mixes_tiles_and_adds_nothing():
    numbers = itertools.count()
    lq = torch.zeros(1, 1, 30, 30)
    out = tiled(
        lambda x: torch.full_like(x, next(numbers) % 7), lq, scale=(1, 1), tile=(9, 9), overlap=(4, 4), blend="fade"
    )
    assert out.min() == 0
    assert out.max() <= 6
    ones = tiled(torch.ones_like, lq, scale=(1, 1), tile=(9, 9), overlap=(4, 4), blend="fade")
    assert torch.equal(ones, torch.ones_like(lq))


def test_every_tile_is_counted():
    told = []
    tiled(
        lambda x: x, noise(1, 1, 20, 20), scale=(1, 1), tile=(8, 8), overlap=(1, 1), batch=4,
        tick=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    # (8 - 1) + 6 + 7 = 20: three tiles an axis
    assert told == [(4, 9), (8, 9), (9, 9)]


def test_a_picture_in_tiles_equals_the_whole():
    network = box(2, 2)
    image = picture(37, 29, 3)
    whole = restorer(network)(image, 255.0)
    for batch in (1, 4):
        cut = restorer(network).in_tiles((16, 12), (2, 2), "crop", batch)
        assert abs(cut(image, 255.0) - whole).max() < 1e-6


@pytest.mark.parametrize(("scale", "count"), [((2, 2), 8), ((1, 3), 4), ((1, 3, 1), 8)])
def test_a_picture_has_eight_sides_or_four_flips_and_a_volume_eight_flips(scale, count):
    assert len(turns(scale)) == len(set(turns(scale))) == count


@pytest.mark.parametrize("scale", [(2, 2), (1, 3), (1, 2, 1)])
def test_the_mean_over_all_sides_does_not_depend_on_the_side_that_is_shown(scale):
    network = box(*scale).double().eval()

    def run(lq, exchanged):
        return network(lq)

    lq = noise(1, 3 if len(scale) == 2 else 1, *(9, 7, 5)[: len(scale)])
    with torch.no_grad():
        mean = mean_over_turns(run, lq, scale)
        turned = mean_over_turns(run, lq.flip(2), scale).flip(2)
        assert torch.allclose(mean, turned, atol=1e-12)
        assert not torch.allclose(network(lq), network(lq.flip(2)).flip(2), atol=1e-3)
        if scale == (2, 2):
            assert torch.allclose(mean_over_turns(run, lq.mT, scale).mT, mean, atol=1e-12)


def test_the_ensemble_in_tiles_equals_the_ensemble_of_the_whole_though_tiles_are_no_squares():
    image, told = picture(31, 22, 3), []
    whole = restorer(box(2, 2), ensemble=True)(image, 255.0)
    cut = restorer(box(2, 2), ensemble=True, tile=(16, 9), overlap=(2, 3))
    assert abs(cut(image, 255.0, tick=lambda done, total: told.append((done, total))) - whole).max() < 1e-6
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_the_estimate_counts_every_tensor_that_lives_at_once():
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(16, 5, 3, padding=1))
    lq = torch.rand(1, 3, 20, 30)

    @torch.no_grad()
    def run(x):
        return network(x * 1)

    # Of each pixel x * 1 (3 floats), the features (16) and the output (5) live at once; the CPU may hold twice as much.
    assert peak_bytes(run, lq, CPU) == pytest.approx(2 * 4 * (3 + 16 + 5) * 600)


@pytest.mark.parametrize(
    ("space", "pixels", "step", "tile"),
    [
        ((1000, 1000), 10_000, 1, (100, 100)),
        ((50, 1000), 10_000, 1, (50, 200)),  # the short axis leaves its share to the long one
        ((1000, 50), 10_000, 1, (200, 50)),
        ((1000, 1000), 10_200, 8, (96, 104)),
        ((97, 20, 61), 30_000, 1, (39, 20, 38)),  # 1500 voxels a plane: 38, then 1500 / 38
    ],
)
def test_the_largest_tile_fills_what_fits(space, pixels, step, tile):
    found = largest_tile(space, pixels, step)
    assert found == tile
    assert math.prod(found) <= pixels


def sizes(network, scale=(2, 2), **wanted):
    return TileSize(restorer(network, scale), Tiling(**wanted))


def test_auto_takes_a_picture_whole_where_memory_allows_it():
    assert sizes(box(2, 2), memory_bytes=1e9).cut((200, 300, 3)) == Cut(None, (0, 0))


def test_auto_stays_within_the_memory_it_is_given():
    chosen = sizes(box(2, 2), memory_bytes=5e6)
    cut = chosen.cut((800, 900, 3))
    network = box(2, 2)
    with torch.no_grad():
        held = peak_bytes(network, torch.rand(1, 3, *cut.tile), CPU)
    assert 2.5e6 < held < 5e6
    assert cut.overlap == (2, 2)
    assert cut.blend == "crop"


@pytest.mark.parametrize(
    ("device", "precision", "expected"), [("cuda", "fp32", 8), ("cuda", "bf16", 4), ("cpu", "fp32", 50)]
)
def test_auto_fills_no_tensor_of_a_gpu_beyond_what_kernels_index(monkeypatch, device, precision, expected):
    """100 GiB are free and a pixel takes 1 KiB: half of that, or 2^31 values of 4 or 2 bytes."""
    monkeypatch.setattr("srkit.engine.tile_size.free_bytes", lambda device: 100 * 2**30)
    monkeypatch.setattr(TileSize, "_bytes_per_pixel", lambda self, channels: 1024)
    found = sizes(box(2, 2))
    found.restorer.device, found.restorer.precision = torch.device(device), Precision(precision, torch.device("cpu"))
    assert found._fitting(3) == expected * 2**20


def test_auto_makes_tiles_no_larger_than_their_number_needs():
    chosen = sizes(box(2, 2), memory_bytes=1e9)
    chosen._room[3] = 600 * 600.0
    # Two tiles of up to 600 cover 610 pixels; two of (610 + 2 * 2) / 2 do too.
    assert chosen.cut((610, 610, 3)).tile == (307, 307)


def test_memory_for_next_to_nothing_is_refused():
    with pytest.raises(RefusedError, match=r"too small to be of use; raise --memory"):
        sizes(box(2, 2), memory_bytes=2000).cut((800, 900, 3))


def test_the_overlap_is_the_networks_reach_but_never_more_than_a_quarter_of_the_tile():
    network = box(2, 2)
    assert sizes(network, tile=(40, 40)).cut((99, 99, 3)) == Cut((40, 40), (2, 2), "crop", 1)
    network.receptive_radius_px = 300
    assert sizes(network, tile=(40, 60)).cut((99, 99, 3)) == Cut((40, 60), (10, 15), "crop", 1)


@pytest.mark.parametrize("reach", [math.inf, None])
def test_tiles_of_a_network_that_looks_at_everything_fade(reach):
    network = MeanNet()
    network.receptive_radius_px = reach
    assert sizes(network, tile=(200, 200)).cut((999, 999, 3)) == Cut((200, 200), (32, 32), "fade", 1)
    assert sizes(network, tile=(200, 200), blend="crop", overlap=(9, 9)).cut((999, 999, 3)).blend == "crop"


def test_a_picture_no_larger_than_the_tile_stays_whole():
    assert sizes(box(2, 2), tile=(64, 64)).cut((64, 50, 3)).tile is None
    assert sizes(box(2, 2), tile=None).cut((9999, 9999, 3)).tile is None


def test_small_tiles_of_a_volume_run_by_two_on_the_cpu():
    network = BoxNet(1, (1, 2, 1))
    # 6 channels x 48 x 48 = 13,824 values are few enough for torch's slow kernel, 6 x 60 x 60 = 21,600 are not.
    assert sizes(network, (1, 2, 1), tile=(48, 48, 48)).cut((90, 90, 90, 1)).batch == 2
    assert sizes(network, (1, 2, 1), tile=(60, 60, 60)).cut((90, 90, 90, 1)).batch == 1
    assert sizes(network, (1, 2, 1), tile=(48, 48, 48), batch=3).cut((90, 90, 90, 1)).batch == 3


def test_tiles_that_run_by_two_share_the_memory_there_is():
    chosen = sizes(BoxNet(1, (1, 2, 1)), (1, 2, 1), memory_bytes=1e9)
    chosen._room[1] = 40**3
    cut = chosen.cut((90, 90, 90, 1))
    assert cut.batch == 2
    assert cut.batch * math.prod(cut.tile) <= 40**3


def test_numbers_that_do_not_fit_the_axes_or_leave_nothing_are_refused():
    with pytest.raises(RefusedError, match=r"--tile: found 3 numbers, expected one, or 2"):
        sizes(box(2, 2), tile=(8, 8, 8))
    with pytest.raises(RefusedError, match=r"a tile of 16 lq pixels leaves nothing between two overlaps of 8"):
        sizes(box(2, 2), tile=(16, 16), overlap=(8, 8))
