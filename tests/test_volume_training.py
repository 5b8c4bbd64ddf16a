"""The real commands on volumes: trained on patches, resumed to the bit, measured whole and inside the mask, written as NIfTI."""

from __future__ import annotations

import csv
import json
import re

import nibabel
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from tiny import assert_same_end, in_process, options, write_options

from srkit.imaging.files import read_image
from srkit.imaging.slices import enlarge, thicken
from srkit.imaging.volumes import read_volume, write_volume
from srkit.metrics import PSNR
from srkit.options import load_options
from srkit.test import main as run_test
from srkit.tools.__main__ import main as run_tool

SHAPE = (18, 24, 20)
AFFINE = np.array([[0.0, -0.15, 0.02, 3], [0.15, 0.0, 0.0, -4], [0.0, 0.01, 0.15, 5], [0, 0, 0, 1]])


@pytest.fixture
def brains(tiny):
    """Three smooth blobs in nothing, of 100 to 60,000, and two held out."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            values = gaussian_filter(draw.random(SHAPE), 1.5)
            values = (values - values.min()) / np.ptp(values) * 60_000
            values[:4], values[-4:], values[:, :6] = 0, 0, 0
            write_volume(tiny / f"{part}/rat{number}.1.nii.gz", values.astype(np.float32), AFFINE, like=None)
    return tiny


def volume_options(folder, **changes):
    given = {
        "scale": [1, 3, 1],
        "network_g": {"type": "ResnetGenerator", "num_feat": 4, "num_block": 1, "residual": "linear"},
        "datasets__train": {
            "type": "VolumeDataset", "dataroot_gt": str(folder / "train"), "gt_size": [12, 12, 12], "flip_axes": [0],
            "gamma_prob": 0.5, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 3, "cache_dir": str(folder / "cache"),
        },
        "datasets__val": {"name": "val", "type": "VolumeDataset", "dataroot_gt": str(folder / "val"), "group_pattern": "(rat[0-9])"},
        "val__metrics": {"psnr": {"type": "PSNR"}, "psnr_mask": {"type": "PSNR", "region": "mask"}},
        **changes,
    }  # fmt: skip
    return options(folder, **given)


def test_a_page_of_pictures_cannot_be_made_of_volumes(brains, capsys):
    file = str(write_options(brains, volume_options(brains)))
    assert run_tool(["degrade", "-opt", file, "--count", "1", "--out", "page.png"]) == 2
    assert "trains on volumes, of which no page of pictures can be made" in capsys.readouterr().err


def measured_on_val(folder, name="tiny", iteration=12, **changes) -> int:
    weights = str(folder / f"experiments/{name}/models/net_g_{iteration}.pth")
    data = volume_options(folder, name="tested", path__pretrain_network_g=weights, val__save_img=True, **changes)
    data = {key: value for key, value in data.items() if key not in ("train", "logger")}
    data["datasets"].pop("train")
    return int(run_test(["-opt", str(write_options(folder, data, "test.yml"))]))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_training_on_volumes_ends_as_one_never_stopped(brains, workers):
    loader = {"datasets__train__num_worker_per_gpu": workers}
    assert in_process(brains, volume_options(brains)) == 0
    assert in_process(brains, volume_options(brains, name="parts", train__total_iter=6, **loader)) == 0
    assert in_process(brains, volume_options(brains, name="parts", **loader), "--auto_resume") == 0
    assert_same_end(brains / "experiments/tiny", brains / "experiments/parts")


def test_validation_of_volumes_has_linear_and_cubic_beside_it_and_divides_by_volumes(brains, capsys):
    assert in_process(brains, volume_options(brains, train__total_iter=6)) == 0
    assert re.search(r"# psnr: .*(nearest|linear|cubic): ", capsys.readouterr().out)
    records = [json.loads(line) for line in (brains / "experiments/tiny/records.jsonl").read_text().splitlines()]
    measured = next(r for r in records if r["kind"] == "validation")
    assert measured_on_val(brains, iteration=6) == 0
    with (brains / "results/tested/metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(r["value"]) for r in rows if r["model"] == "tested" and r["metric"] == "psnr"]
    assert len(values) == 2
    assert np.mean(values) == pytest.approx(measured["psnr"], abs=1e-9)
    assert {r["model"] for r in rows} == {"nearest", "linear", "cubic", "tested"}
    assert {r["group"] for r in rows} == {"rat0", "rat1"}
    assert all(r["protocol"].startswith("mri-volume-v1#") for r in rows)


def test_the_written_volume_lies_where_gt_lies_and_is_what_was_measured(brains):
    assert in_process(brains, volume_options(brains)) == 0
    assert measured_on_val(brains) == 0
    folder = brains / "results/tested/visualization/val"
    gts = [read_volume(brains / f"val/rat{k}.1.nii.gz")[0] for k in range(2)]
    span = max(gt.max() for gt in gts) - min(gt.min() for gt in gts)
    with (brains / "results/tested/metrics.csv").open() as file:
        rows = {(r["image"], r["model"], r["metric"]): float(r["value"]) for r in csv.DictReader(file)}
    for number, gt in enumerate(gts):
        written = nibabel.load(folder / f"rat{number}.1.nii.gz")
        np.testing.assert_allclose(written.affine, AFFINE, atol=1e-5)
        sr = written.get_fdata()
        psnr = PSNR()(sr[..., None], gt.astype(np.float64)[..., None], float(span))
        assert psnr == pytest.approx(rows[f"rat{number}.1", "tested", "psnr"], abs=1e-4)
        cubic = enlarge(thicken(gt, (1, 3, 1)), (1, 3, 1), 3)
        assert PSNR()(cubic[..., None].astype(float), gt[..., None].astype(float), float(span)) == pytest.approx(
            rows[f"rat{number}.1", "cubic", "psnr"], abs=1e-9
        )
        mask = gt != 0
        inside = 10 * np.log10(span**2 / np.mean((sr - gt)[mask] ** 2))
        assert rows[f"rat{number}.1", "tested", "psnr_mask"] == pytest.approx(inside, abs=1e-4)
        assert read_image(folder / f"rat{number}.1.png").ndim == 3


def test_an_untrained_residual_network_gives_the_linear_row_in_the_files_units(brains):
    change = {"train__total_iter": 1, "train__optim_g__lr": 1e-12}
    assert in_process(brains, volume_options(brains, **change)) == 0
    assert measured_on_val(brains, iteration=1) == 0
    lq = thicken(read_volume(brains / "val/rat0.1.nii.gz")[0], (1, 3, 1))
    sr, _ = read_volume(brains / "results/tested/visualization/val/rat0.1.nii.gz")
    np.testing.assert_allclose(sr, enlarge(lq, (1, 3, 1), 1), atol=60_000 * 1e-6)


def test_the_normalisation_of_the_training_is_in_the_model_file_and_the_test_follows_it(brains, capsys):
    zscore = {"datasets__train__normalization": "zscore", "train__total_iter": 1}
    assert in_process(brains, volume_options(brains, **zscore)) == 0
    model = torch.load(brains / "experiments/tiny/models/net_g_1.pth", weights_only=True)
    assert model["srkit"]["intensity"] == "zscore"
    assert measured_on_val(brains, iteration=1) == 0
    capsys.readouterr()
    assert measured_on_val(brains, iteration=1, datasets__val__normalization="percentiles") == 2
    assert "found 'percentiles', but the network was trained on 'zscore'" in capsys.readouterr().err


def test_a_generator_of_volumes_learns_from_its_discriminator(brains):
    """M1: the adversarial term alone moves the generator."""
    gan = {
        "model_type": "SRGANModel",
        "datasets__train__gt_size": [18, 24, 18],
        "network_d": {"type": "TinyJudge3D"},
        "imports": [str(brains / "judge.py")],
        "train__optim_d": {"type": "Adam", "lr": 1e-3},
        "train__pixel_opt__loss_weight": 0.0,
        "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 1.0},
        "train__ema_decay": 0,
    }
    (brains / "judge.py").write_text(JUDGE)
    assert in_process(brains, volume_options(brains, **gan)) == 0
    first, last = (
        torch.load(brains / f"experiments/tiny/models/net_g_{n}.pth", weights_only=True)["params"] for n in (4, 12)
    )
    assert not torch.equal(first["conv_last.weight"], last["conv_last.weight"])
    assert int(last["bn_body.num_batches_tracked"]) == 12  # a forward an iteration: validations counted nothing


JUDGE = '''
import torch
from torch import Tensor, nn
from srkit.registry import ARCHS

@ARCHS.register()
class TinyJudge3D(nn.Module):
    """Two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(1, 4, 3, stride=2), nn.Conv3d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))
