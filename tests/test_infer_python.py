"""`srkit.load`: a trained network as a function of arrays."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from infer_made import BoxNet, MeanNet, RepeatingNet, made_archs, model_file, picture, repeated, scan  # noqa: F401
from tiny import ROOT

import srkit
from srkit.build import build_network
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Normalization
from srkit.errors import DataError, OutOfMemoryError, RefusedError, WeightsError
from srkit.imaging.resize import imresize


@pytest.fixture
def doubled(tmp_path):
    """Repeats the pixels of RGB pictures."""
    return srkit.load(model_file(tmp_path / "net.pth"), device="cpu")


def test_it_tells_its_scale_and_what_the_file_says(doubled):
    assert doubled.scale == (2, 2)
    assert doubled.info.arch == "RepeatingNet"
    assert doubled.device == torch.device("cpu")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (2, 7, 5, 3)])
def test_whole_numbers_keep_their_kind_type_and_range(doubled, dtype, shape):
    image = picture(*shape, dtype=dtype)
    made = doubled(image)
    assert made.dtype == dtype
    assert np.array_equal(made, repeated(image, 1, 2, 2) if len(shape) == 4 else repeated(image, 2, 2))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_span_0_to_1_and_keep_their_type(doubled, dtype):
    image = np.random.default_rng(0).random((6, 5, 3)).astype(dtype)
    made = doubled(image)
    assert made.dtype == dtype
    assert np.allclose(made, repeated(image, 2, 2), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_tensors_come_back_as_tensors(doubled, dtype):
    batch = torch.rand(2, 3, 5, 4)
    batch = (batch * 255).to(dtype) if dtype == torch.uint8 else batch.to(dtype)
    made = doubled(batch)
    assert made.dtype == dtype
    assert torch.equal(made, batch.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_network_of_other_channels_takes_those(tmp_path, channels):
    upscale = srkit.load(model_file(tmp_path / "net.pth", num_in_ch=channels), device="cpu")
    image = picture(7, 5, channels)
    assert np.array_equal(upscale(image), repeated(image, 2, 2))
    batch = torch.rand(2, channels, 5, 4)
    assert torch.equal(upscale(batch), batch.repeat_interleave(2, 2).repeat_interleave(2, 3))
    with pytest.raises(DataError, match=rf"the {channels} of this network's channels"):
        upscale(picture(7, 5, 3))


def test_a_luma_network_that_folds_pixels_into_channels_is_known_as_one(tmp_path):
    options = {"num_feat": 8, "num_block": 1, "num_grow_ch": 4, "num_in_ch": 1, "num_out_ch": 1}
    network = build_network("RRDBNet", options, (2, 2))
    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    upscale = srkit.load(tmp_path / "net.pth", device="cpu", arch="RRDBNet", arch_options=options, scale=2)
    assert upscale.model.color == "y"
    assert upscale(picture(8, 6)).shape == (16, 12)


def test_transparency_is_enlarged_by_bicubic(doubled):
    image = picture(6, 5, 4)
    made = doubled(image)
    assert np.array_equal(made[..., :3], repeated(image[..., :3], 2, 2))
    assert np.array_equal(made[..., 3:], imresize(image[..., 3:], 2))


def test_what_leaves_the_range_is_cut_to_it(tmp_path):
    up = srkit.load(model_file(tmp_path / "net.pth", "MeanNet"))
    white = np.ones((4, 4, 3), np.float32)  # to which this network adds its mean
    assert (up(white) == 1).all()
    assert (up((white * 255).astype(np.uint8)) == 255).all()


def test_the_normalization_of_the_training_is_applied_and_undone(tmp_path, monkeypatch):
    seen = []
    path = model_file(tmp_path / "net.pth", normalization=Normalization((0.25,), (0.5,)))
    monkeypatch.setattr(RepeatingNet, "forward", lambda self, lq: seen.append(lq) or torch.zeros(1, 3, 4, 4))
    made = srkit.load(path)(np.full((2, 2, 3), 0.75, np.float32))
    assert torch.allclose(seen[0], torch.ones(1))
    assert np.allclose(made, 0.25)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.uint8])
def test_volumes_keep_their_unit_and_type(tmp_path, dtype):
    path = model_file(tmp_path / "net.pth", "RepeatingNet", (1, 3, 1), "", "percentiles", num_in_ch=1)
    volume = (scan(6, 5, 7) / (20 if dtype == np.uint8 else 1)).clip(0, 3500).astype(dtype)
    made = srkit.load(path)(volume)
    assert made.dtype == dtype
    assert np.allclose(made, repeated(volume, 1, 3, 1), rtol=0, atol=1e-3)
    assert torch.equal(srkit.load(path)(torch.from_numpy(volume)), torch.from_numpy(made))


def test_tiles_give_what_the_whole_gives(tmp_path):
    path = model_file(tmp_path / "net.pth", "BoxNet")
    image = picture(50, 41, 3)
    whole = srkit.load(path, tile=None)(image)
    for tile in ("auto", 16, (16, 20)):
        assert np.array_equal(srkit.load(path, tile=tile)(image), whole)
    assert not np.array_equal(srkit.load(path, tile=16, overlap=0)(image), whole)


def test_auto_takes_smaller_tiles_when_memory_turns_out_too_short(tmp_path, monkeypatch):
    path, image = model_file(tmp_path / "net.pth", "BoxNet"), picture(90, 80, 3)
    whole, forward, said = srkit.load(path)(image), BoxNet.forward, []

    def short(self, lq):
        if lq.shape[2] * lq.shape[3] > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, lq)

    monkeypatch.setattr(BoxNet, "forward", short)
    monkeypatch.setattr(logging.getLogger("srkit"), "warning", lambda text, *values: said.append(text % values))
    up = srkit.load(path)
    for _ in range(2):  # the second time it remembers
        assert np.array_equal(up(image), whole)
    # 90 x 80 pixels; half of them in tiles of 47 x 42, which cover it as well as 60 x 60; half of those, in 26 x 30.
    assert said == [
        f"out of memory with {count} lq pixels at once; going on with half as many" for count in ("7,200", "1,974")
    ]
    with pytest.raises(OutOfMemoryError, match=r"90x80 pixels; set --tile to 40 or less"):
        srkit.load(path, tile=None)(image)


def test_a_guide_that_does_not_fit_ends_at_once(tmp_path, monkeypatch):
    def too_large(self, lq):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BoxNet, "guide", too_large, raising=False)
    up = srkit.load(model_file(tmp_path / "net.pth", "BoxNet"), tile=16)
    with pytest.raises(OutOfMemoryError, match="the guide of a whole picture of 90x80"):
        up(picture(90, 80, 3))


def test_tiles_of_a_network_that_looks_at_everything_leave_no_seam(tmp_path):
    path = model_file(tmp_path / "net.pth", "MeanNet")
    ramp = np.linspace(0, 0.4, 96, dtype=np.float32)
    image = np.repeat(np.tile(ramp, (20, 1))[..., None], 3, axis=-1)
    steps = {}
    for overlap in (0, 8):
        made = srkit.load(path, tile=(20, 32), overlap=(0, overlap))(image)
        steps[overlap] = np.abs(np.diff(made[0, :, 0])).max()
    assert steps[0] > 0.1  # the mean of 32 columns jumps from tile to tile
    assert steps[8] < 0.03


def test_the_ensemble_is_the_mean_of_eight(tmp_path):
    path, image = model_file(tmp_path / "net.pth", "BoxNet"), np.random.default_rng(0).random((6, 7, 3))
    one, mean = srkit.load(path), srkit.load(path, ensemble=True)
    results = []
    for turned in range(4):
        for mirrored in (False, True):
            side = np.rot90(image[:, ::-1] if mirrored else image, turned)
            back = np.rot90(one(np.ascontiguousarray(side)), -turned)
            results.append(back[:, ::-1] if mirrored else back)
    assert np.allclose(mean(image), np.mean(results, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 2), np.uint8), r"uint8 \(4, 4, 2\): expected \(H, W, C\) with 1 \(grey\), 3 \(RGB\) or 4"),
        (np.zeros((4, 0, 3), np.uint8), r"uint8 \(4, 0, 3\)"),
        (np.zeros((0, 4, 4, 3), np.uint8), "expected at least one picture"),
        (np.zeros(5, np.uint8), r"expected \(H, W\), \(H, W, C\) or \(N, H, W, C\)"),
        (torch.zeros(3, 4, 4), r"expected \(B, C, H, W\)"),
        (np.zeros((4, 4, 3), np.int32), r"a picture of int32: expected uint8 \(0 to 255\), uint16"),
        (np.full((4, 4, 3), 200.0), r"a float picture of 200 to 200: expected 0 to 1; divide it, or give uint8"),
        (np.full((4, 4, 3), np.nan), r"a float picture of nan"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(doubled, array, message):
    with pytest.raises(DataError, match=message):
        doubled(array)


def test_arrays_that_are_no_volumes_are_refused(tmp_path):
    up = srkit.load(model_file(tmp_path / "net.pth", "RepeatingNet", (1, 3, 1), "", "percentiles", num_in_ch=1))
    with pytest.raises(DataError, match=r"expected \(I, J, K\)"):
        up(np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match="NaN or infinite"):
        up(np.full((4, 4, 4), np.inf))
    with pytest.raises(DataError, match="not pictures"):
        up.picture(np.zeros((4, 4, 3), np.uint8))


def test_a_network_that_wants_its_input_enlarged_already_is_named(tmp_path):
    up = srkit.load(model_file(tmp_path / "net.pth", "VDSR", color="y", num_feat=4, num_block=1, enlarge_input=False))
    with pytest.raises(RefusedError, match=r"made \(6, 6\) of \(6, 6\), its scale \(2, 2\) wants \(12, 12\)"):
        up(picture(6, 6, 3))


def test_a_bare_file_is_described_by_arguments(tmp_path):
    from srkit.build import build_network

    torch.save(build_network("EDSR", {"num_feat": 4, "num_block": 1}, (2, 2)).state_dict(), tmp_path / "bare.pth")
    up = srkit.load(tmp_path / "bare.pth", arch="EDSR", arch_options={"num_feat": 4, "num_block": 1}, scale=2)
    assert up.info is None
    assert up(picture(5, 6, 3)).shape == (10, 12, 3)
    with pytest.raises(RefusedError, match="does not say which network it holds"):
        srkit.load(tmp_path / "bare.pth")
    with pytest.raises(WeightsError, match="no such file"):
        srkit.load(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(("color", "found"), [(None, "y"), ("y_full", "y_full")])
def test_what_a_bare_file_saw_is_guessed_unless_it_is_said(tmp_path, color, found):
    torch.save(RepeatingNet(1).state_dict(), tmp_path / "bare.pth")
    up = srkit.load(tmp_path / "bare.pth", arch="RepeatingNet", arch_options={"num_in_ch": 1}, scale=2, color=color)
    assert up.model.color == found


def test_an_onnx_file_is_loaded_like_any_other(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from srkit.tools.__main__ import main as tools

    path = model_file(tmp_path / "net.pth", "EDSR", num_feat=4, num_block=1)
    assert tools(["export", "-m", str(path), "-o", str(tmp_path / "net.onnx")]) == 0
    image = picture(40, 50, 3)
    own, exported = (srkit.load(tmp_path / name, tile=24)(image) for name in ("net.pth", "net.onnx"))
    assert np.abs(own.astype(int) - exported).max() <= 1
    assert MeanNet.receptive_radius_px > srkit.load(tmp_path / "net.onnx").info.arch_options["num_block"]
    with pytest.raises(RefusedError, match=r"--precision bf16: .*net\.onnx computes in the one it was exported in"):
        srkit.load(tmp_path / "net.onnx", precision="bf16")


def test_importing_srkit_imports_neither_torch_nor_numpy():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import srkit; assert not {{'torch', 'numpy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("color", ["rgb", "y", "y_full"])
def test_a_large_picture_is_in_floats_one_row_of_tiles_at_a_time(tmp_path, monkeypatch, color):
    model_file(tmp_path / "box.pth", "BoxNet", color=color, num_in_ch=3 if color == "rgb" else 1)
    image = picture(60, 24, 3)
    whole = srkit.load(tmp_path / "box.pth", tile=None)(image)
    heights = []
    real = Restorer.__call__
    monkeypatch.setattr(Restorer, "__call__", lambda r, seen, *rest: heights.append(len(seen)) or real(r, seen, *rest))
    in_rows = srkit.load(tmp_path / "box.pth", tile=20, overlap=4)(image)
    assert np.array_equal(in_rows, whole)
    assert heights == [20] * 5


def test_colours_of_a_luma_network_need_some_overlap_to_be_made_in_rows(tmp_path, monkeypatch):
    model_file(tmp_path / "box.pth", "BoxNet", color="y", num_in_ch=1)
    image = picture(60, 24, 3)
    assert np.array_equal(
        srkit.load(tmp_path / "box.pth", tile=20, overlap=2)(image), srkit.load(tmp_path / "box.pth", tile=None)(image)
    )
