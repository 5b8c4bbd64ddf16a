"""Files written for BasicSR: named under `imports`, they train, are tested, and leave nothing of BasicSR behind."""

from __future__ import annotations

import csv
import json
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from tiny import in_process, measured, options
from torch import nn

from srkit import build
from srkit.errors import RefusedError
from srkit.foreign import basicsr_layers as layers
from srkit.foreign.basicsr_names import basicsr_names
from srkit.options.live import import_all, live_signature
from srkit.registry import ARCHS, LOSSES

# All that arch_util offers, the logger, a neighbour by relative import, arguments without types, a layer class as default.
FAMILY_NET = """
import torch
import torch.nn as nn
from torch.nn import functional as F

from basicsr.archs.arch_util import (DCNv2Pack, ResidualBlockNoBN, Upsample, default_init_weights, flow_warp, make_layer,
                                     pixel_unshuffle, resize_flow, to_2tuple, trunc_normal_)
from basicsr.utils import get_root_logger
from basicsr.utils.registry import ARCH_REGISTRY
from .family_util import Gain


@ARCH_REGISTRY.register()
class FamilyNet(nn.Module):
    '''A network in BasicSR's manner.'''

    def __init__(self, num_in_ch, num_feat=8, num_block=1, upscale=4, res_scale=1, window=2, mode='', act=nn.ReLU, **kwargs):
        super(FamilyNet, self).__init__()
        self.window = to_2tuple(window)[0]
        self.conv_first = nn.Conv2d(num_in_ch * self.window**2, num_feat, 3, 1, 1)
        self.body = make_layer(ResidualBlockNoBN, num_block, num_feat=num_feat, res_scale=res_scale)
        self.gain = Gain()
        self.act = act()
        self.upsample = Upsample(upscale * self.window, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_in_ch, 3, 1, 1)
        default_init_weights([self.conv_first, self.conv_last], 0.1)
        trunc_normal_(self.gain.weight, mean=1., std=.02)
        get_root_logger().info('FamilyNet has %d blocks', num_block)

    def forward(self, x):
        h, w = x.shape[-2:]
        x = F.pad(x, (0, -w % self.window, 0, -h % self.window), mode='replicate')
        feat = self.conv_first(pixel_unshuffle(x, self.window))
        flow = resize_flow(feat.new_zeros(len(x), 2, 3, 3), 'shape', feat.shape[-2:])
        feat = flow_warp(self.act(self.gain(self.body(feat))), flow.permute(0, 2, 3, 1))
        up = self.conv_last(self.upsample(feat))
        return up[..., :h * up.shape[-2] // x.shape[-2], :w * up.shape[-1] // x.shape[-1]]
"""
FAMILY_UTIL = """
import torch
from torch import nn
from basicsr.utils.registry import ARCH_REGISTRY


class Gain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


@ARCH_REGISTRY.register()
class NeighbourNet(Gain):
    pass
"""
NETWORK = {"type": "FamilyNet", "num_in_ch": 3, "res_scale": 0.5}


@pytest.fixture(autouse=True)
def _forget_files():
    """One process imports a module once and registers a name once; each test begins without the others' files."""
    path, modules = list(sys.path), set(sys.modules)
    archs, losses = dict(ARCHS._classes), dict(LOSSES._classes)
    yield
    sys.path[:] = path
    ARCHS._classes, LOSSES._classes = archs, losses
    for name in set(sys.modules) - modules:
        if name.startswith(("family_", "part_", "basicsr")):
            del sys.modules[name]


@pytest.fixture
def family(tmp_path):
    """The file above, beside its helper, in a folder of its own."""
    folder = tmp_path / "project/archs"
    folder.mkdir(parents=True)
    (folder / "family_arch.py").write_text(FAMILY_NET)
    (folder / "family_util.py").write_text(FAMILY_UTIL)
    return str(folder / "family_arch.py")


def imported(tmp_path, source: str, name: str = "part_arch.py") -> list[str]:
    """What importing a file of that source reports."""
    (tmp_path / name).write_text(source)
    return [problem.text for problem in import_all([str(tmp_path / name)], tmp_path)]


def registered(tmp_path, signature: str, super_init: str = "super().__init__()") -> type:
    """A class with that constructor, from a file in BasicSR's manner."""
    source = (
        "from torch import nn\nfrom basicsr.utils.registry import ARCH_REGISTRY\n\n\n@ARCH_REGISTRY.register()\n"
        f"class PartNet(nn.Module):\n    def __init__(self, {signature}):\n        {super_init}\n"
        "        self.seen = dict(locals())\n"
    )
    assert imported(tmp_path, source) == []
    return ARCHS.get("PartNet")


