"""PerceptualLoss: torchvision's layers, the distances by arithmetic, what is refused and what learns."""

from __future__ import annotations

import hashlib
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.losses import PerceptualLoss
from srkit.losses.vgg import VGGFeatures, layer_names

TYPES = ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn"]
COLUMNS = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}  # table 1 of the VGG paper; torchvision's keys

KINDS = {"conv": nn.Conv2d, "bn": nn.BatchNorm2d, "relu": nn.ReLU, "pool": nn.MaxPool2d}


def image(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*(shape or (2, 3, 16, 18)), generator=torch.Generator().manual_seed(seed))


def loss(**options) -> PerceptualLoss:
    return PerceptualLoss(**{"layer_weights": {"conv1_2": 1}, "weights": "random", **options})


def identity_file(tmp_path) -> str:
    """Weights of vgg13 whose conv1_1 hands channel c of the normalised picture on as channel c."""
    state = VGGFeatures("vgg13", ["conv1_1"]).state_dict()
    state["features.0.weight"].zero_()
    for channel in range(3):
        state["features.0.weight"][channel, channel, 1, 1] = 1
    torch.save(state, tmp_path / "identity.pth")
    return str(tmp_path / "identity.pth")


@pytest.mark.parametrize("vgg_type", TYPES)
def test_every_layer_is_the_one_torchvision_has_in_that_place(vgg_type):
    models = pytest.importorskip("torchvision.models", reason="torchvision is the reference")
    with_bn = vgg_type.endswith("_bn")
    theirs = models.vgg.make_layers(models.vgg.cfgs[COLUMNS[vgg_type[:5]]], batch_norm=with_bn)
    names = layer_names(vgg_type)
    ours = VGGFeatures(vgg_type, names)
    ours.features.load_state_dict(theirs.state_dict())
    x = image(0, 1, 3, 32, 32)
    with torch.no_grad():
        activations = ours(x)
        for name, module in zip(names, theirs.eval(), strict=True):
            x = module(x.clone())  # its ReLU works in place
            assert isinstance(module, KINDS[name.rstrip("_0123456789")]), name
            torch.testing.assert_close(activations[name], x, rtol=1e-5, atol=1e-6)


def test_conv5_4_is_before_the_activation_and_relu5_4_after_it():
    vgg = VGGFeatures("vgg19", ["conv5_4", "relu5_4"])
    activations = vgg(image(0, 1, 3, 16, 16))
    assert activations["conv5_4"].min() < 0
    assert torch.equal(F.relu(activations["conv5_4"]), activations["relu5_4"])
    assert (
        list(vgg.state_dict())[-1] == "features.34.bias"
    )  # torchvision's number of conv5_4; nothing behind it is built


def test_the_network_ends_at_the_deepest_layer_wanted():
    assert list(VGGFeatures("vgg16", ["relu2_2", "conv1_1"]).names) == layer_names("vgg16")[:9]


def test_a_pixel_is_normalised_by_imagenets_mean_and_sd(tmp_path):
    """(0.6 - 0.485) / 0.229, (0.6 - 0.456) / 0.224, (0.6 - 0.406) / 0.225"""
    judge = loss(layer_weights={"conv1_1": 1}, vgg_type="vgg13", weights=identity_file(tmp_path))
    seen = judge.features(torch.full((1, 3, 3, 3), 0.6))["conv1_1"][0, :3, 1, 1]
    assert seen.tolist() == pytest.approx([0.502183, 0.642857, 0.862222], abs=1e-5)


def test_without_use_input_norm_pictures_stay_as_they_are(tmp_path):
    judge = loss(layer_weights={"conv1_1": 1}, vgg_type="vgg13", weights=identity_file(tmp_path), use_input_norm=False)
    assert torch.equal(judge.features(image(0))["conv1_1"][:, :3], image(0))


def test_range_norm_brings_minus_one_to_one_to_nought_to_one(tmp_path):
    judge = loss(
        layer_weights={"conv1_1": 1},
        vgg_type="vgg13",
        weights=identity_file(tmp_path),
        use_input_norm=False,
        range_norm=True,
    )
    torch.testing.assert_close(judge.features(image(0) * 2 - 1)["conv1_1"][:, :3], image(0))


def test_a_grey_picture_is_seen_as_three_equal_channels():
    sr, gt = image(0, 1, 1, 8, 8), image(1, 1, 1, 8, 8)
    grey, colour = loss()(sr, gt), loss()(sr.repeat(1, 3, 1, 1), gt.repeat(1, 3, 1, 1))
    assert grey["percep"].item() == colour["percep"].item() > 0


@pytest.mark.parametrize(
    ("criterion", "distance"),
    [
        ("l1", lambda a, b: (a - b).abs().mean()),
        ("l2", lambda a, b: (a - b).square().mean()),
        ("fro", lambda a, b: (a - b).square().sum().sqrt()),
    ],
)
def test_the_value_is_the_weighted_sum_over_layers_of_content_and_style(criterion, distance):
    weights = {"conv1_1": 0.5, "relu2_1": 2.0}
    judge = loss(layer_weights=weights, criterion=criterion, perceptual_weight=3.0, style_weight=7.0)
    sr, gt = image(0), image(1)
    a, b = judge.features(sr), judge.features(gt)

    def gram(x):
        return torch.einsum("bchw,bdhw->bcd", x, x) / (x.shape[1] * x.shape[2] * x.shape[3])

    value = judge(sr, gt)
    assert value["percep"].item() == pytest.approx(
        3 * sum(w * distance(a[k], b[k]).item() for k, w in weights.items()), rel=1e-5
    )
    assert value["style"].item() == pytest.approx(
        7 * sum(w * distance(gram(a[k]), gram(b[k])).item() for k, w in weights.items()), rel=1e-4
    )


