"""Whole slides through the command: the same pixels as in memory, a pyramid out, background left to bicubic, bad ones named."""

from __future__ import annotations

import numpy as np
import pytest
from infer_made import infer, made_archs, model_file  # noqa: F401
from slide_files import WITHOUT, noise, stained, write_slide

from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.imaging.slides import open_slide
from srkit.inference.slides import Slides

openslide = pytest.importorskip("openslide", reason=WITHOUT)


def level0(path) -> np.ndarray:
    view = open_slide(path).view(level=0)
    return view.read(0, 0, view.width, view.height)


def test_a_slide_becomes_a_pyramid_of_the_networks_pixels_with_finer_microns(tmp_path, capsys):
    gt = noise(300, 420)
    write_slide(tmp_path / "in/a.tif", gt, mpp=0.5)
    model = model_file(tmp_path / "m.pth")
    words = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--compression", "deflate", "--everything", "--tile", 128]
    assert infer("-m", model, *words) == 0
    slide = open_slide(tmp_path / "out/a_sr.tif")
    assert (slide.width, slide.height) == (840, 600)
    assert slide.mpp == pytest.approx(0.25, rel=1e-6)
    assert len(slide.levels) > 1
    np.testing.assert_array_equal(level0(tmp_path / "out/a_sr.tif"), gt.repeat(2, 0).repeat(2, 1))


def test_tiles_of_a_slide_equal_the_picture_restored_whole(tmp_path):
    gt = noise(300, 420)
    write_slide(tmp_path / "a.tif", gt)
    write_image(tmp_path / "a.png", gt)
    model = model_file(tmp_path / "m.pth", "BoxNet")
    common = ["-m", model, "-o", f"{tmp_path / 'out'}/"]
    assert infer(*common, "-i", tmp_path / "a.png", "--tile", "none") == 0
    assert infer(*common, "-i", tmp_path / "a.tif", "--tile", 96, "--compression", "deflate", "--everything") == 0
    np.testing.assert_array_equal(level0(tmp_path / "out/a_sr.tif"), read_image(tmp_path / "out/a_sr.png"))


def test_background_is_enlarged_by_bicubic(tmp_path):
    picture = stained(512, 1024)
    write_slide(tmp_path / "a.tif", picture, mpp=1.0)
    model = model_file(tmp_path / "m.pth")
    words = ["-m", model, "-i", tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--compression", "deflate", "--tile", 128]
    assert infer(*words) == 0
    made = level0(tmp_path / "b.tif")
    np.testing.assert_array_equal(made[:, :800], picture.repeat(2, 0).repeat(2, 1)[:, :800])
    np.testing.assert_array_equal(made[:, -400:], imresize(picture, 2)[:, -400:])


def test_a_slide_read_at_other_microns_carries_those_over_the_scale(tmp_path):
    write_slide(tmp_path / "a.tif", noise(256, 256), mpp=0.25)
    model = model_file(tmp_path / "m.pth")
    assert infer("-m", model, "-i", tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--mpp", 0.5) == 0
    slide = open_slide(tmp_path / "b.tif")
    assert slide.mpp == pytest.approx(0.25, rel=1e-6)
    assert (slide.width, slide.height) == (256, 256)


def test_a_slide_without_microns_needs_them_said(tmp_path, capsys):
    write_slide(tmp_path / "a.tif", noise(256, 256), mpp=None)
    model = model_file(tmp_path / "m.pth")
    words = ["-m", model, "-i", tmp_path / "a.tif", "-o", tmp_path / "b.tif"]
    assert infer(*words) == 2
    assert "does not say its microns per pixel" in capsys.readouterr().err
    assert not list(tmp_path.glob("*b.tif*"))
    assert infer(*words, "--slide_mpp", 0.5) == 0
    assert open_slide(tmp_path / "b.tif").mpp == pytest.approx(0.25, rel=1e-6)


def test_a_slide_without_microns_is_refused_by_its_flag_at_a_wanted_size_too(tmp_path, capsys):
    write_slide(tmp_path / "a.tif", noise(256, 256), mpp=None)
    words = ["-m", model_file(tmp_path / "m.pth"), "-i", tmp_path / "a.tif", "-o", tmp_path / "b.tif", "--mpp", 0.5]
    assert infer(*words) == 2
    told = capsys.readouterr().err
    assert "--slide_mpp" in told
    assert "leave mpp out" not in told
    assert told.count("a.tif") == 1


def test_a_damaged_slide_does_not_keep_the_others_from_being_restored(tmp_path, capsys):
    write_slide(tmp_path / "in/good.tif", noise(256, 256))
    bad = write_slide(tmp_path / "in/bad.tif", noise(256, 256), compression="jpeg")
    bad.write_bytes(bad.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0"))  # no tile begins as a JPEG any more
    model = model_file(tmp_path / "m.pth")
    assert infer("-m", model, "-i", tmp_path / "in", "-o", tmp_path / "out", "--everything") == 9
    assert "bad.tif" in capsys.readouterr().out
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good_sr.tif"]


def test_a_tiff_with_one_level_is_a_picture(tmp_path):
    write_image(tmp_path / "a.tif", noise(40, 50))
    write_slide(tmp_path / "b.tif", noise(300, 300))
    kind = Slides.__new__(Slides)
    assert not kind.takes(tmp_path / "a.tif")
    assert kind.takes(tmp_path / "b.tif")
    assert kind.takes(tmp_path / "c.svs")


def test_ome_is_named_so(tmp_path):
    write_slide(tmp_path / "in/a.tif", noise(256, 256))
    model = model_file(tmp_path / "m.pth")
    assert infer("-m", model, "-i", tmp_path / "in", "-o", tmp_path / "out", "--ome") == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a_sr.ome.tif"]


def test_flags_of_slides_are_refused_for_a_network_of_volumes(tmp_path, capsys):
    model = model_file(tmp_path / "m.pth", scale=(1, 3, 1), color="", intensity="percentiles", num_in_ch=1)
    assert infer("-m", model, "-i", tmp_path, "-o", tmp_path.parent / "out", "--mpp", 0.5) == 2
    assert "--mpp: for slides, which this model does not enlarge" in capsys.readouterr().err
