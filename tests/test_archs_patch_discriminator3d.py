"""PatchDiscriminator3D: counts, keys, sizes, formula, feature maps, gradients of two turns."""

from __future__ import annotations

import pytest
import torch
from networks import counts, picture, untaught
from torch import nn
from torch.nn import functional as F

from srkit.archs import PatchDiscriminator3D
from srkit.errors import RefusedError

PUBLISHED = (128, 192, 128)


def small(**options) -> PatchDiscriminator3D:
    torch.manual_seed(0)
    return PatchDiscriminator3D(**{"num_feat": 2, **options})


def volume(*size: int, seed: int = 1) -> torch.Tensor:
    return picture(2, 1, *(size or (32, 48, 35)), seed=seed)


# Counts of the two published networks, and of the same without their linear layers.
@pytest.mark.parametrize(
    ("options", "parameters", "entries"),
    [
        ({"num_feat": 16, "fixed_size": PUBLISHED}, 698_605, 32),
        ({"num_feat": 3, "fixed_size": PUBLISHED, "last_ch": 24}, 74_344, 32),
        ({"num_feat": 16}, 698_065, 30),
        ({"num_feat": 3}, 26_056, 30),
    ],
)
def test_parameter_and_entry_counts(options, parameters, entries):
    assert counts(lambda: PatchDiscriminator3D(**options)) == (parameters, entries)


@pytest.mark.parametrize(("num_feat", "last_ch", "values"), [(16, 1, 699_089), (3, 24, 74_438)])
def test_published_files_hold_so_many_values(num_feat, last_ch, values):
    net = PatchDiscriminator3D(num_feat=num_feat, fixed_size=PUBLISHED, last_ch=last_ch)
    assert sum(value.numel() for value in net.state_dict().values()) == values


def test_keys():
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {f"body.{n}.conv.{k}" for n in range(4) for k in ("weight", "bias")}
    wanted |= {f"body.{n}.bn.{k}" for n in range(4) for k in bn} | {"conv_last.weight", "conv_last.bias"}
    assert small().state_dict().keys() == wanted
    assert small(fixed_size=(32, 32, 32)).state_dict().keys() == wanted | {"fc.weight", "fc.bias"}


@pytest.mark.parametrize(
    ("size", "logits"),
    [((32, 32, 32), (1, 1, 1)), ((47, 48, 64), (1, 2, 3)), ((65, 33, 79), (3, 1, 3)), ((128, 32, 32), (7, 1, 1))],
)
def test_a_logit_for_every_place_of_any_size(size, logits):
    assert small()(volume(*size)).shape == (2, 1, *logits)


@pytest.mark.parametrize("last_ch", [1, 5])
def test_one_logit_for_a_volume_of_the_fixed_size(last_ch):
    assert small(fixed_size=(32, 48, 64), last_ch=last_ch)(volume(32, 48, 64)).shape == (2, 1)


@pytest.mark.parametrize("size", [(31, 40, 40), (40, 31, 40), (40, 40, 16)])
def test_a_smaller_volume_is_refused_with_its_size_and_the_least(size):
    shown = "x".join(map(str, size))
    with pytest.raises(
        RefusedError, match=f"was shown {shown} and needs a volume of at least 32 voxels along every axis"
    ):
        small()(volume(*size))


def test_a_picture_is_refused():
    with pytest.raises(RefusedError, match="was shown 40x40 and needs a volume"):
        small()(picture(1, 1, 40, 40))


def test_with_a_fixed_size_every_other_is_refused():
    with pytest.raises(
        RefusedError, match=r"of fixed_size \[32, 48, 32\] was shown 48x32x32; set gt_size to fixed_size"
    ):
        small(fixed_size=[32, 48, 32])(volume(48, 32, 32))


def test_all_misfits_are_named_at_once():
    with pytest.raises(RefusedError, match=r"num_feat is 0; .*; last_ch is 24; without fixed_size .*, so it is 1$"):
        small(num_feat=0, last_ch=24)
    for fixed_size in ([32, 32], [32, 31, 32]):
        with pytest.raises(RefusedError, match=r"fixed_size is .*; it takes three numbers of voxels, each from 32$"):
            small(fixed_size=fixed_size)


@pytest.mark.parametrize("options", [{}, {"fixed_size": (32, 48, 35), "last_ch": 2}])
def test_it_follows_its_formula_and_ends_without_a_sigmoid(options):
    net, x = small(**options).eval(), volume()
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if ".bn." in name and value.is_floating_point():
                nn.init.uniform_(value, 0.5, 1.5)
        y = x
        for layer in net.body:
            y = F.conv3d(y, layer.conv.weight, layer.conv.bias, stride=2, padding=1)
            bn = layer.bn
            y = (y - bn.running_mean.view(1, -1, 1, 1, 1)) / torch.sqrt(bn.running_var.view(1, -1, 1, 1, 1) + 1e-5)
            y = y * bn.weight.view(1, -1, 1, 1, 1) + bn.bias.view(1, -1, 1, 1, 1)
            y = torch.where(y > 0, y, 0.2 * y)
        y = F.conv3d(y, net.conv_last.weight, net.conv_last.bias, padding=1)
        if options:
            y = y.flatten(1) @ net.fc.weight.T + net.fc.bias
        torch.testing.assert_close(net(x), y, rtol=1e-4, atol=1e-5)


def test_feature_maps_come_beside_the_same_logits_and_all_teach():
    net, x = small().eval(), volume().requires_grad_()
    logits, features = net(x, return_features=True)
    assert torch.equal(logits, net(x))
    assert [tuple(level.shape[1:]) for level in features] == [
        (2, 16, 24, 17),
        (4, 8, 12, 8),
        (8, 4, 6, 4),
        (16, 2, 3, 2),
    ]
    for level in features:
        (gradient,) = torch.autograd.grad(level.square().sum(), x, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any()


@pytest.mark.parametrize("options", [{}, {"fixed_size": (32, 48, 35), "last_ch": 2}])
def test_every_parameter_learns(options):
    net = small(**options).eval()  # statistics of the batch would cancel biases before a normalisation
    net(volume()).square().mean().backward()
    assert untaught(net) == []


def test_two_views_of_one_iteration_serve_two_turns():
    net = small().train()
    sr, gt = volume(seed=2).requires_grad_(), volume(seed=3)
    fake, real = net(sr), net(gt)
    F.softplus(-real).mean().add(F.softplus(fake).mean()).backward(inputs=list(net.parameters()), retain_graph=True)
    assert sr.grad is None
    F.softplus(-fake).mean().backward(inputs=[sr])
    assert sr.grad.isfinite().all()
    assert sr.grad.any()
