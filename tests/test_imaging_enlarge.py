"""Bicubic enlargement of tensors: the picture `imresize` makes, with gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srkit.imaging.enlarge import enlarge_bicubic
from srkit.imaging.resize import imresize


def both(image: np.ndarray, scale: int, **options) -> tuple[np.ndarray, np.ndarray]:
    """(*S, C) enlarged by each."""
    ours = enlarge_bicubic(torch.from_numpy(image).movedim(-1, 0)[None], scale)
    return ours[0].movedim(0, -1).numpy(), imresize(image, scale, **options)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("size", [(7, 5), (1, 6), (2, 1), (1, 1), (3, 4)])
def test_equals_imresize_to_the_last_bits_of_double_precision(scale, size):
    image = np.random.default_rng(0).random((*size, 2))
    ours, theirs = both(image, scale)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_equals_imresize_bit_for_bit_in_float32(scale):
    image = (np.random.default_rng(1).random((17, 13, 1)) * 255).astype(np.float32)
    ours, theirs = both(image, scale)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_integer_pictures_are_those_rounded_once_and_near_those_rounded_twice(scale):
    image = np.random.default_rng(2).integers(60, 200, (24, 20, 3), dtype=np.uint8)  # no overshoot beyond 0 and 255
    ours = enlarge_bicubic(torch.from_numpy(image / 255).movedim(-1, 0)[None], scale)[0].movedim(0, -1).numpy()
    assert (np.abs(ours * 255 - imresize(image, scale, intermediate="float")) <= 0.5 + 1e-9).all()
    # The first pass is off by half a level at most; the second's weights, of magnitudes up to 1.25 in sum, pass it on.
    assert (np.abs(ours * 255 - imresize(image, scale)) <= 0.5 + 0.5 * 1.25 + 1e-9).all()


def test_a_ramp_stays_a_ramp_without_a_shift():
    ramp = torch.arange(12.0).expand(1, 1, 6, 12)
    out = enlarge_bicubic(ramp, 2)[0, 0, 6, 4:-4]
    centres = (torch.arange(4, 20) + 0.5) / 2 - 0.5
    torch.testing.assert_close(out, centres)


def test_gradients_are_those_of_the_formula():
    x = torch.rand(1, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: enlarge_bicubic(t, 3), x)
