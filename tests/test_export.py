"""Networks for other programs: ONNX, TorchScript, safetensors, BasicSR; what is written computes what the network computes."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from srkit import build
from srkit.engine import joined_edges
from srkit.engine.graphs import LARGEST_DIFFERENCE, OPSET, pictures
from srkit.engine.model_file import ModelInfo, read_model, write_model
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Normalization
from srkit.errors import RefusedError, WeightsError
from srkit.imaging.edges import canny
from srkit.registry import ARCHS
from srkit.tools.__main__ import main
from srkit.tools.export import reach_of

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'srkit[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'srkit[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'srkit[export]'")
pytest.importorskip("safetensors", reason="safetensors is not installed: pip install 'srkit[export]'")

from srkit.engine.onnx_model import OnnxNetwork  # noqa: E402

CPU = torch.device("cpu")


class Case(NamedTuple):
    scale: tuple[int, ...]
    options: dict
    color: str = "rgb"

    @property
    def channels(self) -> int:
        return 3 if self.color == "rgb" else 1


SMALL = {"num_feat": 4, "num_block": 1}
CASES = {
    "EDSR": Case((2, 2), SMALL),
    "RRDBNet": Case((1, 1), {**SMALL, "num_grow_ch": 2}),  # pixels are unshuffled by 4
    "MSRResNet": Case((4, 4), SMALL),
    "SRResNet": Case((2, 2), SMALL),
    "VDSR": Case((3, 3), SMALL, "y"),
    "FacesSR": Case((2, 2), {"padding": "reflect"}, "y_full"),
    "ResnetGenerator": Case((1, 3, 1), {**SMALL, "norm": "instance", "residual": "linear"}, ""),
    "EdgeGenerator": Case((2, 2), SMALL),
    "EdgeSRGAN": Case((2, 2), {"num_feat": 4, "num_block": 1, "edge_num_feat": 4, "edge_num_block": 1}),
    "EdgeInformedSR": Case((2, 2), SMALL),
    "ThroughPlane": Case((1, 3, 1), SMALL, ""),
}
INFO = ModelInfo("EDSR", {}, (2, 2), Normalization(), "rgb", 5, "x")


def made(name: str, case: Case, seed: int = 0) -> nn.Module:
    """The network with weights of which none is zero, and statistics as after a training."""
    torch.manual_seed(seed)
    network = build.build_network(name, case.options, case.scale).eval()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    return network


def model_file(folder: Path, name: str, case: Case | None = None, **info) -> tuple[Path, nn.Module]:
    """folder/NAME.pth, whose params_ema are the network's and whose params are another's."""
    case = case or CASES[name]
    network = made(name, case)
    known = {
        "normalization": Normalization(),
        "color": case.color,
        "iteration": 5,
        "experiment": "x",
        "intensity": "" if case.color else "percentiles",
    }
    full = build.full_arch_options(name, case.options, case.scale)
    write_model(
        folder / f"{name}.pth",
        made(name, case, seed=1).state_dict(),
        network.state_dict(),
        ModelInfo(name, full, case.scale, **{**known, **info}),
    )
    return folder / f"{name}.pth", network


def export(source: Path, out: Path, *flags: str) -> int:
    return int(main(["export", "-m", str(source), "-o", str(out), *flags]))


@pytest.fixture(scope="session")
def edsr(tmp_path_factory) -> tuple[Path, nn.Module]:
    """EDSR.pth, normalised, its EDSR.onnx beside it, and the network."""
    folder = tmp_path_factory.mktemp("edsr")
    source, network = model_file(folder, "EDSR", normalization=Normalization((0.4,), (0.5,)), iteration=7)
    assert export(source, folder / "EDSR.onnx") == 0
    return folder, network


# ONNX


def bright(lq: torch.Tensor) -> torch.Tensor:
    """Stands for `canny`, which takes ten seconds to record."""
    return (lq[:, :1] > 0.5).to(lq.dtype)


@pytest.mark.parametrize("name", [name for name in CASES if name != "EdgeGenerator"])  # EdgeSRGAN has one inside
def test_an_onnx_file_computes_what_the_network_computes_at_any_size(name, tmp_path, monkeypatch, capsys):
    if name == "EdgeInformedSR":  # the edges themselves are in EdgeSRGAN
        monkeypatch.setattr("srkit.archs.edge_informed.canny", bright)
    source, network = model_file(tmp_path, name)
    code = export(source, tmp_path / "x.onnx")
    if code == 2 and "No ONNX function found for <function sym_sum" in capsys.readouterr().err:
        pytest.skip(f"torch {torch.__version__} cannot write a sum of sizes as ONNX; later ones can")
    assert code == 0
    graph = OnnxNetwork(tmp_path / "x.onnx")
    case = CASES[name]
    for batch, *size in ((1, 9, 31, 5), (4, 40, 13, 10)):
        lq = pictures(case.channels, batch, size[: len(case.scale)], seed=3)
        with torch.no_grad():
            wanted = network(lq)
        assert torch.allclose(graph(lq), wanted, atol=1e-5)


def test_every_generator_of_srkit_is_tried():
    own = {name for name in ARCHS if ARCHS.get(name).__module__.startswith("srkit.archs.")}
    assert {name for name in own if "Discriminator" not in name} == set(CASES)


def test_an_onnx_file_says_all_that_srkit_knows_of_the_network(edsr):
    folder, _ = edsr
    told = {p.key: p.value for p in onnx.load(folder / "EDSR.onnx").metadata_props}
    block = json.loads(told["srkit"])
    assert block["weights"] == "params_ema"
    assert block["source"] == "EDSR.pth"
    assert block["source_sha256"] == hashlib.sha256((folder / "EDSR.pth").read_bytes()).hexdigest()
    assert block["precision"] == "fp32"
    assert OnnxNetwork(folder / "EDSR.onnx").info == read_model(folder / "EDSR.pth").info


def test_an_onnx_file_has_one_input_and_output_of_any_batch_and_size(edsr):
    model = onnx.load(edsr[0] / "EDSR.onnx", load_external_data=False)
    (lq,), (sr,) = model.graph.input, model.graph.output
    assert (lq.name, sr.name) == ("lq", "sr")
    assert [d.dim_param or d.dim_value for d in lq.type.tensor_type.shape.dim] == ["batch", 3, "height", "width"]
    assert [o.version for o in model.opset_import if o.domain == ""] == [OPSET]


def test_an_onnx_file_is_one_file_and_names_no_place_on_this_machine(edsr):
    folder, _ = edsr
    assert sorted(p.name for p in folder.iterdir()) == ["EDSR.onnx", "EDSR.pth"]
    content = (folder / "EDSR.onnx").read_bytes()
    assert b".py" not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_float16_halves_the_weights_and_keeps_float32_pictures(edsr, tmp_path):
    folder, network = edsr
    assert export(folder / "EDSR.pth", tmp_path / "x.onnx", "--precision", "fp16") == 0
    model = onnx.load(tmp_path / "x.onnx")
    weights = [w for w in model.graph.initializer if len(w.dims) == 4 and w.name.endswith("weight")]
    types = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
    assert weights
    assert {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}
    assert types == {onnx.TensorProto.FLOAT}
    lq = pictures(3, 1, (24, 24))
    difference = (OnnxNetwork(tmp_path / "x.onnx")(lq) - network(lq)).abs().max().item()
    assert 1e-6 < difference < LARGEST_DIFFERENCE["fp16"]


def test_float16_is_refused_where_edges_are_looked_for(tmp_path, capsys):
    source, _ = model_file(tmp_path, "EdgeSRGAN")
    assert export(source, tmp_path / "x.onnx", "--precision", "fp16") == 2
    assert "EdgeSRGAN looks for edges" in capsys.readouterr().err
    assert not (tmp_path / "x.onnx").exists()


# what tells them apart


class Noisy(nn.Module):
    """Makes another picture each time."""

    def __init__(self, scale: tuple[int, ...] = (1, 1)) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return lq * self.factor + torch.rand_like(lq)


class SizeDependent(Noisy):
    """Brightens pictures of more than 18 rows, which a recording of operations takes for always or never."""

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return lq * self.factor * (2 if lq.shape[2] > 18 else 1)


class Counting(Noisy):
    """Goes by the number of bright pixels, which no recording can follow."""

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return lq * self.factor if int((lq > 0.5).sum()) % 2 else lq


@pytest.fixture
def own_networks():
    """The three classes above are registered while a test runs."""
    for cls in (Noisy, SizeDependent, Counting):
        ARCHS.register()(cls)
    yield
    for cls in (Noisy, SizeDependent, Counting):
        del ARCHS._classes[cls.__name__]


@pytest.mark.parametrize(("name", "suffix"), [("Noisy", "onnx"), ("SizeDependent", "ts")])
def test_a_graph_that_differs_from_the_network_is_not_written(name, suffix, tmp_path, capsys, own_networks):
    source, _ = model_file(tmp_path, name, Case((1, 1), {}))
    assert export(source, tmp_path / f"x.{suffix}") == 2
    assert "of the intensity range, more than 1.0e-04; nothing was written" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_what_cannot_be_exported_is_named_in_one_line(tmp_path, capsys, own_networks):
    source, _ = model_file(tmp_path, "Counting", Case((1, 1), {}))
    assert export(source, tmp_path / "x.onnx") == 2
    said = capsys.readouterr()
    assert "Counting cannot be written as ONNX: GuardOnDataDependentSymNode: " in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert said.out == ""
    assert [p.name for p in tmp_path.iterdir()] == [source.name]


def test_the_pictures_of_the_check_have_edges():
    assert 0.02 < canny(pictures(3, 1, (32, 26))).mean() < 0.5


@pytest.mark.parametrize("how", ["looped", "scripted"])
def test_edges_are_joined_as_canny_joins_them(how):
    joined = joined_edges.looped if how == "looped" else joined_edges.scripted()
    picture = pictures(3, 2, (90, 70), seed=5)
    line = torch.zeros(1, 3, 41, 200)
    line[:, :, 20:] = torch.linspace(0.05, 0.6, 200)  # an edge that begins too weak to be one by itself
    for lq in (picture, line):
        wanted = canny(lq)
        with joined_edges.recordable_edges(joined):
            assert torch.equal(canny(lq), wanted)
    assert wanted[0, 0, :, 40:100].any()


# OnnxNetwork


def restorer(network: nn.Module, **tiles) -> Restorer:
    return Restorer(
        network,
        normalization=Normalization((0.4,), (0.5,)),
        scale=(2, 2),
        device=CPU,
        precision=Precision("fp32", CPU),
        **tiles,
    )


def test_a_restorer_runs_an_onnx_file_like_the_network(edsr):
    folder, network = edsr
    graph = OnnxNetwork(folder / "EDSR.onnx")
    image = np.random.default_rng(0).integers(0, 256, (33, 45, 3), dtype=np.uint8)
    for tiles in ({}, {"tile": (20, 20), "overlap": (6, 6)}):
        np.testing.assert_allclose(
            restorer(graph, **tiles)(image, 255), restorer(network, **tiles)(image, 255), atol=1e-5
        )
    assert graph.receptive_radius_px == network.receptive_radius_px == 6


def test_a_network_that_finds_edges_looks_at_everything_once_exported(tmp_path):
    network = made("EdgeSRGAN", CASES["EdgeSRGAN"])
    assert math.isfinite(network.receptive_radius_px)
    repeated(tmp_path / "x.onnx", srkit=json.dumps({**INFO.to_plain(), **reach_of(network)}))
    assert OnnxNetwork(tmp_path / "x.onnx").receptive_radius_px == math.inf


def graph_file(
    path: Path, *nodes, inputs=(("lq", 1, ["b", 3, "h", "w"]),), constants=(), domains=(), **metadata
) -> Path:
    """An ONNX file from anywhere."""
    helper = onnx.helper
    given = [helper.make_tensor_value_info(*i) for i in inputs]
    made = [helper.make_tensor_value_info("sr", inputs[0][1], ["b", "c", "h2", "w2"])]
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(d, 1) for d in domains)]
    graph = helper.make_graph(list(nodes), "g", given, made, list(constants))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, metadata)
    path.write_bytes(model.SerializeToString())
    return path


def repeated(path: Path, factor: float = 2.0, **more) -> Path:
    """A stranger's file: every pixel repeated."""
    sizes = onnx.helper.make_tensor("s", 1, [4], [1, 1, factor, factor])
    node = onnx.helper.make_node(
        "Resize",
        ["lq", "", "s"],
        ["sr"],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return graph_file(path, node, constants=[sizes], **more)  # fmt: skip


def test_a_file_of_others_runs_when_the_scale_is_given(tmp_path):
    path = repeated(tmp_path / "x.onnx")
    with pytest.raises(WeightsError, match="does not say by how much it enlarges"):
        OnnxNetwork(path)
    lq = pictures(3, 2, (5, 6))
    network = OnnxNetwork(path, scale=(2, 2))
    assert torch.equal(network(lq), lq.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert network.info is None
    assert network.receptive_radius_px is None


@pytest.mark.parametrize(("channels", "color"), [(1, "y"), (3, "rgb"), ("c", "rgb")])
def test_a_file_of_others_with_one_channel_is_shown_luma(tmp_path, channels, color):
    import srkit

    repeated(tmp_path / "x.onnx", inputs=[("lq", 1, ["b", channels, "h", "w"])])
    up = srkit.load(tmp_path / "x.onnx", scale=2)
    assert up.model.color == color
    assert up(np.zeros((8, 9, 3), np.uint8)).shape == (16, 18, 3)


def test_a_file_of_others_in_float16_takes_and_gives_float32(tmp_path):
    node = onnx.helper.make_node("Identity", ["lq"], ["sr"])
    path = graph_file(tmp_path / "x.onnx", node, inputs=[("lq", onnx.TensorProto.FLOAT16, ["b", 3, "h", "w"])])
    lq = pictures(3, 1, (5, 6))
    assert torch.equal(OnnxNetwork(path, scale=(1, 1))(lq), lq.half().float())


def external(location: str):
    weight = onnx.TensorProto(name="k", data_type=1, dims=[1, 1, 1, 1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        weight.external_data.add(key=key, value=value)
    return weight


@pytest.mark.parametrize("how", ["above", "absolute", "link"])
def test_weights_outside_the_folder_of_an_onnx_file_are_not_read(how, tmp_path):
    np.array([2], np.float32).tofile(tmp_path / "secret")
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    location = {"above": "../secret", "absolute": str(tmp_path / "secret"), "link": "link"}[how]
    multiply = onnx.helper.make_node("Mul", ["lq", "k"], ["sr"])
    path = graph_file(folder / "x.onnx", multiply, constants=[external(location)])
    with pytest.raises(WeightsError, match=r"x\.onnx: damaged, or no ONNX network that can be run"):
        OnnxNetwork(path, scale=(1, 1))


def test_weights_beside_an_onnx_file_are_read(tmp_path):
    np.array([2], np.float32).tofile(tmp_path / "weights")
    multiply = onnx.helper.make_node("Mul", ["lq", "k"], ["sr"])
    path = graph_file(tmp_path / "x.onnx", multiply, constants=[external("weights")])
    lq = pictures(3, 1, (4, 4))
    assert torch.equal(OnnxNetwork(path, scale=(1, 1))(lq), 2 * lq)


def broken(kind: str, folder: Path, good: Path) -> Path:
    path = folder / "x.onnx"
    node = onnx.helper.make_node
    if kind == "missing":
        return path
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no network")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[:6000])
    elif kind == "operation of others":
        graph_file(path, node("Evil", ["lq"], ["sr"], domain="evil"), domains=["evil"])
    elif kind == "two inputs":
        pair = (("lq", 1, ["b", 3, "h", "w"]), ("noise", 1, ["b", 3, "h", "w"]))
        graph_file(path, node("Add", ["lq", "noise"], ["sr"]), inputs=pair)
    elif kind == "no pictures":
        graph_file(path, node("Identity", ["lq"], ["sr"]), inputs=[("lq", 7, ["b", 3, "h", "w"])])
    elif kind == "no JSON":
        repeated(path, srkit="{")
    elif kind == "a list":
        repeated(path, srkit="[1]")
    elif kind == "half a block":
        repeated(path, srkit='{"arch": "EDSR"}')
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file, expected an .onnx file"),
        ("folder", "is a folder, expected an .onnx file"),
        ("text", "damaged, or no ONNX network"),
        ("empty", "damaged, or no ONNX network"),
        ("cut short", "damaged, or no ONNX network"),
        ("operation of others", "Evil"),
        ("two inputs", "expected one batch of pictures or volumes in, one out"),
        ("no pictures", "expected one batch of pictures or volumes in, one out"),
        ("no JSON", "its metadata 'srkit' are no JSON"),
        ("a list", "its metadata 'srkit' are a list, expected names with values"),
        ("half a block", "its metadata 'srkit' lack or garble 'arch_options'"),
    ],
)
def test_a_broken_onnx_file_is_one_message(kind, message, edsr, tmp_path, capfd):
    with pytest.raises(WeightsError) as refused:
        OnnxNetwork(broken(kind, tmp_path, edsr[0] / "EDSR.onnx"), scale=(2, 2))
    assert message in str(refused.value)
    assert "x.onnx" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr().err == ""


def test_a_shape_that_the_network_does_not_take_is_refused(edsr, capfd):
    graph = OnnxNetwork(edsr[0] / "EDSR.onnx")
    with pytest.raises(RefusedError, match=r"does not take a batch of shape \(1, 1, 8, 8\)"):
        graph(pictures(1, 1, (8, 8)))
    assert capfd.readouterr().err == ""


def test_another_scale_than_the_files_own_is_refused(edsr):
    with pytest.raises(RefusedError, match=r"enlarges by \[2, 2\], not by \[4, 4\]"):
        OnnxNetwork(edsr[0] / "EDSR.onnx", scale=(4, 4))
    with pytest.raises(RefusedError, match=r"enlarges by \[2, 2\] and was asked for 3"):
        OnnxNetwork(edsr[0] / "EDSR.onnx")(pictures(3, 1, (8, 8)), scale=3)


def test_a_scale_of_another_number_of_axes_is_refused(tmp_path):
    with pytest.raises(RefusedError, match=r"takes data of 2 axes, found the scale \[1, 3, 1\]"):
        OnnxNetwork(repeated(tmp_path / "x.onnx"), scale=(1, 3, 1))


def test_a_picture_too_large_for_memory_is_a_memory_error(tmp_path):
    network = OnnxNetwork(repeated(tmp_path / "x.onnx", factor=1e6), scale=(1_000_000, 1_000_000))
    with pytest.raises(MemoryError):
        network(pictures(3, 1, (100, 100)))


def test_a_graphics_card_that_onnxruntime_cannot_use_is_refused(edsr, monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(RefusedError, match="computes on the CPU only"):
        OnnxNetwork(edsr[0] / "EDSR.onnx", torch.device("cuda"))


def test_an_onnxruntime_that_reads_any_file_is_refused(edsr, monkeypatch):
    monkeypatch.setattr("onnxruntime.__version__", "1.23.2")
    with pytest.raises(RefusedError, match=r"onnxruntime is 1\.23\.2, expected 1\.26 or newer"):
        OnnxNetwork(edsr[0] / "EDSR.onnx")


# TorchScript, safetensors, BasicSR


@pytest.mark.parametrize("name", CASES)
def test_a_torchscript_file_computes_what_the_network_computes_at_any_size(name, tmp_path):
    source, network = model_file(tmp_path, name)
    assert export(source, tmp_path / "x.pt") == 0
    told = {"srkit.json": ""}
    traced = torch.jit.load(tmp_path / "x.pt", _extra_files=told)
    case = CASES[name]
    for batch, *size in ((1, 9, 31, 5), (4, 40, 13, 10)):
        lq = pictures(case.channels, batch, size[: len(case.scale)], seed=3)
        with torch.no_grad():
            assert torch.allclose(traced(lq), network(lq), atol=1e-6)
    assert json.loads(told["srkit.json"])["arch"] == name


@pytest.mark.parametrize("name", ["EDSR", "ResnetGenerator", "VGGStyleDiscriminator"])
def test_a_safetensors_file_alone_rebuilds_the_network(name, tmp_path):
    case = CASES.get(name) or Case((2, 2), {"num_feat": 4})
    source, network = model_file(tmp_path, name, case)
    assert export(source, tmp_path / "x.safetensors") == 0
    model = read_model(tmp_path / "x.safetensors")
    assert model.info == read_model(source).info
    assert model.key == "params_ema"
    rebuilt = build.build_network(model.info.arch, model.info.arch_options, model.info.scale)
    rebuilt.load_state_dict(model.state)
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in rebuilt.state_dict().items())


def test_a_safetensors_file_has_only_the_weights_it_was_made_of(tmp_path):
    source, _ = model_file(tmp_path, "EDSR")
    export(source, tmp_path / "x.safetensors", "--weights", "params")
    with pytest.raises(WeightsError, match="has no weights under 'params_ema'; found params"):
        read_model(tmp_path / "x.safetensors", "params_ema")


def test_basicsrs_file_holds_the_weights_alone_and_comes_back(tmp_path, capsys):
    source, network = model_file(tmp_path, "EDSR")
    assert export(source, tmp_path / "plain.pth") == 0
    assert "keys of BasicSR" in capsys.readouterr().out
    plain = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert set(plain) == {"params_ema"}
    assert set(plain["params_ema"]) == set(network.state_dict())
    described = ["--arch", "EDSR", "num_feat=4", "num_block=1", "--scale", "2"]
    assert main(["import", str(tmp_path / "plain.pth"), "-o", str(tmp_path / "back.pth"), *described]) == 0
    back = read_model(tmp_path / "back.pth")
    assert back.info.arch_options == read_model(source).info.arch_options
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in back.state.items())


def test_a_network_that_basicsr_has_not_is_told_apart(tmp_path, capsys):
    source, _ = model_file(tmp_path, "VDSR")
    assert export(source, tmp_path / "plain.pth") == 0
    assert "BasicSR has no such network" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scale", "options", "note"),
    [
        (2, {}, "; keys of BasicSR"),
        (2, {"unshuffle_input": False}, "BasicSR has no such network"),
        (4, {"unshuffle_input": False}, "; keys of BasicSR"),
        (4, {"upsampler": "pixelshuffle"}, "BasicSR has no such network"),
        (8, {}, "BasicSR has no such network"),
    ],
)
def test_an_rrdb_network_is_basicsrs_where_that_can_build_it(tmp_path, capsys, scale, options, note):
    small = {"num_feat": 4, "num_block": 1, "num_grow_ch": 2}
    source, _ = model_file(tmp_path, "RRDBNet", Case((scale, scale), {**small, **options}))
    assert export(source, tmp_path / "plain.pth") == 0
    assert note in capsys.readouterr().out


