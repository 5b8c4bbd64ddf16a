"""`srkit import`: what other projects saved, imported and rebuilt, gives what their networks give."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from networks import counts, picture
from published import (
    ChainVDSR,
    EasySRDiscriminator,
    EasySRGenerator,
    EdgeInformedGenerator,
    EdgeNetwork,
    EdgeSRGANDiscriminator,
    EdgeSRGANGenerator,
    FamilyNetwork,
    NamedVDSR,
    OldestESRGAN,
    PatchDiscriminator,
    SuperResolution,
    TorchSR,
    TorchSRDiscriminator,
)
from tiny import in_process, options
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as hooked

from srkit import build
from srkit.engine.model_file import ModelInfo, load_weights, read_model
from srkit.imaging.edges import canny
from srkit.tools.__main__ import main

NON_COMMERCIAL = "CC BY-NC 4.0"


def made(build_it: Callable[..., nn.Module], *given, **named) -> nn.Module:
    """Seeded, and all that is not a weight moved away from its start."""
    torch.manual_seed(0)
    net = build_it(*given, **named)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2)
        if isinstance(layer, nn.PReLU):
            nn.init.uniform_(layer.weight, 0.1, 0.4)
    return net


def saved(tmp: Path, content, name: str = "given.pth") -> Path:
    torch.save(content, tmp / name)
    return tmp / name


def imported(file: Path, *flags: str) -> tuple[nn.Module, ModelInfo]:
    """The network as a test of srkit rebuilds it, from the imported file alone."""
    out = file.parent / "out/net.pth"
    assert main(["import", str(file), "-o", str(out), *flags]) == 0
    return rebuilt(out)


def rebuilt(file: Path) -> tuple[nn.Module, ModelInfo]:
    model = read_model(file)
    assert model.info is not None
    network = build.build_network(model.info.arch, model.info.arch_options, model.info.scale)
    assert load_weights(network, model) == []
    return network.eval(), model.info


def refused(capsys, file: Path, *flags: str) -> str:
    out = file.parent / "refused.pth"
    assert main(["import", str(file), "-o", str(out), *flags]) == 2
    assert not out.exists()
    return capsys.readouterr().err


def difference(ours: nn.Module, theirs: nn.Module, *inputs: Tensor) -> float:
    with torch.no_grad():
        a, b = ours(*inputs), theirs.eval()(*inputs)
    assert a.shape == b.shape
    assert a.abs().max() > 0
    return (a - b).abs().max().item()


def stripes(height: int, width: int) -> Tensor:
    """A picture with edges."""
    row = torch.sin(torch.linspace(0, 3, width) ** 2 * 3).sign() * 0.3 + 0.5
    return (row.expand(1, 3, height, width) + 0.1 * (picture(1, 3, height, width) - 0.5)).contiguous()


@pytest.mark.parametrize(
    ("published", "parameters", "entries"),
    [
        (lambda: TorchSR(feat=64, grow=32, blocks=16), 11_662_083, 556),
        (lambda: TorchSR(feat=64, grow=32, blocks=23, subpixel=True), 16_919_647, 794),
        (lambda: TorchSRDiscriminator([64, 64, 128, 128, 256, 256, 512, 512], [100]), 7_196_233, 48),
        (lambda: FamilyNetwork(feat=64, grow=32, blocks=23), 16_697_987, 702),
        (lambda: OldestESRGAN(feat=64, grow=32, blocks=23), 16_697_987, 702),
        (lambda: EdgeSRGANGenerator(64, 20), 3_562_719, 402),
        (lambda: EdgeSRGANDiscriminator(64), 4_689_601, 53),
        (lambda: EdgeNetwork(hooked, feat=64, blocks=8), 10_764_225, 70),
        (lambda: EdgeInformedGenerator(64, 8), 10_774_595, 44),
        (lambda: PatchDiscriminator(hooked, 4, 64), 2_764_800, 18),  # five layers of three entries, and one twice
        (SuperResolution, 13_361, 8),
        (lambda: ChainVDSR(1, 64, 18), 664_704, 20),
        (lambda: EasySRGenerator(16, 4, (1, 6, 1)), 65_073, 69),
        (lambda: EasySRGenerator(32, 2, (1, 3, 1)), 143_585, 41),
        (lambda: EasySRDiscriminator(16, 1), 698_605, 32),
        (lambda: EasySRDiscriminator(3, 24), 74_344, 32),
    ],
)
def test_the_networks_compared_with_here_have_the_published_counts(published, parameters, entries):
    assert counts(published) == (parameters, entries)


# enhanced-srgan (R12)


def hparams(**changes) -> dict:
    generator = {
        "rrdb_channels": 6, "growth_channels": 4, "num_basic_blocks": 2, "num_dense_blocks": 3,
        "num_residual_blocks": 5, "residual_scaling": 0.2, "use_subpixel_conv": False,
    }  # fmt: skip
    top = {"scale_factor": 4, "img_channels": 3}
    discriminator = {"vgg_blk_ch": [4, 4, 5, 5], "fc_features": [7]}
    generator |= {key: value for key, value in changes.items() if key in generator}
    top |= {key: value for key, value in changes.items() if key in top}
    return {**top, "generator": generator, "discriminator": discriminator}


def wrapped(state: dict) -> dict:
    return {f"module.{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    ("network", "said", "shape"),
    [
        ({}, {}, (5, 7)),
        ({"old": True}, {}, (5, 7)),
        ({"subpixel": True}, {"use_subpixel_conv": True}, (5, 7)),
        ({"steps": 1}, {"scale_factor": 2}, (5, 7)),
        ({"steps": 3}, {"scale_factor": 8}, (8, 8)),
        ({"channels": 1, "blocks": 1}, {"img_channels": 1, "num_basic_blocks": 1}, (5, 7)),
    ],
)
def test_r12_a_generator_of_enhanced_srgan_gives_the_same_bits(tmp_path, network, said, shape):
    theirs = made(TorchSR, **network)
    content = {
        "model_state_dict": theirs.state_dict(),
        "stage": "pre-training",
        "hparams": hparams(**said),
        "epoch_i": 9,
    }
    ours, info = imported(saved(tmp_path, content))
    channels = said.get("img_channels", 3)
    assert difference(ours, theirs, picture(2, channels, *shape)) == 0
    assert (info.arch, info.scale) == ("RRDBNet", (said.get("scale_factor", 4),) * 2)
    assert info.color == ("y" if channels == 1 else "rgb")
    assert info.origin == "enhanced-srgan: given.pth (pre-training, epoch_i 9)"


def test_r12_a_checkpoint_of_the_gan_phase_becomes_two_files(tmp_path):
    theirs = made(TorchSR), made(TorchSRDiscriminator, [4, 4, 5, 5], [7])
    content = {
        "g_model_state_dict": wrapped(theirs[0].state_dict()),
        "d_model_state_dict": wrapped(theirs[1].state_dict()),
        "g_optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]},
        "stage": "training",
        "hparams": hparams(),
    }
    ours, _ = imported(saved(tmp_path, content))
    assert difference(ours, theirs[0], picture(1, 3, 5, 7)) == 0
    judge, info = rebuilt(tmp_path / "out/net_d.pth")
    assert info.arch == "VGGAdaptiveDiscriminator"
    assert difference(judge, theirs[1], picture(2, 3, 19, 23)) == 0


def test_r12_a_checkpoint_of_the_psnr_phase_is_read_past_its_optimizer(tmp_path):
    theirs = made(TorchSR)
    optimizer = torch.optim.Adam(p for p in theirs.parameters() if p.requires_grad)
    content = {
        "model_state_dict": theirs.state_dict(), "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": {"last_epoch": 3}, "hparams": hparams(), "stage": "pre-training",
    }  # fmt: skip
    ours, _ = imported(saved(tmp_path, content))
    assert difference(ours, theirs, picture(1, 3, 5, 7)) == 0


def test_the_alpha_of_an_interpolated_network_stands_in_its_origin(tmp_path):
    content = {"model_state_dict": TorchSR().state_dict(), "stage": "interpolation", "alpha": 0.8, "hparams": hparams()}
    assert imported(saved(tmp_path, content))[1].origin == "enhanced-srgan: given.pth (interpolation, alpha 0.8)"


def test_a_discriminator_that_does_not_fit_leaves_no_generator_behind(tmp_path, capsys):
    content = {
        "g_model_state_dict": TorchSR().state_dict(),
        "d_model_state_dict": TorchSRDiscriminator([4, 4], [7]).state_dict(),
        "hparams": hparams(),
    }
    assert "does not fit VGGAdaptiveDiscriminator" in refused(capsys, saved(tmp_path, content))


@pytest.mark.parametrize(
    ("network", "said", "message"),
    [
        ({"scaling": 0.3}, {}, r"residual_scaling 0.3, expected 0.2; .* and 5 more"),
        ({}, {"residual_scaling": 0.1}, r"residual_scaling 0.1 in its hparams, expected 0.2"),
        ({}, {"num_dense_blocks": 4}, r"num_dense_blocks 4 in its hparams, expected 3"),
        ({"steps": 4}, {"scale_factor": 8}, r"4 upsampling steps of 2, which enlarge by 16, .* scale_factor 8"),
        ({}, {"num_basic_blocks": 3}, r"does not fit RRDBNet:\n  30 missing: body.2.rdb1"),
    ],
)
def test_a_generator_that_rrdbnet_cannot_be_is_refused(tmp_path, capsys, network, said, message):
    content = {"model_state_dict": TorchSR(**network).state_dict(), "hparams": hparams(**said)}
    assert re.search(message, refused(capsys, saved(tmp_path, content)))


def test_missing_hyper_parameters_are_refused_by_name(tmp_path, capsys):
    state = TorchSR().state_dict()
    assert "has no hparams" in refused(capsys, saved(tmp_path, {"model_state_dict": state}))
    short = hparams()
    del short["img_channels"], short["generator"]["rrdb_channels"]
    content = {"model_state_dict": state, "hparams": short}
    assert "hparams lack img_channels, generator.rrdb_channels" in refused(capsys, saved(tmp_path, content))


# The ESRGAN family


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(
    ("network", "container"),
    [
        (FamilyNetwork, "params"),
        (lambda **sizes: FamilyNetwork(old=True, **sizes), ""),
        (OldestESRGAN, ""),
        (lambda **sizes: OldestESRGAN(subpixel=True, **sizes), "state_dict"),
    ],
)
def test_every_naming_of_the_esrgan_family_gives_the_same_picture(tmp_path, network, container, steps):
    theirs = made(network, steps=steps)
    state = theirs.state_dict()
    ours, info = imported(saved(tmp_path, {container: state} if container else state))
    assert difference(ours, theirs, picture(1, 3, 6, 8)) <= 1e-5
    assert info.scale == (2**steps,) * 2
    assert (info.arch_options["num_block"], info.arch_options["num_grow_ch"]) == (2, 4)


@pytest.mark.parametrize(("shuffled", "scale"), [(2, 2), (4, 1)])
def test_a_network_that_unshuffles_its_input_is_known_by_its_channels(tmp_path, shuffled, scale):
    theirs = made(FamilyNetwork, shuffled=shuffled)
    ours, info = imported(saved(tmp_path, {"params_ema": theirs.state_dict()}))
    assert difference(ours, theirs, picture(1, 3, 8, 12)) <= 1e-5
    assert info.scale == (scale, scale)


def test_a_safetensors_file_is_read(tmp_path):
    theirs = made(FamilyNetwork)
    pytest.importorskip("safetensors.torch").save_file(theirs.state_dict(), tmp_path / "given.safetensors")
    ours, _ = imported(tmp_path / "given.safetensors")
    assert difference(ours, theirs, picture(1, 3, 6, 8)) <= 1e-5


def test_averaged_weights_are_imported_beside_the_others(tmp_path):
    theirs, averaged = made(FamilyNetwork), made(FamilyNetwork)
    nn.init.zeros_(averaged.conv_last.weight)
    content = {"params": theirs.state_dict(), "params_ema": averaged.state_dict()}
    imported(saved(tmp_path, content))
    for key, state in content.items():
        assert read_model(tmp_path / "out/net.pth", key).state.keys() == state.keys()
        assert all(torch.equal(v, state[k]) for k, v in read_model(tmp_path / "out/net.pth", key).state.items())


# Edge.SRGAN and edge-informed-sisr


def edge_file(tmp: Path, net: nn.Module, name: str = "EdgeModel_gen.pth") -> Path:
    return saved(tmp, {"iteration": 70, "generator": net.state_dict()}, name)


@pytest.mark.parametrize("spectral", [hooked, parametrizations.spectral_norm])
@pytest.mark.parametrize("signed", [True, False])
def test_e17_an_edge_network_of_either_style_gives_the_same_map(tmp_path, spectral, signed):
    theirs, lq = made(EdgeNetwork, spectral, signed), stripes(12, 16)
    theirs(lq)  # a training forward: the singular vectors are no longer the first ones
    ours, info = imported(edge_file(tmp_path, theirs), *([] if signed else ["--arch", "input_range=unit"]))
    assert difference(ours, theirs, lq) <= 1e-6
    assert info.arch == "EdgeGenerator"
    assert info.iteration == 70
    assert NON_COMMERCIAL in info.origin


@pytest.mark.parametrize("spectral", [hooked, parametrizations.spectral_norm])
@pytest.mark.parametrize("channels", [3, 4])
def test_e17_a_patch_discriminator_of_either_style_gives_the_same_logits(tmp_path, spectral, channels):
    theirs = made(PatchDiscriminator, spectral, channels)
    theirs(picture(1, channels, 32, 40))
    ours, info = imported(saved(tmp_path, {"discriminator": theirs.state_dict()}))
    assert difference(ours, theirs, picture(2, channels, 32, 40)) <= 1e-6
    assert info.arch_options == {"num_in_ch": channels, "num_feat": 3}
    assert NON_COMMERCIAL in info.origin


@pytest.mark.parametrize("found", [hooked, parametrizations.spectral_norm])
def test_an_edge_network_can_be_given_the_names_of_parametrizations(tmp_path, found):
    theirs, lq = made(EdgeNetwork, found), stripes(12, 16)
    theirs(lq)
    out = tmp_path / "new.pth"
    given = edge_file(tmp_path, theirs)
    assert main(["import", str(given), "-o", str(out), "--spectral_norm", "parametrizations"]) == 0
    state = read_model(out).state
    newer = parametrizations.spectral_norm(nn.Conv2d(4, 4, 7))
    layer = {key.removeprefix("encoder.1."): value for key, value in state.items() if key.startswith("encoder.1.")}
    newer.load_state_dict(layer)  # raises unless all names are torch's
    x = picture(1, 4, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(newer.eval()(x), theirs.eval().encoder[1](x), rtol=0, atol=1e-6)
    assert difference(rebuilt(out)[0], theirs, lq) <= 1e-6  # and srkit reads it back


def test_edge_srgans_generator_and_edge_network_become_one(tmp_path):
    edge, theirs, lq = made(EdgeNetwork, hooked), made(EdgeSRGANGenerator), stripes(12, 16)
    given = saved(tmp_path, {"epoch": 3, "state_dict": theirs.state_dict(), "optim_dict": {}}, "G_last.pth.tar")
    ours, info = imported(given, "--edge", str(edge_file(tmp_path, edge)))
    with torch.no_grad():
        signed = theirs.eval()(lq * 2 - 1, edge.eval()(lq) * 2 - 1)
        assert (ours(lq) - (signed + 1) / 2).abs().max() <= 1e-5
    assert (info.arch, info.scale) == ("EdgeSRGAN", (4, 4))
    assert info.arch_options["num_block"] == 5
    assert NON_COMMERCIAL in info.origin


def test_edge_srgans_generator_alone_is_refused_with_the_way_out(tmp_path, capsys):
    given = saved(tmp_path, {"state_dict": EdgeSRGANGenerator().state_dict()})
    message = refused(capsys, given)
    assert "--edge EdgeModel_gen.pth" in message
    assert "path.pretrain_parts: {generator: " in message


def test_an_edge_network_that_srkit_holds_can_be_the_one_inside(tmp_path, capsys):
    edge, theirs = made(EdgeNetwork, hooked), made(EdgeSRGANGenerator)
    own = tmp_path / "own.pth"
    given = saved(tmp_path, {"state_dict": theirs.state_dict()})
    assert main(["import", str(edge_file(tmp_path, edge)), "-o", str(own)]) == 0
    ours, _ = imported(given, "--edge", str(own))
    assert torch.equal(ours.edge.conv_last.weight, edge.decoder[7].weight)
    other = tmp_path / "unit.pth"
    assert main(["import", str(edge_file(tmp_path, edge)), "-o", str(other), "--arch", "input_range=unit"]) == 0
    capsys.readouterr()
    assert "its input_range is unit, and EdgeSRGAN shows it pictures of range signed" in refused(
        capsys, given, "--edge", str(other)
    )


def test_edge_srgans_discriminator_gives_the_same_logit(tmp_path):
    theirs = made(EdgeSRGANDiscriminator)
    ours, info = imported(saved(tmp_path, {"epoch": 3, "state_dict": theirs.state_dict(), "optim_dict": {}}))
    assert info.arch == "SwishDiscriminator"
    assert difference(ours, theirs, picture(2, 3, 21, 17)) <= 1e-6


@pytest.mark.parametrize("predicted", [False, True])
def test_the_edge_informed_model_gives_the_same_picture(tmp_path, predicted):
    theirs, lq = made(EdgeInformedGenerator), stripes(12, 16)
    edge = made(EdgeNetwork, hooked, signed=False)
    given = saved(tmp_path, {"iteration": 5, "generator": theirs.state_dict()}, "SRModel_gen.pth")
    ours, info = imported(given, *(["--edge", str(edge_file(tmp_path, edge))] if predicted else []))
    with torch.no_grad():
        guide = edge.eval()(lq) if predicted else nn.functional.interpolate(canny(lq), scale_factor=4)
        assert (ours(lq) - theirs.eval()(lq, guide)).abs().max() <= 1e-5
    assert info.arch == "EdgeInformedSR"
    assert NON_COMMERCIAL in info.origin


def test_what_the_file_does_not_tell_is_printed_and_can_be_said(tmp_path, capsys):
    given = edge_file(tmp_path, made(EdgeNetwork, hooked))
    imported(given)
    assert "the file does not tell all: taken as scale 4, input_range signed; --scale" in capsys.readouterr().out
    (tmp_path / "out/net.pth").unlink()
    _, info = imported(given, "--scale", "2", "--arch", "input_range=unit")
    assert info.scale == (2, 2)
    assert info.arch_options["input_range"] == "unit"
    assert "taken as" not in capsys.readouterr().out


# Faces and VDSR


@pytest.fixture
def notebook(monkeypatch) -> type:
    """The face network's class, as a notebook's pickle names it."""
    monkeypatch.setattr(SuperResolution, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "SuperResolution", SuperResolution, raising=False)
    return SuperResolution


def test_f7_the_face_network_gives_the_notebooks_formula(tmp_path, notebook, monkeypatch):
    theirs = made(notebook)
    given = saved(tmp_path, theirs, "SR_model_Faces_5.0.ml")
    monkeypatch.delattr(sys.modules["__main__"], "SuperResolution")  # a user has no such class
    ours, info = imported(given)
    lq = picture(2, 1, 9, 7)
    with torch.no_grad():
        assert (ours(lq) * 2 - 1 - theirs.eval()((lq - 0.5) / 0.5)).abs().max() <= 1e-6
    assert (info.arch, info.scale, info.color) == ("FacesSR", (2, 2), "y_full")
    content = torch.load(tmp_path / "out/net.pth", weights_only=True)  # F5: no class in it
    assert len(content["params"]) == 8


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_f5_a_face_pickle_with_code_in_it_is_refused_and_nothing_runs(tmp_path, notebook, capsys):
    theirs = made(notebook)
    theirs.extra = Bomb(tmp_path / "it_ran")
    given = saved(tmp_path, theirs, "SR_model_Faces_5.0.ml")
    assert re.search("its pickle also names .*pathlib.Path.*, which could run code; refused", refused(capsys, given))
    assert not (tmp_path / "it_ran").exists()
    torch.load(given, weights_only=False)  # the same file does run code where it is trusted
    assert (tmp_path / "it_ran").exists()


def test_f5_a_pickle_that_names_nothing_of_the_face_network_is_refused_and_nothing_runs(tmp_path, capsys):
    given = saved(tmp_path, {"state_dict": {"conv1.weight": torch.zeros(1)}, "bomb": Bomb(tmp_path / "it_ran")})
    assert "holds more than tensors and plain values" in refused(capsys, given)
    assert not (tmp_path / "it_ran").exists()


def replaced_pickle(source: Path, out: Path, change: Callable[[bytes], bytes]) -> Path:
    """The zip of torch.save with another pickle inside."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item, change(data) if item.filename.endswith("/data.pkl") else data)
    return out


