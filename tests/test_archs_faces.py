"""FacesSR: counts, keys, the published formula, and its frame."""

from __future__ import annotations

import pytest
import torch
from networks import counts, picture
from torch.nn import functional as F

from srkit.archs.faces_sr import FacesSR
from srkit.errors import RefusedError


def net_of(**options) -> FacesSR:
    torch.manual_seed(0)
    return FacesSR(**options)


def test_parameter_and_entry_counts():
    assert counts(FacesSR) == (400 + 6_288 + 6_280 + 393, 8)
    assert counts(lambda: FacesSR(padding="reflect")) == (13_361, 8)


def test_keys_and_shapes_are_those_of_the_published_model():
    assert {k: tuple(v.shape) for k, v in net_of().state_dict().items()} == {
        "conv1.weight": (8, 1, 7, 7),
        "conv1.bias": (8,),
        "conv2.weight": (16, 8, 7, 7),
        "conv2.bias": (16,),
        "conv3.weight": (8, 16, 7, 7),
        "conv3.bias": (8,),
        "conv4.weight": (1, 8, 7, 7),
        "conv4.bias": (1,),
    }


def test_output_is_the_published_formula_on_luma_in_minus_1_to_1():
    net, lq = net_of(), picture(2, 1, 9, 7)
    x = ((lq - 0.5) / 0.5).repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.no_grad():
        for conv in (net.conv1, net.conv2, net.conv3, net.conv4):
            x = torch.tanh(F.conv2d(x, conv.weight, conv.bias, padding=3))
        assert (net(lq) * 2 - 1 - x).abs().max() <= 1e-6


@pytest.mark.parametrize("grey", [0.0, 0.3, 1.0])
def test_with_reflection_a_uniform_picture_stays_uniform_up_to_its_border(grey):
    with torch.no_grad():
        sr = net_of(padding="reflect")(torch.full((1, 1, 10, 12), grey))
    assert sr.max() - sr.min() <= 1 / 255


def test_with_zeros_a_uniform_white_picture_gets_a_frame():
    with torch.no_grad():
        sr = net_of()(torch.ones(1, 1, 16, 16))[0, 0]
    assert (sr[12:-12, 12:-12] - sr[16, 16]).abs().max() <= 1e-6
    assert (sr[0] - sr[16, 16]).abs().max() > 1 / 255


def test_reflection_changes_nothing_away_from_the_border():
    zeros, reflect, lq = net_of(), net_of(padding="reflect"), picture(1, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(reflect(lq)[..., 12:-12, 12:-12], zeros(lq)[..., 12:-12, 12:-12])


def test_a_picture_too_small_to_be_reflected_is_refused_with_the_least_size():
    net = net_of(padding="reflect")
    assert net(picture(1, 1, 2, 2)).shape == (1, 1, 4, 4)
    with pytest.raises(RefusedError, match=r"FacesSR: a picture of 5x1 pixels is too small .* needs 2 on each side"):
        net(picture(1, 1, 1, 5))
