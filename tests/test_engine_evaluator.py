"""The evaluator: rows, baselines, best values, written results; a perfect and a constant network as witnesses."""

import csv
import io
import json
import math
import threading
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from srkit.data.sample import Sample
from srkit.engine.distributed import Group
from srkit.engine.evaluator import EvalSet, Evaluator, NamedMetric, Row, SetResult, is_better
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.results import metrics_csv, metrics_json, table_md, write_results
from srkit.engine.transfer import Normalization
from srkit.errors import DataError, DivergedError
from srkit.imaging.files import read_image
from srkit.imaging.resize import imresize, nearest_upscale
from srkit.metrics import PSNR, SSIM, LRConsistency
from srkit.metrics.protocol import custom_protocol
from srkit.metrics.summary import decimals, shown

CPU = torch.device("cpu")
GROUP = Group(0, 1, CPU)


class Pictures:
    def __init__(self, count=3, size=24, dtype=np.uint8):
        draw = np.random.default_rng(0)
        self.gt = [draw.integers(0, np.iinfo(dtype).max, (size, size, 3), dtype, endpoint=True) for _ in range(count)]
        self.white = float(np.iinfo(dtype).max)

    def __len__(self):
        return len(self.gt)

    def sample(self, index, rng):
        gt = self.gt[index]
        return Sample(
            {"lq": np.ascontiguousarray(gt[::2, ::2]), "gt": gt}, f"p{index}", {"gt": f"p{index}.png"}, self.white
        )


class Nearest(nn.Module):
    def forward(self, x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, x):
        return torch.full((*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2), self.value)


def restorer(network, normalization=None, **tiles):
    normalization = normalization or Normalization()
    return Restorer(
        network, normalization=normalization, scale=(2, 2), device=CPU, precision=Precision("fp32", CPU), **tiles
    )


def eval_set(dataset, border=0):
    protocol = custom_protocol(border, False)
    metrics = (NamedMetric("psnr", PSNR(), protocol, "higher"), NamedMetric("ssim", SSIM(), protocol, "higher"))
    return EvalSet("set", dataset, metrics, (2, 2))


def evaluate(network, dataset, **options):
    return Evaluator([], GROUP).evaluate(eval_set(dataset), restorer(network), **options)


def test_a_network_that_repeats_pixels_gets_the_nearest_row_exactly():
    result = evaluate(Nearest(), Pictures())
    assert result.methods() == ["nearest", "bicubic-matlab", "model"]
    for metric in ("psnr", "ssim"):
        assert result.summary("model", metric) == result.summary("nearest", metric)


def test_psnr_of_a_constant_is_the_one_arithmetic_gives():
    dataset = Pictures(count=1)
    error = dataset.gt[0].astype(float) - 128  # 0.5 * 255 = 127.5 rounds half away from zero
    expected = 10 * math.log10(255**2 / np.mean(error**2))
    assert evaluate(Constant(0.5), dataset).mean("model", "psnr") == pytest.approx(expected, abs=1e-9)


def test_identical_pictures_are_infinite_and_json_stays_valid():
    dataset = Pictures(count=2)
    dataset.gt = [nearest_upscale(g[::2, ::2], 2) for g in dataset.gt]
    result = evaluate(Nearest(), dataset)
    assert result.mean("model", "psnr") == math.inf
    assert ",inf\n" in metrics_csv([result])
    summary = json.loads(metrics_json([result], {}))["sets"]["set"]["methods"]["model"]["psnr"]
    assert summary["mean"] is None
    assert summary["n_identical"] == 2


def test_the_saved_file_is_the_picture_that_was_measured(tmp_path):
    result = evaluate(Nearest(), Pictures(count=2), save_as=lambda name: tmp_path / name)
    for index, row in enumerate(r for r in result.rows if r.method == "model" and r.metric == "psnr"):
        saved = read_image(tmp_path / f"p{index}.png").astype(float)
        mse = np.mean((saved - Pictures().gt[index]) ** 2)
        assert row.value == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-9)


def test_sixteen_bit_pictures_are_measured_and_saved_in_sixteen_bits(tmp_path):
    dataset = Pictures(count=1, dtype=np.uint16)
    evaluate(Nearest(), dataset, save_as=lambda name: tmp_path / name)
    assert read_image(tmp_path / "p0.png").dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / "p0.png"), nearest_upscale(dataset.gt[0][::2, ::2], 2))


def test_normalisation_is_undone_on_output():
    dataset = Pictures(count=1)
    norm = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    image = dataset.sample(0, None).images["lq"]
    plain = restorer(Nearest())(image, 255)
    np.testing.assert_allclose(restorer(Nearest(), norm)(image, 255), plain, atol=1e-6)


def test_tiles_equal_the_whole():
    image = Pictures(count=1, size=50).sample(0, None).images["lq"]
    whole = restorer(Nearest())(image, 255)
    np.testing.assert_array_equal(restorer(Nearest(), tile=(11, 9), overlap=(2, 1))(image, 255), whole)


