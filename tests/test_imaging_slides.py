"""Slides are read to the pixel, at any size of pixels; tissue is found; damage is named."""

from __future__ import annotations

import multiprocessing
import os
import sys
from fractions import Fraction

import numpy as np
import pytest
from slide_files import WITHOUT, foreign_slide, noise, smooth, stained, write_slide

from srkit.errors import DataError, RefusedError
from srkit.imaging import slide_handles
from srkit.imaging.resize import imresize
from srkit.imaging.slides import find_slides, open_slide
from srkit.imaging.tissue import TissueMask, find_tissue, shrunk, tissue_cells

pytest.importorskip("openslide", reason=WITHOUT)


def regions(view, count: int = 12, seed: int = 0):
    """The whole view and some parts of it, among them its far corner."""
    yield 0, 0, view.width, view.height
    yield view.width - 3, view.height - 2, 3, 2
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x, y = int(rng.integers(view.width)), int(rng.integers(view.height))
        yield x, y, int(rng.integers(1, view.width - x + 1)), int(rng.integers(1, view.height - y + 1))


def assert_parts_of(whole: np.ndarray, view) -> None:
    assert whole.shape == (view.height, view.width, 3)
    for x, y, width, height in regions(view):
        np.testing.assert_array_equal(view.read(x, y, width, height), whole[y : y + height, x : x + width])


def test_levels_and_microns_per_pixel_are_the_files(tmp_path):
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [noise(128, 256), noise(64, 128)], mpp=0.25))
    assert (slide.width, slide.height, slide.vendor) == (256, 128, "generic-tiff")
    assert [(level.width, level.height, level.downsample) for level in slide.levels] == [(256, 128, 1), (128, 64, 2)]
    assert slide.mpp == pytest.approx(0.25, rel=1e-6)
    assert slide.background == (255, 255, 255)


def test_regions_of_level_0_are_the_stored_pixels(tmp_path):
    picture = noise(150, 201)
    assert_parts_of(picture, open_slide(foreign_slide(tmp_path / "a.tif", [picture])).view())


@pytest.mark.parametrize(
    ("mpp", "factor"), [(0.5, Fraction(1, 2)), (0.4, Fraction(5, 8)), (0.75, Fraction(1, 3)), (3.0, Fraction(1, 12))]
)
def test_any_region_of_a_reduced_view_equals_that_part_of_the_whole_reduced_at_once(tmp_path, mpp, factor):
    picture = noise(187, 231)
    view = open_slide(foreign_slide(tmp_path / "a.tif", [picture])).view(mpp=mpp)
    assert view.factor == factor
    assert_parts_of(imresize(picture, factor), view)


def test_a_stored_level_of_the_asked_size_is_read_as_it_is(tmp_path):
    small = noise(64, 128, 1)
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [noise(128, 256), small]))
    view = slide.view(mpp=0.5)
    assert (view.level, view.factor) == (1, 1)
    assert view.mpp == pytest.approx(0.5)
    assert_parts_of(small, view)
    reduced = slide.view(mpp=1.0)
    assert (reduced.level, reduced.factor) == (1, Fraction(1, 2))
    assert_parts_of(imresize(small, Fraction(1, 2)), reduced)


def test_a_level_whose_regions_openslide_would_interpolate_is_passed_over(tmp_path):
    picture, small = noise(129, 257), noise(64, 128, 1)  # 2.0117 times: no whole number
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [picture, small]))
    assert not slide.levels[1].downsample.is_integer()
    view = slide.view(mpp=0.5)
    assert view.level == 0
    assert_parts_of(imresize(picture, Fraction(1, 2)), view)


@pytest.mark.parametrize("mpp", [0.2460, 0.2549])
def test_pixels_within_2_percent_of_the_asked_size_are_left_as_they_are(tmp_path, mpp):
    picture = noise(64, 64)
    view = open_slide(foreign_slide(tmp_path / "a.tif", [picture], mpp=mpp)).view(mpp=0.25)
    assert view.mpp == pytest.approx(mpp, rel=1e-6)
    assert_parts_of(picture, view)


