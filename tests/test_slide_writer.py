"""Slides are written as a pyramid that other programs read, in bounded memory, whole or not at all; and through a network."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import cv2
import numpy as np
import pytest
from slide_files import WITHOUT, noise, smooth, stained, write_slide

from srkit.errors import DataError, RefusedError, StorageError
from srkit.imaging import tiff_container
from srkit.imaging.resize import imresize, nearest_upscale
from srkit.imaging.slide_upscale import upscale_slide
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.slides import open_slide
from srkit.imaging.tissue import find_tissue

openslide = pytest.importorskip("openslide", reason=WITHOUT)
tifffile = pytest.importorskip("tifffile")


def level_of(path, number: int) -> np.ndarray:
    """A whole level, by OpenSlide itself."""
    slide = openslide.OpenSlide(path)
    pixels = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3]


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of 2 x 2 pixels, odd ends repeated, rounded half up."""
    even = np.pad(picture, [(0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)], mode="edge").astype(float)
    means = (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4
    return np.floor(means + 0.5).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize(("height", "width"), [(300, 257), (129, 513), (64, 64), (1, 200)])
def test_openslide_finds_every_level_and_pixel_as_written(tmp_path, height, width):
    picture = noise(height, width)
    path = write_slide(tmp_path / "a.tif", picture, mpp=0.2495)
    slide = openslide.OpenSlide(path)
    expected = [picture]
    while max(expected[-1].shape) > 64:
        expected.append(halved(expected[-1]))
    assert slide.level_dimensions == tuple((level.shape[1], level.shape[0]) for level in expected)
    for number, level in enumerate(expected):
        np.testing.assert_array_equal(level_of(path, number), level)
    for axis in "xy":
        assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(0.2495, rel=1e-6)


def test_tifffile_reads_the_same_levels_with_their_resolutions(tmp_path):
    picture = noise(200, 300)
    with tifffile.TiffFile(write_slide(tmp_path / "a.tif", picture, mpp=0.5)) as file:
        assert [level.shape for level in file.series[0].levels] == [
            (200, 300, 3),
            (100, 150, 3),
            (50, 75, 3),
            (25, 38, 3),
        ]
        np.testing.assert_array_equal(file.pages[0].asarray(), picture)
        np.testing.assert_array_equal(file.pages[1].asarray(), halved(picture))
        assert [page.tags["XResolution"].value for page in file.pages] == [(20_000 // 2**k, 1) for k in range(4)]
        assert [int(page.subfiletype) for page in file.pages] == [0, 1, 1, 1]


def test_the_file_does_not_depend_on_how_its_rows_came(tmp_path):
    picture, files = noise(200, 100), []
    for rows in (200, 64, 7, 1):
        with SlideWriter(tmp_path / "a.tif", 100, 200, mpp=1.0, tile=32, compression="deflate") as writer:
            for y in range(0, 200, rows):
                writer.append(picture[y : y + rows])
        files.append((tmp_path / "a.tif").read_bytes())
    assert len(set(files)) == 1


def test_jpeg_keeps_a_smooth_picture_above_40_db_and_its_colours(tmp_path):
    picture = smooth(200, 300)
    path = write_slide(tmp_path / "a.tif", picture, compression="jpeg")
    assert psnr(level_of(path, 0), picture) > 40
    assert psnr(cv2.imread(str(path))[..., ::-1], picture) > 40  # libtiff's decoder
    flat = np.full((70, 70, 3), (200, 30, 90), np.uint8)
    found = level_of(write_slide(tmp_path / "b.tif", flat, compression="jpeg"), 0)
    assert np.abs(found.astype(int) - flat).max() <= 2  # also in the tiles that the picture does not fill


def test_jpeg_does_not_subsample_colour(tmp_path):
    stripes = np.full((64, 64, 3), (255, 0, 0), np.uint8)
    stripes[:, ::2] = (0, 130, 0)  # nearly as bright: subsampled, they would be one brown
    found = level_of(write_slide(tmp_path / "a.tif", stripes, compression="jpeg", quality=95), 0)
    assert np.abs(found.astype(int) - stripes).mean() < 8


def test_above_the_classic_limit_the_file_is_a_bigtiff(tmp_path, monkeypatch):
    picture = noise(100, 150)
    classic = write_slide(tmp_path / "a.tif", picture)
    monkeypatch.setattr(tiff_container, "_CLASSIC_END", 10_000)
    big = write_slide(tmp_path / "b.tif", picture)
    for path, is_big in ((classic, False), (big, True)):
        np.testing.assert_array_equal(level_of(path, 0), picture)
        np.testing.assert_array_equal(level_of(path, 1), halved(picture))
        with tifffile.TiffFile(path) as file:
            assert file.is_bigtiff == is_big
            np.testing.assert_array_equal(file.pages[1].asarray(), halved(picture))


@pytest.mark.parametrize("limit", [1 << 32, 10_000])
def test_ome_tiff_holds_its_levels_in_sub_directories(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(tiff_container, "_CLASSIC_END", limit)
    picture = noise(100, 150)
    path = write_slide(tmp_path / "a.ome.tif", picture, mpp=0.1234, ome=True, description="x4 <EDSR> & ä")
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        levels = file.series[0].levels
        assert [level.shape for level in levels] == [(100, 150, 3), (50, 75, 3), (25, 38, 3)]
        np.testing.assert_array_equal(levels[1].asarray(), halved(picture))
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
    pixels = image["Pixels"]
    assert (pixels["SizeX"], pixels["SizeY"], pixels["PhysicalSizeX"]) == (150, 100, 0.1234)
    assert pixels["PhysicalSizeXUnit"] == "µm"
    assert image["Description"] == "x4 <EDSR> & ä"
    slide = openslide.OpenSlide(path)
    assert slide.level_dimensions == ((150, 100),)  # as documented: OpenSlide looks into no sub-directory
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.1234, rel=1e-6)


def test_description_is_openslides_comment_and_unknown_microns_stay_unknown(tmp_path):
    slide = openslide.OpenSlide(
        write_slide(tmp_path / "a.tif", noise(70, 70), mpp=None, description="restored by EDSR")
    )
    assert slide.properties["openslide.comment"] == "restored by EDSR"
    assert "openslide.mpp-x" not in slide.properties


@pytest.mark.parametrize("mpp", [0.05, 1 / 3, 0.24999999, 7.0, 1e-4])
def test_any_size_of_pixels_fits_into_the_files_fractions(tmp_path, mpp):
    slide = openslide.OpenSlide(write_slide(tmp_path / "a.tif", noise(70, 70), mpp=mpp))
    assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(mpp, rel=1e-6)


def give_up_after(rows: np.ndarray, path, error: Exception | None) -> None:
    with SlideWriter(path, 64, 64, mpp=1.0) as writer:
        writer.append(rows)
        if error is not None:
            raise error


def test_nothing_stays_of_a_slide_that_was_not_finished(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"before")
    with pytest.raises(DataError, match="gave up"):
        give_up_after(noise(32, 64), path, DataError("gave up"))
    with pytest.raises(ValueError, match="32 of 64 rows were given"):
        give_up_after(noise(32, 64), path, None)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    assert path.read_bytes() == b"before"


def test_rows_of_another_kind_are_refused(tmp_path):
    with SlideWriter(tmp_path / "a.tif", 64, 4, mpp=1.0) as writer:
        for rows in (noise(5, 64), noise(2, 63), noise(2, 64).astype(np.uint16), noise(2, 64)[..., :1]):
            with pytest.raises(ValueError, match=r"expected up to 4 rows of 64 pixels, uint8 RGB; found uint"):
                writer.append(rows)
        writer.append(noise(4, 64))


@pytest.mark.parametrize("height", [60, 400])  # refused in the directories at the end, or in the middle
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, height):
    """RLIMIT_FSIZE stands for a full disk: writes fail with EFBIG."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"a.tif: cannot be written \(File too large\)"):
            write_slide(tmp_path / "a.tif", noise(height, 60))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_numbers_that_make_no_slide_are_refused_together(tmp_path):
    with pytest.raises(RefusedError) as caught:
        SlideWriter(tmp_path / "a.png", 0, 5, mpp=-1, tile=100, quality=0)
    for part in ("name a.png", "size 0x5", "mpp -1", "tile 100", "quality 0"):
        assert part in str(caught.value)


_PEAK = """
import resource, sys
import numpy as np
from srkit.imaging.slide_writer import SlideWriter
rows = np.random.default_rng(0).integers(0, 256, (256, 2048, 3), dtype=np.uint8)
with SlideWriter(sys.argv[1], 2048, int(sys.argv[2]), mpp=0.25) as writer:
    for _ in range(int(sys.argv[2]) // 256):
        writer.append(rows)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_height_of_a_slide(tmp_path):
    peaks = []
    for height in (1024, 12288):
        command = [sys.executable, "-c", _PEAK, str(tmp_path / "a.tif"), str(height)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        peaks.append(float(done.stdout))
    assert peaks[1] - peaks[0] < 15  # MiB; the larger one has 66 MiB more pixels


def blurred_twice(lq: np.ndarray) -> np.ndarray:
    """A network of its kind: each pixel depends on those around it."""
    return nearest_upscale(cv2.blur(lq, (5, 5)), 2)


@pytest.mark.parametrize(("tile", "overlap"), [(48, 2), (50, 8), (1000, 0)])
def test_a_slide_through_a_network_equals_the_whole_through_it(tmp_path, tile, overlap):
    picture = smooth(130, 171) // 2 + noise(130, 171) // 2
    view = open_slide(write_slide(tmp_path / "a.tif", picture, mpp=0.5)).view()
    with SlideWriter(tmp_path / "b.tif", 342, 260, mpp=0.25, compression="deflate") as writer:
        restored = upscale_slide(view, blurred_twice, writer, scale=2, tile=tile, overlap=overlap)
    result = open_slide(tmp_path / "b.tif")
    assert result.mpp == pytest.approx(0.25, rel=1e-6)
    np.testing.assert_array_equal(result.view().read(0, 0, 342, 260), blurred_twice(picture))
    assert restored == {48: 12, 50: 20, 1000: 1}[tile]


def test_a_slide_is_restored_at_the_size_of_pixels_asked_for(tmp_path):
    picture = noise(128, 192)
    view = open_slide(write_slide(tmp_path / "a.tif", picture, mpp=0.25)).view(mpp=0.4)
    half = imresize(picture, view.factor)
    with SlideWriter(tmp_path / "b.tif", view.width * 2, view.height * 2, mpp=0.2, compression="deflate") as writer:
        upscale_slide(view, blurred_twice, writer, scale=2, tile=40, overlap=4)
    found = open_slide(tmp_path / "b.tif").view()
    np.testing.assert_array_equal(found.read(0, 0, found.width, found.height), blurred_twice(half))


def test_glass_is_enlarged_by_bicubic_without_the_network(tmp_path):
    picture = stained(256, 512)
    slide = open_slide(write_slide(tmp_path / "a.tif", picture, mpp=2.0))
    seen = []

    def restore(lq: np.ndarray) -> np.ndarray:
        seen.append(lq.shape)
        return nearest_upscale(lq, 2)

    with SlideWriter(tmp_path / "b.tif", 1024, 512, mpp=1.0, compression="deflate") as writer:
        restored = upscale_slide(slide.view(), restore, writer, scale=2, tile=64, overlap=4, tissue=find_tissue(slide))
    found = open_slide(tmp_path / "b.tif").view()
    assert restored == len(seen) == 5 * 5  # kept parts begin at 60, 116, 172, 228 and 284: the sixth column sees glass
    np.testing.assert_array_equal(found.read(0, 0, 2 * 256, 512), nearest_upscale(picture, 2)[:, :512])
    np.testing.assert_array_equal(found.read(600, 0, 424, 512), imresize(picture, 2)[:, 600:])


def test_a_writer_or_a_result_of_another_size_is_refused(tmp_path):
    view = open_slide(write_slide(tmp_path / "a.tif", noise(64, 64))).view()
    writer = SlideWriter(tmp_path / "b.tif", 128, 127, mpp=None)
    with pytest.raises(RefusedError, match=r"b\.tif is to have 128x127 pixels"):
        upscale_slide(view, blurred_twice, writer, scale=2, tile=64, overlap=0)
    with (
        pytest.raises(RefusedError, match=r"a tile of \(64, 64, 3\) became uint8 \(64, 64, 3\)"),
        SlideWriter(tmp_path / "b.tif", 128, 128, mpp=None) as writer,
    ):
        upscale_slide(view, lambda lq: lq, writer, scale=2, tile=64, overlap=0)


def test_ticks_count_tiles_and_may_give_up(tmp_path):
    view = open_slide(write_slide(tmp_path / "a.tif", noise(64, 128))).view()

    def tick(done: int, total: int) -> None:
        ticks.append((done, total))
        if len(ticks) == 3:
            raise KeyboardInterrupt

    ticks: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt), SlideWriter(tmp_path / "b.tif", 256, 128, mpp=None) as writer:
        upscale_slide(view, blurred_twice, writer, scale=2, tile=32, overlap=0, tick=tick)
    assert ticks == [(1, 8), (2, 8), (3, 8)]
    assert not (tmp_path / "b.tif").exists()


def test_a_real_slide_goes_through_and_keeps_its_colours(tmp_path, test_data):
    slide = open_slide(test_data / "histology/wsi/cmu-1-small-region.svs")
    view, tissue = slide.view(mpp=2.0), find_tissue(slide)
    with SlideWriter(tmp_path / "b.tif", view.width * 2, view.height * 2, mpp=view.mpp / 2) as writer:
        restored = upscale_slide(view, lambda lq: imresize(lq, 2), writer, scale=2, tile=128, overlap=4, tissue=tissue)
    assert 0 < restored < 35  # of 5 x 7 tiles
    found = open_slide(tmp_path / "b.tif")
    assert found.mpp == pytest.approx(0.998, rel=1e-3)
    expected = slide.view(mpp=1.0).read(300, 1000, 400, 400)
    assert psnr(found.view().read(300, 1000, 400, 400), expected) > 20
