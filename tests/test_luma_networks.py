"""One-channel networks on luma (`color: y`): trained, validated, tested, and refused where channels do not agree."""

import json
import re

import numpy as np
import pytest
from infer_made import model_file, picture
from PIL import Image
from tiny import in_process, measured, options

from srkit.imaging.colour import chroma, full_from_limited, limited_from_full, luma, luma_full, with_chroma
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.tools.interpolate import draw_strip

LUMA = {
    "network_g__num_in_ch": 1,
    "network_g__num_out_ch": 1,
    "datasets__train__color": "y",
    "datasets__val__color": "y",
    "val__metrics": None,
    "val__protocol": "natural-y-v1",
}


def test_a_luma_network_is_validated_and_tested_alike(tiny):
    assert in_process(tiny, options(tiny, **LUMA)) == 0
    lines = map(json.loads, (tiny / "experiments/tiny/records.jsonl").read_text().splitlines())
    validated = [line["psnr"] for line in lines if line["kind"] == "validation"][-1]
    # The model file says that it wants luma; the test's option file need not.
    assert measured(tiny, **{**LUMA, "datasets__val__color": None, "network_g": None}) == 0
    summary = json.loads((tiny / "results/tested/metrics.json").read_text())
    methods = summary["sets"]["val"]["methods"]
    assert methods["tested"]["psnr"]["mean"] == pytest.approx(validated, abs=1e-12)
    assert methods["nearest-y"]["psnr"]["mean"] == pytest.approx(
        np.mean([nearest_psnr(tiny, n) for n in range(4)]), abs=1e-9
    )


def test_grey_pictures_among_coloured_ones_share_the_rows_of_their_interpolation(tiny):
    for half in ("gt", "lq"):  # as img_003 of Set14
        path = tiny / f"data/{half}/p3.png"
        write_image(path, np.ascontiguousarray(read_image(path)[..., :1]))
    assert in_process(tiny, options(tiny, **LUMA)) == 0
    assert measured(tiny, **{**LUMA, "network_g": None}) == 0
    methods = json.loads((tiny / "results/tested/metrics.json").read_text())["sets"]["val"]["methods"]
    assert {name: told["psnr"]["n"] for name, told in methods.items()} == {
        "nearest-y": 4, "bicubic-matlab-y": 4, "tested": 4
    }  # fmt: skip


def test_a_luma_network_is_validated_on_luma_though_the_validation_set_does_not_say_so(tiny):
    for name, color in (("said", "y"), ("unsaid", None)):
        assert in_process(tiny, options(tiny, name=name, **{**LUMA, "datasets__val__color": color})) == 0
    said, unsaid = (
        [line for line in map(json.loads, (tiny / f"experiments/{name}/records.jsonl").read_text().splitlines())
         if line["kind"] == "validation"]
        for name in ("said", "unsaid")
    )  # fmt: skip
    assert said == unsaid


def test_an_evaluation_on_another_luma_than_the_trained_one_is_refused(tiny, capsys):
    full = {**LUMA, "datasets__train__color": "y_full"}
    assert in_process(tiny, options(tiny, **full)) == 2
    message = "datasets.val.color: found 'y', but the network was trained on 'y_full'; remove it"
    assert message in capsys.readouterr().err
    assert in_process(tiny, options(tiny, datasets__val__color="y")) == 2
    assert "found 'y', but the network was trained on 'rgb'" in capsys.readouterr().err
    assert in_process(tiny, options(tiny, **{**full, "datasets__val__color": None})) == 0
    assert measured(tiny, **{**LUMA, "network_g": None}) == 2
    assert message in capsys.readouterr().err


def test_a_colour_network_is_not_tested_on_luma(tiny, capsys):
    """One channel minus the three of rgb_mean is three channels: nothing else would stop it."""
    assert in_process(tiny, options(tiny)) == 0
    assert measured(tiny, datasets__val__color="y", val__metrics=None, val__protocol="natural-y-v1") == 2
    assert "datasets.val.color: found 'y', but the network was trained on 'rgb'" in capsys.readouterr().err


