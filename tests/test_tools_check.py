"""`srkit check`: what the sets hold, and pictures or groups that stand in two of them."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tiny import options, pictures, write_options

from srkit.imaging.files import read_image
from srkit.imaging.volumes import write_volume
from srkit.tools import set_contents
from srkit.tools.__main__ import main


@pytest.fixture
def apart(tiny):
    """Training pictures p0 to p3, and others to validate on."""
    pictures(tiny / "held", count=2, size=32, seed=9)
    return tiny


def checked(folder, *flags, **changes) -> int:
    val = {"name": "held", "type": "PairedImageDataset", "dataroot_gt": str(folder / "held/gt")}
    data = options(folder, **{"datasets__val": val, "datasets__train__cache": "none", **changes})
    return main(["check", str(write_options(folder, data)), *flags])


def test_sets_that_share_nothing_have_no_warning(apart, capsys):
    assert checked(apart, "--strict") == 0
    assert "warning" not in capsys.readouterr().out


def test_sizes_channels_and_depth_of_each_set_are_told(apart, capsys):
    assert checked(apart) == 0
    out = capsys.readouterr().out
    assert "train: 4 files, 48x48, 3 channels of 8 bit" in out
    assert "held: 2 files, 32x32, 3 channels of 8 bit" in out


def test_a_picture_that_stands_in_two_sets_under_another_name_and_packing_is_found(apart, capsys):
    image = read_image(apart / "data/gt/p2.png")
    cv2.imwrite(str(apart / "held/gt/other.bmp"), image[..., ::-1])
    assert checked(apart) == 0
    out = capsys.readouterr().out
    assert "warning: 1 files stand in train and in held, so figures on held mean nothing" in out
    assert f"{apart}/data/gt/p2.png = {apart}/held/gt/other.bmp" in out
    assert "1 warnings above" in out
    assert checked(apart, "--strict") == 9


def test_large_sets_are_compared_by_the_bytes_of_their_files(apart, capsys, monkeypatch):
    monkeypatch.setattr(set_contents, "_DECODED_UP_TO", 3)  # train has 4
    (apart / "held/gt/copy.png").write_bytes((apart / "data/gt/p0.png").read_bytes())
    assert checked(apart) == 0
    assert "1 files stand in train and in held" in capsys.readouterr().out


def test_a_group_on_two_sides_is_found_by_its_key(apart, capsys):
    assert checked(apart, "--key", "^(p.)") == 0
    out = capsys.readouterr().out
    assert "2 groups stand in train and in held (p0, p1): part the files anew" in out
    assert "files stand in" not in out


def test_groups_that_a_set_of_volumes_knows_need_no_flag(tiny, capsys):
    for part, seed in (("train", 0), ("val", 1)):
        (tiny / part).mkdir()
        values = gaussian_filter(np.random.default_rng(seed).random((12, 12, 12)), 1)
        write_volume(
            tiny / f"{part}/rat7_{part}.nii.gz", values.astype(np.float32), np.diag([0.1, 0.1, 0.1, 1]), like=None
        )
    volumes = {
        "type": "VolumeDataset", "dataroot_gt": str(tiny / "train"), "gt_size": 6, "group_pattern": "(rat[0-9])",
        "batch_size_per_gpu": 1, "cache": "none",
    }  # fmt: skip
    val = {"name": "rats", "type": "VolumeDataset", "dataroot_gt": str(tiny / "val"), "group_pattern": "(rat[0-9])"}
    data = options(
        tiny,
        scale=[1, 3, 1],
        network_g={"type": "ResnetGenerator", "num_feat": 2, "num_block": 1},
        datasets={"train": volumes, "val": val},
        val__metrics={"psnr": {"type": "PSNR"}},
    )
    assert main(["check", str(write_options(tiny, data)), "--strict"]) == 9
    out = capsys.readouterr().out
    assert "train: 1 files, 12x12x12, voxels of 0.1x0.1x0.1 mm, float32, 1 groups" in out
    assert "1 groups stand in train and in rats (rat7)" in out


def test_a_file_that_leaves_its_model_open_is_checked_with_the_models_of_a_comparison(apart, capsys):
    data = options(apart, path={})
    del data["datasets"]["train"]
    del data["train"]
    data["val"].pop("val_freq", None)
    file = str(write_options(apart, data))
    assert main(["check", file, "--mode", "test"]) == 2
    assert "path.pretrain_network_g: missing" in capsys.readouterr().err
    assert main(["check", file, "-m", "natural-x2", "histology-x2"]) == 0
