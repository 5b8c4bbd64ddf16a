"""GradientDifferenceLoss: values by arithmetic in two and three dimensions, what it cannot see, refusals."""

from __future__ import annotations

import pytest
import torch

from srkit.errors import RefusedError
from srkit.losses import GradientDifferenceLoss


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Steps of gt along the columns 1 and 4, of sr 1 and 2; along the rows none: the mean of 0 and 2 (or 2^2), halved.
@pytest.mark.parametrize(("alpha", "wanted"), [(1, (0 + 2) / 2 / 2), (2, (0 + 4) / 2 / 2)])
def test_steps_are_compared_along_every_axis(alpha, wanted):
    gt = torch.tensor([[[[0.0, 1.0, 5.0], [0.0, 1.0, 5.0]]]])
    sr = torch.tensor([[[[0.0, 1.0, 3.0], [0.0, 1.0, 3.0]]]])
    loss = GradientDifferenceLoss(alpha=alpha)
    assert loss(sr, gt).item() == pytest.approx(wanted)
    assert loss(sr.mT, gt.mT).item() == pytest.approx(wanted)


@pytest.mark.parametrize("alpha", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 3, 4, 5), (1, 1, 2, 2, 2)])
def test_it_is_the_mean_over_the_axes_of_means_over_neighbours(shape, alpha):
    sr, gt = picture(*shape), picture(*shape, seed=1)
    means = []
    for axis in range(2, len(shape)):
        errors = [
            abs(abs(gt.select(axis, i + 1) - gt.select(axis, i)) - abs(sr.select(axis, i + 1) - sr.select(axis, i)))
            for i in range(shape[axis] - 1)
        ]
        means.append((sum((error**alpha).sum() for error in errors) / sum(error.numel() for error in errors)).item())
    assert GradientDifferenceLoss(alpha=alpha)(sr, gt).item() == pytest.approx(sum(means) / len(means), rel=1e-12)


def test_a_volume_whose_slices_are_equal_costs_two_thirds_of_its_slice():
    sr, gt = picture(1, 1, 4, 5), picture(1, 1, 4, 5, seed=1)
    stacks = (x.unsqueeze(3).expand(1, 1, 4, 6, 5) for x in (sr, gt))
    loss = GradientDifferenceLoss()
    assert loss(*stacks).item() == pytest.approx(2 / 3 * loss(sr, gt).item(), rel=1e-12)


@pytest.mark.parametrize("alpha", [1, 2])
def test_another_level_and_a_negative_cost_nothing(alpha):
    gt = picture(1, 1, 4, 5)
    for sr in (gt + 0.3, -gt):
        assert GradientDifferenceLoss(alpha=alpha)(sr, gt).item() == pytest.approx(0, abs=1e-15)


def test_a_flat_output_has_no_slope():
    sr = torch.full((1, 1, 4, 5), 0.5, dtype=torch.float64, requires_grad=True)
    GradientDifferenceLoss()(sr, picture(1, 1, 4, 5)).backward()
    assert not sr.grad.any()


@pytest.mark.parametrize("alpha", [1, 2])
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (1, 1, 3, 2, 4)])
def test_its_slope_is_that_of_its_differences(shape, alpha):
    gt = picture(*shape, seed=1)
    loss = GradientDifferenceLoss(alpha=alpha)
    assert torch.autograd.gradcheck(lambda sr: loss(sr, gt), picture(*shape).requires_grad_())


def test_an_axis_without_neighbours_is_refused():
    with pytest.raises(RefusedError, match="GradientDifferenceLoss: axis 1 of 4 x 1 x 5 has no two neighbours"):
        GradientDifferenceLoss()(picture(1, 1, 4, 1, 5), picture(1, 1, 4, 1, 5))


def test_differing_shapes_are_refused_even_where_they_would_broadcast():
    with pytest.raises(ValueError, match=r"\(2, 3, 6, 5\).*\(2, 1, 6, 5\)"):
        GradientDifferenceLoss()(picture(2, 3, 6, 5), picture(2, 1, 6, 5))


def test_other_powers_are_refused():
    with pytest.raises(RefusedError, match="alpha is 3; it takes 1 or 2"):
        GradientDifferenceLoss(alpha=3)
