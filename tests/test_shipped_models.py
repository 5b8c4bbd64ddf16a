"""The models that come with srkit: small, with cards that say what they are, found by name, better than interpolation."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny import ROOT

import srkit
from srkit.engine.model_file import read_model
from srkit.errors import WeightsError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize, mod_crop
from srkit.imaging.slices import enlarge
from srkit.infer import main as infer
from srkit.models import found, shipped
from srkit.tools.__main__ import main as tools
from srkit.tools.example_data import load

NAMES = sorted(shipped())


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


def gain(name, gt):
    """dB over bicubic on a picture made small by the exact bicubic."""
    gt = mod_crop(gt, 2)
    lq = imresize(gt, 0.5)
    return psnr(srkit.load(name)(lq)[2:-2, 2:-2], gt[2:-2, 2:-2]) - psnr(imresize(lq, 2)[2:-2, 2:-2], gt[2:-2, 2:-2])


def test_there_is_one_for_photographs_one_for_tissue_and_one_for_mri():
    assert NAMES == ["histology-x2", "mri-x3", "natural-x2"]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_below_two_megabytes_and_knows_its_network(name):
    assert shipped()[name].stat().st_size < 2e6
    model = read_model(Path(name))
    assert model.info is not None
    assert model.key == "params_ema"
    assert max(model.info.scale) == int(name[-1])


@pytest.mark.parametrize("name", NAMES)
def test_each_card_names_data_licence_protocol_baseline_and_limits(name):
    card = shipped()[name].with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}: ")
    for word in ("licence of the data", "licence of this file", "low resolution", "Limits:", "-v1"):
        assert word in card
    assert "| bicubic |" in card or "| cubic |" in card


@pytest.mark.parametrize("name", NAMES)
def test_each_was_trained_by_an_option_file_of_the_repository(name):
    card = shipped()[name].with_suffix(".md").read_text(encoding="utf-8")
    experiment = read_model(Path(name)).info.experiment
    files = list((ROOT / "options/train").rglob(f"{experiment}.yml"))
    assert len(files) == 1
    assert str(files[0].relative_to(ROOT)) in card


@pytest.mark.parametrize("picture", ["astronaut", "chelsea", "coffee"])
def test_photographs_it_did_not_see_gain_a_decibel_over_bicubic(picture):
    assert gain("natural-x2", load(picture)[:256, :256]) > 1


def test_tissue_of_another_stain_gains_over_bicubic():
    assert gain("histology-x2", load("ihc")[:256, :256]) > 0.5


def test_mice_it_did_not_see_gain_a_decibel_over_cubic_splines():
    root = os.environ.get("SRKIT_TEST_DATA")
    folder = Path(root or "") / "mri/mouse_T2_150um/test"
    if not root or not folder.is_dir():
        pytest.skip("SRKIT_TEST_DATA names no folder with mri/mouse_T2_150um")
    mouse = nibabel.load(min(folder.iterdir()))
    gt = np.asarray(mouse.dataobj, np.float32)[:, : mouse.shape[1] // 3 * 3]
    lq = gt.reshape(gt.shape[0], -1, 3, gt.shape[2]).mean(axis=2)
    sr, cubic = srkit.load("mri-x3")(lq), enlarge(lq, (1, 3, 1), 3)
    error, baseline = (np.mean((made - gt)[gt > 0] ** 2) for made in (sr, cubic))
    assert 10 * np.log10(baseline / error) > 1


def test_a_name_works_wherever_a_model_file_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image("in.png", load("chelsea")[:40, :32])
    assert infer(["-m", "natural-x2", "-i", "in.png", "-o", "out.png"]) == 0
    assert read_image("out.png").shape == (80, 64, 3)
    assert tools(["export", "-m", "natural-x2", "-o", "net.pth"]) == 0


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("natural-x2").write_bytes(b"mine")
    assert found(Path("natural-x2")) == Path("natural-x2")


def test_a_word_that_is_neither_is_answered_with_the_names_there_are():
    with pytest.raises(WeightsError, match=r"natural-x3: no such file.*histology-x2, mri-x3, natural-x2"):
        found(Path("natural-x3"))


def test_list_models_prints_the_title_of_each_card(capsys):
    assert tools(["list", "models"]) == 0
    printed = capsys.readouterr().out
    for name in NAMES:
        assert f"{name}: " in printed
