"""One sample: what is read, cut, turned and shifted; and what the check finds in the files."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from srkit.data import PairedImageDataset, SingleImageDataset
from srkit.data.augment import Augment
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize, nearest_upscale


def picture(seed: int, height: int = 24, width: int = 32, channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (height, width, channels), dtype=dtype, endpoint=True)


def one_pair(root, gt: np.ndarray, lq: np.ndarray, suffix: str = ".png", **options) -> PairedImageDataset:
    write_image(root / f"gt/a{suffix}", gt)
    write_image(root / f"lq/a{suffix}", lq)
    given = {"scale": (2, 2), "dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq"), "cache": "none"}
    return PairedImageDataset(**(given | options))


def draws(data: PairedImageDataset, count: int = 40):
    return [data.sample(0, np.random.default_rng([0, 0, k])) for k in range(count)]


def test_lq_and_gt_get_the_same_crop_flips_and_transpose(tmp_path):
    lq = picture(0, 12, 16)
    data = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=8, use_hflip=True, use_rot=True)
    samples = draws(data)
    for sample in samples:
        assert sample.images["lq"].shape == (4, 4, 3)
        np.testing.assert_array_equal(nearest_upscale(sample.images["lq"], 2), sample.images["gt"])
    assert len({s.images["lq"].tobytes() for s in samples}) > 30


def test_augmentation_reaches_all_eight_symmetries_and_each_corner(tmp_path):
    lq = picture(0, 4, 4)
    data = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=8, use_hflip=True, use_rot=True)
    assert len({s.images["lq"].tobytes() for s in draws(data, 100)}) == 8
    corners = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=6)
    assert len({s.images["lq"].tobytes() for s in draws(corners)}) == 4


def test_without_a_generator_the_picture_is_whole_and_unturned(tmp_path):
    gt, lq = picture(0), picture(1, 12, 16)
    sample = one_pair(tmp_path, gt, lq, gt_size=8, use_hflip=True, color_jitter_prob=1.0).sample(0, None)
    np.testing.assert_array_equal(sample.images["gt"], gt)
    np.testing.assert_array_equal(sample.images["lq"], lq)
    assert sample.white == 255.0


def test_centre_crop_is_centred(tmp_path):
    lq = picture(0, 12, 16)
    data = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=8, crop_type="center")
    np.testing.assert_array_equal(draws(data, 1)[0].images["lq"], lq[4:8, 6:10])


def test_jitter_adds_one_offset_a_channel_to_both_and_clips(tmp_path):
    lq = np.full((4, 4, 3), 100, np.uint8)
    data = one_pair(tmp_path, np.full((8, 8, 3), 100, np.uint8), lq, gt_size=8, color_jitter_prob=1.0)
    offsets = []
    for sample in draws(data, 200):
        values = {name: np.unique(image.reshape(-1, 3), axis=0) for name, image in sample.images.items()}
        assert values["lq"].shape == (1, 3)
        np.testing.assert_array_equal(values["lq"], values["gt"])
        offsets.append(values["lq"][0].astype(int) - 100)
    assert np.abs(offsets).max() == 20
    assert sum(len(set(o)) == 1 for o in offsets) < 20  # channels move apart
    bright = one_pair(tmp_path, np.full((8, 8, 3), 250, np.uint8), lq + 150, gt_size=8, color_jitter_prob=1.0)
    assert min(s.images["gt"].min() for s in draws(bright)) >= 230  # a wrapped value would be near 0
    assert draws(bright)[0].images["lq"].dtype == np.uint8


def test_jitter_probability_is_kept_and_leaves_the_crops_alone(tmp_path):
    lq = picture(3, 12, 16)
    off = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=8)
    tenth = one_pair(tmp_path, nearest_upscale(lq, 2), lq, gt_size=8, color_jitter_prob=0.1)
    same = [np.array_equal(a.images["gt"], b.images["gt"]) for a, b in zip(draws(off, 400), draws(tenth, 400))]
    assert 330 < sum(same) < 385  # 360 expected, sd 6


def test_numpy_and_cv2_turn_alike():
    augment = Augment(scale=(2, 2), use_hflip=True, use_rot=True)
    image = picture(0, 6, 6)
    for k in range(30):
        draw = augment.draw(np.random.default_rng(k), image.shape[:2], 255)
        wide = np.concatenate([image, image], axis=-1)  # 6 channels take numpy's way
        np.testing.assert_array_equal(augment.turn(image, draw), augment.turn(wide, draw)[..., :3])


def test_volumes_are_cropped_and_turned_together():
    augment = Augment(scale=(1, 2, 2), gt_size=(2, 4, 4), use_hflip=True, use_rot=True)
    lq = np.random.default_rng(0).random((5, 6, 7, 1))
    gt = nearest_upscale(lq, (1, 2, 2))
    for k in range(20):
        draw = augment.draw(np.random.default_rng(k), lq.shape[:3], 1.0)
        small = augment.turn(augment.crop(lq, draw), draw)
        large = augment.turn(augment.crop(gt, draw, augment.scale), draw)
        np.testing.assert_array_equal(nearest_upscale(small, (1, 2, 2)), large)


def test_sixteen_bit_is_kept_and_white_follows_bit_depth(tmp_path):
    gt, lq = picture(0, dtype=np.uint16) >> 4, picture(1, 12, 16, dtype=np.uint16) >> 4
    assert one_pair(tmp_path, gt, lq).sample(0, None).white == 65535.0
    data = one_pair(tmp_path, gt, lq, bit_depth=12)
    data.check()
    assert data.sample(0, None).white == 4095.0
    np.testing.assert_array_equal(data.sample(0, None).images["gt"], gt)


def test_values_above_the_bit_depth_are_found(tmp_path):
    data = one_pair(tmp_path, picture(0, dtype=np.uint16), picture(1, 12, 16, dtype=np.uint16), bit_depth=12)
    with pytest.raises(DataError, match="exceed bit_depth 12, whose white is 4095"):
        data.check()


def test_grey_becomes_three_channels_except_gt_in_evaluation(tmp_path):
    data = one_pair(tmp_path, picture(0, channels=1), picture(1, 12, 16, 1), gt_size=8)
    whole, crop = data.sample(0, None).images, draws(data, 1)[0].images
    assert [whole["lq"].shape[-1], whole["gt"].shape[-1]] == [3, 1]
    assert [crop["lq"].shape[-1], crop["gt"].shape[-1]] == [3, 3]


def test_luma_is_float_and_unrounded_but_gt_in_evaluation_keeps_its_integers(tmp_path):
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    data = one_pair(tmp_path, red, red[:4, :4], gt_size=8, color="y")
    crop, whole = draws(data, 1)[0].images, data.sample(0, None).images
    assert crop["gt"].shape == (8, 8, 1)
    assert crop["gt"][0, 0, 0] == pytest.approx(16 + 65.481, abs=1e-4)  # BT.601 limited range
    assert whole["lq"].dtype == np.float32
    np.testing.assert_array_equal(whole["gt"], red)


def test_evaluation_cuts_gt_by_less_than_one_scale_step_and_no_more(tmp_path):
    gt = picture(0, 25, 33)
    assert one_pair(tmp_path, gt, picture(1, 12, 16)).sample(0, None).images["gt"].shape == (24, 32, 3)
    data = one_pair(tmp_path, gt, picture(1, 11, 16))
    with pytest.raises(DataError, match=r"gt/a.png is 33x25; expected 32x22"):
        data.sample(0, None)
    with pytest.raises(
        DataError, match=r"1 gt pictures are not scale \(2, 2\) times their lq: .*33x25, expected 32x22"
    ):
        data.check()
    with pytest.raises(DataError, match="not scale"):
        one_pair(tmp_path, picture(0, 23, 32), picture(1, 12, 16)).check()  # gt shorter than lq x scale


def test_training_on_crops_needs_exact_sizes(tmp_path):
    with pytest.raises(DataError, match="33x25, expected 32x24"):
        one_pair(tmp_path, picture(0, 25, 33), picture(1, 12, 16), gt_size=8).check()


def test_lq_made_from_gt_has_the_cut_size_and_training_accepts_it(tmp_path):
    write_image(tmp_path / "a.png", np.full((25, 33, 3), 77, np.uint8))
    data = PairedImageDataset(scale=(4, 4), dataroot_gt=str(tmp_path), gt_size=8, cache="none")
    data.check()
    sample = data.sample(0, None)
    assert sample.images["gt"].shape == (24, 32, 3)
    np.testing.assert_array_equal(sample.images["lq"], np.full((6, 8, 3), 77, np.uint8))
    assert draws(data, 1)[0].images["gt"].shape == (8, 8, 3)


def test_scale_augment_adds_each_picture_shrunk_with_lq_made_from_that(tmp_path):
    pictures = [picture(k, 24, 24) for k in range(2)]
    for name, image in zip("ab", pictures):
        write_image(tmp_path / f"gt/{name}.png", image)
    data = PairedImageDataset(
        scale=(2, 2),
        dataroot_gt=str(tmp_path / "gt"),
        gt_size=12,
        scale_augment=[1, 0.5],
        cache_dir=str(tmp_path / "c"),
    )
    data.check()
    assert len(data) == 4
    for k, whole in enumerate(pictures):
        half = imresize(whole, Fraction(1, 2))
        sample = data.sample(2 + k, np.random.default_rng(0))
        np.testing.assert_array_equal(sample.images["gt"], half)
        np.testing.assert_array_equal(sample.images["lq"], imresize(half, Fraction(1, 2)))
        assert sample.paths["gt"].endswith(f"{'ab'[k]}.png shrunk to 0.5")
        crop = data.sample(k, np.random.default_rng(0)).images["gt"]
        assert any(np.array_equal(crop, whole[y : y + 12, x : x + 12]) for y in range(13) for x in range(13))
    assert len(set(data.reader.gt.names)) == 4  # the cache and the fingerprint tell the sizes apart


def test_scale_augment_rounds_sizes_up_as_the_resize_does(tmp_path):
    write_image(tmp_path / "a.png", picture(0, 25, 33))
    data = PairedImageDataset(
        scale=(2, 2), dataroot_gt=str(tmp_path), gt_size=8, scale_augment=[0.7], cache="none", check="full"
    )
    assert data.reader.gt.shape(0) == data.reader.gt.read(0).shape == (18, 24, 3)  # 17.5 and 23.1
    data.check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataroot_lq": "lq"}, "brings lq: drop one"),
        ({"gt_size": None}, "found without gt_size"),
        ({"scale_augment": [1, 1.5]}, r"found \[1, 1.5\], expected different factors above 0 and at most 1"),
        ({"scale_augment": [0.9, 0.9]}, "expected different factors"),
    ],
)
def test_scale_augment_is_refused_where_it_means_nothing(tmp_path, options, message):
    write_image(tmp_path / "a.png", picture(0))
    given = {"scale": (2, 2), "dataroot_gt": str(tmp_path), "gt_size": 8, "scale_augment": [1, 0.9]} | options
    with pytest.raises(RefusedError, match=message):
        PairedImageDataset(**given)


def test_pictures_smaller_than_the_crop_are_found(tmp_path):
    with pytest.raises(DataError, match="smaller than the crop of 32x32"):
        one_pair(tmp_path, picture(0), picture(1, 12, 16), gt_size=64).check()


def test_crop_that_is_no_multiple_of_the_scale_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(RefusedError, match="98 is not a multiple of scale 4; 96 and 100 are"):
        PairedImageDataset(scale=(4, 4), dataroot_gt=str(tmp_path), gt_size=98)


def test_check_names_every_bad_file_at_once(tmp_path):
    for k in range(6):
        write_image(tmp_path / f"p{k}.png", picture(k))
    write_image(tmp_path / "p6.png", picture(6, dtype=np.uint16))
    good = (tmp_path / "p0.png").read_bytes()
    (tmp_path / "p1.png").write_bytes(b"")
    (tmp_path / "p2.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "p3.png").write_bytes(b"GIF89a foreign")
    with pytest.raises(DataError) as caught:
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(tmp_path), gt_size=8, cache="none").check()
    text = str(caught.value)
    assert "1 gt files are empty (0 bytes)" in text
    assert "2 files are unreadable" in text
    assert "p2.png" in text
    assert "p3.png" in text
    assert "one bit depth is needed" in text
    assert "16 bit" in text


@pytest.mark.parametrize(("check", "found"), [("auto", 3), ("full", 12)])
def test_large_sets_are_decoded_in_part_unless_check_is_full(tmp_path, monkeypatch, check, found):
    monkeypatch.setattr("srkit.data.checks._ALL_UP_TO", 10)
    monkeypatch.setattr("srkit.data.checks._PART", 3)
    for k in range(12):
        (tmp_path / f"p{k}.png").write_bytes(b"foreign")
    data = SingleImageDataset(dataroot_lq=str(tmp_path), check=check)
    with pytest.raises(DataError, match=f"{found} files are unreadable") as first:
        data.check()
    with pytest.raises(DataError) as second:
        data.check()
    assert str(first.value) == str(second.value)


def test_skip_lets_check_pass_with_a_warning(tmp_path, caplog):
    write_image(tmp_path / "a.png", picture(0))
    (tmp_path / "b.png").write_bytes(b"foreign")
    SingleImageDataset(dataroot_lq=str(tmp_path), on_error="skip").check()
    assert "b.png" in caplog.text


def test_check_off_still_finds_empty_files(tmp_path):
    write_image(tmp_path / "a.png", picture(0))
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(b"foreign")
    with pytest.raises(DataError) as caught:
        SingleImageDataset(dataroot_lq=str(tmp_path), check="off").check()
    assert "b.png" in str(caught.value)
    assert "c.png" not in str(caught.value)


def test_a_picture_above_max_pixels_is_refused(tmp_path):
    with pytest.raises(DataError, match="max_pixels"):
        one_pair(tmp_path, picture(0), picture(1, 12, 16), max_pixels=100).check()


def test_fingerprint_follows_names_and_sizes_not_times(tmp_path):
    data = one_pair(tmp_path, picture(0), picture(1, 12, 16))
    before = data.fingerprint()
    raw = (tmp_path / "gt/a.png").read_bytes()
    (tmp_path / "gt/a.png").write_bytes(raw)
    again = {"scale": (2, 2), "dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq")}
    assert PairedImageDataset(**again).fingerprint() == before
    (tmp_path / "gt/a.png").write_bytes(raw + b"x")
    assert PairedImageDataset(**again).fingerprint() != before
    assert PairedImageDataset(**{**again, "dataroot_lq": None}).fingerprint() != before
