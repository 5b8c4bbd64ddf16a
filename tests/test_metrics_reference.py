"""Published figures: bicubic rows of benchmark tables, and BasicSR's metrics on the same pictures."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import pytest

from srkit.imaging.files import read_image
from srkit.imaging.resize import imresize, mod_crop
from srkit.metrics import PROTOCOLS, PSNR, SSIM, custom_protocol, summarize

# Mean PSNR in dB, limited-range Y, border = scale: (8-bit passes, float then rounded).
BICUBIC = {
    ("Set5", 2): (33.674, 33.679),
    ("Set5", 3): (30.405, 30.406),
    ("Set5", 4): (28.430, 28.432),
    ("Set14", 2): (30.232, 30.235),
    ("Set14", 3): (27.539, 27.541),
    ("Set14", 4): (25.997, 25.998),
}
PAN_BICUBIC = {2: 33.673, 3: 30.403, 4: 28.429, 8: 24.399}


def scores(metric, pairs, scale, intermediate="uint8"):
    values = []
    for gt_path, lq_path in pairs:
        gt = mod_crop(read_image(gt_path), scale)
        sr = imresize(read_image(lq_path), scale, intermediate=intermediate)
        values.append(metric(*PROTOCOLS["natural-y-v1"].prepare(sr, gt, (scale, scale), 255.0)))
    return summarize(values)


def selfexsr(test_data, name, scale):
    folder = test_data / "benchmark" / name / f"X{scale}"
    return [(p, folder / "LR" / p.name) for p in sorted((folder / "HR").iterdir())]


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize(("name", "scale"), BICUBIC)
def test_bicubic_rows_of_set5_and_set14(test_data, name, scale, variant):
    summary = scores(PSNR(), selfexsr(test_data, name, scale), scale, ("uint8", "float")[variant])
    assert summary["mean"] == pytest.approx(BICUBIC[name, scale][variant], abs=0.001)


@pytest.mark.parametrize("scale", PAN_BICUBIC)
def test_bicubic_rows_of_the_pan_copies(test_data, scale):
    folder = test_data / "benchmark" / "Set5_matlab"
    pairs = [(p, folder / f"LR_bicubic/X{scale}/{p.stem}x{scale}.png") for p in (folder / "HR").iterdir()]
    assert scores(PSNR(), pairs, scale)["mean"] == pytest.approx(PAN_BICUBIC[scale], abs=0.001)


def test_set5_x4_statistics_and_ssim(test_data):
    pairs = selfexsr(test_data, "Set5", 4)
    summary = scores(PSNR(), pairs, 4, "float")
    rounded = {key: round(summary[key], 2) for key in ("mean", "sd", "median", "min", "max")}
    assert rounded == {"mean": 28.43, "sd": 4.14, "median": 30.19, "min": 22.10, "max": 31.79}
    assert round(scores(SSIM(), pairs, 4, "float")["mean"], 4) == 0.8113


def upsampled(kind, lq, scale, like):
    if kind == "cv2_cubic":
        return cv2.resize(lq, like.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    wide = imresize(lq.astype(np.float32) / np.float32(255), scale)
    return (np.clip(wide, 0, 1) * np.float32(255)).round().astype(np.uint8)


def md5_of_bgr(image):
    return hashlib.md5(np.ascontiguousarray(image[..., ::-1])).hexdigest()


@pytest.mark.parametrize("kind", ["cv2_cubic", "matlab"])
@pytest.mark.parametrize("scale", [2, 4])
def test_psnr_and_ssim_equal_basicsr(test_data, acceptance, scale, kind):
    reference = json.loads((acceptance / "basicsr_metrics_reference.json").read_text())[f"Set5_x{scale}"]
    folder = test_data / "benchmark" / "Set5" / f"X{scale}"
    compared = 0
    for name, record in reference.items():
        if not (folder / "HR" / name).exists():
            continue
        gt, lq = read_image(folder / "HR" / name), read_image(folder / "LR" / name)
        assert (md5_of_bgr(gt), md5_of_bgr(lq)) == (record["hr_md5"], record["lr_md5"])
        sr = upsampled(kind, lq, scale, gt)
        assert md5_of_bgr(sr) == record[kind]["sr_md5"]
        for border, figures in ((k, v) for k, v in record[kind].items() if k.startswith("crop")):
            for colour, is_y in (("rgb", False), ("y", True)):
                prepared = custom_protocol(int(border[4:]), is_y).prepare(sr, gt, (scale, scale), 255.0)
                assert PSNR()(*prepared) == pytest.approx(figures[f"psnr_{colour}"], abs=1e-4)
                assert SSIM()(*prepared) == pytest.approx(figures[f"ssim_{colour}"], abs=1e-6)
                compared += 1
    assert compared >= 10