def test_f5_allowed_names_called_in_other_ways_run_nothing_and_are_refused(tmp_path, notebook, capsys):
    given = saved(tmp_path, made(notebook), "good.ml")
    bad = replaced_pickle(given, tmp_path / "bad.ml", lambda _: b"\x80\x02c__main__\nSuperResolution\n(K\x01tR.")
    assert "is no face network" in refused(capsys, bad)
    empty = replaced_pickle(given, tmp_path / "empty.ml", lambda _: b"\x80\x02c__main__\nSuperResolution\n)\x81.")
    assert "is no face network with the layers conv1, conv2, conv3, conv4" in refused(capsys, empty)


@pytest.mark.parametrize("network", [ChainVDSR, NamedVDSR])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_communitys_vdsr_gives_the_same_picture(tmp_path, network, channels):
    theirs = made(network, channels)
    ours, info = imported(
        saved(tmp_path, {"epoch": 50, "state_dict": theirs.state_dict()}), "--arch", "enlarge_input=false"
    )
    assert difference(ours, theirs, picture(2, channels, 9, 7)) <= 1e-6
    assert info.arch == "VDSR"
    assert info.color == ("y" if channels == 1 else "rgb")
    assert (info.arch_options["num_block"], info.arch_options["bias"]) == (3, False)