def test_the_bicubic_row_is_the_exact_bicubic():
    dataset = Pictures(count=1)
    result = evaluate(Constant(0.0), dataset)
    sample = dataset.sample(0, None).images
    error = imresize(sample["lq"], 2).astype(float) - sample["gt"]
    assert result.mean("bicubic-matlab", "psnr") == pytest.approx(10 * math.log10(255**2 / np.mean(error**2)), abs=1e-9)


def test_a_network_that_returns_nan_is_named_with_its_picture():
    with pytest.raises(DivergedError, match=r"set/p0: .*not finite"):
        evaluate(Constant(float("nan")), Pictures())


def test_an_empty_set_is_an_error():
    with pytest.raises(DataError, match="no pictures"):
        evaluate(Nearest(), Pictures(count=0))


def test_a_wrong_size_is_refused_and_named():
    dataset = Pictures(count=1)
    dataset.sample = lambda i, rng: Sample(
        {"lq": dataset.gt[0][:9, :9], "gt": dataset.gt[0]}, "p0", {"gt": "p0.png"}, 255.0
    )
    with pytest.raises(DataError, match=r"sr is \(18, 18\), gt is \(24, 24\) \(p0\.png\)"):
        evaluate(Nearest(), dataset)


def test_csv_json_and_table_tell_the_same_means(tmp_path):
    result = evaluate(Nearest(), Pictures())
    write_results(tmp_path, [result], {"name": "x"})
    rows = list(csv.DictReader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    values = [float(r["value"]) for r in rows if r["model"] == "model" and r["metric"] == "psnr"]
    stored = json.loads((tmp_path / "metrics.json").read_text())["sets"]["set"]["methods"]["model"]["psnr"]
    assert stored["mean"] == pytest.approx(np.mean(values), abs=1e-12)
    assert stored["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert f"{np.mean(values):.4f}" in (tmp_path / "table.md").read_text()
    assert list(rows[0]) == ["set", "image", "group", "model", "metric", "protocol", "value"]
    assert f"\nprotocol: {rows[0]['protocol'].partition('#')[0]}\n" in (tmp_path / "table.md").read_text()


def test_values_too_small_for_four_decimals_keep_their_digits():
    assert [shown(v) for v in (37.55028, 0.00123, 0.0, 2.5371e-05)] == ["37.5503", "0.0012", "0.0000", "2.54e-05"]
    assert [shown(v, "+") for v in (-0.00021, 3.1)] == ["-0.00021", "+3.1000"]
    assert [decimals(v) for v in ([0.9, 37.0], [0.0], [2.5e-5, 1e-6], [math.inf, 3e-4])] == [4, 4, 7, 6]


def test_a_model_below_bicubic_is_marked_and_one_above_is_not():
    blocky = Pictures()
    blocky.gt = [nearest_upscale(g[::2, ::2], 2) for g in blocky.gt]  # repeating pixels is right here, bicubic is not
    assert "(!)" in table_md([evaluate(Constant(0.0), blocky)])
    assert "(!)" not in table_md([evaluate(Nearest(), blocky)])


def test_nan_is_never_the_best():
    assert not is_better(float("nan"), 1.0, "higher")
    assert not is_better(float("nan"), 1.0, "lower")
    assert is_better(2.0, 1.0, "higher")
    assert is_better(0.5, 1.0, "lower")


def test_consistency_with_lq_is_the_psnr_of_the_shrunk_output():
    dataset = Pictures(count=2)
    named = NamedMetric("lr", LRConsistency(), custom_protocol(0, False), "higher")
    result = Evaluator([], GROUP).evaluate(EvalSet("set", dataset, (named,), (2, 2)), restorer(Nearest()))
    for row in (r for r in result.rows if r.method == "model"):
        lq = dataset.sample(int(row.image[1:]), None).images["lq"]
        shrunk = imresize(nearest_upscale(lq, 2), Fraction(1, 2)).astype(float)
        assert row.value == pytest.approx(10 * math.log10(255**2 / np.mean((shrunk - lq) ** 2)), abs=1e-9)
    assert result.mean("nearest", "lr") == result.mean("model", "lr")


def test_a_table_draws_the_interval_of_each_method_once(monkeypatch):
    from srkit.engine import evaluator

    calls = []
    real = evaluator.summarize
    monkeypatch.setattr(evaluator, "summarize", lambda *given: calls.append(1) or real(*given))
    rows = [Row(f"p{k}", method, "psnr", "x#1", 30.0 + k, f"p{k}") for method in ("nearest", "a") for k in range(3)]
    named = NamedMetric("psnr", PSNR(), custom_protocol(0, False), "higher")
    result = SetResult("val", (named,), rows, 3, ("nearest",))
    table_md([result])
    metrics_json([result], {})
    assert len(calls) == 2
    assert result.joined(result).summary("a", "psnr")["n"] == 6


def test_an_evaluation_that_is_given_up_leaves_no_thread(tmp_path):
    def give_up():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:  # keeps the frames alive, and what they hold
        evaluate(Nearest(), Pictures(), save_as=lambda name: tmp_path / name, tick=give_up)
    assert raised.value.__traceback__ is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("srkit-picture")]
