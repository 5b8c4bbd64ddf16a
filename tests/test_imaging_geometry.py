"""Where voxels of enlarged, permuted and re-spaced grids lie."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from srkit.errors import RefusedError
from srkit.imaging.geometry import (
    corners,
    orientation,
    permuted_affine,
    respaced_affine,
    scaled_affine,
    shear_mm,
    spacing_mm,
    thick_axis,
    world,
)


def oblique(seed, spacing=(0.15, 0.15, 0.9)):
    """An affine with random directions, mirrored or not, and a random origin within 60 mm."""
    draw = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(draw.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = draw.uniform(-60, 60, 3)
    return affine


def test_a_row_of_two_voxels_enlarged_by_three_lies_where_arithmetic_says():
    # Two voxels of 3 mm at 0 and 3 mm cover -1.5 to 4.5 mm; six of 1 mm over that stretch are centred at -1, 0, ... 4.
    fine = scaled_affine(np.diag([3.0, 3.0, 3.0, 1.0]), (3, 1, 1))
    assert world(fine, [[i, 0, 0] for i in range(6)]) == pytest.approx(np.array([[i, 0, 0] for i in range(-1, 5)]))


@pytest.mark.parametrize("scale", [(1, 3, 1), (6, 1, 1), (2, 2, 2), (1.5, 1, 0.5), (1, 1, 1)])
@pytest.mark.parametrize("seed", range(5))
def test_outer_corners_and_centre_stay_put(seed, scale):
    affine, shape = oblique(seed), np.array([8, 10, 12])
    enlarged = shape * scale
    fine = scaled_affine(affine, scale)
    assert world(fine, corners(enlarged)) == pytest.approx(world(affine, corners(shape)), abs=1e-9)
    assert world(fine, (enlarged - 1) / 2) == pytest.approx(world(affine, (shape - 1) / 2), abs=1e-9)
    assert spacing_mm(fine) == pytest.approx(np.array(spacing_mm(affine)) / scale)


def test_an_output_voxel_lies_at_its_input_coordinate():
    affine, scale, index = oblique(7), np.array([2, 3, 4]), np.array([5, 1, 9])
    assert world(scaled_affine(affine, scale), index) == pytest.approx(world(affine, (index + 0.5) / scale - 0.5))


def test_enlarging_and_shrinking_again_is_no_change():
    affine = oblique(3)
    assert scaled_affine(scaled_affine(affine, (2, 5, 3)), (1 / 2, 1 / 5, 1 / 3)) == pytest.approx(affine)


def test_the_given_affine_is_left_as_it_was():
    affine = oblique(1)
    before = affine.copy()
    scaled_affine(affine, (2, 2, 2))
    respaced_affine(affine, (4, 4, 4), (1, 1, 1))
    permuted_affine(affine, (2, 0, 1))
    assert (affine == before).all()


@pytest.mark.parametrize("scale", [(1, 0, 1), (1, -2, 1), (2, 2), (1, float("nan"), 1), (1, float("inf"), 1)])
def test_scales_that_are_not_three_numbers_above_0_are_refused(scale):
    with pytest.raises(RefusedError, match="expected one number above 0 for each of the three voxel axes"):
        scaled_affine(np.eye(4), scale)


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (1, 0, 2)])
def test_a_transposed_volume_keeps_its_voxels_in_place(axes):
    index = np.array([3, 5, 7])
    turned = permuted_affine(oblique(2), axes)
    assert world(turned, index[list(axes)]) == pytest.approx(world(oblique(2), index))


def test_axes_that_are_no_order_of_three_are_refused():
    with pytest.raises(RefusedError, match=r"axes \(0, 1, 1\) is no order"):
        permuted_affine(np.eye(4), (0, 1, 1))


def test_respacing_keeps_directions_and_centre():
    affine, shape = oblique(4, (2.0, 2.0, 2.0)), (100, 200, 101)
    true = respaced_affine(affine, shape, (0.2, 0.3, 0.4))
    middle = (np.array(shape) - 1) / 2
    assert spacing_mm(true) == pytest.approx((0.2, 0.3, 0.4))
    assert world(true, middle) == pytest.approx(world(affine, middle))
    assert true[:3, :3] / (0.2, 0.3, 0.4) == pytest.approx(affine[:3, :3] / 2)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((0.15, 0.9, 0.15), 1),
        ((0.98, 0.98, 1.0), None),
        ((1.0, 1.0, 1.099), None),
        ((1.0, 1.0, 1.101), 2),
        ((0.1, 0.2, 0.5), 2),
        ((0.5, 0.1, 0.5), None),
    ],
)
def test_the_thick_axis_is_a_tenth_above_both_others(spacing, axis):
    assert thick_axis(spacing) == axis


def test_who_asks_says_how_far_the_thick_axis_stands_out():
    assert thick_axis((1.0, 1.4, 1.0)) == 1
    assert thick_axis((1.0, 1.4, 1.0), within=0.5) is None


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ALS", "PIR", "SLA"])
def test_orientation_names_the_directions_of_the_axes(codes):
    turn = nibabel.orientations.axcodes2ornt(tuple(codes))
    affine = nibabel.orientations.inv_ornt_aff(turn, (4, 5, 6))
    assert orientation(np.linalg.inv(affine)) == codes
    nudged = np.linalg.inv(affine) + np.pad(np.full((3, 3), 0.05), ((0, 1), (0, 1)))
    assert orientation(nudged) == codes


def test_a_grid_of_right_angles_has_no_shear():
    assert shear_mm(oblique(5), (100, 100, 20)) < 1e-9


def test_shear_is_the_distance_at_the_far_corner():
    # Axis j leans by 2 t towards i; the nearest right-angled pair shares that, so each axis is t away from it:
    # at index 99.5 of both that is 0.0995 mm twice, across each other, for t = 0.001 and to first order.
    affine = np.eye(4)
    affine[0, 1] = 0.002
    assert shear_mm(affine, (100, 100, 1)) == pytest.approx(0.0995 * 2**0.5, rel=0.01)
