"""RealESRGANDataset: windows, crops and draws on the host, lq on the device, the same whatever workers and resumes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tiny import assert_same_end, in_process, options, pictures, write_options
from torch.nn import functional as F

from srkit.data import RealESRGANDataset
from srkit.data.loader import collate, train_batches
from srkit.engine.recipes import RecipeParts, Scene, Supervised, WeightedLoss
from srkit.engine.transfer import Batch, Normalization, to_device
from srkit.errors import DataError, RefusedError
from srkit.imaging.degradations import sharpen
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.tools.__main__ import main

MILD: dict[str, Any] = {
    "gt_usm": False, "kernel_list": ["iso"], "kernel_prob": [1.0], "blur_sigma": (0.1, 0.1), "sinc_prob": 0.0,
    "second_blur_prob": 0.0, "final_sinc_prob": 0.0, "resize_prob": (0, 0, 1), "resize_prob2": (0, 0, 1),
    "gaussian_noise_prob": 1.0, "gaussian_noise_prob2": 1.0, "noise_range": (0, 0), "noise_range2": (0, 0),
    "jpeg_range": (100, 100), "jpeg_range2": (100, 100),
}  # fmt: skip
"""Nothing but a shrink, and JPEG that loses next to nothing."""
SMALL = {"gt_size": 16, "crop_pad_size": 40, "blur_kernel_size": 7, "blur_kernel_size2": 7}
CPU = torch.device("cpu")


def distinct(height: int, width: int) -> np.ndarray:
    """A picture in which every pixel differs from every other: row in R, column in G."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(height)[:, None], np.arange(width)[None]
    return image


def smooth(seed: int, height: int = 64, width: int = 64) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return imresize(coarse, 8)


def dataset(root, *images: np.ndarray, scale: tuple[int, int] = (4, 4), **changes) -> RealESRGANDataset:
    for k, image in enumerate(images):
        write_image(root / f"gt/p{k}.png", image)
    given = {"scale": scale, "dataroot_gt": str(root / "gt"), "cache": "none", **SMALL, **changes}
    return RealESRGANDataset(**given)


def batch_of(data: RealESRGANDataset, *seeds: int, normalization: Normalization | None = None) -> Batch:
    samples = [data.sample(k % len(data), np.random.default_rng([0, 0, k])) for k in seeds]
    return to_device(collate(samples), CPU, normalization or Normalization(), data.on_device)


def test_a_batch_holds_lq_gt_and_the_sharpened_gt_at_their_sizes(tmp_path):
    batch = batch_of(dataset(tmp_path, smooth(0), scale=(2, 4)), 0, 1, 2)
    assert batch.lq.shape == (3, 3, 8, 4)
    assert batch.gt.shape == batch.target("gt_usm").shape == (3, 3, 16, 16)
    assert set(batch_of(dataset(tmp_path, gt_usm=False), 0).extras) == set()


def test_gt_is_a_crop_of_the_picture_mirrored_and_turned_as_asked(tmp_path):
    image = distinct(64, 60)
    data = dataset(tmp_path, image, use_hflip=True, use_rot=True)
    symmetries, corners = set(), set()
    for gt in (batch_of(data, *range(60)).gt * 255).round().movedim(1, -1).numpy().astype(np.uint8):
        rows, columns = gt[..., 0], gt[..., 1]
        top, left = int(rows.min()), int(columns.min())
        cut = image[top : top + 16, left : left + 16]
        forms = [
            np.ascontiguousarray(f) for t in (cut, cut.swapaxes(0, 1)) for f in (t, t[::-1], t[:, ::-1], t[::-1, ::-1])
        ]
        symmetries.add(next(k for k, form in enumerate(forms) if np.array_equal(form, gt)))
        corners.add((top, left))
    assert len(symmetries) == 8
    assert len(corners) > 30
    plain = batch_of(dataset(tmp_path), *range(20)).gt
    assert (plain[:, 0].diff(dim=1) > 0).all()  # neither mirrored
    assert (plain[:, 1].diff(dim=2) > 0).all()  # nor turned


