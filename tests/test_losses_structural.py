"""SSIM and MS-SSIM as losses: the metrics' numbers, slopes that are finite, sizes that are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from srkit.errors import RefusedError
from srkit.losses import MSSSIMLoss, SSIMLoss
from srkit.metrics import MSSSIM, SSIM


def pair(*shape: int, seed: int = 0, noise: float = 0.1) -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random gt and a noisy sr, float64, in 0 to 1."""
    draw = np.random.default_rng(seed)
    gt = np.cumsum(draw.normal(size=shape), axis=-1)
    gt = (gt - gt.min()) / (gt.max() - gt.min())
    return torch.from_numpy(np.clip(gt + noise * draw.normal(size=shape), 0, 1)), torch.from_numpy(gt)


def by_metric(metric, sr: torch.Tensor, gt: torch.Tensor) -> float:
    """Mean of a metric over the pictures of a batch."""
    pairs = [(a.movedim(0, -1).numpy(), b.movedim(0, -1).numpy()) for a, b in zip(sr, gt, strict=True)]
    return float(np.mean([metric(a, b, 1.0) for a, b in pairs]))


def test_ssim_loss_is_one_minus_the_metric():
    sr, gt = pair(3, 3, 20, 27)
    assert SSIMLoss()(sr, gt).item() == pytest.approx(1 - by_metric(SSIM(), sr, gt), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 12, 13, 14), (2, 3, 11, 16, 11)])
def test_ssim_loss_of_volumes_is_one_minus_scikit_images_mean(shape):
    sr, gt = pair(*shape)
    values = [
        structural_similarity(
            sr[at].numpy(),
            gt[at].numpy(),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for at in np.ndindex(*shape[:2])
    ]
    assert SSIMLoss()(sr, gt).item() == pytest.approx(1 - np.mean(values), abs=1e-12)


def test_ms_ssim_loss_is_one_minus_the_metric_also_for_odd_sides():
    sr, gt = pair(2, 2, 161, 170)
    assert MSSSIMLoss()(sr, gt).item() == pytest.approx(1 - by_metric(MSSSIM(), sr, gt), abs=1e-12)


@pytest.mark.parametrize(("loss", "side"), [(SSIMLoss(), 11), (MSSSIMLoss(), 161)])
def test_single_precision_changes_the_fifth_decimal_at_most(loss, side):
    sr, gt = pair(1, 3, side, side, noise=0.02)
    assert loss(sr.float(), gt.float()).item() == pytest.approx(loss(sr, gt).item(), abs=1e-5)


def test_flat_volumes_are_compared_by_their_means_alone():
    sr, gt = torch.full((1, 1, 11, 12, 11), 0.2).double(), torch.full((1, 1, 11, 12, 11), 0.4).double()
    assert SSIMLoss()(sr, gt).item() == pytest.approx(1 - 0.1601 / 0.2001, abs=1e-7)


@pytest.mark.parametrize(("loss", "side"), [(SSIMLoss(), 11), (MSSSIMLoss(), 161)])
def test_equal_pictures_cost_nothing(loss, side):
    _, gt = pair(1, 3, side, side)
    assert loss(gt, gt.clone()).item() == pytest.approx(0, abs=1e-12)


def test_flat_pictures_are_compared_by_their_means_alone():
    """Without variance the contrast term is 1; of the means 0.2 and 0.4 remains (2 * 0.08 + C1) / (0.04 + 0.16 + C1)."""
    sr, gt = torch.full((1, 1, 11, 11), 0.2).double(), torch.full((1, 1, 11, 11), 0.4).double()
    assert SSIMLoss()(sr, gt).item() == pytest.approx(1 - 0.1601 / 0.2001, abs=1e-7)


def test_a_negative_has_no_ms_ssim_and_no_slope_that_is_not_finite():
    _, gt = pair(1, 1, 161, 161)
    sr = (1 - gt).requires_grad_()
    loss = MSSSIMLoss()(sr, gt)
    loss.backward()
    assert loss.item() == 1 - by_metric(MSSSIM(), sr.detach(), gt) == 1
    assert sr.grad.isfinite().all()


def test_a_picture_too_small_for_the_window_is_refused_with_the_smallest_size():
    SSIMLoss()(*pair(1, 1, 11, 11))
    wrong = r"SSIMLoss needs at least 11 pixels along every axis, got 40 x 10 \(too short: axis 1\); raise gt_size"
    with pytest.raises(RefusedError, match=wrong):
        SSIMLoss()(*pair(1, 1, 40, 10))


def test_a_volume_too_small_for_the_window_is_refused_with_its_short_axes():
    with pytest.raises(RefusedError, match=r"got 10 x 40 x 7 \(too short: axis 0, 2\)"):
        SSIMLoss()(*pair(1, 1, 10, 40, 7))


def test_a_picture_too_small_for_five_scales_is_refused_with_the_smallest_size():
    with pytest.raises(RefusedError, match="MSSSIMLoss needs at least 161 pixels along every axis, got 160 x 200"):
        MSSSIMLoss()(*pair(1, 1, 160, 200))


def test_ms_ssim_of_volumes_is_refused():
    with pytest.raises(RefusedError, match=r"pictures \(B, C, H, W\), got \(1, 1, 2, 3, 4\)"):
        MSSSIMLoss()(*pair(1, 1, 2, 3, 4))


@pytest.mark.parametrize("loss", [SSIMLoss(), MSSSIMLoss()])
def test_differing_shapes_are_refused_even_where_they_would_broadcast(loss):
    with pytest.raises(ValueError, match=r"\(1, 3, 200, 200\).*\(1, 1, 200, 200\)"):
        loss(torch.zeros(1, 3, 200, 200), torch.zeros(1, 1, 200, 200))


@pytest.mark.parametrize("shape", [(1, 1, 11, 12), (1, 1, 11, 11, 11)])
def test_the_slope_of_ssim_is_that_of_its_differences(shape):
    sr, gt = pair(*shape)
    assert torch.autograd.gradcheck(lambda x: SSIMLoss()(x, gt), sr.requires_grad_())
