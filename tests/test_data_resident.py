"""Sets that lie in the memory of the device: the batches are those of the loader, to the bit."""

import logging

import numpy as np
import pytest
import torch
from tiny import assert_same_end, in_process, options, pictures, write_options

from srkit import build
from srkit.data.augment import Augment, Draw
from srkit.data.loader import train_batches
from srkit.data.resident import ResidentDraw, ResidentPictures
from srkit.engine.distributed import Group
from srkit.engine.transfer import Normalization, to_device
from srkit.imaging.files import write_image
from srkit.options import load_options

CPU = torch.device("cpu")
AMPLE = 1e12


@pytest.fixture
def tiny(tmp_path):
    pictures(tmp_path / "data")
    return tmp_path


def built(tmp, **changes):
    changes = {f"datasets__train__{key}": value for key, value in changes.items()}
    loaded = load_options(write_options(tmp, options(tmp, **changes)), mode="train")
    dataset = build.build_dataset(loaded.datasets["train"], loaded.scale)
    dataset.prepare(progress=False)
    return dataset


def first_batches(dataset, count=6, normalization=Normalization()):
    made = train_batches(dataset, seed=5, batch_size=3, enlarge_ratio=2, on_error=dataset.on_error)
    return [to_device(next(made), CPU, normalization, build.finish_of(dataset)) for _ in range(count)]


def assert_same_batches(tmp, normalization=Normalization(), **changes):
    loaded, held = built(tmp, **changes), built(tmp, cache="device", **changes)
    assert held.hold(CPU, AMPLE) == ""
    for ours, theirs in zip(*(first_batches(d, normalization=normalization) for d in (held, loaded)), strict=True):
        assert ours.names == theirs.names
        for mine, other in ((ours.lq, theirs.lq), (ours.gt, theirs.gt)):
            assert torch.equal(mine, other)
            assert mine.is_contiguous()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"crop_type": "center"},
        {"use_rot": False},
        {"color_jitter_prob": 0.5, "color_jitter_shift": 80},
        {"color": "y"},
        {"dataroot_lq": None},
        {"dataroot_lq": None, "scale_augment": [1, 0.75]},
        {"gt_size_max": 24},
        {"use_hflip": False, "use_rot": False, "gt_size": [16, 24]},
    ],
    ids=str,
)
def test_batches_from_the_device_are_those_of_the_loader(tiny, changes):
    assert_same_batches(tiny, **changes)


def test_they_are_normalised_alike(tiny):
    assert_same_batches(tiny, normalization=Normalization((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)))


@pytest.mark.parametrize("depth", [None, 12])
def test_pictures_of_16_bit_keep_values_above_the_largest_signed_one(tmp_path, depth):
    draw = np.random.default_rng(1)
    for k in range(3):
        gt = draw.integers(0, 2 ** (depth or 16), (24, 40, 3)).astype(np.uint16)
        write_image(tmp_path / f"data/gt/{k}.png", gt)
        write_image(tmp_path / f"data/lq/{k}.png", np.ascontiguousarray(gt[::2, ::2]))
    assert_same_batches(tmp_path, bit_depth=depth, color_jitter_prob=0.5)


def test_grey_pictures_become_three_channels_there_too(tmp_path):
    draw = np.random.default_rng(1)
    for k in range(2):
        gt = draw.integers(0, 256, (24, 40, 1)).astype(np.uint8)
        write_image(tmp_path / f"data/gt/{k}.png", gt)
        write_image(tmp_path / f"data/lq/{k}.png", np.ascontiguousarray(gt[::2, ::2]))
    assert_same_batches(tmp_path)


@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("vflip", [False, True])
@pytest.mark.parametrize("transpose", [False, True])
def test_each_flip_and_turn_is_one_of_the_augmentation(hflip, vflip, transpose):
    picture = np.random.default_rng(0).integers(0, 256, (11, 17, 3)).astype(np.uint8)
    draw = Draw((2, 3), hflip, vflip, transpose, None)
    augment = Augment(scale=(1, 1), gt_size=(6, 6))
    expected = augment.turn(augment.crop(picture, draw), draw)
    crop = ResidentPictures([None, picture], (1, 1), CPU).crops([ResidentDraw(1, draw, (6, 6))])
    assert np.array_equal(crop[0].movedim(0, -1).numpy(), expected)


def test_a_training_with_it_ends_as_one_from_the_cache(tiny):
    for name, cache in (("auto", "auto"), ("device", "device")):
        assert in_process(tiny, options(tiny, name=name, datasets__train__cache=cache)) == 0
    assert_same_end(tiny / "experiments/auto", tiny / "experiments/device")


def test_a_set_that_needs_more_room_is_read_from_the_cache_and_a_line_says_so(tiny, caplog, monkeypatch):
    dataset = built(tiny, cache="device")
    monkeypatch.setattr(build, "free_bytes", lambda device: 100.0)
    item = load_options(write_options(tiny, options(tiny, datasets__train__cache="device")), mode="train")
    with caplog.at_level(logging.WARNING, "srkit"):
        assert not build.hold(item.datasets["train"], dataset, Group(0, 1, CPU))
    assert len(caplog.records) == 1
    # four pairs of 48 x 48 and 24 x 24 pixels of three bytes
    assert f"the set needs {4 * 3 * (48 * 48 + 24 * 24) / 1e9:.3g} GB" in caplog.text
    assert build.finish_of(dataset) is None
    assert first_batches(dataset, 1)[0].gt.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("option", [{"brightness": 0.2}, {"lq_jpeg_prob": 0.5}])
def test_what_only_the_cpu_can_do_is_said_and_done_there(tiny, option):
    dataset = built(tiny, cache="device", **option)
    assert "need the CPU" in dataset.hold(CPU, AMPLE)
    assert build.finish_of(dataset) is None


def test_a_picture_that_cannot_be_read_is_skipped_as_the_loader_does(tiny):
    (tiny / "data/gt/p2.png").write_bytes(b"no picture")
    given = {"check": "off", "on_error": "skip"}
    loaded, held = built(tiny, **given), built(tiny, cache="device", **given)
    assert held.hold(CPU, AMPLE) == ""
    for ours, theirs in zip(first_batches(held), first_batches(loaded), strict=True):
        assert ours.names == theirs.names
        assert torch.equal(ours.gt, theirs.gt)


def test_whole_pictures_are_still_read_for_an_evaluation(tiny):
    dataset = built(tiny, cache="device")
    dataset.hold(CPU, AMPLE)
    assert dataset.sample(0, None).images["gt"].shape == (48, 48, 3)
