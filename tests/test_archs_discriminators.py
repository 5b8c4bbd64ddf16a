"""Discriminators: counts, keys, sizes, feature maps, gradients through two views, spectral normalisation."""

from __future__ import annotations

import pytest
import torch
from networks import counts, picture, untaught
from torch import nn
from torch.nn import functional as F

import srkit.archs  # noqa: F401  (registers them)
from srkit.archs.spectral import SpectralConv2d
from srkit.archs.vgg_discriminators import averaged_in_order
from srkit.errors import RefusedError
from srkit.registry import ARCHS

SMALL = {
    "VGGStyleDiscriminator": {"num_feat": 2},
    "VGGAdaptiveDiscriminator": {"channels": [2, 2, 4, 4], "fc_features": [5]},
    "SwishDiscriminator": {"num_feat": 2},
    "SNPatchDiscriminator": {"num_feat": 2},
    "UNetDiscriminatorSN": {"num_feat": 2},
}
LEAST = {"SNPatchDiscriminator": 24, "UNetDiscriminatorSN": 8}


def small(name: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return ARCHS.get(name)(**{**SMALL[name], **options})


def fitting(name: str, seed: int = 1) -> torch.Tensor:
    return picture(2, 3, 128, 128, seed=seed) if name == "VGGStyleDiscriminator" else picture(2, 3, 33, 26, seed=seed)


# UNetDiscriminatorSN: nine convolutions of 3x3 and 4x4 without bias but for the first and last.
UNET = 3 * 9 * 64 + 64 + 16 * (64 * 128 + 128 * 256 + 256 * 512) + 9 * (512 * 256 + 256 * 128 + 128 * 64 + 2 * 64 * 64)


@pytest.mark.parametrize(
    ("name", "options", "parameters", "entries"),
    [
        ("VGGStyleDiscriminator", {}, 14_499_401, 60),
        ("VGGStyleDiscriminator", {"input_size": 256}, 21_055_049, 72),
        ("VGGAdaptiveDiscriminator", {}, 7_196_233, 48),
        ("SwishDiscriminator", {}, 4_689_601, 53),
        ("SNPatchDiscriminator", {}, 2_763_776, 15),
        ("SNPatchDiscriminator", {"num_in_ch": 4}, 2_764_800, 15),
        ("UNetDiscriminatorSN", {}, UNET + 9 * 64 + 1, 28),
    ],
)
def test_parameter_and_entry_counts(name, options, parameters, entries):
    assert counts(lambda: ARCHS.get(name)(**options)) == (parameters, entries)


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SN = ("weight_orig", "weight_u", "weight_v")


def test_vgg_style_keys_are_those_of_published_files():
    wanted = {"conv0_0.weight", "conv0_0.bias", "conv0_1.weight"} | {f"bn0_1.{k}" for k in BN}
    for stage in range(1, 6):
        for half in (0, 1):
            wanted |= {f"conv{stage}_{half}.weight"} | {f"bn{stage}_{half}.{k}" for k in BN}
    wanted |= {f"linear{n}.{k}" for n in (1, 2) for k in ("weight", "bias")}
    assert small("VGGStyleDiscriminator", input_size=256).state_dict().keys() == wanted


def test_vgg_adaptive_keys():
    wanted = {"body.0.conv.weight", "body.0.conv.bias", "fc.0.weight", "fc.0.bias", "fc_last.weight", "fc_last.bias"}
    for layer in range(1, 4):
        wanted |= {f"body.{layer}.conv.weight"} | {f"body.{layer}.bn.{k}" for k in BN}
    assert small("VGGAdaptiveDiscriminator").state_dict().keys() == wanted


def test_swish_keys():
    wanted = {f"{n}.{k}" for n in ("conv_first", "conv_last") for k in ("weight", "bias")}
    for layer in range(7):
        wanted |= {f"body.{layer}.conv.weight", f"body.{layer}.conv.bias"} | {f"body.{layer}.bn.{k}" for k in BN}
    assert small("SwishDiscriminator").state_dict().keys() == wanted


def test_patch_keys():
    wanted = {f"body.{n}.{k}" for n in range(5) for k in SN}
    assert small("SNPatchDiscriminator").state_dict().keys() == wanted


def test_unet_keys_are_those_of_published_files():
    wanted = {f"conv{n}.{k}" for n in range(1, 9) for k in SN} | {
        f"conv{n}.{k}" for n in (0, 9) for k in ("weight", "bias")
    }
    assert small("UNetDiscriminatorSN").state_dict().keys() == wanted


@pytest.mark.parametrize(
    ("name", "size", "logits"),
    [
        ("VGGStyleDiscriminator", (128, 128), (2, 1)),
        ("VGGAdaptiveDiscriminator", (33, 26), (2, 1)),
        ("VGGAdaptiveDiscriminator", (3, 1), (2, 1)),
        ("SwishDiscriminator", (33, 26), (2, 1)),
        ("SwishDiscriminator", (3, 1), (2, 1)),
        ("SNPatchDiscriminator", (256, 256), (2, 1, 30, 30)),
        ("SNPatchDiscriminator", (24, 39), (2, 1, 1, 2)),
        ("UNetDiscriminatorSN", (33, 26), (2, 1, 33, 26)),
        ("UNetDiscriminatorSN", (8, 9), (2, 1, 8, 9)),
    ],
)
def test_logits_of_every_size_it_takes(name, size, logits):
    assert small(name)(picture(2, 3, *size)).shape == logits


@pytest.mark.parametrize(("name", "least"), LEAST.items())
def test_a_smaller_picture_is_refused_with_the_least_size(name, least):
    for size in ((least - 1, 40), (40, least - 1)):
        with pytest.raises(
            RefusedError, match=rf"{name} was shown {size[1]}x{size[0]} pixels and needs at least {least} on"
        ):
            small(name)(picture(1, 3, *size))


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (256, 256)])
def test_vgg_style_refuses_every_other_size(size):
    with pytest.raises(
        RefusedError, match=rf"of input_size 128 was shown {size[1]}x{size[0]} pixels; set gt_size to 128"
    ):
        small("VGGStyleDiscriminator")(picture(1, 3, *size))


