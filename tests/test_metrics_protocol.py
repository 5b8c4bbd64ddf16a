"""Protocols: what they do to a pair, and when two are the same."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from srkit.errors import DataError, RefusedError
from srkit.imaging.colour import quantize
from srkit.imaging.files import read_image, write_image
from srkit.metrics import PROTOCOLS, PSNR, SSIM, Protocol, custom_protocol, protocol_named, summarize


def noise(*shape, dtype=np.uint8, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


RGB, Y = PROTOCOLS["natural-rgb-v1"], PROTOCOLS["natural-y-v1"]
CHANGED = {
    "colour": "rgb",
    "y_range": "full",
    "rounding": "none",
    "border": 4,
    "data_range": "gt-volume",
    "mask": "whole-and-inside",
    "window": "box 7",
    "ms_window": "three scales",
    "axes": 3,
    "aggregation": "pooled",
}


def test_the_five_named_protocols_exist_under_their_own_names():
    assert list(PROTOCOLS) == ["natural-y-v1", "natural-rgb-v1", "histology-rgb-v1", "faces-rgb-v1", "mri-volume-v1"]
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Protocol)])
def test_the_hash_changes_with_every_field_but_name_and_baselines(field):
    if field in ("name", "baselines"):
        assert dataclasses.replace(Y, **{field: ("x",)}).hash == Y.hash
        return
    values = {field: CHANGED[field]} | ({"y_range": "none"} if field == "colour" else {})
    assert dataclasses.replace(Y, **values).hash != Y.hash


def test_a_hash_is_8_hex_digits_and_the_same_tomorrow():
    assert Y.hash == dataclasses.replace(Y).hash
    assert len(Y.hash) == 8
    assert int(Y.hash, 16) >= 0
    assert len({p.hash for p in (Y, RGB, PROTOCOLS["mri-volume-v1"])}) == 3


def test_custom_protocols_are_named_by_their_hash():
    custom = custom_protocol(2, True)
    assert custom.name == f"custom:{custom.hash}"
    assert custom.hash != custom_protocol(2, False).hash != custom_protocol(0, False).hash


def test_unknown_names_get_the_nearest():
    with pytest.raises(RefusedError, match="did you mean 'natural-y-v1'"):
        protocol_named("natural-y")


def test_the_border_is_the_scale_of_each_axis():
    assert RGB.prepare(noise(20, 30, 3), noise(20, 30, 3), (2, 3), 255.0).gt.shape == (16, 24, 3)


def test_border_0_keeps_everything():
    gt = noise(20, 30, 3)
    prepared = custom_protocol(0, False).prepare(gt, gt, (4, 4), 255.0)
    assert (prepared.gt == gt).all()


def test_a_border_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match="leaves nothing"):
        custom_protocol(4, False).prepare(noise(8, 30, 3), noise(8, 30, 3), (2, 2), 255.0)


def test_limited_luma_is_20_log10_of_255_over_219_above_full_range():
    sr, gt = noise(30, 30, 3, seed=1), noise(30, 30, 3)
    full = dataclasses.replace(Y, y_range="full")
    gap = PSNR()(*Y.prepare(sr, gt, (2, 2), 255.0)) - PSNR()(*full.prepare(sr, gt, (2, 2), 255.0))
    # 65.481 / 255 is 0.299 * 219 / 255 but for the standard's own rounding
    assert gap == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)


@pytest.mark.parametrize("protocol", [RGB, Y])
def test_a_grey_gt_is_its_own_luma_and_a_colour_sr_is_reduced_to_it(protocol):
    grey = noise(20, 20, 1)
    prepared = protocol.prepare(np.repeat(grey, 3, axis=2), grey, (2, 2), 255.0)
    assert prepared.sr.shape == prepared.gt.shape == (16, 16, 1)
    assert (prepared.gt == grey[2:-2, 2:-2]).all()
    assert np.abs(prepared.sr - prepared.gt).max() < 1e-12


def test_a_grey_sr_of_a_colour_gt_is_refused():
    with pytest.raises(DataError, match="sr has 1 channels, gt 3"):
        RGB.prepare(noise(20, 20, 1), noise(20, 20, 3), (2, 2), 255.0)


def test_a_one_channel_sr_is_compared_with_the_limited_luma_of_a_colour_gt():
    sr, gt = noise(20, 20, 1), noise(20, 20, 3)
    prepared = Y.prepare(sr, gt, (2, 2), 255.0)
    wanted = 16 + gt[2:-2, 2:-2].astype(float) @ np.array([65.481, 128.553, 24.966]) / 255
    np.testing.assert_allclose(prepared.gt[..., 0], wanted, rtol=1e-12)
    np.testing.assert_array_equal(prepared.sr, sr[2:-2, 2:-2])


@pytest.mark.parametrize("protocol", [RGB, Y])
def test_psnr_of_12_bit_data_needs_its_real_white(protocol):
    sr, gt = (noise(20, 20, 3, dtype=np.uint16, high=4096, seed=s) for s in (0, 1))
    right, wrong = (PSNR()(*protocol.prepare(sr, gt, (2, 2), white)) for white in (4095.0, 65535.0))
    assert wrong - right == pytest.approx(20 * math.log10(65535 / 4095), abs=1e-9)  # 24.1 dB too good


def test_16_bit_scores_as_8_bit_of_the_same_relative_error():
    sr, gt = noise(20, 20, 3), noise(20, 20, 3, seed=1)
    wide = [image.astype(np.uint16) * 257 for image in (sr, gt)]
    for metric in (PSNR(), SSIM()):
        assert metric(*Y.prepare(*wide, (2, 2), 65535.0)) == pytest.approx(metric(*Y.prepare(sr, gt, (2, 2), 255.0)))


def test_gt_above_its_white_is_refused():
    gt = np.full((20, 20, 1), 5000, np.uint16)
    with pytest.raises(DataError, match="gt holds 5000, above its white of 4095"):
        RGB.prepare(gt, gt, (2, 2), 4095.0)


@pytest.mark.parametrize(
    ("sr", "white", "reason"),
    [
        (noise(20, 20, 3).astype(np.float32), 255.0, "sr is float32"),
        (noise(20, 20, 3, dtype=np.uint16), 255.0, "sr is uint16"),
        (noise(20, 18, 3), 255.0, r"\(20, 18, 3\)"),
        (noise(20, 20, 3), 65535.0, "white of 8-bit"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(sr, white, reason):
    with pytest.raises(DataError, match=reason):
        RGB.prepare(sr, noise(20, 20, 3), (2, 2), white)


def test_volumes_keep_their_floats_border_and_range():
    sr, gt = (np.random.default_rng(s).random((12, 13, 14, 1)) * 7e4 for s in (0, 1))
    prepared = PROTOCOLS["mri-volume-v1"].prepare(sr, gt, (1, 1, 4), 78000.0)
    assert (prepared.sr == sr).all()
    assert (prepared.gt == gt).all()
    assert prepared.data_range == 78000.0
    own = dataclasses.replace(PROTOCOLS["mri-volume-v1"], data_range="gt-volume")
    assert own.prepare(sr, gt, (1, 1, 4), 1.0).data_range == gt.max() - gt.min()


def test_a_constant_volume_has_no_range():
    own = dataclasses.replace(PROTOCOLS["mri-volume-v1"], data_range="gt-volume")
    with pytest.raises(DataError, match="is gt constant"):
        own.prepare(np.ones((12, 12, 12, 1)), np.ones((12, 12, 12, 1)), (1, 1, 4), 1.0)


def test_volumes_and_pictures_are_not_mixed_up():
    with pytest.raises(DataError, match="3D"):
        PROTOCOLS["mri-volume-v1"].prepare(noise(20, 20, 3), noise(20, 20, 3), (2, 2), 255.0)


def test_the_metric_of_an_array_is_the_metric_of_the_saved_file(tmp_path):
    gt = noise(20, 20, 3)
    sr = quantize(np.random.default_rng(1).random((20, 20, 3)), np.uint8, 255)
    write_image(tmp_path / "sr.png", sr)
    assert PSNR()(*Y.prepare(sr, gt, (2, 2), 255.0)) == PSNR()(
        *Y.prepare(read_image(tmp_path / "sr.png"), gt, (2, 2), 255.0)
    )


def test_summary_of_one_image_is_that_image():
    assert summarize([28.5]) == {
        "n": 1, "n_groups": 1, "n_identical": 0, "mean": 28.5, "sd": None, "median": 28.5, "min": 28.5, "max": 28.5, "ci95": None,
    }  # fmt: skip


def test_summary_counts_identical_images_and_averages_the_rest():
    summary = summarize([30.0, math.inf, 34.0, 32.0])
    assert summary == {
        "n": 4, "n_groups": 4, "n_identical": 1, "mean": 32.0, "sd": 2.0, "median": 32.0, "min": 30.0, "max": 34.0, "ci95": None,
    }  # fmt: skip
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_identical_images_only_has_no_mean():
    assert summarize([math.inf, math.inf])["mean"] is None


def test_the_interval_is_the_percentile_bootstrap():
    values = np.random.default_rng(1).normal(30, 2, 20)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(5))
    low, high = summarize(values)["ci95"]
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.06)  # two draws of 10,000


def test_images_of_one_group_do_not_count_as_independent():
    values = np.random.default_rng(1).normal(30, 2, 8)
    alone = summarize(values)["ci95"]
    tenfold = summarize(np.repeat(values, 10), [f"slide {k}" for k in range(8) for _ in range(10)])
    assert tenfold["ci95"] == pytest.approx(alone, abs=1e-9)
    assert tenfold["n_groups"] == 8
    as_if = summarize(np.repeat(values, 10))["ci95"]
    assert as_if[1] - as_if[0] < 0.5 * (alone[1] - alone[0])


def test_fewer_than_six_groups_have_no_interval():
    assert summarize([1.0, 2.0, 3.0, 4.0, 5.0])["ci95"] is None
    assert summarize([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])["ci95"] is not None


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [-math.inf]])
def test_no_values_and_no_numbers_are_errors(values):
    with pytest.raises(DataError):
        summarize(values)


def test_the_interval_of_many_groups_is_the_same_drawn_in_parts(monkeypatch):
    from srkit.metrics import summary

    values = list(np.random.default_rng(0).normal(28, 3, 301))
    groups = [f"slide {k // 3}" for k in range(301)]
    whole = summary.interval(values, groups)
    monkeypatch.setattr(summary, "_DRAWN_AT_ONCE", 777)
    assert summary.interval(values, groups) == whole


def test_the_interval_of_many_thousand_pictures_needs_no_gigabytes():
    import tracemalloc

    values = list(np.random.default_rng(0).normal(28, 3, 2000))
    tracemalloc.start()
    assert summarize(values)["ci95"] is not None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6  # all draws at once: 480 MB


@pytest.mark.parametrize("wanted", [{"edges": True, "test_y_channel": False}, {"test_y_channel": True}])
def test_volumes_have_neither_edge_maps_nor_luma(wanted):
    with pytest.raises(RefusedError, match="volumes have no"):
        custom_protocol(None, axes=3, **wanted)