def test_lq_shows_what_gt_shows(tmp_path):
    # Grey and without fine detail: neither JPEG's colour nor the way of shrinking then makes a difference.
    wavy = [np.repeat(imresize(smooth(k, 24, 24)[..., :1], 4), 3, axis=2) for k in range(2)]
    data = dataset(tmp_path, *wavy, use_hflip=True, use_rot=True, **{**MILD, "gt_size": 24})
    batch = batch_of(data, *range(12))
    shrunk = F.interpolate(batch.gt, scale_factor=1 / 4, mode="area")

    def apart(other: torch.Tensor) -> torch.Tensor:
        return (other - shrunk)[..., 1:-1, 1:-1].abs().mean(dim=(1, 2, 3)) * 255

    assert (apart(batch.lq) < 1.5).all()
    for wrong in (batch.lq.flip(-1), batch.lq.transpose(-1, -2), batch.lq.roll(1, -1), batch.lq.roll(1, -2)):
        assert (apart(wrong) > 2 * apart(batch.lq)).all()


def test_a_picture_smaller_than_the_window_is_continued_and_gt_holds_none_of_that(tmp_path):
    image = distinct(21, 30)
    data = dataset(tmp_path, image, use_hflip=True, use_rot=True)
    sample = data.sample(0, np.random.default_rng(0))
    assert sample.images["gt"].shape == (40, 40, 3)
    for gt in (batch_of(data, *range(40)).gt * 255).round():
        assert len(torch.unique(gt.flatten(1).T, dim=0)) == 256  # no pixel of the picture stands in it twice


def test_the_sharpened_gt_is_cut_from_the_sharpened_window(tmp_path):
    data = dataset(tmp_path, smooth(0, 40, 40), gt_size=40)
    batch = batch_of(data, 0)
    assert torch.equal(batch.target("gt_usm"), sharpen(batch.gt))
    assert not torch.equal(batch.target("gt_usm"), batch.gt)


def test_grey_pictures_become_three_channels(tmp_path):
    batch = batch_of(dataset(tmp_path, smooth(0)[..., :1]), 0)
    assert batch.lq.shape[1] == 3
    assert torch.equal(batch.gt[:, 0], batch.gt[:, 2])


def test_sixteen_bit_pictures_keep_their_depth_in_gt(tmp_path):
    image = smooth(0).astype(np.uint16) * 16 + 5
    batch = batch_of(dataset(tmp_path, image, bit_depth=12), 0)
    levels = batch.gt * 4095
    torch.testing.assert_close(levels, levels.round(), atol=2e-3, rtol=0)
    assert 0.5 < batch.gt.max() <= 1


def test_what_is_made_of_a_sample_does_not_depend_on_its_batch(tmp_path):
    data = dataset(tmp_path, smooth(0), smooth(1))
    together = batch_of(data, 3, 4, 5)
    for place, seed in enumerate((3, 4, 5)):
        alone = batch_of(data, seed)
        assert torch.equal(alone.lq[0], together.lq[place])
        assert torch.equal(alone.target("gt_usm")[0], together.target("gt_usm")[place])
    assert not torch.equal(together.lq[0], together.lq[2])  # the same picture, degraded anew


