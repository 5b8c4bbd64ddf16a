"""VDSR: counts, keys, bicubic start, several scales, and a luma training from its option file."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from networks import counts, picture
from tiny import in_process, measured, options

from srkit.archs.vdsr import VDSR
from srkit.data.forms import PictureForm
from srkit.data.sample import Sample
from srkit.engine.distributed import Group
from srkit.engine.evaluator import EvalSet, Evaluator, NamedMetric
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Normalization
from srkit.errors import RefusedError
from srkit.imaging.colour import luma
from srkit.imaging.resize import imresize
from srkit.metrics.errors import PSNR
from srkit.metrics.protocol import protocol_named

CPU = torch.device("cpu")


def small(**given) -> VDSR:
    torch.manual_seed(0)
    return VDSR(**{"num_feat": 4, "num_block": 2, **given})


@pytest.mark.parametrize(
    ("given", "parameters", "entries"),
    [
        ({}, 665_921, 40),
        ({"bias": False}, 664_704, 20),
        ({"num_ch": 3, "bias": False}, 664_704 + 2 * 2 * 9 * 64, 20),
    ],
)
def test_parameter_and_entry_counts(given, parameters, entries):
    assert counts(lambda: VDSR(**given)) == (parameters, entries)


def test_keys():
    layers = ["conv_first", "body.0", "body.1", "conv_last"]
    assert list(small(bias=False).state_dict()) == [f"{n}.weight" for n in layers]
    assert list(small().state_dict()) == [f"{n}.{k}" for n in layers for k in ("weight", "bias")]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_forward_corrects_the_bicubic_enlargement(scale):
    net, lq = small(scale=scale), picture(1, 1, 6, 5)
    large = torch.from_numpy(imresize(lq[0, 0, :, :, None].numpy(), scale)).movedim(-1, 0)[None]
    with torch.no_grad():
        x = large
        for conv in (net.conv_first, *net.body):
            x = torch.relu(conv(x))
        torch.testing.assert_close(net(lq), large + net.conv_last(x), rtol=1e-5, atol=1e-6)


def test_one_network_serves_every_scale_a_call_names():
    net, lq = small(scale=2), picture(2, 1, 6, 5)
    other = small(scale=3)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(net(lq, scale=3), other(lq))
        assert torch.equal(net(lq, scale=2), net(lq))


def test_an_enlarged_input_keeps_its_size():
    net, lq = small(enlarge_input=False, last_init="zero", scale=2), picture(1, 1, 6, 5)
    assert torch.equal(net(lq), lq)


def test_first_weights_are_kaimings_by_fan_out_without_bias():
    net = VDSR(num_block=1)
    for conv in (net.conv_first, net.body[0], net.conv_last):
        tolerance = 4 / math.sqrt(2 * conv.weight.numel())  # four standard errors
        assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * conv.out_channels)), rel=tolerance)
        assert not conv.bias.any()


class LumaPictures:
    """lq as luma, float, gt in colour: what a dataset with `color: y` gives."""

    def __init__(self, scale: int) -> None:
        draw = np.random.default_rng(0)
        self.gt = [imresize(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8), 4 * scale) for _ in range(3)]
        self.scale = scale

    def __len__(self) -> int:
        return len(self.gt)

    def sample(self, index: int, rng) -> Sample:
        gt = self.gt[index]
        lq = luma(np.ascontiguousarray(gt[:: self.scale, :: self.scale])).astype(np.float32)
        form = PictureForm(white=255.0, dtype=gt.dtype, luma="limited")
        return Sample({"lq": lq, "gt": gt}, f"p{index}", {"gt": f"p{index}.png"}, 255.0, form=form)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_with_its_last_convolution_at_zero_it_is_the_bicubic_row(scale):
    protocol = protocol_named("natural-y-v1")
    item = EvalSet("set", LumaPictures(scale), (NamedMetric("psnr", PSNR(), protocol, "higher"),), (scale, scale))
    restorer = Restorer(
        small(scale=scale, last_init="zero"),
        normalization=Normalization(),
        scale=(scale, scale),
        device=CPU,
        precision=Precision("fp32", CPU),
    )
    result = Evaluator([item], Group(0, 1, CPU)).evaluate(item, restorer)
    values = {m: [row.value for row in result.rows if row.method == m] for m in result.methods()}
    assert len(values["model"]) == 3
    assert values["model"] == values["bicubic-matlab-y"]
    assert values["model"] != values["nearest-y"]


def test_a_run_on_luma_that_learns_nothing_is_tested_at_the_bicubic_row(tiny):
    changes = {
        "network_g": {"type": "VDSR", "num_feat": 4, "num_block": 1, "last_init": "zero"},
        "datasets__train__color": "y",
        "datasets__val__color": "y",
        "train__optim_g": {"type": "SGD", "lr": 1e-12},
        "val__metrics": None,
        "val__protocol": "natural-y-v1",
    }
    assert in_process(tiny, options(tiny, **changes)) == 0
    assert measured(tiny, **{**changes, "network_g": None, "datasets__val__color": None}) == 0
    methods = json.loads((tiny / "results/tested/metrics.json").read_text())["sets"]["val"]["methods"]
    assert methods["tested"]["psnr"] == methods["bicubic-matlab-y"]["psnr"]


def test_misfits_are_refused_by_name():
    with pytest.raises(RefusedError, match=r"VDSR: num_ch is 2; VDSR takes 1 \(luma\) or 3 \(RGB\); num_feat is 0"):
        small(num_ch=2, num_feat=0)
