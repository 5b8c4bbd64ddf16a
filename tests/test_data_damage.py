"""Damage to lq crops: what it does, what it leaves alone, and that switching it on changes nothing else."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from srkit.data import PairedImageDataset
from srkit.data.damage import LqDamage
from srkit.errors import RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.jpeg_codec import jpeg_compressed
from srkit.imaging.resize import nearest_upscale


def grey(side: int = 40) -> np.ndarray:
    return np.full((side, side, 3), 200, np.uint8)


def holes_of(image: np.ndarray) -> int:
    return int((image == 0).all(axis=-1).sum())


@pytest.fixture
def pair(tmp_path):
    lq = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)  # never black
    write_image(tmp_path / "gt/a.png", nearest_upscale(lq, 2))
    write_image(tmp_path / "lq/a.png", lq)
    return {"scale": (2, 2), "dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "cache": "none"}


def draws(data: PairedImageDataset, count: int = 200) -> list[dict[str, np.ndarray]]:
    return [data.sample(0, np.random.default_rng([0, 0, k])).images for k in range(count)]


AUGMENTED = {"gt_size": 32, "use_hflip": True, "use_rot": True, "color_jitter_prob": 0.3}
DAMAGED = {"lq_dropout_prob": 0.25, "lq_jpeg_prob": 0.25}


def test_switching_damage_on_leaves_crops_flips_and_jitter_as_they_were(pair):
    plain = draws(PairedImageDataset(**pair, **AUGMENTED))
    damaged = draws(PairedImageDataset(**pair, **AUGMENTED, **DAMAGED))
    touched = 0
    for a, b in zip(plain, damaged):
        np.testing.assert_array_equal(a["gt"], b["gt"])
        touched += not np.array_equal(a["lq"], b["lq"])
    assert 60 < touched < 116  # 1 - 0.75^2 of 200 is 87.5, sd 7


def test_jitter_leaves_the_damage_as_it_was(pair):
    off = draws(PairedImageDataset(**pair, gt_size=32, lq_dropout_prob=1.0))
    on = draws(PairedImageDataset(**pair, gt_size=32, lq_dropout_prob=1.0, color_jitter_prob=1.0, color_jitter_shift=0))
    for a, b in zip(off, on):
        np.testing.assert_array_equal(a["lq"], b["lq"])


def test_a_picture_that_is_evaluated_is_not_damaged(pair):
    whole = PairedImageDataset(**pair, lq_dropout_prob=1.0, lq_jpeg_prob=1.0).sample(0, None).images
    np.testing.assert_array_equal(nearest_upscale(whole["lq"], 2), whole["gt"])


def test_the_crop_it_is_given_keeps_its_pixels():
    lq = grey()  # a crop is often a view of the decoded cache
    assert holes_of(LqDamage(dropout_prob=1.0)(lq, np.random.default_rng(0), 255)) > 0
    np.testing.assert_array_equal(lq, grey())


def test_holes_are_as_many_and_as_large_as_said():
    damage = LqDamage(dropout_prob=1.0, dropout_holes=8, dropout_size=2)
    areas = [holes_of(damage(grey(), np.random.default_rng(k), 255)) for k in range(400)]
    assert min(areas) >= 1
    assert max(areas) <= 8 * 2 * 2
    # 4.5 holes of 1.5 x 1.5 pixels on average, some overlap (a hundredth of the area)
    assert np.mean(areas) == pytest.approx(4.5 * 1.5**2, rel=0.08)
    one = LqDamage(dropout_prob=1.0, dropout_holes=1, dropout_size=1)
    assert {holes_of(one(grey(), np.random.default_rng(k), 255)) for k in range(20)} == {1}


def test_holes_fit_into_a_crop_smaller_than_they_are():
    damage = LqDamage(dropout_prob=1.0, dropout_size=9)
    for k in range(20):
        assert damage(grey(3), np.random.default_rng(k), 255).shape == (3, 3, 3)


def test_probabilities_are_kept():
    damage = LqDamage(dropout_prob=0.25)
    hit = sum(holes_of(damage(grey(), np.random.default_rng(k), 255)) > 0 for k in range(800))
    assert 160 < hit < 240  # 200 expected, sd 12


def test_every_quality_from_lowest_to_highest_is_drawn():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = {jpeg_compressed(image, q).tobytes() for q in (65, 66, 67)}
    damage = LqDamage(jpeg_prob=1.0, jpeg_quality=(65, 67))
    assert {damage(image, np.random.default_rng(k), 255).tobytes() for k in range(60)} == expected


@pytest.mark.parametrize("quality", [65, 100])
def test_jpeg_is_what_another_encoder_leaves(quality):
    smooth = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((64, 48), Image.Resampling.BICUBIC))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    theirs = np.asarray(Image.open(file)).astype(int)
    ours = jpeg_compressed(image, quality).astype(int)
    assert np.abs(ours - theirs).max() <= 2  # both are libjpeg's; versions differ in the rounding of chroma
    assert np.abs(ours - image).max() > 2


def test_sixteen_bit_passes_through_eight_bit_and_keeps_its_white():
    image = np.full((16, 16, 1), 4095, np.uint16)
    out = jpeg_compressed(image, 90, white=4095)
    assert out.dtype == np.uint16
    assert out.shape == (16, 16, 1)
    assert np.unique(out).tolist() == [4095]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lq_jpeg_prob": 1.5}, "lq_jpeg_prob must lie in 0 to 1, got 1.5"),
        ({"lq_dropout_prob": -0.1}, "lq_dropout_prob must lie in 0 to 1"),
        ({"lq_jpeg_quality": (90, 65)}, r"found \[90, 65\], expected lowest and highest of 1 to 100"),
        ({"lq_jpeg_quality": (0, 65)}, "of 1 to 100"),
        ({"lq_dropout_holes": 0}, "lq_dropout_holes must be 1 or more, got 0"),
        ({"lq_dropout_size": 0}, "lq_dropout_size must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused(pair, options, message):
    with pytest.raises(RefusedError, match=message):
        PairedImageDataset(**pair, **options)