def test_vgg_style_takes_two_sizes():
    assert small("VGGStyleDiscriminator", input_size=256)(picture(2, 3, 256, 256)).shape == (2, 1)
    with pytest.raises(RefusedError, match="input_size is 64; it takes 128 or 256, VGGAdaptiveDiscriminator any"):
        small("VGGStyleDiscriminator", input_size=64)


# One map for each convolution before the logits; the patch discriminator's logits are its fifth.
@pytest.mark.parametrize(
    ("name", "maps"),
    [
        ("VGGStyleDiscriminator", 10),
        ("VGGAdaptiveDiscriminator", 4),
        ("SwishDiscriminator", 8),
        ("SNPatchDiscriminator", 5),
        ("UNetDiscriminatorSN", 9),
    ],
)
def test_feature_maps_come_beside_the_same_logits_and_all_teach(name, maps):
    net = small(name).eval()
    x = fitting(name).requires_grad_()
    logits, features = net(x, return_features=True)
    assert torch.equal(logits, net(x))
    assert len(features) == maps
    assert all(level.ndim == 4 for level in features)
    for level in features:
        (gradient,) = torch.autograd.grad(level.square().sum(), x, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any()


def test_patch_logits_are_the_fifth_map():
    logits, features = small("SNPatchDiscriminator")(picture(1, 3, 24, 24), return_features=True)
    assert features[-1] is logits


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns(name):
    net = small(name).eval()  # statistics of the batch would cancel biases before a normalisation
    net(fitting(name)).square().mean().backward()
    assert untaught(net) == []


@pytest.mark.parametrize("name", SMALL)
def test_two_views_of_one_iteration_serve_two_turns(name):
    net = small(name).train()
    sr, gt = fitting(name, seed=2).requires_grad_(), fitting(name, seed=3)
    fake, real = net(sr), net(gt)
    F.softplus(-real).mean().add(F.softplus(fake).mean()).backward(inputs=list(net.parameters()), retain_graph=True)
    assert sr.grad is None
    F.softplus(-fake).mean().backward(inputs=[sr])
    assert sr.grad.isfinite().all()
    assert sr.grad.any()


def test_vgg_adaptive_halves_where_a_channel_count_repeats():
    net = small("VGGAdaptiveDiscriminator", channels=[4, 4, 8, 8, 8, 6])
    _, features = net(picture(2, 3, 32, 32), return_features=True)
    assert [level.shape[1:] for level in features] == [
        (4, 32, 32),
        (4, 16, 16),
        (8, 16, 16),
        (8, 8, 8),
        (8, 4, 4),
        (6, 4, 4),
    ]


def test_vgg_adaptive_follows_its_formula():
    net, x = small("VGGAdaptiveDiscriminator").eval(), picture(1, 3, 30, 28)
    with torch.no_grad():
        flat = x
        for layer, stride in zip(net.body, (1, 2, 1, 2)):
            flat = F.conv2d(flat, layer.conv.weight, layer.conv.bias, stride, padding=1)
            flat = F.leaky_relu(
                flat / (1 + 1e-5) ** 0.5 if layer.bn else flat, 0.2
            )  # fresh statistics: mean 0, variance 1
        flat = F.adaptive_avg_pool2d(flat, (7, 7)).flatten(1)
        wanted = net.fc_last(F.leaky_relu(net.fc[0](flat), 0.2))
        torch.testing.assert_close(net(x), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (14, 21), (5, 3), (1, 16)])
