"""Black and white of a volume, and where its body is."""

from __future__ import annotations

import numpy as np
import pytest

from srkit.errors import DataError
from srkit.imaging.intensity import body_mask, intensity_range, to_unit


def stripped(seed: int = 0) -> np.ndarray:
    """A third of exact zeros round a body of 100 to 300."""
    rng = np.random.default_rng(seed)
    x = np.zeros((12, 10, 10), np.float32)
    x[2:10] = rng.uniform(100, 300, (8, 10, 10))
    return x


METHODS = ["percentiles", "zscore", "easysr_g1", "easysr_g2"]


def test_percentiles_are_those_of_what_is_not_zero():
    x = np.zeros((10, 10, 20), np.float32)
    x[:5] = np.random.default_rng(0).permutation(np.arange(1, 1001)).reshape(5, 10, 20)
    # Linear between ranks of 1..1000: 1 + 0.005 * 999 and 1 + 0.995 * 999.
    assert intensity_range(x, "percentiles") == pytest.approx((5.995, 995.005), rel=1e-6)


def test_zscore_is_mean_and_mean_plus_deviation_of_what_is_not_zero():
    x = np.zeros((4, 4, 4), np.float32)
    x[0], x[1] = 10, 14
    assert intensity_range(x, "zscore") == pytest.approx((12, 14))


@pytest.mark.parametrize("method", METHODS)
def test_a_scan_of_doubled_values_has_a_doubled_range(method):
    black, white = intensity_range(stripped(), method)
    assert intensity_range(stripped() * 2, method) == pytest.approx((2 * black, 2 * white), rel=1e-6)


@pytest.mark.parametrize("method", METHODS[:3])
def test_unit_intensities_are_turned_back_exactly(method):
    x = stripped() * 260  # up to 78,000
    black, white = intensity_range(x, method)
    back = to_unit(x, black, white).astype(np.float64) * (white - black) + black
    assert np.abs(back - x).max() / x.max() <= 1e-5


def test_easysr_s_first_generation_is_zscore_then_min_max():
    x = stripped()
    z = (x - x.mean(dtype=float)) / x.std(dtype=float)
    theirs = (z - z.min()) / (z.max() - z.min()) * 255
    np.testing.assert_allclose(to_unit(x, *intensity_range(x, "easysr_g1"), clip=True) * 255, theirs, atol=1e-3)


def test_easysr_s_second_generation_clips_between():
    x = stripped()
    x[3, 3, :3] = 3000, 4000, -2500
    z = ((x - x.mean(dtype=float)) / x.std(dtype=float)).clip(-2.58, 2.58)
    assert np.abs(z).max() == 2.58
    theirs = (z - z.min()) / (z.max() - z.min()) * 255
    np.testing.assert_allclose(to_unit(x, *intensity_range(x, "easysr_g2"), clip=True) * 255, theirs, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_volume_is_refused(method, value):
    with pytest.raises(DataError, match=r"every voxel is 0|cannot be told apart"):
        intensity_range(np.full((4, 4, 4), value, np.float32), method)


def test_the_body_of_a_masked_volume_is_what_is_not_zero():
    x = stripped()
    x[5, 5, 5] = -3
    np.testing.assert_array_equal(body_mask(x, 0.9), x != 0)


def test_the_body_of_a_whole_head_lies_above_the_threshold():
    x = np.linspace(0, 100, 8000, dtype=np.float32).reshape(20, 20, 20)
    found = body_mask(x, 0.1)
    # Percentiles of the non-zero ramp are 0.5 and 99.5: the body begins at 0.5 + 0.1 * 99.
    assert x[found].min() == pytest.approx(10.4, abs=0.03)
    assert x[~found].max() == pytest.approx(10.4, abs=0.03)