def test_a_file_written_for_basicsr_trains_and_its_weights_measure_the_same_in_a_test(tiny, family):
    assert in_process(tiny, options(tiny, imports=[family], network_g=NETWORK)) == 0
    lines = map(json.loads, (tiny / "experiments/tiny/records.jsonl").read_text().splitlines())
    last = [line for line in lines if line["kind"] == "validation"][-1]
    assert measured(tiny, imports=[family], network_g=None) == 0
    with (tiny / "results/tested/metrics.csv").open() as file:
        rows = [r for r in csv.DictReader(file) if r["model"] == "tested" and r["metric"] == "psnr"]
    values = [float(r["value"]) for r in rows if r["image"].startswith("p")]
    assert len(values) == 4
    assert sum(values) / 4 == pytest.approx(last["psnr"], abs=1e-3)


def test_weights_that_basicsr_wrote_are_tested_with_the_network_described_in_the_file(tiny, family):
    assert import_all([family], tiny) == []
    network = build.build_network("FamilyNet", {"num_in_ch": 3, "res_scale": 0.5}, (2, 2))
    torch.save({"params_ema": network.state_dict()}, tiny / "net_g_5000.pth")
    changes = {"path__pretrain_network_g": str(tiny / "net_g_5000.pth"), "network_g": NETWORK}
    assert measured(tiny, imports=[family], **changes) == 0


def test_a_test_without_imports_says_that_the_file_of_the_network_is_missing(tiny, family, capsys):
    assert in_process(tiny, options(tiny, imports=[family], network_g=NETWORK, train__total_iter=1)) == 0
    del ARCHS._classes["FamilyNet"]
    assert measured(tiny, network_g=None, path__pretrain_network_g="experiments/tiny/models/net_g_1.pth") == 2
    error = capsys.readouterr().err
    assert "holds a network of type FamilyNet, which is none of srkit's" in error
    assert "imports" in error


def test_a_wrong_size_is_refused_also_for_a_network_that_cannot_be_built_without_data(tiny, capsys):
    (tiny / "part_arch.py").write_text(
        "import torch\nfrom torch import nn\nfrom basicsr.utils.registry import ARCH_REGISTRY\n\n\n"
        "@ARCH_REGISTRY.register()\nclass PartNet(nn.Module):\n    def __init__(self, rate=0.1):\n"
        "        super().__init__()\n        self.rates = [x.item() for x in torch.linspace(0, rate, 3)]\n"
        "        self.conv = nn.Conv2d(3, 3, 1)\n\n    def forward(self, x):\n        return self.conv(x)\n"
    )
    assert in_process(tiny, options(tiny, imports=["part_arch.py"], network_g={"type": "PartNet"})) == 2
    assert "network_g: PartNet makes 3x8x8 out of lq 3x8x8, and gt is 3x16x16" in capsys.readouterr().err


def test_no_module_of_basicsr_is_left_and_the_file_is_a_module_of_its_own(tmp_path, family):
    assert import_all([family], tmp_path) == []
    assert not [name for name in sys.modules if name.partition(".")[0] == "basicsr"]
    assert sys.modules["family_arch"].__file__ == family
    assert ARCHS.get("FamilyNet").__module__ == "family_arch"


def test_only_classes_of_the_named_file_are_registered_not_those_of_its_neighbours(tmp_path, family):
    assert import_all([family], tmp_path) == []
    assert "FamilyNet" in ARCHS
    assert "NeighbourNet" not in ARCHS


def test_an_imported_basicsr_is_hidden_meanwhile_and_there_again_afterwards(monkeypatch):
    real = ModuleType("basicsr")
    monkeypatch.setitem(sys.modules, "basicsr", real)
    with basicsr_names():
        from basicsr.utils.registry import ARCH_REGISTRY

        assert "EDSR" in ARCH_REGISTRY
    assert sys.modules["basicsr"] is real
    assert "basicsr.utils" not in sys.modules


