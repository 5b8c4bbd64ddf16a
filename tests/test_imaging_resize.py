"""Bicubic resizing on arrays made here; published sets are in test_imaging_resize_golden.py."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from srkit.errors import DataError
from srkit.imaging.resize import imresize, mod_crop, nearest_upscale


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def torch_resize(image, scale):
    """Torch's antialiased bicubic (also a = -0.5) on a symmetrically padded picture, its margin cut off again."""
    pad = 12
    padded = torch.from_numpy(np.pad(image, [(pad, pad), (pad, pad), (0, 0)], mode="symmetric")).permute(2, 0, 1)
    wide = torch.nn.functional.interpolate(
        padded[None], scale_factor=float(scale), mode="bicubic", antialias=True, recompute_scale_factor=False
    )
    height, width = (int(n * scale) for n in image.shape[:2])
    edge = int(pad * scale)
    return wide[0, :, edge : edge + height, edge : edge + width].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "scale", [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(2), Fraction(3), Fraction(4)]
)
def test_float_resize_equals_torchs_antialiased_bicubic(scale):
    image = np.random.default_rng(0).random((24, 36, 3))
    assert np.abs(imresize(image, scale) - torch_resize(image, scale)).max() < 1e-12


@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(1, 3), 2, Fraction(3, 4), 1])
@pytest.mark.parametrize("border", ["symmetric", "replicate"])
def test_a_constant_picture_stays_constant(scale, border):
    image = np.full((11, 13, 1), 77, np.uint8)
    assert (imresize(image, scale, border=border) == 77).all()


@pytest.mark.parametrize(("n", "factor", "expected"), [(9, Fraction(1, 2), 5), (10, Fraction(1, 3), 4), (9, 3, 27)])
def test_output_sizes_are_rounded_up(n, factor, expected):
    assert imresize(noise(n, n, 1), factor).shape == (expected, expected, 1)


def test_a_third_as_float_is_exactly_a_third():
    image = noise(30, 27, 3)
    assert (imresize(image, 1 / 3) == imresize(image, Fraction(1, 3))).all()


def test_height_comes_first_and_is_rounded_before_width():
    image = noise(16, 24, 1)
    height_first = imresize(imresize(image, (Fraction(1, 2), 1)), (1, Fraction(1, 2)))
    width_first = imresize(imresize(image, (1, Fraction(1, 2))), (Fraction(1, 2), 1))
    assert (imresize(image, Fraction(1, 2)) == height_first).all()
    assert (height_first != width_first).any()


def test_intermediate_float_rounds_once_at_the_end():
    image = noise(16, 24, 3)
    exact = imresize(image.astype(np.float64), Fraction(1, 2))
    once = np.clip(np.floor(exact + 0.5), 0, 255).astype(np.uint8)
    assert (imresize(image, Fraction(1, 2), intermediate="float") == once).all()
    assert (imresize(image, Fraction(1, 2)) != once).any()


def test_halves_round_up():
    # The weights of x2 are multiples of 1/128 (-3/128 the smallest), so beside a step of 192 stands 192 * 131/128.
    column = np.repeat(np.array([0, 192], np.uint8), 8).reshape(16, 1, 1)
    assert (imresize(column.astype(np.float64), (2, 1)) == 196.5).any()
    enlarged = imresize(column, (2, 1))
    assert 197 in enlarged
    assert 196 not in enlarged


def test_16_bit_rounds_on_the_scale_of_16_bit():
    image = noise(16, 16, 3, dtype=np.uint16)
    small = imresize(image, Fraction(1, 2))
    height = np.clip(np.floor(imresize(image.astype(np.float64), (Fraction(1, 2), 1)) + 0.5), 0, 65535)
    both = np.clip(np.floor(imresize(height, (1, Fraction(1, 2))) + 0.5), 0, 65535)
    assert small.dtype == np.uint16
    assert (small == both).all()


def test_float32_stays_float32_and_is_not_clipped():
    edge = np.zeros((8, 8, 1), np.float32)
    edge[4:] = 1
    result = imresize(edge, 2)
    assert result.dtype == np.float32
    assert result.min() < 0 < 1 < result.max()


def test_borders_differ_only_near_the_edge():
    image = noise(40, 40, 1)
    a, b = (imresize(image, Fraction(1, 2), border=border) for border in ("symmetric", "replicate"))
    assert (a != b).any()
    assert (a[2:-2, 2:-2] == b[2:-2, 2:-2]).all()


def test_mirrored_border_equals_a_picture_padded_with_its_mirror_image():
    image = noise(12, 12, 1)
    padded = np.pad(image, [(8, 8), (8, 8), (0, 0)], mode="symmetric")
    assert (imresize(image, Fraction(1, 2)) == imresize(padded, Fraction(1, 2))[4:-4, 4:-4]).all()


def test_repeated_border_equals_a_picture_padded_with_its_edge():
    image = noise(12, 12, 1)
    padded = np.pad(image, [(8, 8), (8, 8), (0, 0)], mode="edge")
    assert (imresize(image, Fraction(1, 2), border="replicate") == imresize(padded, Fraction(1, 2))[4:-4, 4:-4]).all()


def test_pictures_smaller_than_the_kernel_are_resized():
    assert imresize(noise(1, 3, 3), Fraction(1, 4)).shape == (1, 1, 3)


def test_a_volume_is_resized_along_the_asked_axis_only():
    volume = np.random.default_rng(0).random((6, 5, 8, 1))
    thick = imresize(volume, (1, 1, Fraction(1, 4)))
    assert thick.shape == (6, 5, 2, 1)
    assert np.allclose(thick[2], imresize(volume[2], (1, Fraction(1, 4))))


def test_nearest_upscale_repeats_pixels_per_axis():
    assert nearest_upscale(np.array([[[1], [2]]]), (2, 3))[..., 0].tolist() == [[1, 1, 1, 2, 2, 2]] * 2


def test_mod_crop_cuts_bottom_and_right():
    image = noise(11, 9, 3)
    assert (mod_crop(image, 4) == image[:8, :8]).all()
    assert mod_crop(image, (1, 3)).shape == (11, 9, 3)


def test_mod_crop_refuses_a_picture_smaller_than_the_scale():
    with pytest.raises(DataError, match=r"\(3, 9\).*scale \(4, 4\)"):
        mod_crop(noise(3, 9, 1), 4)


def test_one_factor_too_many_is_refused():
    with pytest.raises(ValueError, match="each of 2 axes"):
        imresize(noise(8, 8, 3), (1, 1, 2))
