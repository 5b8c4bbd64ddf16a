"""LPIPS and DISTS against the packages of their authors, on made weights; without weights n/a, and the run goes on."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from compared import compare, model

from srkit.errors import DataError, RefusedError, WeightsError
from srkit.metrics import DISTS, LPIPS


def pair(side=64, channels=3):
    draw = np.random.default_rng(0)
    gt = draw.integers(0, 256, (side, side, channels)).astype(float)
    return np.clip(gt + draw.normal(0, 20, gt.shape), 0, 255), gt


def as_tensor(image):
    return torch.from_numpy(image / 255).float().permute(2, 0, 1)[None]


def needs(package):
    return pytest.mark.skipif(importlib.util.find_spec(package) is None, reason=f"the package {package} is absent")


def trunk(name):
    """Features of one of torchvision's networks with made weights; the large classifiers are left out."""
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, name)(weights=None).features
    features = features.to_empty(device="cpu").eval().requires_grad_(False)
    torch.manual_seed(0)
    for weight in features.parameters():
        weight.normal_(0, 0.1 if weight.ndim == 1 else (2 / weight[0].numel()) ** 0.5)
    return features


def saved(features, path):
    torch.save({f"features.{k}": v for k, v in features.state_dict().items()}, path)
    return path


@needs("lpips")
@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_equals_the_authors_package(net, tmp_path, monkeypatch):
    import lpips
    import torchvision

    name = {"alex": "alexnet", "squeeze": "squeezenet1_1"}[net]
    features = trunk(name)
    made = type("Made", (), {"features": features})()
    monkeypatch.setattr(torchvision.models, name, lambda **_: made)
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    monkeypatch.undo()
    saved(features, tmp_path / "trunk.pth")
    sr, gt = pair()
    with torch.no_grad():
        expected = float(theirs(as_tensor(sr), as_tensor(gt), normalize=True))
    metric = LPIPS(net, str(tmp_path / "trunk.pth"))
    assert metric.unavailable == ""
    assert metric(sr, gt, 255) == pytest.approx(expected, rel=1e-4)
    assert metric(gt, gt, 255) == 0


@needs("DISTS_pytorch")
def test_dists_equals_the_authors_package(tmp_path, monkeypatch):
    import torchvision
    from DISTS_pytorch import DISTS as Theirs

    made = type("Made", (), {"features": trunk("vgg16")})()
    monkeypatch.setattr(torchvision.models, "vgg16", lambda pretrained: made)
    theirs = Theirs(load_weights=False)
    heads = torch.load(Path(importlib.util.find_spec("DISTS_pytorch").origin).parent / "weights.pt", weights_only=True)
    theirs.alpha.data, theirs.beta.data = heads["alpha"], heads["beta"]
    sr, gt = pair()
    with torch.no_grad():
        expected = float(theirs(as_tensor(sr), as_tensor(gt)))
    monkeypatch.undo()
    metric = DISTS(str(saved(made.features, tmp_path / "vgg.pth")))
    assert metric(sr, gt, 255) == pytest.approx(expected, abs=2e-5)
    assert metric(gt, gt, 255) == pytest.approx(0, abs=1e-5)


@needs("lpips")
def test_a_grey_picture_is_shown_three_times(tmp_path):
    sr, gt = pair(channels=1)
    metric = LPIPS(weights=str(saved(trunk("alexnet"), tmp_path / "alex.pth")))
    assert metric(sr, gt, 255) == metric(np.repeat(sr, 3, 2), np.repeat(gt, 3, 2), 255) > 0


def test_a_path_that_names_no_file_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="no such file"):
        LPIPS(weights=str(tmp_path / "none.pth"))


@needs("lpips")
def test_weights_of_another_network_are_refused(tmp_path):
    file = saved(trunk("squeezenet1_1"), tmp_path / "squeeze.pth")
    with pytest.raises(WeightsError, match="is no alexnet"):
        LPIPS("alex", str(file))(*pair(), 255)


def test_without_weights_the_run_goes_on_and_the_table_says_na(tiny, monkeypatch, capsys):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tiny / "hub"))
    metrics = {"psnr": {"type": "PSNR"}, "lpips": {"type": "LPIPS"}}
    assert compare(tiny, model(tiny / "a.pth", 0), val__metrics=metrics) == 0
    out = capsys.readouterr().out
    assert out.count("alexnet-owt-7be5be79.pth; get https://download.pytorch.org") == 1
    assert "| n/a |" in (tiny / "results/compared/table.md").read_text()
    told = json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]["val"]
    assert list(told["methods"]["a"]) == ["psnr"]
    assert "lpips" in told["unavailable"]
    assert not (tiny / "hub").exists()


@pytest.mark.parametrize("metric", [LPIPS, DISTS])
def test_volumes_are_refused_by_name(metric):
    volume = np.zeros((36, 36, 36, 1))
    with pytest.raises(DataError, match=f"{metric.__name__} is for pictures"):
        metric()(volume, volume, 1.0)