def test_averaging_in_order_is_adaptive_averaging_with_the_same_gradient(size):
    x = picture(2, 3, *size).double().requires_grad_()
    weights = torch.rand(2, 3, 7, 7, dtype=torch.float64)
    ours, torchs = averaged_in_order(x, 7), F.adaptive_avg_pool2d(x, 7)
    torch.testing.assert_close(ours, torchs)
    gradients = [torch.autograd.grad((made * weights).sum(), x)[0] for made in (ours, torchs)]
    torch.testing.assert_close(*gradients)


def test_vgg_adaptive_names_what_does_not_fit():
    with pytest.raises(RefusedError, match="channels must name one convolution or more"):
        small("VGGAdaptiveDiscriminator", channels=[])
    with pytest.raises(RefusedError, match=r"num_in_ch is 0; .*; channels must"):
        small("VGGAdaptiveDiscriminator", num_in_ch=0, fc_features=[0])


def test_swish_averages_over_the_picture_and_a_frame_that_answers_the_bias():
    net = small("SwishDiscriminator").eval()
    with torch.no_grad():
        logits, features = net(picture(1, 3, 32, 16), return_features=True)
        inside = (features[-1] * net.conv_last.weight).sum(dim=1) + net.conv_last.bias
        assert inside.shape == (1, 2, 1)
        frame = 4 * 3 - 2 * 1  # the last map with one more place on every side
        wanted = (inside.sum() + frame * net.conv_last.bias.item()) / (4 * 3)
    assert logits.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("skip_connection", [True, False])
def test_unet_with_torchs_own_spectral_norm_gives_the_same_logits(skip_connection):
    net = small("UNetDiscriminatorSN", skip_connection=skip_connection)
    theirs = nn.ModuleDict({"conv0": nn.Conv2d(3, 2, 3, 1, 1), "conv9": nn.Conv2d(2, 1, 3, 1, 1)})
    for n, (i, o, k, s) in enumerate(
        [
            (2, 4, 4, 2),
            (4, 8, 4, 2),
            (8, 16, 4, 2),
            (16, 8, 3, 1),
            (8, 4, 3, 1),
            (4, 2, 3, 1),
            (2, 2, 3, 1),
            (2, 2, 3, 1),
        ],
        start=1,
    ):
        theirs[f"conv{n}"] = nn.utils.spectral_norm(nn.Conv2d(i, o, k, s, 1, bias=False))
    net.load_state_dict(theirs.state_dict())
    net.eval()
    theirs.eval()

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    with torch.no_grad():
        x = picture(1, 3, 16, 24)
        down = []
        for n in range(4):
            x = F.leaky_relu(theirs[f"conv{n}"](x), 0.2)
            down.append(x)
        for n, beside in ((4, down[2]), (5, down[1]), (6, down[0])):
            x = F.leaky_relu(theirs[f"conv{n}"](up(x)), 0.2) + (beside if skip_connection else 0)
        for n in (7, 8):
            x = F.leaky_relu(theirs[f"conv{n}"](x), 0.2)
        torch.testing.assert_close(net(picture(1, 3, 16, 24)), theirs["conv9"](x), rtol=1e-5, atol=1e-6)


def test_spectral_convolution_trains_as_torchs_old_spectral_norm_does():
    torch.manual_seed(0)
    theirs = nn.utils.spectral_norm(nn.Conv2d(4, 6, 3, bias=True))
    ours = SpectralConv2d(4, 6, 3)
    ours.load_state_dict(theirs.state_dict())
    for seed in range(3):
        x = picture(1, 4, 7, 7, seed=seed)
        a, b = ours(x), theirs(x)
        torch.testing.assert_close(a, b)
        a.square().sum().backward()
        b.square().sum().backward()
        torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def test_spectral_norm_is_1_from_the_first_picture():
    torch.manual_seed(0)
    conv, seen = SpectralConv2d(8, 16, 4, bias=False).eval(), torch.zeros(8 * 16, 8, 4, 4)
    seen.view(128, 128)[range(128), range(128)] = 1  # every entry of the kernel by itself
    with torch.no_grad():
        rows = conv(seen).view(128, 16).T
    assert torch.linalg.matrix_norm(rows, ord=2).item() == pytest.approx(1, abs=0.02)


def test_spectral_norm_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    conv, x = SpectralConv2d(8, 16, 3).eval(), picture(1, 8, 5, 5)
    with torch.no_grad():
        kernel = conv.weight_orig / torch.dot(conv.weight_u, conv.weight_orig.flatten(1) @ conv.weight_v)
        wanted = F.conv2d(x.bfloat16(), kernel.bfloat16(), conv.bias.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(conv(x), wanted)
