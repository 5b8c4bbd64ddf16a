"""Luma and rounding."""

from __future__ import annotations

import numpy as np
import pytest

from srkit.errors import DivergedError
from srkit.imaging.colour import luma, luma_full, quantize


def test_limited_luma_equals_scikit_image():
    from skimage.color import rgb2ycbcr

    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.abs(luma(rgb)[..., 0] - rgb2ycbcr(rgb)[..., 0]).max() < 1e-12


@pytest.mark.parametrize("white", [255.0, 4095.0, 65535.0, 1.0])
def test_limited_luma_spans_16_to_235_of_255_of_white(white):
    ends = luma(np.array([[0.0, 0.0, 0.0], [white, white, white]]), white)
    assert ends[:, 0] / white * 255 == pytest.approx([16, 235])


def test_full_luma_of_white_is_white():
    assert luma_full(np.full((1, 3), 255.0)).item() == pytest.approx(255)


def test_grey_is_its_own_luma():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (luma(grey) == grey).all()
    assert (luma_full(grey) == grey).all()


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)])
def test_every_file_value_survives_quantize(dtype, white):
    values = np.arange(white + 1, dtype=dtype)
    assert (quantize(values.astype(np.float32) / np.float32(white), dtype, white) == values).all()


def test_quantize_rounds_halves_up_and_clips():
    sr = np.array([0.5, 1.5, 2.5, -3.0, 300.0, np.inf]) / 255
    assert quantize(sr, np.uint8, 255).tolist() == [1, 2, 3, 0, 255, 255]


def test_quantize_refuses_nan():
    with pytest.raises(DivergedError, match="1 NaN among 2"):
        quantize(np.array([0.5, np.nan]), np.uint8, 255)