def test_submodules_without_stand_in_come_from_an_installed_basicsr(tmp_path, monkeypatch):
    (tmp_path / "site/basicsr/ops").mkdir(parents=True)
    (tmp_path / "site/basicsr/__init__.py").write_text("raise AssertionError('BasicSR as a whole is not imported')\n")
    (tmp_path / "site/basicsr/ops/__init__.py").write_text("def fused_act(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert imported(tmp_path, "from basicsr.ops import fused_act\nRESULT = fused_act(1)\n") == []
    assert sys.modules["part_arch"].RESULT == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from basicsr.ops.dcn import deform_conv", "basicsr.ops is one of BasicSR's compiled extensions"),
        ("from basicsr.utils import scandir", "no counterpart of BasicSR's 'scandir' in basicsr.utils (it has get_root_logger"),
        ("from basicsr.archs.arch_util import Nope", "no counterpart of BasicSR's 'Nope' in basicsr.archs.arch_util"),
        ("from basicsr.models import build_model", "no counterpart of BasicSR's 'models' in basicsr"),
        ("from .part_nowhere import x", "no counterpart of BasicSR's 'part_nowhere' in basicsr.archs"),
        ("import part_package", "it needs the package 'part_package', which is not installed (pip install part_package)"),
        ("from part_package.layers import DropPath", "it needs the package 'part_package', which is not installed"),
        ("import json.nothing", "ModuleNotFoundError: No module named 'json.nothing'"),  # json itself is there
        (
            "from basicsr.utils.registry import ARCH_REGISTRY\n@ARCH_REGISTRY.register()\nclass EDSR: pass",
            "arch 'EDSR' is registered twice",
        ),
        (
            "from basicsr.utils.registry import MODEL_REGISTRY\n@MODEL_REGISTRY.register()\nclass M: pass",
            "M is registered in MODEL_REGISTRY, but srkit trains by model_type",
        ),
        (
            "from basicsr.utils.registry import ARCH_REGISTRY\n@ARCH_REGISTRY.register()\ndef make(): pass",
            "make is registered but no class",
        ),
    ],
)  # fmt: skip
def test_what_srkit_cannot_supply_is_one_line_that_names_it(tmp_path, line, message):
    problems = imported(tmp_path, line + "\n")
    assert len(problems) == 1
    assert message in problems[0]


def test_a_file_that_can_do_without_an_extension_goes_on(tmp_path):
    source = "try:\n    from basicsr.ops.dcn import f\nexcept ImportError:\n    f = None\n"
    assert imported(tmp_path, source) == []


def test_dcnv2pack_is_refused_when_a_network_builds_it(tmp_path):
    source = (
        "from torch import nn\nfrom basicsr.archs.arch_util import DCNv2Pack\n"
        "from basicsr.utils.registry import ARCH_REGISTRY\n@ARCH_REGISTRY.register()\nclass PartNet(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.dcn = DCNv2Pack(8, 8, 3, padding=1)\n"
    )
    assert imported(tmp_path, source) == []
    with pytest.raises(RefusedError, match="DCNv2Pack, a deformable convolution"):
        build.build_network("PartNet", {}, (2, 2))


def test_arguments_without_types_take_what_resembles_their_default(tmp_path):
    cls = registered(tmp_path, "a, b=1, c=1.5, d='x', e=(1, 2), f=True, g=None, h=nn.ReLU, *, i: int = 2, **kwargs")
    signature = live_signature("arch", cls)
    assert {a.name: a.annotation for a in signature.arguments} == {
        "a": Any,
        "b": int | float | list,
        "c": int | float,
        "d": str | None,
        "e": list,
        "f": bool,
        "g": Any,
        "i": int,
    }
    assert [a.name for a in signature.arguments if a.required] == ["a"]
    assert signature.is_open


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_feat": "many"}, "network_g.num_feat: found 'many', expected a whole number or a number or a list"),
        ({"num_blok": 2}, None),  # its **kwargs takes that, with a warning
        ({"mode": 3}, "network_g.mode: found 3, expected text"),
        ({"upscale": 3}, "network_g.upscale: found 3, but the top-level scale is 2; they must agree"),
    ],
)
def test_options_of_the_file_are_checked(tiny, family, capsys, given, message):
    data = options(tiny, imports=[family], network_g={**NETWORK, **given}, train__total_iter=1)
    assert in_process(tiny, data) == (2 if message else 0)
    assert message is None or message in capsys.readouterr().err


def test_a_key_that_only_kwargs_takes_is_warned_about_by_name(tiny, family, capsys):
    data = options(tiny, imports=[family], network_g={**NETWORK, "num_blok": 2}, train__total_iter=1)
    assert in_process(tiny, data) == 0
    assert "network_g.num_blok: FamilyNet names no such option; its **kwargs takes it" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["upscale", "scale", "upsampling", "up_scale", "scale_factor", "upscaling_factor"])
@pytest.mark.parametrize("default", ["", "=4", "=None"])
def test_the_scale_is_filled_under_the_names_other_projects_give_it(tmp_path, name, default):
    registered(tmp_path, f"{name}{default}")
    assert build.build_network("PartNet", {}, (2, 2)).seen[name] == 2


