"""EDSR: sizes, keys, ranges, refusals, and what the rest of srkit relies on."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from srkit.archs.edsr import EDSR
from srkit.errors import RefusedError
from srkit.registry import ARCHS


def tiny(**options) -> EDSR:
    torch.manual_seed(0)
    return EDSR(**{"num_feat": 8, "num_block": 2, "upscale": 2, **options})


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_registered_under_its_class_name():
    assert ARCHS.get("EDSR") is EDSR


# Counts and entries of the published networks: Lim et al.'s 43 M (x4, 256/32) and 1.5 M (x4, 64/16) among them.
@pytest.mark.parametrize(
    ("num_feat", "num_block", "channels", "upscale", "parameters", "entries"),
    [
        (256, 32, 3, 2, 40_729_603, 136),
        (256, 32, 3, 3, 43_680_003, 136),
        (256, 32, 3, 4, 43_089_923, 138),
        (256, 32, 3, 8, 45_450_243, 140),
        (64, 16, 3, 2, 1_369_859, 72),
        (64, 16, 3, 3, 1_554_499, 72),
        (64, 16, 3, 4, 1_517_571, 74),
        (64, 16, 3, 8, 1_665_283, 76),
        (64, 16, 1, 2, 1_367_553, 72),
        (64, 16, 1, 4, 1_515_265, 74),
    ],
)
def test_parameter_and_entry_counts(num_feat, num_block, channels, upscale, parameters, entries):
    with torch.device("meta"):
        net = EDSR(channels, channels, num_feat, num_block, upscale)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert len(net.state_dict()) == entries


@pytest.mark.parametrize(
    ("upscale", "upsample"), [(2, ["0"]), (3, ["0"]), (4, ["0", "2"]), (8, ["0", "2", "4"]), (1, [])]
)
def test_keys_are_the_family_s(upscale, upsample):
    layers = ["conv_first", "body.0.conv1", "body.0.conv2", "body.1.conv1", "body.1.conv2", "conv_after_body"]
    layers += [f"upsample.{n}" for n in upsample] + ["conv_last"]
    assert list(tiny(upscale=upscale).state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]


@pytest.mark.parametrize("upscale", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_output_is_upscale_times_the_input(upscale, channels):
    net = tiny(upscale=upscale, num_in_ch=channels, num_out_ch=channels)
    assert net(picture(2, channels, 5, 7)).shape == (2, channels, 5 * upscale, 7 * upscale)


def test_forward_follows_the_published_formula():
    net = tiny(res_scale=0.1)
    lq = picture(1, 3, 6, 6)
    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    with torch.no_grad():
        first = x = net.conv_first((lq - mean) * 255)
        for block in net.body:
            x = x + 0.1 * block.conv2(torch.relu(block.conv1(x)))
        x = net.conv_last(torch.pixel_shuffle(net.upsample[0](net.conv_after_body(x) + first), 2))
        torch.testing.assert_close(net(lq), x / 255 + mean, rtol=1e-5, atol=1e-6)


def test_all_zero_weights_give_the_mean():
    net = tiny(rgb_mean=(0.1, 0.2, 0.3))
    for p in net.parameters():
        nn.init.zeros_(p)
    assert net(picture(1, 3, 4, 4))[0, :, 2, 2].tolist() == pytest.approx([0.1, 0.2, 0.3])


def test_body_starts_with_torch_s_default_values():
    net = tiny(num_feat=32)
    torch.manual_seed(0)
    plain = [nn.Conv2d(3, 32, 3, padding=1), *(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))]
    for ours, torch_s in zip([net.conv_first, *(c for b in net.body for c in (b.conv1, b.conv2))], plain):
        torch.testing.assert_close(ours.weight, torch_s.weight, rtol=0, atol=0)
        torch.testing.assert_close(ours.bias, torch_s.bias, rtol=0, atol=0)


def test_mean_is_a_buffer_that_follows_the_network_but_stays_out_of_files():
    net = tiny()
    assert dict(net.named_buffers()).keys() == {"mean"}
    assert "mean" not in net.state_dict()
    assert net.double().mean.dtype == torch.float64


@pytest.mark.parametrize("rgb_mean", [(0.3, 0.4, 0.5), (0.4,)])
def test_grey_takes_one_mean_or_the_average_of_three(rgb_mean):
    net = tiny(num_in_ch=1, num_out_ch=1, rgb_mean=rgb_mean)
    assert net.mean.shape == (1, 1, 1, 1)
    assert net.mean.item() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"upscale": 5}, "upscale is 5; EDSR enlarges by 3 or a power of two"),
        ({"upscale": 6}, "upscale is 6"),
        ({"upscale": 0}, "upscale is 0"),
        ({"rgb_mean": (0.5, 0.5)}, "rgb_mean has 2 values; num_in_ch 3 needs three values"),
        ({"rgb_mean": (0.5,)}, "rgb_mean has 1 values; num_in_ch 3 needs three"),
        ({"num_in_ch": 1, "num_out_ch": 1, "rgb_mean": (0.5, 0.5)}, "needs one value, or three to average"),
        ({"num_in_ch": 4, "num_out_ch": 4}, "num_in_ch is 4"),
        ({"num_out_ch": 1}, "num_out_ch is 1 but num_in_ch is 3"),
        ({"num_block": 0}, "num_block 0 must be at least 1"),
        ({"img_range": 0.0}, "img_range is 0.0"),
    ],
)
def test_misfits_are_refused_by_name(options, message):
    with pytest.raises(RefusedError, match=message):
        tiny(**options)


def test_all_misfits_are_named_at_once():
    with pytest.raises(RefusedError, match=r"rgb_mean has 4 .*; upscale is 7"):
        tiny(upscale=7, rgb_mean=(0, 0, 0, 0))


def test_use_checkpoint_gives_equal_output_and_gradients():
    plain, recomputing = tiny(), tiny(use_checkpoint=True)
    lq, gt = picture(2, 3, 8, 8), picture(2, 3, 16, 16)
    for net in (plain, recomputing):
        (net(lq) - gt).abs().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), recomputing.parameters()):
        assert (a.grad - b.grad).abs().max() <= 1e-6, name


def test_use_checkpoint_keeps_fewer_activations():
    def kept(net: EDSR) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            net(picture(1, 3, 16, 16))
        return sum(sizes)

    assert kept(tiny(use_checkpoint=True, num_block=8)) < 0.6 * kept(tiny(num_block=8))


def test_forward_leaves_every_attribute_as_it_was():
    net = tiny()
    attributes, buffers = dict(vars(net)), dict(net.named_buffers())
    state = {k: v.clone() for k, v in net.state_dict().items()}
    net(picture(1, 3, 4, 4))
    assert all(vars(net)[k] is v for k, v in attributes.items())
    assert vars(net).keys() == attributes.keys()
    assert all(net.get_buffer(k) is v for k, v in buffers.items())
    assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_traced_network_gives_the_same_picture_at_another_size(channels, use_checkpoint):
    net = tiny(num_in_ch=channels, num_out_ch=channels, use_checkpoint=use_checkpoint).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch announces that TorchScript is old
        traced = torch.jit.trace(net, picture(1, channels, 5, 6))
    lq = picture(1, channels, 7, 9)
    torch.testing.assert_close(traced(lq), net(lq))


@pytest.mark.parametrize("use_checkpoint", [False, True])
def test_scripted_network_gives_the_same_picture(use_checkpoint):
    net, lq = tiny(use_checkpoint=use_checkpoint).eval(), picture(1, 3, 7, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net)
    torch.testing.assert_close(scripted(lq), net(lq))


def test_last_convolution_stays_in_float32_under_autocast():
    net, seen = tiny(), {}
    net.body[0].conv1.register_forward_hook(lambda m, i, o: seen.update(body=o.dtype))
    net.conv_last.register_forward_hook(lambda m, i, o: seen.update(last=o.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = net(picture(1, 3, 6, 6))
    assert seen == {"body": torch.bfloat16, "last": torch.float32}
    assert sr.dtype == torch.float32


@pytest.mark.parametrize("upscale", [1, 2, 3, 4, 8])
def test_receptive_radius_is_the_farthest_input_pixel_that_matters(upscale):
    net = tiny(upscale=upscale, num_feat=4, num_block=1).double()
    for p in net.parameters():  # all positive: no path through the network cancels another
        nn.init.constant_(p, 0.01)
    radius = net.receptive_radius_px
    side = 2 * radius + 5
    middle = side // 2
    lq = torch.ones(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    net(lq)[..., middle * upscale, middle * upscale : (middle + 1) * upscale].sum().backward()
    columns = lq.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
    assert (middle - columns.min().item(), columns.max().item() - middle) == (radius, radius)