@pytest.mark.parametrize("changes", [{"num_workers": 2}, {"start_sample": 6}])
def test_neither_workers_nor_a_resume_change_batches(tmp_path, changes):
    data = dataset(tmp_path, *(smooth(k) for k in range(5)))

    def made(count: int, **more) -> list[Batch]:
        host = train_batches(data, seed=1, batch_size=3, **more)
        batches = [to_device(b, CPU, Normalization(), data.on_device) for b in itertools.islice(host, count)]
        host.close()
        return batches

    for batch, wanted in zip(made(4, **changes), made(6)[changes.get("start_sample", 0) // 3 :]):
        assert batch.names == wanted.names
        assert torch.equal(batch.lq, wanted.lq)
        assert torch.equal(batch.gt, wanted.gt)


def test_the_sharpened_gt_is_normalised_like_gt(tmp_path):
    data = dataset(tmp_path, smooth(0))
    plain, seen = batch_of(data, 0), batch_of(data, 0, normalization=Normalization((0.5,), (0.25,)))
    for name in ("gt", "gt_usm"):
        torch.testing.assert_close(seen.target(name), (plain.target(name) - 0.5) / 0.25)


def test_a_loss_compares_with_its_target():
    sr, gt, usm = (torch.full((1, 3, 2, 2), v) for v in (0.5, 0.6, 0.9))
    losses = {name: WeightedLoss(F.l1_loss, target=name) for name in ("gt", "gt_usm")}
    scene = Scene(Batch(sr, gt, {"gt_usm": usm}, ["x"]), sr, 0)
    terms = Supervised(RecipeParts(networks={}, losses=losses)).turns[0].terms(scene)
    assert terms["l_gt"].item() == pytest.approx(0.1)
    assert terms["l_gt_usm"].item() == pytest.approx(0.4)


def test_names_come_from_a_list_of_lines_with_or_without_sizes(tmp_path):
    listed = tmp_path / "meta.txt"
    listed.write_text("p1.png\np0.png (64,64,3)\n")
    data = dataset(tmp_path, smooth(0), smooth(1), smooth(2), meta_info=str(listed))
    assert [data.sample(k, np.random.default_rng(0)).name for k in range(len(data))] == ["p1", "p0"]


def test_check_names_what_is_unreadable_and_what_is_too_small(tmp_path):
    write_image(tmp_path / "gt/small.png", smooth(0, 8, 64))
    write_image(tmp_path / "gt/good.png", smooth(0))
    (tmp_path / "gt/bad.png").write_bytes(b"none")
    data = dataset(tmp_path)
    with pytest.raises(DataError) as caught:
        data.check()
    assert "bad.png" in str(caught.value)
    assert "1 gt pictures are smaller than the crop of 16x16 (gt_size): " in str(caught.value)
    with pytest.raises(DataError, match=r"small.png is 64x8, smaller than gt_size 16"):
        data.sample(2, np.random.default_rng(0))


def test_decoded_pictures_are_kept(tmp_path):
    data = dataset(tmp_path, smooth(0), smooth(1), cache="disk", cache_dir=str(tmp_path / "cache"))
    before = batch_of(data, 0, 1)
    data.prepare(progress=False)
    for k in range(2):
        (tmp_path / f"gt/p{k}.png").unlink()
    assert torch.equal(batch_of(data, 0, 1).lq, before.lq)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gt_size": 18}, "gt_size: 18 is not a multiple of scale 4; 16 and 20 are"),
        ({"gt_size": 64}, "crop_pad_size: 40 is below gt_size 64"),
        ({"blur_kernel_size": 21}, "crop_pad_size: 40 is resized to 6 pixels at the least .* reach 10"),
        ({"crop_pad_size": 24}, "crop_pad_size: 24 is resized to 3 pixels"),
        ({"jpeg_range": (0, 95), "sinc_prob2": 2.0}, "jpeg_range: .*; sinc_prob2: 2.0 is no probability"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(RefusedError, match=message):
        dataset(tmp_path, smooth(0), **changes)


def training(tiny, **changes) -> dict:
    data = options(tiny, **changes)
    train = data["datasets"]["train"]
    for key in ("dataroot_lq", "use_rot"):
        train.pop(key)
    train.update(type="RealESRGANDataset", **SMALL)
    data["train"]["pixel_opt"]["target"] = "gt_usm"
    return data


def test_a_resumed_training_equals_an_uninterrupted_one(tiny):
    changes = {"train__total_iter": 6, "val__val_freq": 2}
    assert in_process(tiny, training(tiny, **changes)) == 0
    assert in_process(tiny, training(tiny, name="parts", **(changes | {"train__total_iter": 4}))) == 0
    assert in_process(tiny, training(tiny, name="parts", **changes), "--auto_resume") == 0
    assert_same_end(tiny / "experiments/tiny", tiny / "experiments/parts", 6)


def test_evaluating_on_it_is_refused_at_the_start(tiny, capsys):
    data = training(tiny)
    data["datasets"]["val"] = {
        "name": "val",
        "type": "RealESRGANDataset",
        "dataroot_gt": str(tiny / "data/gt"),
        **SMALL,
    }
    assert in_process(tiny, data) == 2
    assert "makes another lq at every look" in capsys.readouterr().err
    assert not (tiny / "experiments/tiny").exists()


def test_degrade_writes_a_page_and_pairs_that_can_be_validated_on(tiny, capsys):
    file = str(write_options(tiny, training(tiny)))
    assert main(["degrade", "-opt", file, "--count", "3", "--out", "page.png", "--pairs", "pairs"]) == 0
    assert "3 pictures degraded" in capsys.readouterr().out
    assert main(["degrade", "-opt", file, "--count", "2", "--pairs", "pairs"]) == 2  # old and new pairs never mix
    assert "pairs exists; remove it" in capsys.readouterr().err
    assert read_image("page.png").shape[1] > 2 * 16
    assert sorted(p.name for p in (tiny / "pairs/lq").iterdir()) == ["0000_p0.png", "0001_p1.png", "0002_p2.png"]
    pairs = {"dataroot_gt": "pairs/gt", "dataroot_lq": "pairs/lq"}
    data = training(tiny, train__total_iter=2)
    data["datasets"]["val"] = {"name": "val", "type": "PairedImageDataset", **pairs}
    assert in_process(tiny, data) == 0


def test_degrade_takes_other_pictures_by_the_same_dice(tiny):
    pictures(tiny / "others", count=1, seed=5)
    file = str(write_options(tiny, training(tiny)))
    force = [f"datasets:train:dataroot_gt={tiny / 'others/gt'}", "datasets:train:gt_size=24"]
    assert main(["degrade", "-opt", file, "--count", "1", "--pairs", "pairs", "--force_yml", *force]) == 0
    gt, source = read_image("pairs/gt/0000_p0.png"), read_image(tiny / "others/gt/p0.png")
    assert gt.shape == (24, 24, 3)
    windows = np.lib.stride_tricks.sliding_window_view(source, gt.shape)[:, :, 0]
    turned = [np.rot90(m, k) for m in (gt, gt[:, ::-1]) for k in range(4)]
    assert any((windows == t).all(axis=(2, 3, 4)).any() for t in turned)


def test_degrade_shows_the_very_samples_of_the_training(tiny):
    file = str(write_options(tiny, training(tiny)))
    assert main(["degrade", "-opt", file, "--count", "1", "--pairs", "pairs"]) == 0
    given = {"dataroot_gt": str(tiny / "data/gt"), "use_hflip": True, "cache": "none", **SMALL}
    data = RealESRGANDataset(scale=(2, 2), **given)
    sample = data.sample(0, np.random.default_rng([3, 0, 0]))
    batch = to_device(collate([sample]), CPU, Normalization(), data.on_device)
    lq = (batch.lq[0].movedim(0, -1) * 255).round().numpy().astype(np.uint8)
    np.testing.assert_array_equal(read_image("pairs/lq/0000_p0.png"), lq)


def test_degrade_without_anything_to_write_is_refused(tiny, capsys):
    assert main(["degrade", "-opt", str(write_options(tiny, training(tiny)))]) == 2
    assert "give --out page.png, --pairs folder, or both" in capsys.readouterr().err
