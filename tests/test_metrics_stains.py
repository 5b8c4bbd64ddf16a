"""PSNR and SSIM of stains: scikit-image's separation, stated ranges, what each stain sees."""

import math

import numpy as np
import pytest
from skimage.color import hed2rgb, rgb2hed

from srkit.errors import DataError
from srkit.metrics import PSNR, StainPSNR, StainSSIM
from srkit.metrics.stains import stain_density, stain_range


def slide(haematoxylin, eosin):
    """(H, W, 3) 0 to 255 from densities (H, W)."""
    return hed2rgb(np.stack([haematoxylin, eosin, np.zeros_like(eosin)], axis=-1)) * 255


def draw(seed=0):
    return np.random.default_rng(seed).uniform(0.02, 0.15, (2, 24, 24))


def test_the_ranges_are_those_of_the_darkest_colour_of_each_stain():
    densest = math.log(255) / math.log(1e6)
    assert stain_range("haematoxylin") == pytest.approx(1.87798274 * densest, rel=1e-6)
    assert stain_range("eosin") == pytest.approx(1.13473037 * densest, rel=1e-6)


@pytest.mark.parametrize(("stain", "channel"), [("haematoxylin", 0), ("eosin", 1)])
def test_densities_are_scikit_images(stain, channel):
    image = np.random.default_rng(0).integers(1, 256, (8, 8, 3)).astype(float)
    np.testing.assert_allclose(stain_density(image, 255, stain)[..., 0], rgb2hed(image / 255)[..., channel], atol=1e-12)


@pytest.mark.parametrize("stain", ["haematoxylin", "eosin"])
def test_no_picture_leaves_the_range(stain):
    corners = np.array([[r, g, b] for r in (0, 255) for g in (0, 255) for b in (0, 255)], float).reshape(2, 4, 3)
    density = stain_density(corners, 255, stain)
    assert density.min() >= 0
    assert density.max() == pytest.approx(stain_range(stain))


def test_an_error_in_eosin_is_none_of_haematoxylin():
    haematoxylin, eosin = draw()
    gt, sr = slide(haematoxylin, eosin), slide(haematoxylin, eosin + 0.05)
    assert StainPSNR("eosin")(sr, gt, 255) == pytest.approx(20 * math.log10(stain_range("eosin") / 0.05), abs=0.01)
    assert StainPSNR("haematoxylin")(sr, gt, 255) > 100
    assert PSNR()(sr, gt, 255) < 40


def test_ssim_of_a_stain_is_1_for_equal_pictures_and_less_for_others():
    gt = slide(*draw())
    assert StainSSIM("haematoxylin")(gt, gt, 255) == pytest.approx(1, abs=1e-12)
    assert StainSSIM("haematoxylin")(slide(*draw(1)), gt, 255) < 0.9


def test_bit_depths_give_the_same_value():
    gt, sr = slide(*draw()), slide(*draw(1))
    assert StainPSNR("eosin")(sr * 257, gt * 257, 65535) == pytest.approx(StainPSNR("eosin")(sr, gt, 255), abs=1e-9)


def test_luma_is_refused():
    with pytest.raises(DataError, match="RGB"):
        StainPSNR("eosin")(np.zeros((12, 12, 1)), np.zeros((12, 12, 1)), 255)
