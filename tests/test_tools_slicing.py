"""Tiles: where they lie, that both halves correspond, and that they make the picture again."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest

from srkit.errors import RefusedError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize, nearest_upscale
from srkit.imaging.tile_grid import TileGrid
from srkit.tools.__main__ import main


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (height, width, channels), dtype=dtype, endpoint=True)


def srkit(*words: object) -> int:
    return int(main([str(word) for word in words]))


@pytest.mark.parametrize(
    ("length", "grid", "count"),
    [(600, (108, 100, 8), 6), (2400, (432, 400, 32), 6), (600, (68, 60, 8), 10)],  # the published table
)
def test_tiles_lie_where_the_published_geometry_puts_them(length, grid, count):
    size, stride, pad = grid
    starts = TileGrid(size, stride, pad).starts(length)
    assert starts == [stride * k - pad // 2 for k in range(count)]


def test_without_pad_tiles_lie_as_basicsr_cuts_them():
    # 480 every 240, and one more at the far edge: 0, 240, 480, 720, 924 of 1404
    assert TileGrid(480, 240).starts(1404) == [0, 240, 480, 720, 924]


def test_a_remainder_tile_is_moved_back_and_as_large_as_the_others():
    assert TileGrid(108, 100, 8).starts(650) == [-4, 96, 196, 296, 396, 496, 546]


def test_a_picture_smaller_than_a_tile_is_one_tile():
    grid = TileGrid(64, 48, 8)
    assert (grid.starts(20), grid.side(20)) == ([-4], 28)


SIZES = [1, 2, 7, 20, 33, 40, 47]
GRIDS = [(12, 8, 4), (16, 8, 0), (16, 16, 0), (20, 5, 6), (9, 7, 8)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("blend", [True, False])
def test_cut_and_joined_is_the_same_picture_for_any_size(grid, blend):
    tiles = TileGrid(*grid)
    for height, width in itertools.product(SIZES, SIZES):
        image = noise(height, width, 3, np.uint16 if height % 2 else np.uint8)
        places = tiles.places(image.shape)
        cut = dict(zip(places, tiles.cut(image)))
        assert len(cut) == len(places) == sum(1 for _ in tiles.cut(image))
        again = tiles.join(lambda row, column: cut[row, column], image.shape[:2], blend=blend)
        assert again.dtype == image.dtype
        np.testing.assert_array_equal(again, image)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scale", [2, 3])
def test_gt_tiles_are_the_same_places_as_lq_tiles(grid, scale):
    for height, width in itertools.product(SIZES, SIZES):
        lq = noise(height, width, 1)
        gt = nearest_upscale(lq, scale)  # every lq pixel is a block of gt, so that picking pixels shrinks it exactly
        small, large = list(TileGrid(*grid).cut(lq)), list(TileGrid(*grid).times(scale).cut(gt))
        assert len(small) == len(large)
        for a, b in zip(small, large):
            np.testing.assert_array_equal(nearest_upscale(a, scale), b)


@pytest.mark.parametrize("scale", [2, 4])
def test_a_gt_tile_shrunk_is_its_lq_tile_up_to_the_reach_of_the_kernel(scale):
    gt = noise(40 * scale, 33 * scale)
    lq = imresize(gt, Fraction(1, scale))
    grid, reach = TileGrid(20, 12, 4), 2  # antialiased bicubic: taps up to 2 lq pixels from the centre
    pairs = list(zip(grid.cut(lq), grid.times(scale).cut(gt)))
    assert len(pairs) == 3 * 3
    for small, large in pairs:
        inner = (slice(reach, -reach), slice(reach, -reach))
        np.testing.assert_array_equal(imresize(large, Fraction(1, scale))[inner], small[inner])


def test_the_border_is_mirrored_and_never_black():
    tile = next(TileGrid(8, 4, 4).cut(noise(20, 20) | 1))
    np.testing.assert_array_equal(tile[:2], tile[3:1:-1])
    assert tile.min() > 0


def test_crop_changes_over_in_the_middle_of_what_tiles_share():
    # The published joining: a 68 px tile loses its border of 4 a side, what is left lies at 60 k.
    grid = TileGrid(68, 60, 8)
    joined = grid.join(lambda row, column: np.full((68, 68, 1), 10 * row + column, np.uint8), (120, 120), blend=False)
    np.testing.assert_array_equal(joined[..., 0], np.kron([[0, 1], [10, 11]], np.ones((60, 60))))


def test_blending_fades_evenly_across_what_tiles_share():
    grid = TileGrid(8, 4)  # tiles at 0 and 4 share 4 pixels: weights 4:1, 3:2, 2:3, 1:4
    joined = grid.join(lambda row, column: np.full((8, 8, 1), 100 * column, np.uint8), (8, 12), blend=True)
    assert joined[0, :, 0].tolist() == [0, 0, 0, 0, 20, 40, 60, 80, 100, 100, 100, 100]


@pytest.mark.parametrize("grid", [(8, 9, 0), (8, 4, 3), (8, 8, 8), (0, 1, 0), (8, 0, 0), (8, 4, -2)])
def test_a_geometry_with_gaps_or_nothing_is_refused(grid):
    with pytest.raises(RefusedError, match="tiles need"):
        TileGrid(*grid)


@pytest.fixture
def edge_set(tmp_path):
    """Two pictures in two sizes, named as Edge.SRGAN names them."""
    for key in ("0000", "0007"):
        lq = noise(26, 31, seed=int(key))
        write_image(tmp_path / f"lq/image_600px_{key}.png", lq)
        write_image(tmp_path / f"gt/image_2400px_{key}.png", nearest_upscale(lq, 4))
    return tmp_path


PATTERN = r"image_\d+px_(\d+)"


def slice_both(root, *more: object) -> int:
    return srkit(
        "slice", root / "lq", root / "lq_tiles", "--size", 12, "--stride", 8, "--pad", 4,
        "--gt", root / "gt", root / "gt_tiles", "--scale", 4, "--pair_pattern", PATTERN, *more,
    )  # fmt: skip


def test_both_halves_are_cut_by_one_command_and_have_the_same_names(edge_set):
    assert slice_both(edge_set) == 0
    names = {half: sorted(p.name for p in (edge_set / half).glob("*.png")) for half in ("lq_tiles", "gt_tiles")}
    assert names["lq_tiles"] == names["gt_tiles"]
    assert {"0000_1_1.png", "0007_4_4.png"} <= set(names["lq_tiles"])
    assert len(names["lq_tiles"]) == 2 * 4 * 4  # starts -2, 6, 14, 16 of 26; -2, 6, 14, 21 of 31
    for name in names["lq_tiles"]:
        lq, gt = read_image(edge_set / "lq_tiles" / name), read_image(edge_set / "gt_tiles" / name)
        np.testing.assert_array_equal(nearest_upscale(lq, 4), gt)


def test_index_names_count_row_after_row(edge_set):
    assert slice_both(edge_set, "--names", "index") == 0
    tiles = sorted(p.name for p in (edge_set / "gt_tiles").glob("0007*.png"))
    assert tiles == [f"0007_s{k:03d}.png" for k in range(1, 17)]
    assert srkit("join", edge_set / "gt_tiles", edge_set / "again") == 0
    np.testing.assert_array_equal(
        read_image(edge_set / "again/0007.png"), read_image(edge_set / "gt/image_2400px_0007.png")
    )


@pytest.mark.parametrize("overlap", ["blend", "crop"])
def test_sliced_and_joined_files_are_the_pictures_again(edge_set, overlap):
    slice_both(edge_set)
    assert srkit("join", edge_set / "lq_tiles", edge_set / "again", "--overlap", overlap) == 0
    for key in ("0000", "0007"):
        np.testing.assert_array_equal(
            read_image(edge_set / f"again/{key}.png"), read_image(edge_set / f"lq/image_600px_{key}.png")
        )


def test_enlarged_tiles_with_a_suffix_join_to_the_enlarged_picture(edge_set):
    slice_both(edge_set)
    for path in (edge_set / "lq_tiles").glob("*.png"):
        write_image(edge_set / f"restored/{path.stem}_sr.png", nearest_upscale(read_image(path), 4))
    geometry = edge_set / "lq_tiles/tiles.json"
    join = ["join", edge_set / "restored", edge_set / "again", "--suffix", "_sr"]
    assert srkit(*join, "--geometry", geometry) == 0
    np.testing.assert_array_equal(
        read_image(edge_set / "again/0007.png"), read_image(edge_set / "gt/image_2400px_0007.png")
    )


def test_pictures_in_folders_keep_them(tmp_path):
    image = noise(20, 20)
    write_image(tmp_path / "in/s1/a.png", image)
    assert srkit("slice", tmp_path / "in", tmp_path / "t", "--size", 12, "--stride", 8, "--recursive") == 0
    assert (tmp_path / "t/s1/a_1_1.png").exists()
    assert srkit("join", tmp_path / "t", tmp_path / "again") == 0
    np.testing.assert_array_equal(read_image(tmp_path / "again/s1/a.png"), image)


def test_missing_tiles_are_named_and_nothing_is_written(edge_set, capsys):
    slice_both(edge_set)
    for name in ("0000_1_2.png", "0007_3_4.png"):
        (edge_set / "lq_tiles" / name).unlink()
    assert srkit("join", edge_set / "lq_tiles", edge_set / "again") == 2
    assert "2 of 32 tiles are not in" in (message := capsys.readouterr().err)
    assert "0000_1_2, 0007_3_4" in message
    assert not (edge_set / "again").exists()


def test_a_tile_of_another_size_is_named(edge_set, capsys):
    slice_both(edge_set)
    write_image(edge_set / "lq_tiles/0007_2_2.png", noise(11, 12))
    assert srkit("join", edge_set / "lq_tiles", edge_set / "again") == 2
    assert "0007_2_2.png is uint8 (11, 12, 3), expected uint8 (12, 12, 3)" in capsys.readouterr().err


def test_a_folder_that_was_not_sliced_is_refused(edge_set, capsys):
    assert srkit("join", edge_set / "lq", edge_set / "again") == 2
    assert "tiles.json: no such file; `srkit slice` writes it" in capsys.readouterr().err
    (edge_set / "lq/tiles.json").write_text(json.dumps({"size": 3}))
    assert srkit("join", edge_set / "lq", edge_set / "again") == 2
    assert "not as `srkit slice` writes it" in capsys.readouterr().err


def test_pictures_that_cannot_be_cut_are_all_named_and_leave_nothing_behind(edge_set, capsys):
    (edge_set / "lq/image_600px_0000.png").write_bytes(b"foreign")
    write_image(edge_set / "gt/image_2400px_0007.png", noise(103, 124))
    assert slice_both(edge_set) == 2
    message = capsys.readouterr().err
    assert "2 of 2 pictures cannot be cut" in message
    assert "image_600px_0000.png: not a PNG" in message
    assert "image_2400px_0007.png is 124x103; expected 124x104, 4 times" in message
    assert sorted(p.name for p in edge_set.iterdir()) == ["gt", "lq"]


def test_gt_that_exceeds_lq_by_less_than_a_step_is_cut(edge_set):
    before = read_image(edge_set / "gt/image_2400px_0007.png")
    for path in (edge_set / "gt").iterdir():
        write_image(path, np.pad(read_image(path), ((0, 3), (0, 1), (0, 0))))
    assert slice_both(edge_set) == 0
    assert srkit("join", edge_set / "gt_tiles", edge_set / "again") == 0
    np.testing.assert_array_equal(read_image(edge_set / "again/0007.png"), before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--scale", "4"], "--gt and --scale belong together"),
        (["--pair_pattern", "x"], "has 0 groups"),
        (["--stride", "20"], "tiles need a size above pad and at least stride"),
        (["--pair_pattern", r"px_(0)"], "have the same id"),
    ],
)
def test_what_cannot_be_cut_is_refused(edge_set, capsys, words, message):
    given = ["slice", edge_set / "lq", edge_set / "t", "--size", 12, "--stride", 8, *words]
    assert srkit(*given) == 2
    assert message in capsys.readouterr().err


def test_an_existing_folder_is_never_written_into(edge_set, capsys):
    (edge_set / "lq_tiles").mkdir()
    assert slice_both(edge_set) == 2
    assert "lq_tiles exists; remove it or give another name" in capsys.readouterr().err
    assert list((edge_set / "lq_tiles").iterdir()) == []
    assert not (edge_set / "gt_tiles").exists()
