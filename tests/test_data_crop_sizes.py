"""A crop size drawn for each batch: `gt_size` to `gt_size_max`."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from srkit.data import PairedImageDataset
from srkit.data.loader import train_batches
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image


def dataset(folder, side: int = 48, **options) -> PairedImageDataset:
    for k in range(5):
        write_image(folder / f"{k}.png", np.random.default_rng(k).integers(0, 256, (side, side, 3), dtype=np.uint8))
    return PairedImageDataset(scale=(2, 2), dataroot_gt=str(folder), cache="none", **options)


def sides(data: PairedImageDataset, count: int, **options) -> list[int]:
    batches = islice(train_batches(data, seed=3, batch_size=2, **options), count)
    shapes = [(b.images["gt"].shape[1:3], b.images["lq"].shape[1:3]) for b in batches]
    assert all(gt == (2 * lq[0], 2 * lq[1]) and gt[0] == gt[1] for gt, lq in shapes)
    return [gt[0] for gt, _ in shapes]


def test_every_size_comes_and_none_beyond(tmp_path):
    data = dataset(tmp_path, gt_size=16, gt_size_max=30, gt_size_step=4)
    drawn = sides(data, 200)  # 5 pictures in batches of 2: batches straddle epochs too
    assert set(drawn) == {16, 20, 24, 28}  # 32 would be above 30
    assert min(drawn.count(side) for side in set(drawn)) > 30  # 50 expected, sd 6


def test_the_step_is_the_scale_unless_said(tmp_path):
    assert set(sides(dataset(tmp_path, gt_size=16, gt_size_max=20), 60)) == {16, 18, 20}


def test_workers_ranks_and_resumed_runs_see_the_same_sizes(tmp_path):
    data = dataset(tmp_path, gt_size=16, gt_size_max=32)
    whole = sides(data, 12)
    assert sides(data, 12, num_workers=2) == whole
    assert sides(data, 8, start_sample=4 * 2) == whole[4:]
    assert sides(data, 6, rank=1, world_size=2) == whole[1::2]


def test_a_picture_smaller_than_the_largest_crop_is_found_before_training(tmp_path):
    with pytest.raises(DataError, match=r"smaller than the crop of 32x32"):
        dataset(tmp_path, gt_size=16, gt_size_max=64).check()


@pytest.mark.parametrize("gt_size", [[], [16], [16, 16, 16]])
def test_a_crop_has_one_side_or_one_for_each_axis(tmp_path, gt_size):
    with pytest.raises(RefusedError, match=r"gt_size: found \[.*\], expected one number or 2, one for each axis"):
        dataset(tmp_path, gt_size=gt_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gt_size": 32, "gt_size_max": 32}, "found 32 with gt_size 32, expected one number above"),
        ({"gt_size": [16, 32], "gt_size_max": 48}, r"with gt_size \[16, 32\]"),
        ({"gt_size": 16, "gt_size_max": 20, "gt_size_step": 6}, "no size between gt_size 16 and 20 is a whole step"),
        ({"gt_size_max": 48}, "with gt_size None"),
        ({"gt_size": 16, "gt_size_max": 48, "gt_size_step": 3}, r"found 3, expected a multiple of scale \(2, 2\)"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, options, message):
    with pytest.raises(RefusedError, match=message):
        dataset(tmp_path, **options)
