"""Losses that compare pixels: values by arithmetic, gradients, shapes."""

from __future__ import annotations

import pytest
import torch

import srkit.losses  # noqa: F401  (registers them)
from srkit.errors import RefusedError
from srkit.registry import LOSSES

PIXEL_LOSSES = [n for n in LOSSES if LOSSES.get(n).__module__.rpartition(".")[2] in ("pixel", "total_variation")]


def image(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*(shape or (2, 3, 6, 5)), generator=torch.Generator().manual_seed(seed))


def test_the_pixel_losses_are_registered():
    assert {"L1Loss", "LumaL1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss"} <= set(PIXEL_LOSSES)


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss"])
def test_equal_flat_images_cost_nothing_and_have_finite_gradients(name):
    sr = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    loss = LOSSES.get(name)()(sr, sr.detach().clone())
    loss.backward()
    assert loss.item() <= 1e-6
    assert sr.grad.isfinite().all()


@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_differing_shapes_are_refused_even_where_they_would_broadcast(name):
    with pytest.raises(ValueError, match=r"\(2, 3, 6, 5\).*\(2, 1, 6, 5\)"):
        LOSSES.get(name)()(image(0), image(1, 2, 1, 6, 5))


def test_luma_loss_weighs_the_channels_as_bt601():
    gt = torch.full((2, 3, 4, 4), 0.5)
    for change, wanted in (
        ((0.1, 0, 0), 6.5481),
        ((0, -0.1, 0), 12.8553),
        ((0, 0, 0.1), 2.4966),
        ((0.1, -0.1, 0), 6.3072),
    ):
        sr = gt + torch.tensor(change).view(1, 3, 1, 1)
        assert LOSSES.get("LumaL1Loss")()(sr, gt).item() == pytest.approx(wanted / 255, rel=1e-5)


def test_a_grey_picture_is_its_own_luma():
    sr, gt = image(0, 1, 1, 4, 4), image(1, 1, 1, 4, 4)
    assert LOSSES.get("LumaL1Loss")()(sr, gt).item() == pytest.approx((sr - gt).abs().mean().item())


# A constant difference of 0.1 (0.3 and 0.4 for Charbonnier: sqrt(0.09 + 0.16) = 0.5) over 1 * 1 * 2 * 3 pixels.
@pytest.mark.parametrize(
    ("name", "options", "difference", "mean"),
    [
        ("L1Loss", {}, -0.1, 0.1),
        ("MSELoss", {}, 0.1, 0.01),
        ("CharbonnierLoss", {}, -0.1, 0.1),
        ("CharbonnierLoss", {"eps": 0.16}, 0.3, 0.5),
    ],
)
def test_value_of_a_constant_difference(name, options, difference, mean):
    gt = image(0, 1, 1, 2, 3).double()
    assert LOSSES.get(name)(**options)(gt + difference, gt).item() == pytest.approx(mean, abs=1e-9)
    summed = LOSSES.get(name)(reduction="sum", **options)(gt + difference, gt)
    assert summed.item() == pytest.approx(6 * mean, abs=1e-9)


def test_charbonnier_epsilon_is_not_squared():
    flat = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    assert LOSSES.get("CharbonnierLoss")()(flat, flat).item() == pytest.approx(1e-6)  # sqrt(1e-12)


def test_losses_take_volumes():
    for name in PIXEL_LOSSES:
        assert LOSSES.get(name)()(image(0, 1, 1, 3, 4, 5), image(1, 1, 1, 3, 4, 5)).isfinite()


RAMP = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]]]])  # steps along W: 1, 2 in both rows; along H: none


def test_total_variation_of_a_ramp():
    assert LOSSES.get("WeightedTVLoss")()(RAMP, RAMP).item() == pytest.approx(1.5)
    assert LOSSES.get("WeightedTVLoss")(reduction="sum")(RAMP, RAMP).item() == pytest.approx(6.0)


def test_total_variation_weights_a_step_by_its_first_pixel():
    weight = torch.tensor([[[[3.0, 1.0, 9.0], [3.0, 1.0, 9.0]]]])  # along W: (3 * 1 + 1 * 2) / (3 + 1)
    assert LOSSES.get("WeightedTVLoss")()(RAMP, RAMP, weight).item() == pytest.approx(5 / 4)
    assert LOSSES.get("WeightedTVLoss")(reduction="sum")(RAMP, RAMP, weight).item() == pytest.approx(10.0)


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss", "WeightedTVLoss"])
def test_reduction_none_is_refused(name):
    with pytest.raises(RefusedError, match=f"{name}: reduction is 'none'; known: mean, sum"):
        LOSSES.get(name)(reduction="none")


def test_charbonnier_needs_a_positive_epsilon():
    with pytest.raises(RefusedError, match="eps is 0"):
        LOSSES.get("CharbonnierLoss")(eps=0.0)