@pytest.mark.parametrize("asked", [0.2601, 0.261, 0.49, 0.51, 0.77, 3.281, 5.437, 8.12])
def test_a_reduced_view_has_the_asked_size_within_1_percent_and_says_which(tmp_path, asked):
    view = open_slide(foreign_slide(tmp_path / "a.tif", [noise(64, 64)], mpp=0.25)).view(mpp=asked)
    assert view.factor < 1
    assert view.mpp == pytest.approx(asked, rel=0.01)
    assert view.mpp * float(view.factor) == pytest.approx(0.25, rel=1e-6)


def test_a_slide_coarser_than_asked_is_refused_with_both_numbers(tmp_path):
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [noise(64, 64)], mpp=0.5))
    with pytest.raises(DataError, match=r"a.tif has 0.5 microns per pixel, coarser than the 0.25 asked for"):
        slide.view(mpp=0.25)


@pytest.mark.parametrize(("mpp", "unit"), [(None, "NONE"), (25400 / 300 / 2.54, "INCH")])
def test_unknown_microns_and_printing_resolutions_need_the_option(tmp_path, mpp, unit):
    path = foreign_slide(tmp_path / "a.tif", [noise(64, 64)], mpp=mpp, unit=unit)
    slide = open_slide(path)
    assert slide.mpp is None
    assert slide.view().mpp is None
    with pytest.raises(DataError, match=r"a.tif does not say its microns per pixel; give them \(slide_mpp\)"):
        slide.view(mpp=0.5)
    assert open_slide(path, mpp=0.25).view(mpp=0.5).factor == Fraction(1, 2)


def test_microns_that_a_slide_says_are_not_replaced_by_the_option(tmp_path):
    assert open_slide(foreign_slide(tmp_path / "a.tif", [noise(64, 64)], mpp=0.5), mpp=0.25).mpp == pytest.approx(0.5)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    open_slide(foreign_slide(tmp_path / "a.tif", [noise(64, 64)])).view().read(0, 0, 64, 64)
    later = noise(96, 80, seed=1)
    foreign_slide(tmp_path / "b.tif", [later]).replace(tmp_path / "a.tif")
    view = open_slide(tmp_path / "a.tif").view()
    np.testing.assert_array_equal(view.read(0, 0, view.width, view.height), later)


def test_a_region_is_placed_in_level_0_pixels(tmp_path):
    picture = noise(128, 256)
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [picture]))
    half = imresize(picture, Fraction(1, 2))
    np.testing.assert_array_equal(slide.region(40, 20, 60, 30, mpp=0.5), half[10:25, 20:50])
    np.testing.assert_array_equal(slide.region(40, 20, 60, 30), picture[20:50, 40:100])
    np.testing.assert_array_equal(slide.region(250, 120, 60, 30), picture[120:, 250:])


