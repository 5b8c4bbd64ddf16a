"""ResnetGenerator: counts, keys, formula, axes that change places, the linear interpolation it may start at."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from networks import counts, picture, reach, untaught
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.archs import ResnetGenerator
from srkit.build import build_network, full_arch_options
from srkit.errors import RefusedError
from srkit.imaging.tiles import tiled

SCALES = [(1, 3, 1), (6, 1, 1), (2, 1, 3), (1, 1, 1), (3, 1), (2, 5)]


def small(scale=(1, 3, 1), **options) -> ResnetGenerator:
    """Two features, one block, and normalisations that are no longer at their start."""
    torch.manual_seed(0)
    net = ResnetGenerator(scale=scale, **{"num_feat": 2, "num_block": 1, **options})
    for name, value in net.state_dict().items():
        if "bn" in name and value.is_floating_point():
            nn.init.uniform_(value, 0.5, 1.5)
    return net


def lq_for(scale, batch: int = 1, seed: int = 1) -> Tensor:
    return picture(batch, 1, *(5, 6, 4)[: len(scale)], seed=seed)


# Counts of the two published networks.
@pytest.mark.parametrize(
    ("num_feat", "num_block", "factor", "parameters", "values", "entries"),
    [(16, 4, 6, 65_073, 65_370, 69), (32, 2, 3, 143_585, 143_910, 41)],
)
def test_counts_of_the_published_networks(num_feat, num_block, factor, parameters, values, entries):
    def build():
        return ResnetGenerator(num_feat=num_feat, num_block=num_block, scale=(1, factor, 1))

    assert counts(build) == (parameters, entries)
    assert sum(value.numel() for value in build().state_dict().values()) == values


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("num_feat", "num_block"), [(3, 1), (4, 5)])
def test_counts_follow_the_general_formula(scale, num_feat, num_block):
    f, taps = num_feat, 3 ** len(scale)
    convs = (taps + 1) * f + (2 * num_block + 1) * (taps * f * f + f) + taps * f + 1
    up, norms = math.prod(scale) * f * f + f, (2 * num_block + 1) * 2 * f
    for norm, wanted in (("batch", convs + up + norms), ("instance", convs + up + norms), ("none", convs + up)):
        net = lambda norm=norm: ResnetGenerator(num_feat=f, num_block=num_block, scale=scale, norm=norm)  # noqa: E731
        assert counts(net)[0] == wanted


def test_keys_are_the_same_for_volumes_and_slices():
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    wanted = {f"{n}.{k}" for n in ("conv_first", "conv_body", "upsample.0", "conv_last") for k in ("weight", "bias")}
    wanted |= {f"body.0.conv{n}.{k}" for n in (1, 2) for k in ("weight", "bias")}
    wanted |= {f"{n}.{k}" for n in ("body.0.bn1", "body.0.bn2", "bn_body") for k in bn}
    assert small().state_dict().keys() == small((3, 1)).state_dict().keys() == wanted


def by_hand(net: ResnetGenerator, lq: Tensor) -> Tensor:
    """The network in eval mode from its tensors: a 3x3x3 convolution as a sum over its taps, and so on."""
    axes = lq.ndim - 2

    def conv(x: Tensor, layer: nn.Module) -> Tensor:
        padded = F.pad(x, (1, 1) * axes)
        total = layer.bias.view(1, -1, *(1,) * axes)
        for tap in np.ndindex(*(3,) * axes):
            shifted = padded
            for axis, start in enumerate(tap):
                shifted = shifted.narrow(axis + 2, start, x.shape[axis + 2])
            total = total + torch.einsum("oi,bi...->bo...", layer.weight[(..., *tap)], shifted)
        return total

    def norm(x: Tensor, layer: nn.Module) -> Tensor:
        if isinstance(layer, nn.Identity):
            return x
        shape = (1, -1, *(1,) * axes)
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            mean, var = layer.running_mean.view(shape), layer.running_var.view(shape)
        else:
            places = tuple(range(2, x.ndim))
            mean, var = x.mean(places, keepdim=True), x.var(places, unbiased=False, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * layer.weight.view(shape) + layer.bias.view(shape)

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.2 * x)

    first = x = leaky(conv(lq * net.img_range, net.conv_first))
    for block in net.body:
        x = x + norm(conv(leaky(norm(conv(x, block.conv1), block.bn1)), block.conv2), block.bn2)
    x = first + norm(conv(x, net.conv_body), net.bn_body)
    large = x.new_zeros(*x.shape[:2], *(n * k for n, k in zip(x.shape[2:], net.scale)))
    for phase in np.ndindex(*net.scale):  # every voxel becomes a block, whose voxels have weights of their own
        every = (..., *(slice(start, None, step) for start, step in zip(phase, net.scale)))
        large[every] = torch.einsum("io,bi...->bo...", net.upsample[0].weight[(..., *phase)], x)
    large = large + net.upsample[0].bias.view(1, -1, *(1,) * axes)
    return conv(leaky(large), net.conv_last) / net.img_range


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("scale", [(1, 3, 1), (2, 1, 3), (3, 1)])
def test_the_network_is_the_described_one(scale, norm):
    net, lq = small(scale, num_block=2, norm=norm, img_range=255.0).double().eval(), lq_for(scale, 2).double()
    with torch.no_grad():
        torch.testing.assert_close(net(lq), by_hand(net, lq), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", SCALES)
def test_every_axis_is_enlarged_by_its_own_factor_whatever_the_size(scale):
    net = small(scale).eval()
    for size in ((5, 7, 3), (1, 1, 1), (2, 1, 4)):
        size = size[: len(scale)]
        assert net(picture(2, 1, *size)).shape == (2, 1, *(n * k for n, k in zip(size, scale)))


@pytest.mark.parametrize("residual", ["none", "linear"])
@pytest.mark.parametrize("scale", [(1, 3, 1), (2, 3)])
def test_every_parameter_learns(scale, residual):
    # In eval mode: statistics of the batch would cancel every bias before a normalisation.
    net = small(scale, residual=residual).eval()
    nn.init.constant_(net.conv_last.weight, 0.1)
    net(lq_for(scale)).square().mean().backward()
    assert untaught(net) == []


class AlongOneAxis(nn.Module):
    """Shows a network of volumes a picture whose columns lie along one of its axes."""

    def __init__(self, net: nn.Module, axis: int) -> None:
        super().__init__()
        self.net, self.axis = net, axis + 2

    def forward(self, lq: Tensor) -> Tensor:
        return self.net(lq.unsqueeze(2).movedim(-1, self.axis)).movedim(self.axis, -1)


@pytest.mark.parametrize("residual", ["none", "linear"])
@pytest.mark.parametrize("num_block", [1, 3])
@pytest.mark.parametrize("scale", [(1, 3, 2), (6, 1, 1)])
def test_reach_along_every_axis_of_a_volume_is_the_farthest_lq_voxel_that_matters(scale, num_block, residual):
    net = small(scale, num_block=num_block, residual=residual)
    for axis, factor in enumerate(scale):
        assert reach(AlongOneAxis(net, axis), 1, factor, net.receptive_radius_px) == net.receptive_radius_px


@pytest.mark.parametrize("scale", [(1, 3), (3, 1), (1, 2)])
def test_reach_in_a_slice_is_the_farthest_lq_pixel_that_matters(scale):
    net = small(scale)
    assert reach(net, 1, scale[1], net.receptive_radius_px) == net.receptive_radius_px


def test_tiles_with_its_reach_as_overlap_equal_the_whole_volume():
    net, lq = small(residual="linear").double().eval(), picture(1, 1, 14, 12, 13).double()
    nn.init.normal_(net.conv_last.weight)
    radius = net.receptive_radius_px
    with torch.no_grad():
        parts = tiled(net, lq, scale=net.scale, tile=(12, 12, 11), overlap=(radius,) * 3)
        torch.testing.assert_close(parts, net(lq), rtol=1e-9, atol=1e-12)


def test_instance_normalisation_looks_at_the_whole_volume():
    net, lq = small(norm="instance").double(), picture(1, 1, 4, 4, 30).double().requires_grad_()
    net(lq)[..., 0].sum().backward()
    assert lq.grad[..., -1].any()
    assert net.receptive_radius_px == math.inf


@pytest.mark.parametrize("scale", [(1, 3, 1), (3, 1)])
def test_last_convolution_stays_in_float32_under_autocast(scale):
    net, seen = small(scale, residual="linear").eval(), {}
    for layer in ("conv_first", "conv_last"):
        net.get_submodule(layer).register_forward_hook(lambda m, i, o, layer=layer: seen.update({layer: o.dtype}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sr = net(lq_for(scale))
    assert seen == {"conv_first": torch.bfloat16, "conv_last": torch.float32}
    assert sr.dtype == torch.float32


# The thick axis may be any (M4)


def turned(net: ResnetGenerator, order: tuple[int, ...]) -> ResnetGenerator:
    """The same weights for volumes whose axes stand in another order."""
    other = small([net.scale[axis] for axis in order], residual=net.residual).double().eval()
    axes = (0, 1, *(axis + 2 for axis in order))
    other.load_state_dict({k: v.permute(axes) if v.ndim > 2 else v for k, v in net.state_dict().items()})
    return other


@pytest.mark.parametrize("residual", ["none", "linear"])
def test_an_input_with_its_axes_in_another_order_gives_the_output_in_that_order(residual):
    net, lq = small(residual=residual).double().eval(), lq_for((1, 3, 1)).double()
    nn.init.normal_(net.conv_last.weight)
    with torch.no_grad():
        wanted = net(lq)
        for order in permutations(range(3)):
            axes = (0, 1, *(axis + 2 for axis in order))
            torch.testing.assert_close(
                turned(net, order)(lq.permute(axes)), wanted.permute(axes), rtol=1e-9, atol=1e-12
            )


def test_a_batch_with_another_number_of_axes_is_refused_with_both_numbers():
    with pytest.raises(
        RefusedError, match=r"of scale \[1, 3, 1\] enlarges 3 axes .* \(1, 1, 5, 6\), which has 2; give scale"
    ):
        small()(picture(1, 1, 5, 6))
    with pytest.raises(RefusedError, match=r"of scale \[3, 1\] enlarges 2 axes .* which has 3"):
        small((3, 1))(picture(1, 1, 5, 6, 4))


# Linear interpolation, at which training starts


def interpolated(lq: Tensor, scale: tuple[int, ...]) -> Tensor:
    """Linear interpolation on the block-centred grid by scipy: output voxel i lies at (i + 1/2) / k - 1/2, edges repeated."""
    at = np.meshgrid(
        *((np.arange(n * k) + 0.5) / k - 0.5 for n, k in zip(lq.shape[2:], scale)), indexing="ij", sparse=False
    )
    return torch.from_numpy(map_coordinates(lq[0, 0].numpy(), at, order=1, mode="nearest"))[None, None]


@pytest.mark.parametrize("scale", [*SCALES, (1, 4, 1), (1, 5, 7)])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_an_untrained_residual_network_is_linear_interpolation(scale, norm):
    net, lq = small(scale, norm=norm, residual="linear").double(), lq_for(scale).double()
    with torch.no_grad():
        for training in (True, False):
            torch.testing.assert_close(net.train(training)(lq), interpolated(lq, scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("factor", "middle"), [(2, 1), (3, 1), (5, 2), (6, 3)])
def test_an_untrained_residual_network_continues_a_ramp_on_the_block_centred_grid(factor, middle):
    ramp = torch.arange(6.0).view(1, 1, 1, 6, 1)
    sr = small((1, factor, 1), residual="linear").eval()(ramp).flatten().detach()
    wanted = ((torch.arange(6.0 * factor) + 0.5) / factor - 0.5).clamp(0, 5)
    torch.testing.assert_close(sr, wanted, rtol=0, atol=1e-6)
    if factor % 2:
        assert sr[2 * factor + middle] == 2  # the middle of an odd block lies where its voxel lay


@pytest.mark.parametrize("scale", [(1, 3, 1), (1, 6, 1), (2, 3, 2)])
def test_an_untrained_residual_network_keeps_symmetry_and_the_place_of_a_point(scale):
    net = small(scale, residual="linear").double().eval()
    half = picture(1, 1, 3, 4, 5).double()
    lq = sum(
        half.flip([axis + 2 for axis in axes]) for axes in ((), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    )
    point = torch.zeros(1, 1, 5, 5, 5).double()
    point[..., 1, 2, 3] = 1
    with torch.no_grad():
        sr, spread = net(lq), net(point)[0, 0]
    for axis in range(3):
        torch.testing.assert_close(sr, sr.flip(axis + 2), rtol=0, atol=1e-12)
        places = (torch.arange(5 * scale[axis], dtype=torch.float64) + 0.5) / scale[axis] - 0.5
        share = spread.movedim(axis, 0).flatten(1).sum(1) / spread.sum()
        assert (share * places).sum().item() == pytest.approx(axis + 1, abs=1e-9)


def test_a_residual_network_adds_what_it_makes_to_the_interpolation():
    plain, added = small(img_range=20.0).eval(), small(img_range=20.0, residual="linear").eval()
    added.load_state_dict(plain.state_dict())
    lq = lq_for((1, 3, 1))
    with torch.no_grad():
        torch.testing.assert_close(added(lq) - interpolated(lq, (1, 3, 1)), plain(lq), rtol=0, atol=1e-6)


# Counters of the normalisations (M3)


def test_batch_norm_counts_training_passes_alone():
    net, lq = small(num_block=2), lq_for((1, 3, 1), batch=2)
    for _ in range(3):
        net.train()(lq)
        net.eval()(lq)
    counters = [v.item() for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counters == [3] * 5  # two in each block, one after them


# Options


@pytest.mark.parametrize("scale", [(1, 3, 1), (2, 2, 2), (3, 1), (2, 2)])
def test_the_top_level_scale_reaches_it_with_one_number_per_axis(scale):
    net = build_network("ResnetGenerator", {"num_feat": 2, "num_block": 1}, scale)
    assert net.scale == scale
    assert full_arch_options("ResnetGenerator", {}, scale)["scale"] == list(scale)


def test_all_misfits_are_named_at_once():
    wrong = r"^ResnetGenerator: num_feat is 0; .*; num_block is -1; .*; scale is \[3\]; it takes two or three .*; img_range is 0"
    with pytest.raises(RefusedError, match=wrong):
        ResnetGenerator(num_feat=0, num_block=-1, scale=[3], img_range=0)


@pytest.mark.parametrize("scale", [(), (3,), (1, 0, 1), (1, 1, 1, 2)])
def test_a_scale_that_is_not_two_or_three_numbers_from_1_is_refused(scale):
    with pytest.raises(RefusedError, match="it takes two or three whole numbers, each from 1"):
        ResnetGenerator(scale=scale)


def test_an_interpolation_of_other_channels_cannot_be_added_to():
    assert ResnetGenerator(num_in_ch=2, num_feat=2).eval()(picture(1, 2, 3, 3, 3)).shape == (1, 1, 3, 9, 3)
    with pytest.raises(RefusedError, match="num_out_ch is 1 but num_in_ch is 2; residual: linear needs them equal"):
        ResnetGenerator(num_in_ch=2, residual="linear")