def test_a_safetensors_file_is_exported_like_the_model_it_was_made_of(tmp_path):
    source, network = model_file(tmp_path, "EDSR")
    export(source, tmp_path / "x.safetensors")
    assert export(tmp_path / "x.safetensors", tmp_path / "y.pth") == 0
    state = torch.load(tmp_path / "y.pth", weights_only=True)["params_ema"]
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in state.items())


# mistakes


@pytest.mark.parametrize(
    ("out", "flags", "code", "message"),
    [
        ("x.bin", [], 2, "found the suffix '.bin', which is no format"),
        ("x", [], 2, "found the suffix '', which is no format"),
        ("x.onnx", ["--to", "safetensors"], 2, "its suffix means onnx, --to says safetensors"),
        ("x.safetensors", ["--precision", "fp16"], 2, "--precision fp16 is for onnx"),
        ("EDSR.pth", ["--overwrite"], 2, "is the model file itself"),
        ("there.safetensors", [], 2, "exists; give another name, or --overwrite"),
        ("folder", ["--to", "onnx", "--overwrite"], 2, "is a folder"),
        ("there.safetensors/x.onnx", [], 6, "cannot be written"),
        ("x.onnx", ["--imports", "nowhere.py"], 2, "nowhere.py"),
    ],
)
def test_mistakes_are_named_before_any_work(out, flags, code, message, tmp_path, capsys):
    source, _ = model_file(tmp_path, "EDSR")
    (tmp_path / "there.safetensors").write_text("old")
    (tmp_path / "folder").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert export(source, tmp_path / out, *flags) == code
    assert message in capsys.readouterr().err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_an_existing_file_is_replaced_when_asked_for(tmp_path):
    source, _ = model_file(tmp_path, "EDSR")
    (tmp_path / "x.safetensors").write_text("old")
    assert export(source, tmp_path / "x.safetensors", "--overwrite") == 0
    assert read_model(tmp_path / "x.safetensors").info.arch == "EDSR"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a PyTorch file"),
        ({"params": {"a": torch.zeros(1)}}, "does not say which network it holds"),
        ({"iter": 5, "optimizers": []}, "is a training state"),
    ],
)
def test_a_file_that_is_no_model_is_refused(content, message, tmp_path, capsys):
    if isinstance(content, bytes):
        (tmp_path / "m.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "m.pth")
    assert export(tmp_path / "m.pth", tmp_path / "x.onnx") == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]


@pytest.mark.parametrize("name", ["PatchDiscriminator3D", "UNetDiscriminatorSN", "VGGStyleDiscriminator"])
def test_a_discriminator_becomes_no_graph(name, tmp_path, capsys):
    case = Case((2, 2, 2), {}, "") if name.endswith("3D") else Case((2, 2), {"num_feat": 4})
    source, _ = model_file(tmp_path, name, case)
    assert export(source, tmp_path / "x.onnx") == 2
    assert f"{name} makes" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing(tmp_path, capsys, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    source, _ = model_file(tmp_path, "EDSR")
    monkeypatch.setattr("os.fsync", full)
    assert export(source, tmp_path / "x.safetensors") == 6
    assert "No space left on device" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["EDSR.pth"]
