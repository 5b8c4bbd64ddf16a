"""RRDBNet: counts, keys, formula, scales, first weights, recomputation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import counts, picture
from torch.nn import functional as F

from srkit.archs.rrdbnet import RRDBNet
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Normalization


def tiny(**options) -> RRDBNet:
    torch.manual_seed(0)
    return RRDBNet(**{"num_feat": 8, "num_block": 2, "num_grow_ch": 4, **options})


# Counts of the published networks; entries: 30 a block, and two for every other convolution.
@pytest.mark.parametrize(
    ("options", "parameters", "entries"),
    [
        ({}, 16_697_987, 702),
        ({"num_block": 16}, 11_662_019, 492),
        ({"upsampler": "pixelshuffle"}, 16_919_555, 702),
        ({"upsampler": "pixelshuffle", "num_block": 16}, 11_883_587, 492),
        ({"scale": 2, "unshuffle_input": False}, 16_661_059, 700),
        ({"scale": 2, "unshuffle_input": False, "num_block": 16}, 11_625_091, 490),
        ({"scale": 2}, 16_703_171, 702),
        ({"scale": 2, "num_block": 16}, 11_667_203, 492),
        ({"scale": 8}, 16_734_915, 704),
        ({"scale": 8, "num_block": 16}, 11_698_947, 494),
        ({"scale": 1}, 16_723_907, 702),
    ],
)
def test_parameter_and_entry_counts(options, parameters, entries):
    assert counts(lambda: RRDBNet(**options)) == (parameters, entries)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"scale": 4}, 2),
        ({"scale": 8}, 3),
        ({"scale": 2}, 2),
        ({"scale": 1}, 2),
        ({"scale": 2, "unshuffle_input": False}, 1),
        ({"scale": 1, "unshuffle_input": False}, 0),
        ({"scale": 4, "upsampler": "pixelshuffle"}, 2),
    ],
)
def test_keys_are_those_of_published_files(options, steps):
    layers = ["conv_first"]
    layers += [f"body.{n}.rdb{m}.conv{k}" for n in range(2) for m in (1, 2, 3) for k in range(1, 6)]
    layers += ["conv_body", *(f"conv_up{n}" for n in range(1, steps + 1)), "conv_hr", "conv_last"]
    assert list(tiny(**options).state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]


def test_eight_times_an_8x8_picture_is_64x64():
    assert tiny(scale=8)(picture(1, 3, 8, 8)).shape == (1, 3, 64, 64)


def leaky(x):
    return F.leaky_relu(x, 0.2)


def body_by_the_paper(net: RRDBNet, x: torch.Tensor) -> torch.Tensor:
    for rrdb in net.body:
        outer = x
        for dense in (rrdb.rdb1, rrdb.rdb2, rrdb.rdb3):
            maps = [x]
            for conv in (dense.conv1, dense.conv2, dense.conv3, dense.conv4):
                maps.append(leaky(conv(torch.cat(maps, 1))))
            x = x + 0.2 * dense.conv5(torch.cat(maps, 1))
        x = outer + 0.2 * x
    return x


@pytest.mark.parametrize("upsampler", ["nearest", "pixelshuffle"])
def test_forward_follows_the_published_formula(upsampler):
    net, lq = tiny(upsampler=upsampler), picture(1, 3, 6, 5)
    with torch.no_grad():
        first = net.conv_first(lq)
        x = first + net.conv_body(body_by_the_paper(net, first))
        for conv in (net.conv_up1, net.conv_up2):
            if upsampler == "nearest":
                x = leaky(conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))
            else:
                x = leaky(torch.pixel_shuffle(conv(x), 2))
        wanted = net.conv_last(leaky(net.conv_hr(x)))
        torch.testing.assert_close(net(lq), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("scale", "factor"), [(2, 2), (1, 4)])
def test_small_scales_see_blocks_of_pixels_as_channels_and_enlarge_by_4(scale, factor):
    net, lq, seen = tiny(scale=scale), picture(1, 3, 8, 12), []
    net.conv_first.register_forward_hook(lambda m, i, o: seen.append(i[0]))
    net(lq)
    # Channel c * factor^2 + row * factor + column holds the pixels at (row, column) of each block of channel c.
    for channel in range(3):
        for row in range(factor):
            for column in range(factor):
                place = channel * factor**2 + row * factor + column
                assert torch.equal(seen[0][0, place], lq[0, channel, row::factor, column::factor])


def test_a_size_that_is_no_multiple_is_filled_up_with_its_edge_pixels():
    net, lq = tiny(scale=2), picture(1, 3, 5, 7)
    full = torch.cat([lq, lq[..., -1:]], -1)
    full = torch.cat([full, full[..., -1:, :]], -2)
    with torch.no_grad():
        assert torch.equal(net(lq), net(full)[..., :10, :14])


def test_body_starts_with_a_tenth_of_kaimings_weights_and_no_bias():
    net = RRDBNet(num_block=1)
    for k, in_ch in enumerate((64, 96, 128, 160, 192), start=1):
        conv = net.body[0].rdb2.get_submodule(f"conv{k}")
        # The standard error of the standard deviation of 18,432 and more normal values is half a percent.
        assert conv.weight.std().item() == pytest.approx(0.1 * math.sqrt(2 / (9 * in_ch)), rel=0.03)
        assert not conv.bias.any()


def test_init_torch_leaves_every_layer_as_torch_makes_it():
    net, plain = tiny(init="torch"), torch.nn.Conv2d(3, 8, 3, padding=1)
    torch.manual_seed(0)
    for layer in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        plain = torch.nn.Conv2d(layer.in_channels, layer.out_channels, 3, padding=1)
        assert torch.equal(layer.weight, plain.weight)
        assert torch.equal(layer.bias, plain.bias)


def test_use_checkpoint_gives_equal_output_and_gradients():
    plain, recomputing, lq = tiny(), tiny(use_checkpoint=True), picture(2, 3, 6, 6)
    outputs = [net(lq) for net in (plain, recomputing)]
    assert torch.equal(*outputs)
    for sr in outputs:
        sr.square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters()):
        assert (a.grad - b.grad).abs().max() <= 1e-6, name


def test_use_checkpoint_keeps_fewer_activations():
    def kept(net: RRDBNet) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            net(picture(1, 3, 16, 16))
        return sum(sizes)

    assert kept(tiny(use_checkpoint=True, num_block=4)) < 0.5 * kept(tiny(num_block=4))


@pytest.mark.parametrize("scale", [1, 2])
def test_tiles_of_unshuffled_input_equal_the_whole_picture(scale):
    """Tiles that did not start where pixels are gathered would gather others."""
    torch.manual_seed(0)
    network = RRDBNet(scale=scale, num_feat=4, num_block=1, num_grow_ch=2)
    reach = network.receptive_radius_px
    lq = np.random.default_rng(0).integers(0, 256, (4 * reach + 3, 3 * reach + 1, 3)).astype(np.uint8)
    cpu = torch.device("cpu")
    common = {
        "normalization": Normalization(),
        "scale": (scale, scale),
        "device": cpu,
        "precision": Precision("fp32", cpu),
    }
    whole = Restorer(network, **common)(lq, 255.0)
    tile, overlap = 2 * reach + 9, reach + 1
    tiled = Restorer(network, **common, tile=(tile, tile), overlap=(overlap, overlap))(lq, 255.0)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
