"""Kernels by their formulas, and what is drawn for one picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from srkit.imaging.blind import BlurRanges, DegradationRanges, StageRanges
from srkit.imaging.kernels import bell_kernel, sinc_kernel

KINDS = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]


def blurs(**changes) -> BlurRanges:
    values = {
        "largest": 21, "kinds": KINDS, "probs": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03], "sinc_prob": 0.1,
        "sigma": (0.2, 3.0), "betag": (0.5, 4.0), "betap": (1.0, 2.0),
    }  # fmt: skip
    return BlurRanges(**(values | changes))


def ranges(first: dict | None = None, blur: dict | None = None, **changes) -> DegradationRanges:
    stage = {
        "blur": blurs(**(blur or {})), "blur_prob": 0.8, "resize_prob": (0.2, 0.7, 0.1), "resize_range": (0.15, 1.5),
        "gaussian_noise_prob": 0.5, "noise_range": (1, 30), "poisson_scale_range": (0.05, 3), "gray_noise_prob": 0.4,
        "jpeg_range": (30, 95),
    }  # fmt: skip
    return DegradationRanges(
        first=StageRanges(**(stage | (first or {}))),
        second=StageRanges(**stage),
        **({"final_sinc_prob": 0.8} | changes),
    )


def many(settings, count: int = 600) -> list:
    return [settings.draw(np.random.default_rng([7, k])) for k in range(count)]


# Kernels


def test_a_round_bell_of_exponent_one_is_the_gaussian():
    column = cv2.getGaussianKernel(13, 1.7)
    np.testing.assert_allclose(bell_kernel(13, (1.7, 1.7)), column @ column.T, atol=1e-12)


@pytest.mark.parametrize(
    ("profile", "beta", "ratios"),
    [
        # at 1, 2 and 3 sigma: exp(-d / 2) of d = 1, 4, 9; with beta 0.5 of d = 1, 2, 3; plateau 1 / (1 + d)
        ("gaussian", 1.0, [math.exp(-0.5), math.exp(-2.0), math.exp(-4.5)]),
        ("gaussian", 0.5, [math.exp(-0.5), math.exp(-1.0), math.exp(-1.5)]),
        ("plateau", 1.0, [1 / 2, 1 / 5, 1 / 10]),
        ("plateau", 2.0, [1 / 2, 1 / 17, 1 / 82]),
    ],
)
def test_a_profile_falls_off_as_its_formula_says(profile, beta, ratios):
    kernel = bell_kernel(15, (2.0, 1.0), profile=profile, beta=beta)
    assert kernel.sum() == pytest.approx(1.0)
    centre = kernel[7, 7]
    np.testing.assert_allclose(kernel[7, [9, 11, 13]] / centre, ratios)  # sigma 2 along the columns' direction
    np.testing.assert_allclose(kernel[[8, 9, 10], 7] / centre, ratios)


def test_a_slanted_kernel_is_longest_along_its_angle_from_columns_to_rows():
    kernel = bell_kernel(21, (4.0, 1.0), math.pi / 4)
    assert kernel[13, 13] / kernel[10, 10] == pytest.approx(math.exp(-0.5 * 18 / 16))  # (3, 3) lies on the long axis
    assert kernel[7, 13] / kernel[10, 10] == pytest.approx(math.exp(-0.5 * 18))
    np.testing.assert_allclose(bell_kernel(21, (4.0, 1.0), math.pi / 2), bell_kernel(21, (1.0, 4.0)), atol=1e-15)


@pytest.mark.parametrize("cutoff", [math.pi / 4, math.pi / 2])
def test_the_sinc_filter_passes_low_frequencies_and_stops_high_ones(cutoff):
    kernel = sinc_kernel(201, cutoff)
    response = np.abs(np.fft.fft2(np.fft.ifftshift(kernel)))
    rows = 2 * np.pi * np.fft.fftfreq(201)
    frequency = np.hypot(rows[:, None], rows[None, :])
    # Cut to a square, it rings at the cutoff (Gibbs); 0.15 radians away little of that is left.
    assert np.abs(response[frequency < cutoff - 0.15] - 1).max() < 0.05
    assert response[frequency > cutoff + 0.15].max() < 0.05
    assert kernel.sum() == pytest.approx(1.0)


def test_kernels_without_a_centre_are_refused():
    for make in (lambda: bell_kernel(8, (1.0, 1.0)), lambda: sinc_kernel(8, 1.0)):
        with pytest.raises(ValueError, match="odd side"):
            make()


# Draws


def test_equal_generators_draw_equal_degradations():
    first, again = (ranges().draw(np.random.default_rng([3, 1, 4])) for _ in range(2))
    assert (first.first, first.second, first.sinc, first.noise_seed) == (
        again.first, again.second, again.sinc, again.noise_seed,
    )  # fmt: skip
    np.testing.assert_array_equal(first.kernels, again.kernels)
    assert len({d.noise_seed for d in many(ranges(), 50)}) == 50


def test_a_changed_range_changes_nothing_else():
    changes = {"jpeg_range": (10, 20), "noise_range": (0, 1), "resize_prob": (1, 0, 0)}
    for drawn, other in zip(many(ranges(), 50), many(ranges(first=changes, final_sinc_prob=0.0), 50)):
        assert drawn.first.blur == other.first.blur
        assert drawn.first.mode == other.first.mode
        assert drawn.second == other.second
        assert (drawn.mode, drawn.jpeg_last, drawn.noise_seed) == (other.mode, other.jpeg_last, other.noise_seed)


def test_kinds_come_as_often_as_their_probability_says():
    drawn = many(blurs(), 4000)
    for kind, share in zip([*KINDS, "sinc"], [*(0.9 * p for p in (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)), 0.1]):
        spread = math.sqrt(share * (1 - share) / 4000)
        assert sum(b.kind == kind for b in drawn) / 4000 == pytest.approx(share, abs=4 * spread)


def test_kernel_sizes_are_the_odd_numbers_from_7_to_the_largest_alike():
    sizes = [b.size for b in many(blurs(), 4000)]
    assert sorted(set(sizes)) == [7, 9, 11, 13, 15, 17, 19, 21]
    for size in set(sizes):
        assert sizes.count(size) / 4000 == pytest.approx(1 / 8, abs=4 * math.sqrt(7 / 64 / 4000))
    assert {b.size for b in many(blurs(largest=7), 20)} == {7}


def test_values_stay_in_their_ranges_and_reach_both_ends():
    drawn = many(blurs(), 4000)
    bells = [b for b in drawn if b.kind != "sinc"]
    extents = [s for b in bells for s in b.sigma]
    assert 0.2 <= min(extents) < 0.25
    assert 2.95 < max(extents) <= 3.0
    betag = [b.beta for b in bells if b.kind.startswith("generalized")]
    assert 0.5 <= min(betag) < 0.55
    assert 3.8 < max(betag) <= 4.0
    assert sum(b < 1 for b in betag) / len(betag) == pytest.approx(0.5, abs=2 / math.sqrt(len(betag)))
    assert all(b.sigma[0] == b.sigma[1] for b in bells if "aniso" not in b.kind)
    assert all(b.beta == 1 for b in bells if b.kind in ("iso", "aniso"))
    sincs = [b for b in drawn if b.kind == "sinc"]
    assert all(b.cutoff >= math.pi / (3 if b.size < 13 else 5) for b in sincs)
    assert min(b.cutoff for b in sincs) < math.pi / 4


def test_resizes_go_up_down_or_keep_as_often_as_asked():
    sizes = [d.first.resize for d in many(ranges(), 2000)]
    assert 0.15 <= min(sizes) < 0.17
    assert 1.45 < max(sizes) <= 1.5
    for share, count in ((0.2, sum(s > 1 for s in sizes)), (0.7, sum(s < 1 for s in sizes))):
        assert count / 2000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 2000))
    assert sizes.count(1.0) > 100


def test_the_kernels_that_travel_are_those_of_the_drawn_values():
    for drawn in many(ranges(), 20):
        for blur, kernel in zip((drawn.first.blur, drawn.second.blur, drawn.sinc), drawn.kernels):
            assert kernel.shape == (21, 21)
            assert kernel.dtype == np.float32
            assert kernel.sum() == pytest.approx(1.0, abs=1e-6)
            edge = (21 - blur.size) // 2
            assert not kernel[:edge].any()
            assert kernel[edge].any()
            if blur.kind == "none":
                assert kernel[10, 10] == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ranges(first={"resize_prob": (0.5, 0.5)}), "resize_prob: found 2 values, expected three: up, down, keep"),
        (ranges(first={"resize_range": (1.2, 1.5)}), r"resize_range: found \[1.2, 1.5\], expected two numbers"),
        (ranges(first={"jpeg_range": (30, 101)}), r"jpeg_range: .*numbers from 1 to 100"),
        (ranges(first={"noise_range": (30, 1)}), r"noise_range: .*the lowest and the highest value, numbers from 0"),
        (ranges(first={"gaussian_noise_prob": 1.5}), "gaussian_noise_prob: 1.5 is no probability"),
        (ranges(final_sinc_prob=-0.1), "final_sinc_prob: -0.1 is no probability"),
        (ranges(blur={"largest": 20}), "blur_kernel_size2: 20 is no odd number from 7"),
        (ranges(blur={"probs": [1.0]}), "kernel_prob2: found 1 values, expected one per kernel of kernel_list2"),
        (ranges(blur={"probs": [0.0] * 6}), "kernel_prob2: .*not negative and not all 0"),
        (ranges(blur={"sigma": (0.0, 1.0)}), "blur_sigma2: .*numbers above 0"),
        (ranges(blur={"betag": (1.5, 4.0)}), "betag_range2: .*one above 0 and at most 1, one from 1 on"),
    ],
)
def test_ranges_that_cannot_be_are_named_as_in_the_option_file(settings, words):
    import re

    problems = settings.problems()
    assert any(re.match(words, problem) for problem in problems), problems


def test_the_published_ranges_have_no_problem():
    assert ranges().problems() == []