def test_the_strip_of_a_luma_network_is_in_colour(tiny):
    """A VDSR that is bicubic on luma: its picture is the bicubic one."""
    change = {**LUMA, "network_g": {"type": "VDSR", "num_feat": 4, "num_block": 1, "last_init": "zero"}}
    change |= {"train__total_iter": 1, "train__optim_g__lr": 1e-12}
    for color in ("y", "y_full"):
        change |= {"datasets__train__color": color, "datasets__val__color": color, "name": color}
        assert in_process(tiny, options(tiny, **change)) == 0
        lq = tiny / "data/lq/p0.png"
        strip = draw_strip({"alpha 1": tiny / f"experiments/{color}/models/net_g_1.pth"}, lq, None)
        bicubic = imresize(read_image(lq), 2).astype(int)
        side = bicubic.shape[1]
        assert np.abs(strip[-side:, -side:] - bicubic).max() <= 1
        assert np.ptp(bicubic, axis=2).max() > 50  # the picture has colours to lose


@pytest.mark.parametrize(("color", "arch"), [("rgb", "EDSR"), ("y", "VDSR")])
def test_the_strip_of_a_grey_picture_is_grey_whatever_the_network_was_trained_on(tmp_path, color, arch):
    write_image(tmp_path / "grey.png", picture(12, 10, 1))
    file = model_file(tmp_path / "net.pth", arch, color=color, num_feat=4, num_block=1)
    strip = draw_strip({"alpha 1": file}, tmp_path / "grey.png", None)
    assert strip.shape[2] == 3
    assert np.ptp(strip, axis=2).max() == 0


def nearest_psnr(tiny, number: int) -> float:
    """Luma of lq, pixels repeated, rounded to 8 bits, against luma of gt without two pixels of border."""
    lq, gt = (
        16 + read_image(tiny / f"data/{half}/p{number}.png") @ np.array([65.481, 128.553, 24.966]) / 255
        for half in ("lq", "gt")
    )
    sr = np.floor(lq + 0.5).repeat(2, 0).repeat(2, 1)
    return 10 * np.log10(255**2 / np.mean((sr - gt)[2:-2, 2:-2] ** 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"network_g__num_in_ch": 1, "network_g__num_out_ch": 1},
            r"EDSR does not take the training pictures, 3x8x8",
        ),
        ({"datasets__train__color": "y"}, r"makes 3x16x16 out of lq 1x8x8, and gt is 1x16x16"),
        ({**LUMA, "val__protocol": None, "val__metrics": {"psnr": {"type": "PSNR"}}}, r"val, metric psnr: .*color: y"),
        (
            {"datasets__train__mean": [0.4, 0.5], "datasets__train__std": [0.2, 0.2]},
            r"datasets.train.mean has 2 values, and the pictures 3",
        ),
    ],
)
def test_channels_that_do_not_agree_are_refused_before_anything_is_written(tiny, capsys, change, message):
    assert in_process(tiny, options(tiny, **change)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tiny / "experiments").exists()


def test_pictures_of_a_luma_network_are_written_in_colour_with_bicubic_chroma(tiny):
    change = {**LUMA, "network_g": {"type": "VDSR", "num_feat": 4, "num_block": 1, "last_init": "zero"}}
    for color in ("y", "y_full"):
        change |= {"datasets__train__color": color, "datasets__val__color": color}
        change |= {"train__total_iter": 1, "train__optim_g__lr": 1e-12, "name": color}
        assert in_process(tiny, options(tiny, val__save_img=True, **change)) == 0
        for number in range(4):
            sr = read_image(tiny / f"experiments/{color}/visualization/val/p{number}/p{number}_1.png")
            bicubic = imresize(read_image(tiny / f"data/lq/p{number}.png"), 2, intermediate="float")
            # The network is bicubic on luma, so all three planes are: only the rounding of float32 luma may differ.
            assert np.abs(sr.astype(int) - bicubic).max() <= 1


def test_chroma_and_luma_give_the_colour_back():
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.float64)
    np.testing.assert_allclose(with_chroma(luma_full(picture), chroma(picture)), picture, atol=1e-9)
    np.testing.assert_allclose(limited_from_full(luma_full(picture), 255.0), luma(picture), atol=1e-4)
    np.testing.assert_allclose(full_from_limited(luma(picture), 255.0), luma_full(picture), atol=1e-4)


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (12, 200, 90)])
def test_chroma_is_that_of_jpeg_files(colour):
    """Pillow's YCbCr is JPEG's, with 128 added to Cb and Cr and rounded."""
    expected = Image.new("RGB", (1, 1), colour).convert("YCbCr").getpixel((0, 0))
    cb, cr = chroma(np.array([[colour]], np.float64))[0, 0] + 128
    assert (cb, cr) == pytest.approx(np.clip(expected[1:], 0, 255), abs=1.01)