@pytest.mark.parametrize(
    ("percep", "style", "names"), [(1.0, 0.0, {"percep"}), (0.0, 1.0, {"style"}), (1.0, 1.0, {"percep", "style"})]
)
def test_only_parts_with_a_weight_are_returned(percep, style, names):
    assert set(loss(perceptual_weight=percep, style_weight=style)(image(0), image(1))) == names


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_equal_pictures_cost_nothing_and_have_finite_gradients(criterion):
    sr = image(0).requires_grad_()
    value = sum(loss(criterion=criterion, style_weight=1.0)(sr, sr.detach().clone()).values())
    value.backward()
    assert value.item() == 0
    assert sr.grad.isfinite().all()


def test_normalize_loss_divides_the_weights_by_their_sum():
    weights = {"conv1_1": 3.0, "conv1_2": 5.0}
    plain = loss(layer_weights=weights)(image(0), image(1))["percep"]
    shared = loss(layer_weights=weights, normalize_loss=True)(image(0), image(1))["percep"]
    assert shared.item() == pytest.approx(plain.item() / 8, rel=1e-5)


@pytest.mark.parametrize("part", ["perceptual_weight", "style_weight"])
def test_each_part_alone_teaches_sr_and_nothing_else(part):
    judge = loss(**{"perceptual_weight": 0.0, "style_weight": 0.0, part: 1.0})
    sr, gt = image(0).requires_grad_(), image(1).requires_grad_()
    sum(judge(sr, gt).values()).backward()
    assert sr.grad.isfinite().all()
    assert sr.grad.abs().sum() > 0
    assert gt.grad is None
    assert not any(p.requires_grad or p.grad is not None for p in judge.parameters())


def test_batch_norm_keeps_its_statistics_when_the_owner_trains():
    judge = loss(vgg_type="vgg11_bn", layer_weights={"bn1_1": 1}).train()
    before = {key: value.clone() for key, value in judge.vgg.state_dict().items()}
    judge(image(0), image(1))
    assert not any(module.training for module in judge.vgg.modules())
    assert all(torch.equal(value, before[key]) for key, value in judge.vgg.state_dict().items())


def test_random_weights_are_the_same_in_every_run_and_leave_the_random_state_alone():
    torch.manual_seed(1)
    first, drawn = loss().vgg.state_dict(), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), loss().vgg.state_dict().values(), strict=True))


def test_random_weights_see_alike_at_every_depth():
    """He's initialisation keeps the mean square of what follows a ReLU: the deepest layer is no dead one."""
    activations = VGGFeatures("vgg19", ["conv1_1", "conv5_4"])(torch.randn(1, 3, 64, 64, generator=torch.Generator()))
    first, last = (value.square().mean().item() for value in activations.values())
    assert 0.1 < last / first < 10


def test_random_weights_are_warned_about(monkeypatch):
    messages = []
    monkeypatch.setattr(logging.getLogger("srkit"), "warning", lambda text, *values: messages.append(text % values))
    loss()
    assert len(messages) == 1
    assert "weights: random" in messages[0]


def test_weights_of_a_file_are_used_and_named_with_their_hash(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(logging.getLogger("srkit"), "info", lambda text, *values: messages.append(text % values))
    path = identity_file(tmp_path)
    judge = loss(layer_weights={"conv1_1": 1}, vgg_type="vgg13", weights=path)
    assert judge.vgg.state_dict()["features.0.weight"][0, 0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    digest = hashlib.sha256((tmp_path / "identity.pth").read_bytes()).hexdigest()
    assert messages == [f"PerceptualLoss: vgg13, {path} (SHA-256 {digest})"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_weights": {"conv5_5": 1}}, "vgg19 has no layer 'conv5_5'; did you mean 'conv5_"),
        ({"layer_weights": {"conv3_4": 1}, "vgg_type": "vgg16"}, "vgg16 has no layer 'conv3_4'"),
        ({"layer_weights": {"bn1_1": 1}}, "vgg19 has no layer 'bn1_1'"),
        ({"layer_weights": {}}, "layer_weights needs a layer"),
        ({"perceptual_weight": 0.0}, "both 0"),
        ({"trunk": "vgg16_hed"}, "trunk vgg16_hed is a vgg16, found vgg_type vgg19"),
        ({"trunk": "vgg16_hed", "vgg_type": "vgg16"}, "needs use_input_norm: true and its own weights"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(RefusedError, match=message):
        loss(**options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 16, 16), r"\(B, 3 or 1, H, W\), got \(1, 2, 16, 16\)"),
        ((1, 3, 8, 8, 8), r"\(B, 3 or 1, H, W\), got \(1, 3, 8, 8, 8\)"),
        ((1, 3, 15, 40), "need 16 pixels a side, got 15 x 40; raise gt_size"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(RefusedError, match=message):
        loss(layer_weights={"conv5_1": 1}, vgg_type="vgg11")(torch.zeros(shape), torch.zeros(shape))


def test_differing_shapes_are_refused_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3, 16, 18\).*\(2, 1, 16, 18\)"):
        loss()(image(0), image(1, 2, 1, 16, 18))


def test_the_loss_follows_its_module_to_another_number_format():
    assert loss().double()(image(0).double(), image(1).double())["percep"].dtype == torch.float64