'''


def test_a_patch_the_discriminator_cannot_take_is_refused_before_the_first_iteration(brains, capsys):
    gan = {
        "model_type": "SRGANModel",
        "network_d": {"type": "PatchDiscriminator3D"},
        "train__optim_d": {"type": "Adam", "lr": 1e-3},
        "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla"},
    }
    assert in_process(brains, volume_options(brains, **gan)) == 2
    assert "network_d: PatchDiscriminator3D" in capsys.readouterr().err
    assert not (brains / "experiments").exists()


def test_volumes_are_measured_by_their_own_protocol_when_the_file_names_none(tmp_path, brains):
    data = volume_options(brains)
    data["val"].pop("metrics")
    assert load_options(write_options(brains, data), mode="train").val.protocol == "mri-volume-v1"
    assert in_process(brains, data) == 0
    record = (brains / "experiments/tiny/records.jsonl").read_text()
    names = {"psnr", "ssim", "nrmse", "psnr_mask", "ssim_mask", "nrmse_mask"}
    assert names <= set(next(r for r in map(json.loads, record.splitlines()) if r["kind"] == "validation"))


@pytest.mark.parametrize(("batch", "precision", "said"), [(1, "fp32", True), (2, "fp32", False), (1, "bf16", False)])
def test_the_slow_convolution_of_single_volumes_is_warned_about(brains, capsys, batch, precision, said):
    change = {"datasets__train__batch_size_per_gpu": batch, "train__precision": precision, "train__total_iter": 1}
    assert in_process(brains, volume_options(brains, **change)) == 0
    assert ("torch's slow convolution on a CPU" in capsys.readouterr().out) == said


def test_pictures_of_the_middle_slices_go_to_tensorboard_and_to_the_folder(brains):
    change = {"logger__use_tb_logger": True, "val__save_img": True, "train__total_iter": 6}
    assert in_process(brains, volume_options(brains, **change)) == 0
    assert list((brains / "experiments/tiny/visualization/val").rglob("*_6.png"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(brains / "experiments/tiny/tb_logger"))
    events.Reload()
    assert {f"val/picture_1/{kind}" for kind in ("lq", "sr", "gt", "difference")} <= set(events.Tags()["images"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": 3, "datasets__train__gt_size": 12}, "three whole numbers"),
        ({"datasets__train__gt_size": [12, 13, 12]}, "13 is not a multiple of scale 3"),
        ({"datasets__train__gt_size": [12, 48, 12]}, "smaller than"),
        ({"datasets__train__dataroot_gt": "nowhere"}, "nowhere"),
        ({"network_g": {"type": "EDSR"}}, "EDSR"),
    ],
)
def test_what_does_not_suit_volumes_is_refused(brains, capsys, change, message):
    assert in_process(brains, volume_options(brains, **change)) == 2
    assert message in capsys.readouterr().err
    assert not (brains / "experiments").exists()


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"type": "LRConsistency", "region": "mask"}, "val.metrics.m.region: LRConsistency cannot be measured inside"),
        (
            {"type": "SliceSSIM", "axis": 0, "region": "mask"},
            "val.metrics.m.region: SliceSSIM cannot be measured inside",
        ),
        ({"type": "EdgeF1"}, "val.metrics.m: volumes have no edge maps"),
        ({"type": "PSNR", "test_y_channel": True}, "val.metrics.m: volumes have no luma"),
    ],
)
def test_what_cannot_be_measured_of_volumes_is_refused(brains, capsys, metric, said):
    assert in_process(brains, volume_options(brains, val__metrics={"m": metric})) == 2
    assert said in capsys.readouterr().err
