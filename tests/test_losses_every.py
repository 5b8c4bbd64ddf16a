"""Every registered loss: a finite, non-zero gradient to what it is to train, and none to anything else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import srkit.losses  # noqa: F401  (registers them)
from srkit.registry import LOSSES

OURS = [name for name in LOSSES if LOSSES.get(name).__module__.startswith("srkit.")]
IMAGE_LOSSES = [name for name in OURS if getattr(LOSSES.get(name), "compares", "image") == "image"]
PERCEPTUAL = {
    "layer_weights": {"relu1_1": 1, "conv2_1": 1},
    "vgg_type": "vgg11_bn",
    "style_weight": 1,
    "weights": "random",
}
# Options that a constructor cannot do without, and the side of a picture where 12 pixels do not suffice.
OPTIONS = {"PerceptualLoss": PERCEPTUAL}
SIDES = {"MSSSIMLoss": 161}
PICTURES_ALONE = {"MSSSIMLoss", "PerceptualLoss"}


class Generator(nn.Module):
    """A blurred, darker copy that one convolution can improve."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        with torch.no_grad():
            self.conv.weight.copy_(0.1 * torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Discriminator(nn.Module):
    """Logits and two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        first = torch.tanh(self.first(x))
        logits = self.last(first)
        return logits, [first, logits]


def pictures(side: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, 3, side, side, generator=generator), torch.rand(1, 3, side, side, generator=generator)


def total(value: Tensor | Mapping[str, Tensor]) -> Tensor:
    return sum(value.values()) if isinstance(value, Mapping) else value


def assert_taught(network: nn.Module) -> None:
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def assert_untouched(network: nn.Module) -> None:
    assert all(parameter.grad is None for parameter in network.parameters())


def test_losses_that_compare_no_pictures_have_tests_of_their_own_here():
    assert set(OURS) - set(IMAGE_LOSSES) == {"GANLoss", "FeatureMatchingLoss"}


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_every_image_loss_teaches_the_generator_and_nothing_of_its_own(name):
    torch.manual_seed(0)
    loss, network = LOSSES.get(name)(**OPTIONS.get(name, {})), Generator()
    lq, gt = pictures(SIDES.get(name, 12))
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    value = total(loss(network(lq), gt))
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert_taught(network)
    assert_untouched(loss)
    assert gt.grad is None
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_every_image_loss_falls_along_its_gradient(name):
    """A step down the slope must pay: a gradient of the wrong sign would be finite and non-zero too."""
    loss = LOSSES.get(name)(**OPTIONS.get(name, {})).double()
    sr, gt = (picture.double() for picture in pictures(SIDES.get(name, 12)))
    sr.requires_grad_()
    value = total(loss(sr, gt))
    (slope,) = torch.autograd.grad(value, sr)
    length = 1e-6 / slope.norm()
    gain = value - total(loss(sr.detach() - length * slope, gt))
    assert gain.item() == pytest.approx((length * slope.square().sum()).item(), rel=0.02)


@pytest.mark.parametrize("name", sorted(set(IMAGE_LOSSES) - PICTURES_ALONE))
def test_every_other_image_loss_falls_along_its_gradient_in_volumes(name):
    loss = LOSSES.get(name)().double()
    draw = torch.Generator().manual_seed(0)
    sr, gt = (torch.rand(2, 1, 11, 12, 13, generator=draw, dtype=torch.float64) for _ in range(2))
    sr.requires_grad_()
    value = loss(sr, gt)
    (slope,) = torch.autograd.grad(value, sr)
    length = 1e-6 / slope.norm()
    gain = value - loss(sr.detach() - length * slope, gt)
    assert gain.item() == pytest.approx((length * slope.square().sum()).item(), rel=0.02)


@pytest.mark.parametrize(
    ("gan_type", "relativistic"),
    [(kind, False) for kind in ("vanilla", "lsgan", "hinge", "wgan", "wgan_softplus")]
    + [(kind, True) for kind in ("vanilla", "lsgan", "hinge")],
)
def test_the_adversarial_loss_teaches_the_one_whose_turn_it_is(gan_type, relativistic):
    torch.manual_seed(0)
    loss = LOSSES.get("GANLoss")(gan_type=gan_type, relativistic=relativistic)
    lq, gt = pictures(12)
    generator, discriminator = Generator(), Discriminator()
    discriminator.requires_grad_(False)
    loss.generator(discriminator(generator(lq))[0], discriminator(gt)[0]).backward()
    assert_taught(generator)
    assert_untouched(discriminator)
    generator.zero_grad()
    discriminator.requires_grad_(True)
    total(loss.discriminator(discriminator(generator(lq).detach())[0], discriminator(gt)[0])).backward()
    assert_untouched(generator)
    assert discriminator.first.weight.grad.isfinite().all()
    assert discriminator.first.weight.grad.abs().sum() > 0


def test_feature_matching_teaches_the_generator():
    torch.manual_seed(0)
    lq, gt = pictures(12)
    generator, discriminator = Generator(), Discriminator().requires_grad_(False)
    LOSSES.get("FeatureMatchingLoss")()(discriminator(generator(lq))[1], discriminator(gt)[1]).backward()
    assert_taught(generator)
    assert_untouched(discriminator)


class _FromHost(TorchDispatchMode):
    """Names operations that a GPU would be waited for: reading a value back, and making a tensor of numbers on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.lift_fresh.default):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", IMAGE_LOSSES)
def test_no_image_loss_makes_the_host_wait_for_the_device(name):
    loss = LOSSES.get(name)(**OPTIONS.get(name, {}))
    sr, gt = pictures(SIDES.get(name, 12))
    with _FromHost() as noted:
        total(loss(sr.requires_grad_(), gt)).backward()
    assert noted.found == []