@pytest.mark.parametrize("default", ["0.1", "'bilinear'", "(1, 2)"])
def test_an_argument_of_that_name_with_another_kind_of_default_is_not_the_scale(tmp_path, default):
    registered(tmp_path, f"scale={default}")
    assert build.build_network("PartNet", {}, (2, 2)).seen["scale"] != 2


def test_an_error_of_the_constructor_is_refused_with_its_place(tmp_path):
    registered(tmp_path, "dim=3, heads=2", "super().__init__(); assert dim % heads == 0, 'dim and heads'")
    with pytest.raises(
        RefusedError, match=r"PartNet cannot be built with .* AssertionError: dim and heads \(.*part_arch.py:8"
    ):
        build.build_network("PartNet", {}, (2, 2))


def test_a_loss_written_for_basicsr_trains(tiny):
    (tiny / "part_loss.py").write_text(
        "from torch import nn\nfrom basicsr.utils.registry import LOSS_REGISTRY\n\n\n@LOSS_REGISTRY.register()\n"
        "class CubicLoss(nn.Module):\n    def __init__(self, loss_weight=1.0, reduction='mean'):\n"
        "        super(CubicLoss, self).__init__()\n        self.loss_weight = loss_weight\n\n"
        "    def forward(self, pred, target, weight=None, **kwargs):\n"
        "        return self.loss_weight * ((pred - target).abs() ** 3).mean()\n"
    )
    loss = {"type": "CubicLoss", "loss_weight": 2.0}
    data = options(tiny, imports=["part_loss.py"], train__pixel_opt=loss, train__total_iter=1)
    assert in_process(tiny, data) == 0


# What arch_util's functions do, from its definition in BasicSR 1.4.2.


def test_default_init_weights_scales_he_normal_weights_and_fills_biases():
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    nn.init.zeros_(norm.weight)
    torch.manual_seed(0)
    layers.default_init_weights([conv, norm], 0.1, bias_fill=0.25)
    torch.manual_seed(0)
    expected = nn.init.kaiming_normal_(torch.empty(4, 3, 3, 3)) * 0.1
    assert torch.equal(conv.weight, expected)
    assert conv.bias.tolist() == norm.bias.tolist() == [0.25] * 4
    assert norm.weight.tolist() == [1.0] * 4


def test_the_residual_block_adds_its_scaled_branch():
    block = layers.ResidualBlockNoBN(4, res_scale=0.5)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(block(x), x + 0.5 * block.conv2(torch.relu(block.conv1(x))))
    assert block.conv1.bias.abs().sum() == 0
    assert layers.ResidualBlockNoBN(4, pytorch_init=True).conv1.bias.abs().sum() > 0


@pytest.mark.parametrize(
    ("scale", "convolutions"), [(1, []), (2, ["0"]), (3, ["0"]), (4, ["0", "2"]), (8, ["0", "2", "4"])]
)
def test_upsample_has_basicsr_s_keys_and_size(scale, convolutions):
    module = layers.Upsample(scale, 4)
    assert list(module.state_dict()) == [f"{n}.{kind}" for n in convolutions for kind in ("weight", "bias")]
    assert module(torch.zeros(1, 4, 3, 5)).shape == (1, 4, 3 * scale, 5 * scale)


def test_upsample_refuses_a_scale_it_cannot_make():
    with pytest.raises(ValueError, match="scale is 6"):
        layers.Upsample(6, 4)


def test_flow_warp_looks_up_pixels_at_their_displacement():
    x = torch.arange(24.0).view(1, 1, 4, 6)
    flow = torch.zeros(1, 4, 6, 2)
    flow[..., 0], flow[..., 1] = 2, 1  # two columns to the right, one row down
    warped = layers.flow_warp(x, flow)
    torch.testing.assert_close(warped[..., :3, :4], x[..., 1:, 2:])
    assert warped[..., 3, :].abs().sum() == warped[..., 4:].abs().sum() == 0


def test_resize_flow_stretches_displacements_with_the_field():
    flow = torch.ones(1, 2, 3, 4)
    for kind, sizes in (("ratio", (2, 0.5)), ("shape", (6, 2))):
        resized = layers.resize_flow(flow, kind, sizes)
        assert resized.shape == (1, 2, 6, 2)
        assert resized[:, 0].unique().tolist() == [0.5]
        assert resized[:, 1].unique().tolist() == [2.0]


def test_tuples_are_made_of_single_values_only():
    assert layers.to_2tuple(3) == (3, 3)
    assert layers.to_2tuple([1, 2]) == [1, 2]
    assert layers.to_ntuple(3)("a") == "a"
