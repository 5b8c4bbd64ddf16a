"""GANLoss and FeatureMatchingLoss: values by arithmetic, labels, relativistic formulae, what gets a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.losses import FeatureMatchingLoss, GANLoss

LN2 = math.log(2)  # cross-entropy of an undecided logit, 0


def column(*logits: float) -> Tensor:
    return torch.tensor(logits, dtype=torch.float64).view(-1, 1).requires_grad_()


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def values(loss: GANLoss, fake: Tensor, real: Tensor) -> tuple[float, float, float]:
    """Of the generator, and of the discriminator for real and restored pictures."""
    terms = loss.discriminator(fake, real)
    assert set(terms) == {"real", "fake"}
    return loss.generator(fake, real).item(), terms["real"].item(), terms["fake"].item()


# Logits of restored pictures 1 and -3, of real ones 2 and 0.5.
@pytest.mark.parametrize(
    ("gan_type", "generator", "real", "fake"),
    [
        ("vanilla", (softplus(-1) + softplus(3)) / 2, (softplus(-2) + softplus(-0.5)) / 2, (softplus(1) + softplus(-3)) / 2),
        ("lsgan", (0 + 16) / 2, (1 + 0.25) / 2, (1 + 9) / 2),
        ("hinge", 1.0, (0 + 0.5) / 2, (2 + 0) / 2),
        ("wgan", 1.0, -1.25, -1.0),
        ("wgan_softplus", (softplus(-1) + softplus(3)) / 2, (softplus(-2) + softplus(-0.5)) / 2, (softplus(1) + softplus(-3)) / 2),
    ],
)  # fmt: skip
def test_value_of_every_criterion(gan_type, generator, real, fake):
    found = values(GANLoss(gan_type=gan_type), column(1, -3), column(2, 0.5))
    assert found == pytest.approx((generator, real, fake), abs=1e-12)


def test_vanilla_is_plain_cross_entropy_with_the_labels():
    draw = torch.Generator().manual_seed(0)
    fake, real = torch.randn(3, 1, 4, 5, generator=draw), torch.randn(3, 1, 4, 5, generator=draw)
    loss = GANLoss(real_label_val=0.9, fake_label_val=0.2)
    wanted = [
        F.binary_cross_entropy(torch.sigmoid(x), torch.full_like(x, y))
        for x, y in ((fake, 0.9), (real, 0.9), (fake, 0.2))
    ]
    assert values(loss, fake, real) == pytest.approx([w.item() for w in wanted], rel=1e-5)


def test_an_undecided_discriminator_costs_ln_2_a_side():
    for relativistic in (False, True):
        found = values(GANLoss(relativistic=relativistic), column(0, 0), column(0, 0))
        share = LN2 / 2 if relativistic else LN2
        assert found == pytest.approx((LN2, share, share))


# Restored 1 and -1 (mean 0), real 2 and 0 (mean 1): against each other's mean, real ones have 2 and 0, restored 0 and -2.
@pytest.mark.parametrize(
    ("gan_type", "generator", "half"),
    [
        ("vanilla", (softplus(2) + softplus(0)) / 2, (softplus(-2) + softplus(0)) / 4),
        ("lsgan", (4 + 0 + 1 + 9) / 4, (1 + 1) / 4),
        ("hinge", (3 + 1 + 1 + 3) / 4, (0 + 1) / 4),
    ],
)
def test_relativistic_losses_judge_against_the_mean_of_the_other_kind(gan_type, generator, half):
    found = values(GANLoss(gan_type=gan_type, relativistic=True), column(1, -1), column(2, 0))
    fake_half = (0 + 4) / 4 if gan_type == "lsgan" else half  # squared distance to 0 of 0 and -2
    assert found == pytest.approx((generator, half, fake_half), abs=1e-12)


def test_relativistic_vanilla_is_the_published_formula():
    draw = torch.Generator().manual_seed(1)
    fake, real = (torch.randn(4, 1, generator=draw, dtype=torch.float64) for _ in range(2))

    def bce(x: Tensor, y: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, torch.full_like(x, y))

    a, b = real - fake.mean(), fake - real.mean()
    wanted = ((bce(a, 0) + bce(b, 1)) / 2, bce(a, 1) / 2, bce(b, 0) / 2)
    assert values(GANLoss(relativistic=True), fake, real) == pytest.approx([w.item() for w in wanted], abs=1e-12)


@pytest.mark.parametrize("relativistic", [False, True])
def test_real_logits_get_no_gradient_from_the_generators_loss(relativistic):
    fake, real = column(1, -3), column(2, 0.5)
    GANLoss(relativistic=relativistic).generator(fake, real).backward()
    assert real.grad is None
    assert (fake.grad != 0).all()


def test_detach_mean_leaves_the_generator_only_what_its_own_logits_give():
    fake, real = torch.tensor([0.5, -1.0], requires_grad=True), torch.tensor([2.0, 0.0])
    GANLoss(relativistic=True, detach_mean=True).generator(fake, real).backward()
    expected = [
        -sigmoid(-(f - 1.0)) / 2 / 2 for f in (0.5, -1.0)
    ]  # of softplus(-(f - 1)), mean of 2 logits, half of two parts
    assert fake.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("detach_mean", [False, True])
def test_detach_mean_keeps_the_discriminators_gradient_off_the_means(detach_mean):
    """d/df of mean(softplus(-(r - mean f))) / 2 + mean(softplus(f - mean r)) / 2; the first part is by way of the mean."""
    fake, real = column(1, -1), column(2, 0)
    sum(GANLoss(relativistic=True, detach_mean=detach_mean).discriminator(fake, real).values()).backward()
    by_mean = 0 if detach_mean else (sigmoid(-2) + sigmoid(0)) / 2 / 4
    assert fake.grad.flatten().tolist() == pytest.approx([sigmoid(0) / 4 + by_mean, sigmoid(-2) / 4 + by_mean])
    assert real.grad.flatten().tolist() == pytest.approx([-sigmoid(-2) / 4 - by_mean, -sigmoid(0) / 4 - by_mean])


def drawn_labels(seed: int = 0, **options) -> tuple[Tensor, Tensor]:
    """Labels of restored and real pictures, (5, 1, 2, 3), from the slope of the squared distance at logit 0: -2 x label / count."""
    torch.manual_seed(seed)
    fake, real = torch.zeros(5, 1, 2, 3, requires_grad=True), torch.zeros(5, 1, 2, 3, requires_grad=True)
    sum(GANLoss(gan_type="lsgan", **options).discriminator(fake, real).values()).backward()
    return fake.grad * -fake.numel() / 2, real.grad * -real.numel() / 2


RANGES = {"real_label_range": (0.7, 1.0), "fake_label_range": (0.0, 0.3)}


def test_soft_labels_lie_in_their_ranges():
    many = [drawn_labels(seed, **RANGES) for seed in range(20)]
    fake, real = (torch.stack(kind) for kind in zip(*many, strict=True))
    assert 0 <= fake.min() < 0.05
    assert 0.25 < fake.max() <= 0.3
    assert 0.7 <= real.min() < 0.75
    assert 0.95 < real.max() <= 1 + 1e-6


def test_soft_labels_are_drawn_once_for_each_picture():
    for labels in drawn_labels(**RANGES):
        per_picture = labels.flatten(1)
        torch.testing.assert_close(per_picture, per_picture[:, :1].expand_as(per_picture))
        assert per_picture[:, 0].unique().numel() == 5


def test_soft_labels_are_reproducible_from_the_seed():
    assert all(torch.equal(a, b) for a, b in zip(drawn_labels(1, **RANGES), drawn_labels(1, **RANGES), strict=True))
    assert not torch.equal(drawn_labels(1, **RANGES)[0], drawn_labels(2, **RANGES)[0])


def test_soft_labels_are_the_discriminators_alone():
    soft, plain = GANLoss(**RANGES), GANLoss()
    assert soft.generator(column(1, -3), column(0, 0)).item() == plain.generator(column(1, -3), column(0, 0)).item()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"real_label_val": 1.2}, r"labels must lie in 0 to 1, found \[0\.0, 1\.2\]"),
        ({"real_label_range": (0.7, 1.2)}, r"labels must lie in 0 to 1, found .*1\.2"),
        ({"fake_label_val": -0.1}, "labels must lie in 0 to 1"),
        ({"fake_label_range": (0.3, 0.0)}, "from its lower to its upper end"),
        ({"gan_type": "hinge", "real_label_range": (0.7, 1.0)}, "gan_type hinge has no labels"),
        ({"gan_type": "wgan", "relativistic": True}, "gan_type wgan has no relativistic form"),
        ({"gan_type": "wgan_softplus", "relativistic": True}, "wgan_softplus has no relativistic form"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(RefusedError, match=message):
        GANLoss(**options)


def test_feature_matching_adds_the_mean_differences_of_the_maps():
    """Means 0.5 and 2, whatever the sizes of the maps."""
    fake = [torch.zeros(2, 3, 4, 4), torch.ones(2, 1, 2, 2)]
    real = [torch.full((2, 3, 4, 4), 0.5), torch.full((2, 1, 2, 2), -1.0)]
    assert FeatureMatchingLoss()(fake, real).item() == 2.5


def test_feature_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        FeatureMatchingLoss()([torch.zeros(1)], [torch.zeros(1), torch.zeros(1)])
