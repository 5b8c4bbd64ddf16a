"""The edge-guided networks: counts and sizes, ranges, the frozen edge network, published files."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from networks import counts, picture, reach, untaught
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked_spectral_norm

from srkit.archs.edge_informed import EdgeInformedSR
from srkit.archs.edge_network import EdgeGenerator
from srkit.archs.edge_srgan import EdgeGuidedSRResNet, EdgeSRGAN
from srkit.archs.spectral import SpectralConv2d, SpectralConvTranspose2d
from srkit.engine.model_file import load_weights, read_model
from srkit.errors import RefusedError
from srkit.imaging.edges import canny
from srkit.imaging.resize import imresize
from srkit.registry import ARCHS

NETWORKS = [EdgeGenerator, EdgeSRGAN, EdgeInformedSR]


def small(cls: type[nn.Module], **options) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"num_feat": 4, "num_block": 2}
    if cls is EdgeSRGAN:
        sizes |= {"edge_num_feat": 4, "edge_num_block": 1}
    return cls(**{**sizes, "upscale": 2, **options})


def stripes(height: int, width: int) -> Tensor:
    """A picture with edges: bright and dark bands of changing width, and some noise."""
    row = torch.sin(torch.linspace(0, 3, width) ** 2 * 3).sign() * 0.3 + 0.5
    return (row.expand(1, 3, height, width) + 0.1 * (picture(1, 3, height, width) - 0.5)).contiguous()


def seen_by(module: nn.Module, run) -> list[Tensor]:
    """Inputs of a module while `run()` runs."""
    inputs: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, given: inputs.extend(t.detach() for t in given))
    run()
    handle.remove()
    return inputs


@pytest.mark.parametrize("cls", NETWORKS)
def test_registered_under_their_class_names(cls):
    assert ARCHS.get(cls.__name__) is cls


@pytest.mark.parametrize(
    ("build", "parameters", "entries"),
    [
        (EdgeGenerator, 10_764_225, 70),
        (lambda: EdgeGuidedSRResNet(64, 20, 4), 3_562_719, 402),
        (lambda: EdgeGuidedSRResNet(64, 16, 4), 2_970_586, 327),
        (EdgeInformedSR, 10_774_595, 44),
        (EdgeSRGAN, 10_764_225 + 3_562_719, 70 + 402),
        (lambda: EdgeInformedSR(edges="predicted"), 10_764_225 + 10_774_595, 70 + 44),
    ],
)
def test_parameter_and_entry_counts(build, parameters, entries):
    assert counts(build) == (parameters, entries)


@pytest.mark.parametrize("upscale", [2, 4, 8])
@pytest.mark.parametrize("cls", NETWORKS)
@pytest.mark.parametrize("size", [(6, 7), (9, 5)])
def test_output_is_exactly_upscale_times_the_input_also_for_odd_sides(cls, upscale, size):
    channels = 1 if cls is EdgeGenerator else 3
    out = small(cls, upscale=upscale)(picture(2, 3, *size))
    assert out.shape == (2, channels, size[0] * upscale, size[1] * upscale)
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("cls", NETWORKS)
def test_a_picture_too_small_for_the_layers_is_refused(cls):
    with pytest.raises(RefusedError, match=r"8x40 pixels is too small; .* 9 or more per side"):
        small(cls, **({"edges": "predicted"} if cls is EdgeInformedSR else {}))(picture(1, 3, 4, 20))


@pytest.mark.parametrize("cls", NETWORKS)
def test_counts_below_one_are_refused(cls):
    with pytest.raises(RefusedError, match="num_block is 0; it must be at least 1"):
        small(cls, num_block=0)


# What the networks see


def test_the_edge_network_sees_the_signed_picture_and_its_canny_edges_with_every_pixel_repeated():
    net, lq = small(EdgeGenerator, upscale=4), stripes(20, 24)
    (seen,) = seen_by(net.encoder, lambda: net(lq))
    assert torch.equal(seen[:, :3, ::4, ::4], lq * 2 - 1)
    assert torch.equal(seen[:, 3:, 3::4, 3::4], canny(lq))
    assert seen[:, 3:].unique().tolist() == [0, 1]


def test_input_range_unit_leaves_the_picture_as_it_is():
    net, lq = small(EdgeGenerator, input_range="unit"), stripes(20, 24)
    (seen,) = seen_by(net.encoder, lambda: net(lq))
    assert torch.equal(seen[:, :3, ::2, ::2], lq)


def test_training_and_inference_see_the_same_edges_of_a_crop():
    net, crop = small(EdgeSRGAN), stripes(32, 32)[..., 4:24, 6:30]
    maps = [seen_by(net.train(mode).edge.encoder, lambda: net(crop))[0][:, 3:] for mode in (True, False)]
    assert torch.equal(*maps)
    assert torch.equal(maps[0][..., ::2, ::2], canny(crop))
    assert maps[0].any()


def test_the_generator_of_edge_srgan_sees_picture_and_predicted_map_from_minus_one_to_one():
    net, lq = small(EdgeSRGAN).eval(), stripes(20, 24)
    picture_seen, map_seen = seen_by(net.generator, lambda: net(lq))
    assert torch.equal(picture_seen, lq * 2 - 1)
    assert torch.equal(map_seen, net.edge(lq) * 2 - 1)


def test_edge_srgan_turns_minus_one_to_one_back_into_zero_to_one():
    net = small(EdgeSRGAN).eval()
    for bias in (-0.5, 0.25):  # all weights zero: the output is tanh of the last bias
        nn.init.zeros_(net.generator.conv_last.weight)
        nn.init.constant_(net.generator.conv_last.bias, math.atanh(bias))
        torch.testing.assert_close(net(stripes(10, 12)), torch.full((1, 3, 20, 24), (bias + 1) / 2))


def test_with_a_global_skip_edge_srgan_starts_as_bicubic_and_adds_to_it():
    network = EdgeSRGAN(4, 4, 2, 4, 1, global_skip=True).eval()
    lq = picture(1, 3, 12, 16)
    bicubic = imresize(lq[0].permute(1, 2, 0).numpy(), 2, intermediate="float")
    with torch.no_grad():
        torch.testing.assert_close(network(lq)[0].permute(1, 2, 0).numpy(), bicubic, atol=1e-5, rtol=0)
        network.generator.conv_last.bias.fill_(0.1)
        raised = network(lq)[0].permute(1, 2, 0).numpy()
    torch.testing.assert_close(raised, bicubic + math.tanh(0.1), atol=1e-5, rtol=0)


def test_edge_informed_sr_sees_single_pixels_of_lq_on_black_and_the_repeated_edges():
    net, lq = small(EdgeInformedSR, upscale=4), stripes(20, 24)
    (seen,) = seen_by(net.encoder, lambda: net(lq))
    assert torch.equal(seen[:, :3, ::4, ::4], lq)
    assert torch.count_nonzero(seen[:, :3]) == torch.count_nonzero(lq)
    assert torch.equal(seen[:, 3:, 1::4, 2::4], canny(lq))


def test_edge_informed_sr_is_half_of_tanh_plus_one():
    net = small(EdgeInformedSR)
    nn.init.zeros_(net.conv_last.weight)
    nn.init.constant_(net.conv_last.bias, math.atanh(0.5))
    torch.testing.assert_close(net(stripes(10, 12)), torch.full((1, 3, 20, 24), 0.75))


def test_a_predicted_map_guides_edge_informed_sr():
    net, lq = small(EdgeInformedSR, edges="predicted").eval(), stripes(20, 24)
    (seen,) = seen_by(net.encoder, lambda: net(lq))
    assert torch.equal(seen[:, 3:], net.edge(lq))
    assert net.edge.input_range == "unit"


@pytest.mark.parametrize(
    ("cls", "options"), [(EdgeSRGAN, {}), (EdgeInformedSR, {}), (EdgeInformedSR, {"edges": "predicted"})]
)
def test_a_given_guide_takes_the_place_of_the_networks_own(cls, options):
    net, lq = small(cls, **options).eval(), stripes(20, 24)
    guide = net.guide(lq)
    assert guide.shape == (1, 1, 40, 48)
    assert torch.equal(net(lq, guide), net(lq))
    assert not torch.equal(net(lq, 1 - guide), net(lq))


# The edge network inside


@pytest.mark.parametrize(("cls", "options"), [(EdgeSRGAN, {}), (EdgeInformedSR, {"edges": "predicted"})])
def test_the_edge_network_inside_stays_as_it_is_while_the_rest_trains(cls, options):
    net = small(cls, **options)
    net.train()
    before = {name: value.clone() for name, value in net.edge.state_dict().items()}
    net(picture(2, 3, 10, 12)).square().mean().backward()
    assert net.training
    assert not net.edge.training
    assert all(p.grad is None and not p.requires_grad for p in net.edge.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.edge.state_dict().items())
    assert all(name.startswith("edge.") for name in untaught(net))


@pytest.mark.parametrize(("cls", "options"), [(EdgeSRGAN, {}), (EdgeInformedSR, {"edges": "predicted"})])
def test_train_edge_teaches_it_too(cls, options):
    net = small(cls, train_edge=True, **options)
    before = net.edge.encoder[1].weight_u.clone()
    net(stripes(16, 20)).square().mean().backward()
    silenced = {f"edge.{n}" for n in normalised_biases(net.edge)} | set(normalised_biases(net))
    assert set(untaught(net)) <= silenced
    assert not torch.equal(net.edge.encoder[1].weight_u, before)


def normalised_biases(net: nn.Module) -> list[str]:
    """Biases in front of a normalisation, which takes them off again: their gradient is rounding noise or zero."""
    return [n for n, _ in net.named_parameters() if n.endswith(".bias") and "conv_last" not in n]


def test_the_edge_network_learns_from_every_weight():
    net = small(EdgeGenerator)
    net(stripes(16, 20)).square().mean().backward()
    assert set(untaught(net)) <= set(normalised_biases(net))


@pytest.mark.parametrize("cls", NETWORKS)
def test_a_forward_in_eval_mode_changes_no_entry(cls):
    net = small(cls).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(stripes(10, 12))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("cls", NETWORKS)
def test_a_network_can_be_copied_after_a_training_forward(cls):
    net, lq = small(cls), stripes(10, 12)
    net(lq).mean().backward()
    twin = copy.deepcopy(net).eval()
    assert torch.equal(twin(lq), net.eval()(lq))


@pytest.mark.parametrize("cls", NETWORKS)
def test_under_autocast_the_last_convolution_stays_in_float32(cls):
    net, types = small(cls).eval(), []
    last = net.generator.conv_last if cls is EdgeSRGAN else net.conv_last
    last.register_forward_hook(lambda _, __, out: types.append(out.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = net(stripes(12, 16))
    assert types == [torch.float32]
    assert (rounded - net(stripes(12, 16))).abs().max() < 0.05


@pytest.mark.parametrize(("num_block", "upscale"), [(1, 2), (4, 2), (4, 4), (8, 8), (5, 4)])
def test_receptive_radius_is_the_farthest_input_pixel_that_matters_once_the_guide_is_given(num_block, upscale):
    class Guided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = EdgeSRGAN(2, num_block, upscale, edge_num_feat=1, edge_num_block=1)

        def forward(self, lq: Tensor) -> Tensor:
            return self.net(lq, lq.new_zeros(1, 1, lq.shape[2] * upscale, lq.shape[3] * upscale))

    net = Guided()
    assert reach(net, 3, upscale, net.net.receptive_radius_px) == net.net.receptive_radius_px


@pytest.mark.parametrize("cls", [EdgeGenerator, EdgeInformedSR])
def test_instance_normalisation_reaches_everywhere(cls):
    net = small(cls)
    assert net.receptive_radius_px == math.inf
    lq = stripes(40, 40).requires_grad_()
    net(lq)[..., 0, 0].sum().backward()
    assert lq.grad[..., -1, -1].abs().sum() > 0


# Published files


def made_by(spectral_norm, num_feat: int, num_block: int) -> nn.Module:
    """The edge network as its paper describes it, with the names of published files."""

    class Block(nn.Module):
        def __init__(self, ch: int) -> None:
            super().__init__()
            self.conv_block = nn.Sequential(
                nn.ReflectionPad2d(2), spectral_norm(nn.Conv2d(ch, ch, 3, dilation=2, bias=False)), nn.InstanceNorm2d(ch),
                nn.ReLU(), nn.ReflectionPad2d(1), spectral_norm(nn.Conv2d(ch, ch, 3, bias=False)), nn.InstanceNorm2d(ch),
            )  # fmt: skip

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv_block(x)

    class Published(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            n = num_feat
            norm = nn.InstanceNorm2d
            self.encoder = nn.Sequential(
                nn.ReflectionPad2d(3), spectral_norm(nn.Conv2d(4, n, 7)), norm(n), nn.ReLU(),
                spectral_norm(nn.Conv2d(n, 2 * n, 4, 2, 1)), norm(2 * n), nn.ReLU(),
                spectral_norm(nn.Conv2d(2 * n, 4 * n, 4, 2, 1)), norm(4 * n), nn.ReLU(),
            )  # fmt: skip
            self.middle = nn.Sequential(*(Block(4 * n) for _ in range(num_block)))
            self.decoder = nn.Sequential(
                spectral_norm(nn.ConvTranspose2d(4 * n, 2 * n, 4, 2, 1)), norm(2 * n), nn.ReLU(),
                spectral_norm(nn.ConvTranspose2d(2 * n, n, 4, 2, 1)), norm(n), nn.ReLU(),
                nn.ReflectionPad2d(3), nn.Conv2d(n, 1, 7),
            )  # fmt: skip

        def forward(self, lq: Tensor) -> Tensor:
            x = F.interpolate(torch.cat([lq * 2 - 1, canny(lq)], 1), scale_factor=4)
            return torch.sigmoid(self.decoder(self.middle(self.encoder(x))))

    return Published()


@pytest.mark.parametrize("spectral_norm", [hooked_spectral_norm, parametrizations.spectral_norm])
def test_a_published_edge_network_of_either_style_gives_the_same_map(spectral_norm, tmp_path):
    torch.manual_seed(0)
    published = made_by(spectral_norm, 4, 3)
    published(stripes(12, 16))  # a training forward: the singular vectors are no longer the first ones
    torch.save({"iteration": 7, "generator": published.state_dict()}, tmp_path / "EdgeModel_gen.pth")
    ours = EdgeGenerator(4, 3, 4)
    assert load_weights(ours, read_model(tmp_path / "EdgeModel_gen.pth")) == []
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(stripes(12, 16)), published.eval()(stripes(12, 16)), rtol=0, atol=1e-6)


class PublishedGenerator(nn.Module):
    """Edge.SRGAN's generator for x4 and four blocks, from its description, with the names of its files."""

    def __init__(self) -> None:
        super().__init__()

        def block(ch: int) -> nn.ModuleDict:
            conv = [nn.Conv2d(ch, ch, 3, padding=1) for _ in range(2)]
            norm = [nn.BatchNorm2d(ch) for _ in range(2)]
            return nn.ModuleDict(
                {"conv1": conv[0], "bn1": norm[0], "prelu": nn.PReLU(), "conv2": conv[1], "bn2": norm[1]}
            )

        self.conv1, self.prelu = nn.Conv2d(3, 64, 9, padding=4), nn.PReLU()
        for number in range(1, 5):
            setattr(self, f"residual_block{number}", block(64))
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64)
        for number in (1, 2):
            setattr(
                self,
                f"upsample{number}",
                nn.ModuleDict({"conv": nn.Conv2d(64, 256, 3, padding=1), "prelu": nn.PReLU()}),
            )
        self.conv3 = nn.Conv2d(65, 128, 3, padding=1)
        self.residual_block_edges1 = block(128)
        self.conv4, self.bn4 = nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128)
        self.conv5 = nn.Conv2d(128, 3, 9, padding=4)

    def forward(self, lq: Tensor, edges: Tensor) -> Tensor:
        def through(block: nn.ModuleDict, x: Tensor) -> Tensor:
            return x + block["bn2"](block["conv2"](block["prelu"](block["bn1"](block["conv1"](x)))))

        first = x = self.prelu(self.conv1(lq))
        for number in range(1, 5):
            x = through(getattr(self, f"residual_block{number}"), x)
        x = self.bn2(self.conv2(x)) + first
        for up in (self.upsample1, self.upsample2):
            x = up["prelu"](F.pixel_shuffle(up["conv"](x), 2))
        merged = self.prelu(self.conv3(torch.cat([x, edges], 1)))
        x = self.bn4(self.conv4(through(self.residual_block_edges1, merged))) + merged
        return torch.tanh(self.conv5(x))


