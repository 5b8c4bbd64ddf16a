"""One network for several scales: a scale a batch in training, a set a scale in evaluation."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from tiny import assert_same_end, equal, in_process, measured, options

from srkit.data import PairedImageDataset
from srkit.data.loader import train_batches
from srkit.data.mixed_scales import MixedScales
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize

VDSR = {
    "network_g": {"type": "VDSR", "num_feat": 4, "num_block": 1},
    "datasets__train__color": "y",
    "datasets__train__dataroot_lq": None,
    "datasets__train__gt_size": 24,
    "datasets__train__scales": [2, 3, 4],
    "datasets__val__color": "y",
    "datasets__val__dataroot_lq": None,
    "datasets__val__scales": [2, 3],
    "val__metrics": {"psnr": {"type": "calculate_psnr", "test_y_channel": True}},
}


def ratios(tiny, workers: int = 0, count: int = 30) -> list[int]:
    parts = {
        s: PairedImageDataset(scale=(s, s), dataroot_gt=str(tiny / "data/gt"), gt_size=24, cache="none")
        for s in (2, 3, 4)
    }
    batches = train_batches(MixedScales(parts), seed=1, batch_size=2, num_workers=workers)
    found = []
    for _ in range(count):
        images = next(batches).images
        assert images["gt"].shape == (2, 24, 24, 3)
        found.append(24 // images["lq"].shape[1])
    batches.close()
    return found


def test_every_batch_has_one_scale_and_all_scales_come(tiny):
    found = ratios(tiny)
    assert set(found) == {2, 3, 4}
    assert np.bincount(found)[2:].min() >= 4  # of 30: below 4 of one has a chance of 1 in 300, and the seed is fixed


def test_the_scales_do_not_depend_on_workers(tiny):
    assert ratios(tiny, 2, 10) == ratios(tiny, 0, 10)


def test_a_stopped_training_on_several_scales_ends_as_one_never_stopped(tiny):
    assert in_process(tiny, options(tiny, name="whole", **VDSR)) == 0
    for total in (4, 12):
        data = options(tiny, name="parts", train__total_iter=total, **VDSR)
        assert in_process(tiny, data, *(["--auto_resume"] if total > 4 else [])) == 0
    whole, parts = (tiny / f"experiments/{n}/models/net_g_12.pth" for n in ("whole", "parts"))
    first, second = (torch.load(p, weights_only=True) for p in (whole, parts))
    assert equal(first["params"], second["params"])
    assert equal(first["params_ema"], second["params_ema"])


def test_one_model_file_is_tested_at_several_scales(tiny):
    in_process(tiny, options(tiny, **VDSR))
    test = {**VDSR, "datasets__val__scales": [2, 3, 4], "network_g": None}
    assert measured(tiny, **test) == 0
    sets = json.loads((tiny / "results/tested/metrics.json").read_text())["sets"]
    assert list(sets) == ["val_x2", "val_x3", "val_x4"]
    table = (tiny / "results/tested/table.md").read_text()
    assert "| psnr | val_x2 | val_x3 | val_x4 |" in table
    psnr = {name: part["methods"]["bicubic-matlab-y"]["psnr"]["mean"] for name, part in sets.items()}
    assert psnr["val_x2"] > psnr["val_x3"] > psnr["val_x4"]
    assert f"| bicubic-matlab-y | {psnr['val_x2']:.4f} | {psnr['val_x3']:.4f} | {psnr['val_x4']:.4f} |" in table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_g": {"type": "EDSR"}, "datasets__train__color": "rgb"}, "EDSR serves one scale; VDSR takes several"),
        ({"datasets__train__scales": [3, 4]}, "found [3, 4] without the top-level scale 2"),
        ({"datasets__train__gt_size": 16}, "16 is not a multiple of scale 3; 15 and 18 are"),
        ({"datasets__train__dataroot_lq": "lq"}, "found with dataroot_lq 'lq'; write {scale}"),
        (
            {
                "datasets__train__type": "RealESRGANDataset",
                "datasets__train__color": None,
                "datasets__train__use_rot": None,
            },
            "datasets.train: scales: RealESRGANDataset finishes its batches on the device, at one scale",
        ),
        ({"datasets__val__scales": [2, 2]}, "found [2, 2], expected different scales"),
    ],
)
def test_scales_that_cannot_be_are_refused(tiny, capsys, changes, message):
    assert in_process(tiny, options(tiny, **{**VDSR, **changes})) == 2
    assert message in capsys.readouterr().err
    assert not (tiny / "experiments").exists()


def test_the_scale_stands_in_folder_and_file_names(tiny):
    for scale in (2, 4):
        folder = tiny / f"data/X{scale}"
        folder.mkdir()
        for number in range(4):
            gt = read_image(tiny / f"data/gt/p{number}.png")
            write_image(folder / f"p{number}x{scale}.png", imresize(gt, Fraction(1, scale)))
    on_disk = {
        "datasets__train__dataroot_lq": str(tiny / "data/X{scale}"),
        "datasets__train__filename_tmpl": "{}x{scale}",
        "datasets__train__scales": [2, 4],
        "datasets__val__scales": [2],
        "train__total_iter": 4,
    }
    assert in_process(tiny, options(tiny, name="disk", **{**VDSR, **on_disk})) == 0
    made = {**VDSR, **on_disk, "datasets__train__dataroot_lq": None, "datasets__train__filename_tmpl": None}
    assert in_process(tiny, options(tiny, name="made", **made)) == 0
    assert_same_end(tiny / "experiments/disk", tiny / "experiments/made", 4)
