"""Option files of the BasicSR family run as they are: own roots and counts, and a small network so that it takes seconds."""

import json
import re
import shutil

import pytest
import torch
from tiny import pictures

from srkit.options import load_options
from srkit.test import main as run_test
from srkit.train import main as train

SMALL = ["network_g:num_feat=8", "network_g:num_block=2", "num_gpu=0"]
SHORT = ["train:total_iter=4", "logger:print_freq=1"]


@pytest.fixture
def histology(tmp_path, acceptance, monkeypatch):
    """The folders the files name, with pictures of the size they crop."""
    monkeypatch.chdir(tmp_path)
    for part in ("train", "val", "test"):
        folder = tmp_path / "datasets/histopatologia" / part
        pictures(folder, size=256)
        (folder / "gt").rename(folder / "hr")
        (folder / "lq").rename(folder / "lr")
    for file in acceptance.glob("*.yml"):
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("SRKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize(("name", "mode"), [("train_x2", "train"), ("advanced", "train"), ("test_x2", "test")])
def test_the_files_load_without_a_complaint(acceptance, name, mode):
    options = load_options(acceptance / f"edsr_histopathology_{name}.yml", mode=mode)
    assert options.networks["network_g"].options["num_feat"] == 256
    assert options.warnings == ()


def test_train_and_test_run_from_the_published_files(histology):
    counts = [*SHORT, "train:scheduler:milestones=[2]"]
    assert train(["-opt", "edsr_histopathology_train_x2.yml", "--force_yml", *SMALL, *counts]) == 0
    experiment = histology / "experiments/EDSR_histopatologia_x2_f256_b32"
    weights = f"path:pretrain_network_g={experiment}/models/net_g_latest.pth"
    assert run_test(["-opt", "edsr_histopathology_test_x2.yml", "--force_yml", *SMALL, weights]) == 0
    results = histology / "results/EDSR_histopatologia_x2_test"
    assert (results / "visualization/histopatologia_test/p0.png").exists()
    summary = json.loads((results / "metrics.json").read_text())["sets"]["histopatologia_test"]
    assert summary["protocols"]["psnr"]["border"] == 2
    assert summary["methods"]["EDSR_histopatologia_x2_test"]["psnr"]["n"] == 4


def test_every_advanced_option_does_what_it_says(histology, capsys, monkeypatch):
    from srkit.archs import common

    checkpointed = []
    real = common.checkpoint
    monkeypatch.setattr(common, "checkpoint", lambda *a, **k: (checkpointed.append(1), real(*a, **k))[1])
    counts = [*SHORT, "train:scheduler:periods=[2,2]", "train:scheduler:restart_weights=[1,0.5]"]
    assert train(["-opt", "edsr_histopathology_advanced.yml", "--force_yml", *SMALL, *counts]) == 0
    out = capsys.readouterr().out
    assert len(checkpointed) == 4 * 2  # use_checkpoint: every block of every iteration
    assert re.search(r"runs on +CPU.*(bf16|fp32)", out)  # use_amp: as the processor is good at it
    assert "logger.wandb" in out or shutil.which("wandb")  # one warning, and the run went on
    rates = [float(m) for m in re.findall(r"lr:\(([\d.e+-]+),\)", out)]
    assert rates == pytest.approx([1e-4, 5.005e-5, 1e-7, 2.5075e-5], rel=1e-3)  # two periods of two, the second at half
    info = torch.load(
        histology / "experiments/EDSR_histopatologia_x2_f256_b32/models/net_g_latest.pth", weights_only=True
    )["srkit"]
    assert info["normalization"] == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def test_basicsr_weights_without_description_are_tested_with_the_options_of_the_file(histology):
    torch.manual_seed(0)
    from srkit.archs import EDSR

    network = EDSR(num_feat=8, num_block=2, upscale=2, res_scale=0.1)
    torch.save({"params": network.state_dict()}, histology / "basicsr.pth")
    weights = f"path:pretrain_network_g={histology}/basicsr.pth"
    assert run_test(["-opt", "edsr_histopathology_test_x2.yml", "--force_yml", *SMALL, weights]) == 0
    summary = json.loads((histology / "results/EDSR_histopatologia_x2_test/metrics.json").read_text())
    assert summary["weights"] == "params"
