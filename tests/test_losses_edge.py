"""EdgeLoss: values by arithmetic, what each method weighs, and a way downhill from everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srkit.errors import RefusedError
from srkit.losses import EdgeLoss


def step_picture() -> Tensor:
    """Dark left of column 12, bright from there on; its Canny edge runs along columns 11 and 12, or one of them."""
    picture = torch.full((1, 3, 32, 32), 0.2)
    picture[..., 12:] = 0.8
    return picture


def with_bump(picture: Tensor, column: int) -> Tensor:
    """One pixel brighter: Sobel's kernels see it in the columns beside it too."""
    changed = picture.clone()
    changed[..., 16, column] += 0.1
    return changed


def test_value_of_an_added_ramp_is_its_slope():
    """0.01 per pixel over 10 columns; the first and the last see half of it: 0.01 * 9 / 10."""
    gt = torch.rand(2, 3, 8, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sr = gt + 0.01 * torch.arange(10, dtype=torch.float64)
    assert EdgeLoss()(sr, gt).item() == pytest.approx(0.009, rel=1e-6)


def test_colour_counts_by_its_luma():
    gt = torch.full((1, 3, 8, 10), 0.5, dtype=torch.float64)
    ramp = 0.01 * torch.arange(10, dtype=torch.float64)
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        sr = gt.clone()
        sr[:, channel] += ramp
        assert EdgeLoss()(sr, gt).item() == pytest.approx(0.009 * weight, rel=1e-6)


def test_canny_counts_an_error_near_gts_edge_fully_and_one_far_away_by_elsewhere():
    gt = step_picture()
    for column, share in ((12, 1.0), (24, 0.25)):
        sr = with_bump(gt, column)
        plain = EdgeLoss()(sr, gt).item()
        assert EdgeLoss(method="canny", elsewhere=0.25)(sr, gt).item() == pytest.approx(share * plain, rel=1e-3)


def test_canny_radius_is_the_distance_that_still_counts_as_near():
    """The bump's gradient lies in columns 16 to 18; the edge in column 11 or 12."""
    gt = step_picture()
    sr = with_bump(gt, 17)
    narrow, wide = (EdgeLoss(method="canny", elsewhere=0.0, radius=r)(sr, gt).item() for r in (3, 8))
    assert narrow < 1e-5
    assert wide == pytest.approx(EdgeLoss()(sr, gt).item(), rel=1e-3)


def test_without_edges_in_gt_everything_is_elsewhere():
    gt = torch.full((1, 1, 8, 10), 0.5, dtype=torch.float64)
    sr = gt + 0.01 * torch.arange(10, dtype=torch.float64)
    assert EdgeLoss(method="canny")(sr, gt).item() == pytest.approx(0.1 * 0.009, rel=1e-6)


@pytest.mark.parametrize("method", ["sobel", "canny"])
def test_a_reversed_edge_costs_more_than_none(method):
    gt = step_picture()
    loss = EdgeLoss(method=method)
    assert loss(1 - gt, gt) > 1.9 * loss(torch.full_like(gt, 0.5), gt)


@pytest.mark.parametrize("method", ["sobel", "canny"])
def test_a_flat_picture_is_told_the_way(method):
    sr = torch.full((1, 3, 32, 32), 0.5, requires_grad=True)
    EdgeLoss(method=method)(sr, step_picture()).backward()
    assert sr.grad.isfinite().all()
    assert sr.grad.abs().sum() > 0


def test_volumes_are_taken_by_sobel_and_refused_by_canny():
    volume = torch.rand(1, 1, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    assert EdgeLoss()(volume, 1 - volume) > 0
    with pytest.raises(RefusedError, match="method canny takes pictures"):
        EdgeLoss(method="canny")(volume, volume)


@pytest.mark.parametrize("options", [{"radius": -1}, {"elsewhere": 1.5}, {"elsewhere": -0.1}])
def test_options_outside_their_range_are_refused(options):
    with pytest.raises(RefusedError, match="EdgeLoss: radius is"):
        EdgeLoss(**options)
