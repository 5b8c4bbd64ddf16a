"""MSRResNet and SRResNet: counts, keys, formulas, first weights."""

from __future__ import annotations

import math

import pytest
import torch
from networks import counts, picture
from torch.nn import functional as F

from srkit.archs.msrresnet import MSRResNet
from srkit.archs.srresnet import SRResNet


# 1,517,571 is BasicSR's figure; at x2 one convolution 64 -> 256 (147,712) is missing, at x3 there is one 64 -> 576
# (332,352) instead of two.
@pytest.mark.parametrize(
    ("upscale", "parameters", "entries"),
    [(4, 1_517_571, 74), (2, 1_517_571 - 147_712, 72), (3, 1_517_571 - 2 * 147_712 + 332_352, 72)],
)
def test_msrresnet_counts(upscale, parameters, entries):
    assert counts(lambda: MSRResNet(upscale=upscale)) == (parameters, entries)


@pytest.mark.parametrize(("upscale", "upconvs"), [(2, ["upconv1"]), (3, ["upconv1"]), (4, ["upconv1", "upconv2"])])
def test_msrresnet_keys_are_those_of_published_files(upscale, upconvs):
    layers = ["conv_first", "body.0.conv1", "body.0.conv2", *upconvs, "conv_hr", "conv_last"]
    net = MSRResNet(num_feat=4, num_block=1, upscale=upscale)
    assert list(net.state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_msrresnet_adds_details_to_the_bilinear_enlargement(upscale):
    net, lq = MSRResNet(num_feat=4, num_block=2, upscale=upscale), picture(1, 3, 5, 6)
    with torch.no_grad():
        x = F.leaky_relu(net.conv_first(lq), 0.1)
        for block in net.body:
            x = x + block.conv2(torch.relu(block.conv1(x)))
        if upscale == 4:
            x = F.leaky_relu(torch.pixel_shuffle(net.upconv1(x), 2), 0.1)
            x = F.leaky_relu(torch.pixel_shuffle(net.upconv2(x), 2), 0.1)
        else:
            x = F.leaky_relu(torch.pixel_shuffle(net.upconv1(x), upscale), 0.1)
        details = net.conv_last(F.leaky_relu(net.conv_hr(x), 0.1))
        base = F.interpolate(lq, scale_factor=upscale, mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(lq), base + details, rtol=1e-5, atol=1e-6)


def test_msrresnet_starts_with_a_tenth_of_kaimings_weights_and_no_bias():
    net = MSRResNet(num_block=1)
    for layer in (m for m in net.modules() if isinstance(m, torch.nn.Conv2d)):
        tolerance = 4 / math.sqrt(2 * layer.weight.numel())  # four standard errors
        wanted = 0.1 * math.sqrt(2 / (9 * layer.in_channels))
        assert layer.weight.std().item() == pytest.approx(wanted, rel=tolerance)
        assert not layer.bias.any()


# 9x9 ends 15,616 and 15,555; blocks of two 3x3 convolutions (36,928), two normalisations (128) and a PReLU of 1;
# 37,056 after them; each doubling 147,712 and a PReLU.
@pytest.mark.parametrize(("upscale", "doublings"), [(1, 0), (2, 1), (4, 2), (8, 3)])
def test_srresnet_counts(upscale, doublings):
    wanted = 15_616 + 1 + 16 * (2 * 36_928 + 2 * 128 + 1) + 37_056 + doublings * 147_713 + 15_555
    entries = 2 + 1 + 16 * (2 * 2 + 2 * 5 + 1) + 7 + doublings * 3 + 2
    assert counts(lambda: SRResNet(upscale=upscale)) == (wanted, entries)


@pytest.mark.parametrize("upscale", [1, 2, 4])
def test_srresnet_follows_the_paper_and_its_last_layer_works_in_minus_1_to_1(upscale):
    torch.manual_seed(0)
    net, lq = SRResNet(num_feat=4, num_block=2, upscale=upscale), picture(2, 3, 6, 5)

    def prelu(x, act):
        return torch.where(x > 0, x, act.weight * x)

    def batch_norm(x, bn):
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)

    with torch.no_grad():
        for i, (name, p) in enumerate(net.named_parameters()):
            if "act" in name or "bn" in name:
                p.fill_(0.1 + 0.05 * i)
        first = x = prelu(F.conv2d(lq, net.conv_first.weight, net.conv_first.bias, padding=4), net.act)
        for block in net.body:
            y = prelu(batch_norm(block.conv1(x), block.bn1), block.act)
            x = x + batch_norm(block.conv2(y), block.bn2)
        x = first + batch_norm(net.conv_body(x), net.bn_body)
        for up in net.upsample:
            x = prelu(torch.pixel_shuffle(up.conv(x), 2), up.act)
        signed = F.conv2d(x, net.conv_last.weight, net.conv_last.bias, padding=4)
        torch.testing.assert_close(net.train()(lq), (signed + 1) / 2, rtol=1e-4, atol=1e-5)
