"""Facts that hold for every 2D generator beside EDSR: gradients, sizes, reach, precision of the last layer."""

from __future__ import annotations

import pytest
import torch
from networks import picture, reach, untaught

import srkit.archs  # noqa: F401  (registers them)
from srkit.build import build_network
from srkit.errors import RefusedError

SMALL = {
    "RRDBNet": {"num_feat": 4, "num_block": 1, "num_grow_ch": 2},
    "MSRResNet": {"num_feat": 4, "num_block": 1},
    "SRResNet": {"num_feat": 4, "num_block": 1},
    "VDSR": {"num_feat": 4, "num_block": 1},
    "FacesSR": {},
}
SCALES = {
    "RRDBNet": (1, 2, 4, 8),
    "MSRResNet": (2, 3, 4),
    "SRResNet": (1, 2, 4, 8),
    "VDSR": (1, 2, 3, 4),
    "FacesSR": (2, 3),
}
EVERY = [(name, scale) for name, scales in SCALES.items() for scale in scales]
CHANNELS = {"VDSR": 1, "FacesSR": 1}


def small(name: str, scale: int = 2, **options):
    torch.manual_seed(0)
    return build_network(name, {**SMALL[name], **options}, (scale, scale))


def lq_for(name: str, *size: int) -> torch.Tensor:
    return picture(2, CHANNELS.get(name, 3), *size)


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_output_is_scale_times_the_input_whatever_its_size(name, scale):
    for height, width in ((5, 7), (8, 4), (1, 3)):
        lq = lq_for(name, height, width)
        assert small(name, scale).eval()(lq).shape == (*lq.shape[:2], height * scale, width * scale)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    # In eval mode: statistics of the batch would cancel every bias before a normalisation.
    net = small(name).eval()
    (net(lq_for(name, 8, 8)) ** 2).mean().backward()
    assert untaught(net) == []


@pytest.mark.parametrize(("name", "scale"), EVERY)
def test_reach_is_the_farthest_lq_pixel_that_matters(name, scale):
    net = small(name, scale)
    radius = net.receptive_radius_px
    assert reach(net, CHANNELS.get(name, 3), scale, radius, phases=getattr(net, "unshuffle", 1)) == radius


@pytest.mark.parametrize("name", SMALL)
def test_last_convolution_stays_in_float32_under_autocast(name):
    net, seen = small(name).eval(), {}
    first, last = ("conv1", "conv4") if name == "FacesSR" else ("conv_first", "conv_last")
    for layer in (first, last):
        net.get_submodule(layer).register_forward_hook(lambda m, i, o, layer=layer: seen.update({layer: o.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = net(lq_for(name, 6, 6))
    assert seen == {first: torch.bfloat16, last: torch.float32}
    assert sr.dtype == torch.float32


@pytest.mark.parametrize("name", SMALL)
def test_forward_leaves_the_weights_as_they_were(name):
    net = small(name).eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    net(lq_for(name, 6, 6))
    assert all(torch.equal(net.state_dict()[k], v) for k, v in before.items())


@pytest.mark.parametrize("name", ["RRDBNet", "VDSR", "FacesSR"])
@pytest.mark.parametrize("scale", [(2, 3), (2, 2, 2)])
def test_a_scale_that_is_not_one_number_for_two_axes_is_refused(name, scale):
    with pytest.raises(RefusedError, match=rf"{name}: scale is .*; it takes one whole number from 1"):
        build_network(name, SMALL[name], scale)


@pytest.mark.parametrize("name", ["RRDBNet", "MSRResNet", "SRResNet", "VDSR"])
def test_all_misfits_are_named_at_once(name):
    with pytest.raises(RefusedError, match=rf"^{name}: .*num_feat is 0; it must be at least 1; num_block is -1"):
        small(name, num_feat=0, num_block=-1)


@pytest.mark.parametrize(
    ("name", "scale", "message"),
    [
        ("RRDBNet", 3, "scale is 3; it enlarges by 1, 2, 4 or 8"),
        ("RRDBNet", 16, "scale is 16"),
        ("MSRResNet", 8, "upscale is 8; MSRResNet enlarges by 2, 3 or 4"),
        ("SRResNet", 3, r"upscale is 3; SRResNet enlarges by a power of two"),
        ("SRResNet", 6, "upscale is 6"),
    ],
)
def test_an_enlargement_it_cannot_make_is_refused(name, scale, message):
    with pytest.raises(RefusedError, match=f"{name}: {message}"):
        small(name, scale)