def test_a_published_generator_gives_the_same_picture(tmp_path):
    torch.manual_seed(0)
    published = PublishedGenerator()
    lq, edges = picture(2, 3, 6, 7) * 2 - 1, picture(2, 1, 24, 28) * 2 - 1
    published(lq, edges)  # moves the statistics of batch normalisation away from their start
    file = {"epoch": 3, "state_dict": published.state_dict(), "optim_dict": {}}
    torch.save(file, tmp_path / "G_last.pth.tar")
    ours = EdgeGuidedSRResNet(64, 4, 4)
    assert load_weights(ours, read_model(tmp_path / "G_last.pth.tar")) == []
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(lq, edges), published.eval()(lq, edges), rtol=0, atol=1e-6)


@pytest.mark.parametrize("cls", NETWORKS)
def test_own_names_stay(cls):
    parts = small(EdgeSRGAN).generator if cls is EdgeSRGAN else small(cls)
    assert all(parts.own_name(name) == name for name in parts.state_dict())


# Spectral normalisation


@pytest.mark.parametrize(
    ("ours", "plain", "arguments"),
    [
        (SpectralConv2d, nn.Conv2d, {"stride": 2, "padding": 1}),
        (SpectralConv2d, nn.Conv2d, {"dilation": 2, "bias": False}),
        (SpectralConvTranspose2d, nn.ConvTranspose2d, {"stride": 2, "padding": 1}),
    ],
)
def test_spectral_layers_follow_torchs_through_training(ours, plain, arguments):
    torch.manual_seed(0)
    theirs = hooked_spectral_norm(plain(3, 5, 4, **arguments))
    layer = ours(3, 5, 4, **arguments)
    layer.load_state_dict(theirs.state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (layer, theirs)]
    for step in range(3):
        for module, optimizer in zip((layer, theirs), optimizers):
            optimizer.zero_grad()
            module(picture(2, 3, 9, 8, seed=step)).square().mean().backward()
            optimizer.step()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("ours", "axis"), [(SpectralConv2d, 0), (SpectralConvTranspose2d, 1)])
def test_the_largest_singular_value_of_a_spectral_layer_is_one(ours, axis):
    torch.manual_seed(0)
    layer = ours(4, 6, 3)
    layer._approach(200)
    rows = layer.eval()._kernel().detach().movedim(axis, 0).flatten(1)
    assert torch.linalg.matrix_norm(rows, 2).item() == pytest.approx(1, abs=1e-4)


def test_two_forwards_of_a_spectral_layer_before_one_backward():
    layer = SpectralConv2d(3, 4, 3)
    total = layer(picture(1, 3, 6, 6)).sum() + layer(picture(1, 3, 6, 6, seed=2)).sum()
    total.backward()  # raises when the second forward changed what the first needs
    assert layer.weight_orig.grad.isfinite().all()
