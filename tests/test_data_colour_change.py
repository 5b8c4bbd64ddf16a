"""Brightness, contrast, saturation and hue: torchvision's results, alike in both halves, by chance as said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as reference

from srkit.data import PairedImageDataset
from srkit.data.colour_change import ColourChange, ColourFactors
from srkit.errors import RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.resize import nearest_upscale


def picture(side: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, (side, side, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ("change", "theirs", "amount"),
    [
        ("brightness", reference.adjust_brightness, 1.2),
        ("contrast", reference.adjust_contrast, 0.8),
        ("saturation", reference.adjust_saturation, 1.5),
        ("saturation", reference.adjust_saturation, 0.5),
        ("hue", reference.adjust_hue, 0.05),
        ("hue", reference.adjust_hue, -0.5),
    ],
)
def test_each_change_is_torchvisions(change, theirs, amount):
    image = picture()
    factors = ColourFactors(**{change: amount})
    mine = factors(image, 65535, factors.pivot(image, 65535))
    tensor = torch.from_numpy(image.astype(np.float32) / 65535).permute(2, 0, 1)
    expected = theirs(tensor, amount).permute(1, 2, 0).numpy() * 65535
    # torchvision weighs grey by 0.2989, 0.587, 0.114, whose sum is 0.9999: at most 65535 * 1e-4 * |1 - factor|
    assert mine.dtype == np.uint16
    assert np.abs(mine - expected).max() <= 0.5 + 65535 * 1e-4 * abs(1 - amount) + 0.6


def test_one_grey_level_of_eight_bit_at_most_is_lost_in_rounding():
    image = (picture() >> 8).astype(np.uint8)
    nothing = ColourFactors()
    np.testing.assert_array_equal(nothing(image, 255, 0.5), image)
    whole_turn = ColourFactors(hue=0.5)(ColourFactors(hue=0.5)(image, 255, 0), 255, 0)
    assert np.abs(whole_turn.astype(int) - image).max() <= 1


def test_grey_pictures_keep_their_channel():
    grey = np.array([[[100], [200]]], np.uint8)
    factors = ColourFactors(brightness=0.5, contrast=2.0, saturation=1.5, hue=0.2)
    pivot = factors.pivot(grey, 255)
    assert pivot == pytest.approx(75 / 255)  # of 50 and 100
    np.testing.assert_array_equal(factors(grey, 255, pivot), [[[25], [125]]])  # 75 - 2 * 25, 75 + 2 * 25


def dataset(folder, **options) -> PairedImageDataset:
    lq = picture(16)
    write_image(folder / "gt/a.png", nearest_upscale(lq, 2))
    write_image(folder / "lq/a.png", lq)
    roots = {"dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
    return PairedImageDataset(scale=(2, 2), **roots, gt_size=16, cache="none", **options)


CHANGES = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.5, "hue": 0.05}


def test_both_halves_change_alike_and_as_often_as_said(tmp_path):
    data, plain = dataset(tmp_path, **CHANGES), dataset(tmp_path)
    touched = 0
    for k in range(200):
        images = data.sample(0, np.random.default_rng([0, 0, k])).images
        np.testing.assert_array_equal(nearest_upscale(images["lq"], 2), images["gt"])
        touched += not np.array_equal(plain.sample(0, np.random.default_rng([0, 0, k])).images["lq"], images["lq"])
    assert 178 < touched < 197  # 1 - 0.5^4 of 200 is 187.5, sd 3.4
    certain = dataset(tmp_path, **CHANGES, color_change_prob=1.0)
    first = [certain.sample(0, np.random.default_rng(k)).images["lq"].mean() for k in range(20)]
    assert len(set(first)) == 20


def test_factors_stay_in_their_range():
    change = ColourChange(prob=1.0, **CHANGES)
    drawn = [change.draw(np.random.default_rng(k)) for k in range(500)]
    for name, middle, span in (("brightness", 1, 0.2), ("contrast", 1, 0.2), ("saturation", 1, 0.5), ("hue", 0, 0.05)):
        values = np.array([getattr(d, name) for d in drawn])
        assert abs(values - middle).max() <= span
        assert values.std() == pytest.approx(span / 3**0.5, rel=0.1)  # of a uniform distribution


def test_it_leaves_crops_and_damage_as_they_were(tmp_path):
    damage = {"lq_dropout_prob": 1.0, "lq_dropout_holes": 1}
    off, on = dataset(tmp_path, **damage), dataset(tmp_path, **damage, **CHANGES)
    for k in range(30):
        a, b = (d.sample(0, np.random.default_rng(k)).images["lq"] for d in (off, on))
        np.testing.assert_array_equal((a == 0).all(axis=-1), (b == 0).all(axis=-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"brightness": 1.5}, "brightness must lie in 0 to 1, got 1.5"),
        ({"hue": 0.6}, "hue must lie in 0 to 0.5"),
        ({"hue": 0.1, "color_change_prob": 2}, "color_change_prob must lie in 0 to 1, got 2"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(RefusedError, match=message):
        dataset(tmp_path, **options)