def test_a_vdsr_enlarges_by_the_scale_that_is_said(tmp_path):
    ours, info = imported(saved(tmp_path, ChainVDSR().state_dict()), "--scale", "3")
    assert info.scale == (3, 3)
    assert ours(picture(1, 1, 5, 4)).shape == (1, 1, 15, 12)


# easysr


class In255(nn.Module):
    """Shows a network of intensities to 255 those to 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(255 * x) / 255


@pytest.mark.parametrize(
    ("feat", "blocks", "kernel"), [(5, 4, (1, 6, 1)), (6, 2, (1, 3, 1)), (4, 1, (2, 1, 1)), (4, 1, (2, 3, 2))]
)
def test_a_generator_of_easysr_gives_the_same_volume(tmp_path, feat, blocks, kernel):
    theirs = made(EasySRGenerator, feat, blocks, kernel)
    ours, info = imported(saved(tmp_path, theirs.state_dict(), "G_latest.pth"))
    volume = picture(2, 1, 6, 5, 7)
    assert difference(ours, In255(theirs), volume) <= 1e-5
    assert (info.arch, info.scale) == ("ResnetGenerator", kernel)
    assert info.arch_options == {
        "num_in_ch": 1, "num_out_ch": 1, "num_feat": feat, "num_block": blocks, "scale": list(kernel),
        "norm": "batch", "residual": "none", "img_range": 255.0,
    }  # fmt: skip
    assert (info.color, info.origin, info.intensity) == ("", "easysr: G_latest.pth; no licence stated", "")


@pytest.mark.parametrize(("feat", "blocks", "kernel", "method"), [(16, 4, (1, 6, 1), "easysr_g1"), (32, 2, (1, 3, 1), "easysr_g2")])  # fmt: skip
def test_a_published_generator_of_easysr_brings_its_normalisation(tmp_path, feat, blocks, kernel, method):
    _, info = imported(saved(tmp_path, EasySRGenerator(feat, blocks, kernel).state_dict()))
    assert info.intensity == method


@pytest.mark.parametrize(("feat", "last", "scale"), [(4, 1, (1, 6, 1)), (3, 24, (1, 3, 1))])
def test_a_discriminator_of_easysr_gives_the_same_logit(tmp_path, capsys, feat, last, scale):
    theirs = made(EasySRDiscriminator, feat, last, 1 * 2 * 1)
    ours, info = imported(saved(tmp_path, theirs.state_dict(), "D_latest.pth"), "--arch", "fixed_size=[32, 48, 40]")
    assert difference(ours, theirs, picture(2, 1, 32, 48, 40)) <= 1e-5
    assert (info.arch, info.scale) == ("PatchDiscriminator3D", scale)
    assert info.arch_options == {"num_in_ch": 1, "num_feat": feat, "fixed_size": [32, 48, 40], "last_ch": last}
    assert f"taken as scale {scale};" in capsys.readouterr().out


def test_a_published_discriminator_of_easysr_judges_whole_volumes(tmp_path, capsys):
    state = EasySRDiscriminator().state_dict()
    _, info = imported(saved(tmp_path, state), "--scale", "1,6,1")
    assert info.arch_options["fixed_size"] == [128, 192, 128]
    assert info.scale == (1, 6, 1)
    assert "taken as fixed_size [128, 192, 128]; --scale and" in capsys.readouterr().out


def test_a_discriminator_of_easysr_for_another_size_is_refused(tmp_path, capsys):
    state = EasySRDiscriminator(places=7 * 7 * 7).state_dict()
    message = refused(capsys, saved(tmp_path, state))
    assert "fc.weight (1, 8232) in the file, (1, 12936) in the network" in message


def test_easysrs_weights_do_not_fit_under_their_own_names(tmp_path, capsys):
    given = saved(tmp_path, EasySRGenerator(4, 2).state_dict())
    described = ["--arch", "ResnetGenerator", "num_feat=4", "--scale", "1,3,1"]
    assert "does not fit ResnetGenerator" in (message := refused(capsys, given, *described))
    assert "no key fits at all" in message


def test_other_weights_are_no_easysrs(tmp_path, capsys):
    message = refused(capsys, saved(tmp_path, ChainVDSR().state_dict()), "--from", "easysr")
    assert "not recognised; it holds features.0.weight" in message
    assert "easysr: easysr's 3D generator" in message


def test_the_axes_and_factor_of_an_easysr_file_cannot_be_contradicted(tmp_path, capsys):
    message = refused(capsys, saved(tmp_path, EasySRGenerator().state_dict()), "--scale", "3,1,1")
    assert "found scale (3, 1, 1), but the file says (1, 3, 1)" in message


# BasicSR's other networks


class PlainEDSR(nn.Module):
    """EDSR x2 without mean, as BasicSR names it."""

    def __init__(self) -> None:
        super().__init__()
        conv = lambda a, b: nn.Conv2d(a, b, 3, padding=1)  # noqa: E731
        self.conv_first, self.conv_after_body, self.conv_last = conv(3, 4), conv(4, 4), conv(4, 3)
        self.body = nn.ModuleList(nn.ModuleDict({"conv1": conv(4, 4), "conv2": conv(4, 4)}) for _ in range(2))
        self.upsample = nn.Sequential(conv(4, 16), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.conv_first(x)
        for block in self.body:
            x = x + 0.5 * block["conv2"](torch.relu(block["conv1"](x)))
        return self.conv_last(self.upsample(self.conv_after_body(x) + first))


EDSR = ["--arch", "EDSR", "num_feat=4", "num_block=2", "res_scale=0.5", "img_range=1", "rgb_mean=[0, 0, 0]"]


@pytest.mark.parametrize("container", ["params", "params_ema", ""])
def test_a_file_of_basicsr_is_described_on_the_command_line(tmp_path, container):
    theirs = made(PlainEDSR)
    state = theirs.state_dict()
    ours, info = imported(saved(tmp_path, {container: state} if container else state), *EDSR, "--scale", "2")
    assert difference(ours, theirs, picture(1, 3, 5, 7)) <= 1e-6
    assert info.arch_options["rgb_mean"] == [0, 0, 0]


def test_a_described_file_needs_a_scale_and_true_options(tmp_path, capsys):
    given = saved(tmp_path, PlainEDSR().state_dict())
    assert "found none as the scale; give --scale" in refused(capsys, given, *EDSR)
    wrong = refused(capsys, given, "--scale", "2", "--arch", "EDSR", "num_feats=4", "num_block=two")
    assert "num_feats: EDSR takes no such option" in wrong
    assert "num_block: found 'two', expected a whole number" in wrong
    assert "does not fit EDSR" in refused(capsys, given, "--scale", "2", "--arch", "EDSR", "num_feat=8", "num_block=2")


# Refusals of any kind, and use


def test_a_file_that_fits_nothing_is_refused_with_what_it_holds_and_what_was_expected(tmp_path, capsys):
    message = refused(capsys, saved(tmp_path, {"params": {"layer.weight": torch.zeros(2)}}))
    assert "not recognised; it holds params: layer.weight. Expected one of" in message
    for kind in ("torch_sr", "edge-srgan", "edge-informed", "esrgan", "vdsr", "faces", "easysr"):
        assert f"\n  {kind}: " in message
    assert "--arch TYPE" in message


def test_from_tries_one_kind_alone(tmp_path, capsys):
    given = saved(tmp_path, ChainVDSR().state_dict())
    message = refused(capsys, given, "--from", "esrgan")
    assert "\n  esrgan: " in message
    assert "\n  vdsr: " not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [({"epoch": 3}, "holds no weights, a mapping of names to tensors; found keys epoch"), ([1], "found a list")],
)
def test_a_file_without_weights_is_refused(tmp_path, capsys, content, message):
    assert message in refused(capsys, saved(tmp_path, content))


def test_what_the_file_says_cannot_be_contradicted(tmp_path, capsys):
    content = {"model_state_dict": TorchSR().state_dict(), "hparams": hparams()}
    message = refused(capsys, saved(tmp_path, content), "--scale", "2", "--arch", "upsampler=pixelshuffle")
    assert "found upsampler pixelshuffle, but the file says nearest; scale 2, but the file says 4" in message


def test_leftover_weights_are_refused(tmp_path, capsys):
    state = FamilyNetwork().state_dict() | {"body.0.rdb1.conv1x1.weight": torch.zeros(4, 6, 1, 1)}
    assert "1 unexpected: body.0.rdb1.conv1x1.weight" in refused(capsys, saved(tmp_path, state))


def test_nothing_is_overwritten_and_srkits_own_files_are_no_import(tmp_path, capsys):
    given = saved(tmp_path, ChainVDSR().state_dict())
    imported(given)
    before = (tmp_path / "out/net.pth").read_bytes()
    assert main(["import", str(given), "-o", str(tmp_path / "out/net.pth")]) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert (tmp_path / "out/net.pth").read_bytes() == before
    assert "is a model file of srkit already" in refused(capsys, tmp_path / "out/net.pth")


@pytest.mark.parametrize(("name", "message"), [("nowhere.pth", "no such file"), ("half.pth", "damaged")])
def test_a_missing_or_damaged_file_is_refused(tmp_path, capsys, name, message):
    whole = saved(tmp_path, ChainVDSR().state_dict()).read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    assert message in refused(capsys, tmp_path / name)


def test_training_starts_from_an_imported_generator(tiny):
    theirs = made(TorchSR, steps=1)
    content = {"model_state_dict": theirs.state_dict(), "hparams": hparams(scale_factor=2)}
    imported(saved(tiny, content))
    sizes = {"type": "RRDBNet", "num_feat": 6, "num_block": 2, "num_grow_ch": 4, "unshuffle_input": False}
    data = options(
        tiny,
        network_g=sizes,
        path__pretrain_network_g=str(tiny / "out/net.pth"),
        train__total_iter=1,
        train__optim_g={"type": "Adam", "lr": 1e-9},
        train__warmup_iter=-1,
        train__ema_decay=0.0,
    )
    assert in_process(tiny, data) == 0
    trained, _ = rebuilt(tiny / "experiments/tiny/models/net_g_1.pth")
    assert difference(trained, theirs, picture(1, 3, 6, 8)) <= 1e-5
