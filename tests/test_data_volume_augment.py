"""What chance does to a patch: draws that do not disturb each other, warps, fields and contrast of known effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from srkit.data.volume_augment import VolumeAugment, VolumeDraw, Warp, flipped, shaded, warped, with_gamma
from srkit.errors import RefusedError

BLOCK = (16, 20, 24)
CUBIC_VOXELS = (1.0, 1.0, 1.0)
ALL_ON = {"flip_axes": (0, 1, 2), "affine_prob": 0.5, "elastic_prob": 0.5, "gamma_prob": 0.5, "bias_prob": 0.5}


def smooth(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.uniform(0, 100, shape), 2).astype(np.float32)


def spot(shape, at, sigma: float = 2.0) -> np.ndarray:
    grid = np.indices(shape).astype(np.float64)
    squared = sum((g - a) ** 2 for g, a in zip(grid, at))
    return np.exp(-squared / (2 * sigma**2)).astype(np.float32)


def where(x: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(x.astype(np.float64)))


def draws(augment: VolumeAugment, count: int = 60) -> list[VolumeDraw]:
    return [augment.draw(np.random.default_rng([3, k]), BLOCK) for k in range(count)]


def same(a, b) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, Warp) and isinstance(b, Warp):
        return all(same(vars(a)[key], vars(b)[key]) for key in vars(a))
    return a == b if not isinstance(a, np.ndarray | Warp) and not isinstance(b, np.ndarray | Warp) else False


@pytest.mark.parametrize("off", ["flip_axes", "affine_prob", "elastic_prob", "gamma_prob", "bias_prob"])
def test_switching_one_thing_off_leaves_the_draws_of_the_others(off):
    full = VolumeAugment(**ALL_ON)
    part = replace(full, **{off: () if off == "flip_axes" else 0.0})
    mine = {"flip_axes": "flips", "gamma_prob": "gamma", "bias_prob": "bias"}.get(off)
    for a, b in zip(draws(full), draws(part)):
        for name in {"flips", "gamma", "bias"} - {mine}:
            assert same(getattr(a, name), getattr(b, name))
        if off == "affine_prob" and a.warp is not None and a.warp.control is not None:
            assert same(a.warp.control, b.warp.control)
        if off == "elastic_prob" and b.warp is not None:
            assert (a.warp.degrees, a.warp.stretch, a.warp.shift) == (b.warp.degrees, b.warp.stretch, b.warp.shift)


def test_draws_stay_in_their_ranges_and_fill_them():
    augment = VolumeAugment(**{k: v if k == "flip_axes" else 1.0 for k, v in ALL_ON.items()})
    found = draws(augment, 200)
    ranges = {
        "degrees": (-15, 15, [d.warp.degrees for d in found]),
        "stretch": (0.9, 1.1, [d.warp.stretch for d in found]),
        "shift": (-0.1, 0.1, [np.divide(d.warp.shift, BLOCK) for d in found]),
        "gamma": (-0.3, 0.3, [np.log(d.gamma) for d in found]),
        "bias": (-0.5, 0.5, [d.bias[0, 0, 0] for d in found]),
        "control": (-5, 5, [d.warp.control.ravel()[:20] for d in found]),
    }
    for name, (low, high, values) in ranges.items():
        values = np.concatenate([np.ravel(v) for v in values])
        margin = 0.05 * (high - low)
        assert low <= values.min() < low + margin, name
        assert high - margin < values.max() <= high, name


def test_each_axis_is_mirrored_in_half_of_the_draws_and_only_if_named():
    flips = np.array([d.flips for d in draws(VolumeAugment(flip_axes=(0, 2)), 400)])
    assert not flips[:, 1].any()
    assert np.abs(flips.mean(axis=0)[[0, 2]] - 0.5).max() < 0.1
    assert len({tuple(f) for f in flips}) == 4


def test_nothing_is_drawn_by_default():
    assert all(d == VolumeDraw() for d in draws(VolumeAugment()))
    assert VolumeAugment().describe() == "off"


def test_description_says_what_is_on():
    augment = VolumeAugment(flip_axes=(2, 0), affine_prob=0.5, bias_prob=0.1)
    assert augment.describe() == "flips of axes 0, 2, affine 0.5, bias field 0.1"


def test_flips_mirror_the_named_axes():
    x = smooth(3, 4, 5)
    np.testing.assert_array_equal(flipped(x, (True, False, True)), x[::-1, :, ::-1])


def test_a_warp_of_nothing_is_the_patch_itself():
    x = smooth(30, 30, 30)
    np.testing.assert_allclose(warped(x, (4, 5, 6), BLOCK, Warp(), CUBIC_VOXELS), x[4:20, 5:25, 6:30], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_about_an_axis_is_numpy_s(axis):
    x = smooth(21, 21, 21)
    degrees = tuple(90.0 if a == axis else 0.0 for a in range(3))
    turned = warped(x, (0, 0, 0), x.shape, Warp(degrees=degrees), CUBIC_VOXELS)
    np.testing.assert_allclose(turned, np.rot90(x, axes=((axis + 1) % 3, (axis + 2) % 3)), atol=1e-3)


def test_a_patch_turns_about_its_own_centre():
    x = spot((40, 40, 40), (11.5, 14.5, 23.5))
    turned = warped(x, (4, 5, 12), BLOCK, Warp(degrees=(10, -12, 15)), CUBIC_VOXELS)
    np.testing.assert_allclose(where(turned), [7.5, 9.5, 11.5], atol=1e-3)


def test_turns_are_in_millimetres_so_that_nothing_shears():
    # 4 voxels of 0.5 mm along axis 0, turned about axis 2, are 8 voxels of 0.25 mm along axis 1.
    x = spot((41, 41, 21), (24, 20, 10), sigma=1.5)
    turned = warped(x, (0, 0, 0), x.shape, Warp(degrees=(0, 0, 90)), (0.5, 0.25, 1.0))
    np.testing.assert_allclose(where(turned), [20, 28, 10], atol=0.02)


def test_content_is_stretched_before_it_is_turned():
    # Out along axis 0 by 4 and twice that; then turned to axis 1.
    x = spot((41, 41, 21), (24, 20, 10), sigma=1.5)
    turned = warped(x, (0, 0, 0), x.shape, Warp(degrees=(0, 0, 90), stretch=(2.0, 1.0, 1.0)), CUBIC_VOXELS)
    np.testing.assert_allclose(where(turned), [20, 28, 10], atol=0.02)


def test_content_is_shifted_by_voxels_of_the_patch():
    x = spot((40, 40, 40), (12, 20, 22), sigma=1.0)
    moved = warped(x, (4, 8, 12), BLOCK, Warp(shift=(1.5, -2.25, 3.0)), CUBIC_VOXELS)
    plain = warped(x, (4, 8, 12), BLOCK, Warp(), CUBIC_VOXELS)
    np.testing.assert_allclose(where(moved) - where(plain), [1.5, -2.25, 3.0], atol=0.02)


def test_beyond_the_volume_its_outer_voxels_continue():
    x = smooth(20, 20, 20)
    out = warped(x, (-3, 0, 10), (10, 20, 16), Warp(), CUBIC_VOXELS)
    np.testing.assert_allclose(out, np.pad(x, ((3, 0), (0, 0), (0, 6)), mode="edge")[:10, :, 10:], atol=1e-4)


def test_a_warped_patch_takes_real_voxels_from_around_it():
    x = smooth(60, 60, 60)
    whole = warped(x, (10, 10, 10), (40, 40, 40), Warp(degrees=(0, 0, 10)), CUBIC_VOXELS)
    part = warped(x, (20, 20, 20), (20, 20, 20), Warp(degrees=(0, 0, 10)), CUBIC_VOXELS)
    np.testing.assert_allclose(part, whole[10:30, 10:30, 10:30], atol=1e-4)


def test_equal_control_points_shift_everything_alike():
    x = smooth(40, 40, 40)
    control = np.zeros((3, 4, 5, 5))
    control[1] = 2.0
    bent = warped(x, (10, 8, 8), BLOCK, Warp(control=control, control_distance=16.0), CUBIC_VOXELS)
    np.testing.assert_allclose(bent, x[10:26, 10:30, 8:32], atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_elastic_bending_stays_within_its_limit_and_never_folds(seed):
    block = (48, 40, 36)
    augment = VolumeAugment(elastic_prob=1.0)
    warp = augment.draw(np.random.default_rng(seed), block).warp
    assert warp is not None
    extreme = replace(warp, control=np.copysign(5.0, warp.control))
    axes = np.meshgrid(*[np.arange(n + 20.0) for n in block], indexing="ij")
    places = np.stack([warped(a.astype(np.float32), (10, 10, 10), block, extreme, CUBIC_VOXELS) for a in axes])
    moved = places - np.stack(np.meshgrid(*[np.arange(n) + 10.0 for n in block], indexing="ij"))
    assert 2.5 < np.abs(moved).max() <= 5.001
    jacobian = np.stack([np.stack(np.gradient(p)) for p in places.astype(np.float64)])
    assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0


def test_the_bias_field_is_the_exponential_of_its_polynomial_over_the_volume():
    shape = (10, 8, 6)
    bias = np.zeros((4, 4, 4))
    bias[0, 0, 0], bias[1, 0, 0], bias[0, 1, 2] = 0.2, 0.5, -0.3
    i, j, k = np.meshgrid(*[(2 * np.arange(n) + 1) / n - 1 for n in shape], indexing="ij")
    field = np.exp(0.2 + 0.5 * i - 0.3 * j * k**2)
    ones = np.ones(shape, np.float32)
    np.testing.assert_allclose(shaded(ones, bias, (0, 0, 0), shape), field, rtol=1e-5)
    np.testing.assert_allclose(shaded(ones[2:6, 1:, :4], bias, (2, 1, 0), shape), field[2:6, 1:, :4], rtol=1e-5)


def test_the_bias_field_is_of_third_degree():
    bias = VolumeAugment(bias_prob=1.0).draw(np.random.default_rng(0), BLOCK).bias
    degrees = np.indices(bias.shape).sum(axis=0)
    assert (bias[degrees <= 3] != 0).all()
    assert np.count_nonzero(bias) == 20


def test_gamma_keeps_black_white_and_sign():
    unit = np.array([-0.25, 0.0, 0.25, 1.0, 4.0], np.float32)
    np.testing.assert_allclose(with_gamma(unit, 0.5), [-0.5, 0, 0.5, 1, 2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flip_axes": (0, 3)}, r"flip_axes: found \[0, 3\]"),
        ({"flip_axes": (1, 1)}, r"flip_axes: found \[1, 1\]"),
        ({"affine_prob": 1.5}, "affine_prob must lie in 0 to 1, got 1.5"),
        ({"bias_prob": -0.1}, "bias_prob must lie in 0 to 1"),
        ({"rotation_deg": -1.0}, "rotation_deg must not be negative"),
        ({"gamma_log": -1.0}, "gamma_log must not be negative"),
        ({"scaling": (1.1, 0.9)}, "scaling: found"),
        ({"scaling": (0.0, 1.0)}, "scaling: found"),
        ({"elastic_voxels": 0.0}, "elastic_voxels must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(given, message):
    with pytest.raises(RefusedError, match=message):
        VolumeAugment(**given)