def test_a_region_beyond_the_slide_is_refused(tmp_path):
    view = open_slide(foreign_slide(tmp_path / "a.tif", [noise(64, 80)])).view()
    for box in ((-1, 0, 5, 5), (0, 0, 81, 5), (0, 60, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(DataError, match=r"a.tif: .* not inside 80x64"):
            view.read(*box)


def test_the_background_shows_where_the_slide_has_no_pixels(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    full = np.full((64, 64, 3), 90, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        tiles = iter([full, None])
        file.write(tiles, shape=(64, 128, 3), dtype=np.uint8, tile=(64, 64), photometric="rgb", metadata=None)
    found = open_slide(tmp_path / "a.tif").view().read(0, 0, 128, 64)
    assert (found[:, :64] == 90).all()
    assert (found[:, 64:] == 255).all()


def test_half_transparent_pixels_lie_on_the_background(monkeypatch):
    class Stored:
        def read_region(self, place, level, size):
            return np.full((size[1], size[0], 4), (200, 100, 0, 51), np.uint8)  # 51 / 255 is a fifth

    monkeypatch.setattr(slide_handles, "handle_of", lambda path: Stored())
    found = slide_handles.decode("a.mrxs", (0, 0), 0, (2, 1), (100, 250, 0))
    np.testing.assert_array_equal(found, np.full((1, 2, 3), (120, 220, 0), np.uint8))


def test_a_damaged_tile_is_named_and_the_others_are_still_read(tmp_path):
    picture = smooth(128, 192)
    path = write_slide(tmp_path / "a.tif", picture, compression="jpeg")
    data = bytearray(path.read_bytes())
    begin = data.index(b"\xff\xd8\xff", 1000 + data.index(b"\xff\xd8\xff"))  # of a tile after the first
    data[begin : begin + 400] = bytes(400)
    path.write_bytes(data)
    view = open_slide(path).view()
    before = view.read(0, 0, 64, 64)
    with pytest.raises(
        DataError, match=r"a.tif: 192x128 pixels of level 0 at level-0 pixel \(0, 0\) cannot be decoded"
    ):
        view.read(0, 0, 192, 128)
    np.testing.assert_array_equal(view.read(0, 0, 64, 64), before)


def test_what_is_no_slide_is_refused_by_name(tmp_path):
    whole = write_slide(tmp_path / "a.tif", noise(64, 64)).read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "text.svs").write_text("no slide")
    for name, reason in (
        ("cut.tif", "not a slide that OpenSlide reads"),
        ("empty.svs", r"empty \(0 bytes\)"),
        ("text.svs", "not a slide that OpenSlide reads"),
        ("absent.svs", "no such file"),
    ):
        with pytest.raises(DataError, match=f"{name}: .*{reason}"):
            open_slide(tmp_path / name)
    with pytest.raises(RefusedError, match="above 0, found -1"):
        open_slide(tmp_path / "a.tif", mpp=-1)


def _in_child(path: str, held: int, results) -> None:
    view = open_slide(path).view()
    results.put((view.read(3, 5, 20, 10), id(slide_handles.handle_of(path)) != held))


def test_a_forked_process_opens_the_file_anew(tmp_path):
    picture = noise(64, 64)
    path = str(foreign_slide(tmp_path / "a.tif", [picture]))
    open_slide(path).view().read(0, 0, 8, 8)
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    child = fork.Process(target=_in_child, args=(path, id(slide_handles.handle_of(path)), results))
    child.start()
    found, is_new = results.get(timeout=60)
    child.join()
    np.testing.assert_array_equal(found, picture[5:15, 3:23])
    assert is_new


def test_few_files_stay_open(tmp_path):
    path = foreign_slide(tmp_path / "a.tif", [noise(16, 16)])
    for k in range(20):
        other = tmp_path / f"b{k}.tif"
        other.write_bytes(path.read_bytes())
        open_slide(other)
    held = [name for process, name in slide_handles._handles if process == os.getpid()]
    assert len(held) == 16
    assert held[-1].endswith("b19.tif")


def test_without_openslide_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = foreign_slide(tmp_path / "a.tif", [noise(16, 16)])
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(RefusedError, match="pip install openslide-python openslide-bin"):
        open_slide(path)


def test_slides_are_found_by_suffix_hidden_ones_left_out(tmp_path):
    for name in ("b.SVS", "a.ndpi", "sub/c.mrxs", "sub/.d.svs", ".e/f.svs", "notes.txt", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_slides(tmp_path) == ["a.ndpi", "b.SVS"]
    assert find_slides(tmp_path, recursive=True) == ["a.ndpi", "b.SVS", "sub/c.mrxs"]


def test_share_of_a_box_counts_cells_by_the_part_inside():
    cells = np.zeros((4, 6), bool)
    cells[1:3, 2:4] = True
    mask = TissueMask(cells, 10)  # tissue covers 20 to 40 across, 10 to 30 down
    assert mask.share(20, 10, 20, 20) == pytest.approx(1)
    assert mask.share(0, 0, 60, 40) == pytest.approx(4 / 24)
    assert mask.share(15, 5, 10, 10) == pytest.approx(1 / 4)
    assert mask.share(33, 17, 4, 3) == pytest.approx(1)
    assert mask.share(38, 17, 4, 3) == pytest.approx(1 / 2)
    assert mask.share(30, 20, 100, 100) == pytest.approx(100 / 10_000)  # beyond the slide there is none
    np.testing.assert_allclose(mask.share(np.array([0, 20]), np.array([[10], [30]]), 20, 20), [[0, 1], [0, 0]])


def test_tissue_is_where_the_slide_is_stained(tmp_path):
    slide = open_slide(foreign_slide(tmp_path / "a.tif", [stained(400, 800)], mpp=2.0))
    mask = find_tissue(slide)
    assert (mask.cell_px, mask.cells.shape) == (4, (100, 200))  # 8 um are 4 pixels
    assert mask.share(0, 0, 390, 400) == pytest.approx(1, abs=0.01)
    assert mask.share(410, 0, 390, 400) == 0


def test_cells_lie_where_they_say_up_to_the_edge(tmp_path):
    picture = noise(65, 119)  # 8 1/8 by 14 7/8 cells
    cells = shrunk(open_slide(foreign_slide(tmp_path / "a.tif", [picture])), 8)
    assert cells.shape == (9, 15, 3)
    beyond = np.pad(picture, ((0, 7), (0, 1), (0, 0)), mode="edge").astype(float)
    np.testing.assert_allclose(cells, beyond.reshape(9, 8, 15, 8, 3).mean((1, 3)), atol=0.51)


def test_the_mask_comes_from_a_coarse_level_where_there_is_one(tmp_path):
    levels = [np.full((512, 512, 3), 245, np.uint8), stained(128, 128)]  # stained in level 1 alone
    mask = find_tissue(open_slide(foreign_slide(tmp_path / "a.tif", levels, mpp=1.0)))
    assert mask.cell_px == 8
    assert mask.share(0, 0, 512, 512) == pytest.approx(0.5, abs=0.02)


def test_glass_alone_has_no_tissue():
    glass = np.random.default_rng(0).integers(240, 248, (100, 100, 3), dtype=np.uint8)  # saturation up to 8
    assert not tissue_cells(glass).any()


def test_tissue_alone_is_not_parted_into_pale_and_dark():
    picture = np.full((100, 100, 3), (230, 190, 210), np.uint8)  # saturation 255 * 40 / 230 = 44
    picture[:, 50:] = (180, 60, 120)  # 170
    assert tissue_cells(picture).all()


def test_specks_are_no_tissue():
    picture = np.full((100, 100, 3), 245, np.uint8)
    picture[10:15, 10:15] = (180, 60, 120)
    picture[40:60, 40:60] = (180, 60, 120)
    found = tissue_cells(picture)
    assert not found[:30, :30].any()
    assert found[45:55, 45:55].all()


def test_real_slides_are_read_in_true_colours(test_data):
    folder = test_data / "histology/wsi"
    jpeg2000 = open_slide(folder / "tcga-cr-7395-01a-01-ts1.svs", mpp=0.25)
    jpeg = open_slide(folder / "tcga-cr-7395_pyramid_jpeg.tif", mpp=0.25)
    assert jpeg2000.vendor == "aperio"
    for view, other in ((jpeg2000.view(), jpeg.view()), (jpeg2000.view(mpp=0.5), jpeg.view(mpp=0.5))):
        a, b = (v.read(900, 700, 300, 300).astype(float) for v in (view, other))
        assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) > 30  # one picture, JPEG of quality 80
        assert a[..., 0].mean() > a[..., 2].mean() > a[..., 1].mean()  # eosin is pink
    assert open_slide(folder / "tcga-cr-7395-01a-01-ts1.svs").mpp is None


def test_real_slide_says_its_microns_and_has_tissue_where_it_is(test_data):
    slide = open_slide(test_data / "histology/wsi/cmu-1-small-region.svs")
    assert (slide.mpp, slide.objective, slide.width, slide.height) == (0.499, 20, 2220, 2967)
    mask = find_tissue(slide)
    assert mask.share(800, 2400, 800, 500) > 0.95
    assert mask.share(0, 2000, 500, 500) == 0
    assert slide.view(mpp=1.0).factor == Fraction(1, 2)
