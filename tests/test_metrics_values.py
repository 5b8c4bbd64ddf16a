"""Metric values against arithmetic and scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import mean_squared_error, normalized_root_mse, peak_signal_noise_ratio, structural_similarity

from srkit.errors import DataError, DivergedError
from srkit.metrics import MAE, MSE, MSSSIM, NRMSE, PSNR, SSIM, SliceSSIM
from srkit.metrics.ssim import gaussian_window
from srkit.metrics.summary import places
from srkit.registry import METRICS

ALL = (PSNR, SSIM, MSSSIM, MSE, MAE, NRMSE)


def pair(*shape, seed=0):
    """A gt with structure and an sr near it, 0 to 255."""
    rng = np.random.default_rng(seed)
    gt = rng.integers(0, 256, shape).astype(np.float64)
    for axis in range(len(shape) - 1):
        gt = (gt + np.roll(gt, 1, axis) + np.roll(gt, 2, axis)) / 3
    return np.clip(gt + rng.normal(0, 8, shape), 0, 255), gt


def reference_ssim(sr, gt, **options):
    return structural_similarity(
        sr,
        gt,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        **options,
    )


def test_metrics_are_registered_under_their_class_names():
    assert {c.__name__ for c in ALL} <= set(METRICS)
    assert {c.__name__: c.better for c in ALL} == {
        "PSNR": "higher", "SSIM": "higher", "MSSSIM": "higher", "MSE": "lower", "MAE": "lower", "NRMSE": "lower",
    }  # fmt: skip


def test_psnr_of_a_constant_error_of_a_tenth_is_20_db():
    gt = np.full((8, 8, 1), 0.5)
    assert PSNR()(gt + 0.1, gt, 1.0) == pytest.approx(20.0, abs=1e-12)


@pytest.mark.parametrize("shape", [(31, 44, 3), (30, 30, 1), (12, 13, 14, 1)])
def test_plain_errors_equal_scikit_image_and_arithmetic(shape):
    sr, gt = pair(*shape)
    assert PSNR()(sr, gt, 255.0) == pytest.approx(peak_signal_noise_ratio(gt, sr, data_range=255), abs=1e-12)
    assert MSE()(sr, gt, 255.0) == pytest.approx(mean_squared_error(gt / 255, sr / 255), rel=1e-12)
    assert MAE()(sr, gt, 255.0) == pytest.approx(np.abs(sr / 255 - gt / 255).mean(), rel=1e-12)


@pytest.mark.parametrize("shape", [(11, 11, 1), (64, 37, 3), (139, 75, 3), (150, 12, 1), (12, 13, 14, 1)])
def test_ssim_equals_scikit_image(shape):
    sr, gt = pair(*shape)
    assert SSIM()(sr, gt, 255.0) == pytest.approx(reference_ssim(sr, gt), abs=1e-12)


def test_ssim_of_a_volume_is_the_mean_of_the_valid_region():
    sr, gt = pair(12, 12, 12, 1)
    _, full = reference_ssim(sr, gt, full=True)
    assert SSIM()(sr, gt, 255.0) == pytest.approx(full[5:-5, 5:-5, 5:-5].mean(), abs=1e-12)


def test_the_window_has_11_weights_that_sum_to_1():
    assert gaussian_window().shape == (11,)
    assert gaussian_window().sum() == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("shape", [(161, 161, 1), (176, 200, 3), (163, 190, 1)])
def test_msssim_equals_five_scales_of_scikit_image(shape):
    sr, gt = pair(*shape)
    expected = 1.0
    channels = []
    for c in range(shape[-1]):
        a, b, expected = sr[..., c : c + 1], gt[..., c : c + 1], 1.0
        for weight in (0.0448, 0.2856, 0.3001, 0.2363):
            # A huge K1 makes the luminance term 1, which leaves contrast and structure.
            expected *= reference_ssim(a, b, K1=1e8) ** weight
            a, b = (np.pad(x, [(0, n % 2) for n in x.shape[:2]] + [(0, 0)], mode="edge") for x in (a, b))
            a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
        channels.append(expected * reference_ssim(a, b) ** 0.1333)
    assert MSSSIM()(sr, gt, 255.0) == pytest.approx(np.mean(channels), abs=1e-12)


@pytest.mark.parametrize("metric", ALL)
def test_identical_images(metric):
    _, gt = pair(170, 165, 3)
    perfect = {PSNR: math.inf, MSE: 0.0, MAE: 0.0, NRMSE: 0.0}.get(metric, 1.0)
    assert metric()(gt.copy(), gt, 255.0) == pytest.approx(perfect, abs=1e-12)


def test_msssim_of_a_negative_is_a_number():
    _, gt = pair(170, 165, 1)
    assert MSSSIM()(255 - gt, gt, 255.0) == 0.0


@pytest.mark.parametrize(
    ("metric", "shape", "size"),
    [
        (SSIM, (10, 40, 3), "11"),
        (SSIM, (20, 20, 8, 1), "11"),
        (MSSSIM, (160, 300, 3), "161"),
        (MSSSIM, (9, 9, 9, 1), "defined for pictures"),
    ],
)
def test_too_small_is_refused_with_the_size_needed(metric, shape, size):
    with pytest.raises(DataError, match=size):
        metric()(*pair(*shape), 255.0)


def test_thin_volumes_are_pointed_to_slices():
    with pytest.raises(DataError, match="slice-wise"):
        SSIM()(*pair(20, 20, 8, 1), 255.0)


@pytest.mark.parametrize("metric", ALL)
def test_shapes_that_would_broadcast_are_refused(metric):
    sr, gt = pair(170, 170, 3)
    with pytest.raises(DataError, match="broadcasting"):
        metric()(sr[..., :1], gt, 255.0)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("metric", ALL)
def test_values_that_are_not_finite_are_no_result(metric, bad):
    sr, gt = pair(170, 170, 1)
    broken = sr.copy()
    broken[80, 80] = bad
    with pytest.raises(DivergedError, match="1 of 28900"):
        metric()(broken, gt, 255.0)
    with pytest.raises(DataError, match="gt holds"):
        metric()(sr, broken, 255.0)


def test_nrmse_equals_scikit_image_and_zeros_score_one():
    sr, gt = pair(12, 13, 14, 1)
    assert NRMSE()(sr, gt, 255.0) == pytest.approx(normalized_root_mse(gt, sr), abs=1e-12)
    assert NRMSE()(np.zeros_like(gt), gt, 255.0) == pytest.approx(1.0)
    with pytest.raises(DataError, match="gt is zero everywhere"):
        NRMSE()(sr, np.zeros_like(gt), 255.0)


def test_inside_a_mask_only_its_places_count():
    sr, gt = pair(20, 21, 22, 1)
    mask = np.zeros((20, 21, 22), bool)
    mask[6:12, 7:14, 8:15] = True
    for metric in (PSNR(), MSE(), MAE(), NRMSE()):
        box = metric(sr[6:12, 7:14, 8:15], gt[6:12, 7:14, 8:15], 255.0)
        assert metric.inside(sr, gt, 255.0, mask) == pytest.approx(box, rel=1e-12)
        elsewhere = sr.copy()
        elsewhere[~mask] = 0
        assert metric.inside(elsewhere, gt, 255.0, mask) == metric.inside(sr, gt, 255.0, mask)


def test_ssim_inside_a_mask_is_the_mean_of_its_map_there():
    sr, gt = pair(20, 21, 22, 1)
    mask = np.random.default_rng(0).random((20, 21, 22)) < 0.3
    _, whole = reference_ssim(sr, gt, full=True)
    valid = (slice(5, -5),) * 3
    assert SSIM().inside(sr, gt, 255.0, mask) == pytest.approx(whole[valid][mask[valid]].mean(), abs=1e-12)
    assert SSIM().inside(sr, gt, 255.0, np.ones_like(mask)) == pytest.approx(SSIM()(sr, gt, 255.0), abs=1e-12)


@pytest.mark.parametrize("metric", [PSNR(), SSIM(), NRMSE()])
def test_an_empty_mask_is_refused(metric):
    sr, gt = pair(20, 21, 22, 1)
    with pytest.raises(DataError, match="the mask is empty"):
        metric.inside(sr, gt, 255.0, np.zeros((20, 21, 22), bool))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slice_ssim_is_the_mean_over_slices_and_leaves_out_empty_ones(axis):
    sr, gt = pair(14, 15, 16, 1)
    index = [slice(None)] * 3
    index[axis] = slice(0, 2)
    gt[tuple(index)], sr[tuple(index)] = 0, 3
    slices = range(2, gt.shape[axis])
    expected = np.mean([SSIM()(sr.take(k, axis), gt.take(k, axis), 255.0) for k in slices])
    assert SliceSSIM(axis=axis)(sr, gt, 255.0) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(DataError, match="every slice of gt across axis"):
        SliceSSIM(axis=axis)(sr, np.ones_like(gt), 255.0)


@pytest.mark.parametrize(("better", "expected"), [("higher", [1, 0, 0, 2]), ("lower", [1, 2, 2, 0])])
def test_methods_whose_means_are_printed_alike_share_their_place(better, expected):
    means = {"a": 30.1, "b": 30.126, "c": 30.1301, "d": 29.0}  # b and c are both 30.13
    assert list(places(means, better, digits=2).values()) == expected


def test_a_method_without_any_error_is_first():
    assert places({"a": 40.0, "same": math.inf}, "higher", digits=4) == {"a": 1, "same": 0}
