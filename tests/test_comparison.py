"""Several models in one test: rows, names, resuming, timing, tables for papers, what is refused."""

import csv
import json
import re
import shutil

import numpy as np
import pytest
import torch
from compared import compare, model
from tiny import ROOT, run

from srkit.engine.evaluator import Evaluator
from srkit.engine.restorer import Restorer
from srkit.engine.timing import Stopwatch
from srkit.errors import DataError
from srkit.imaging.files import read_image, write_image


def rows_of(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_models_share_a_table_whose_interpolation_rows_are_there_once(tiny):
    a, b = model(tiny / "a.pth", 0), model(tiny / "b.pth", 1, num_feat=8)
    assert compare(tiny, a, b) == 0
    rows = rows_of(tiny / "results/compared")
    assert [r["model"] for r in rows if r["image"] == "p0"] == ["nearest", "bicubic-matlab", "a", "b"]
    assert len(rows) == 4 * 4
    told = json.loads((tiny / "results/compared/metrics.json").read_text())
    assert told["models"]["a"]["model_sha256"] != told["models"]["b"]["model_sha256"]
    table = (tiny / "results/compared/table.md").read_text()
    assert re.search(r"\| val \| 4 \| a \|.*\n\| val \| 4 \| b \|", table)


def test_a_model_has_the_value_in_company_that_it_has_alone(tiny):
    a, b = model(tiny / "a.pth", 0), model(tiny / "b.pth", 1)
    values = {}
    for name, files in (("alone", (b,)), ("both", (a, b))):
        assert compare(tiny, *files, name=name) == 0
        values[name] = [r["value"] for r in rows_of(tiny / "results" / name) if r["model"] == "b"]
    assert values["alone"] == values["both"]


def test_pictures_of_two_models_lie_in_folders_of_their_own(tiny):
    assert compare(tiny, model(tiny / "a.pth", 0), model(tiny / "b.pth", 1), val__save_img=True) == 0
    folder = tiny / "results/compared/visualization/val"
    assert (read_image(folder / "a/p0.png") != read_image(folder / "b/p0.png")).any()


def test_models_of_one_experiment_are_told_apart_by_their_files(tiny):
    files = [model(tiny / f"net_g_{n}.pth", n, experiment="run") for n in (1, 2)]
    assert compare(tiny, *files) == 0
    assert {"run_net_g_1", "run_net_g_2"} <= {r["model"] for r in rows_of(tiny / "results/compared")}


def test_a_model_that_comes_with_srkit_keeps_the_name_it_was_asked_for_by(tiny):
    assert compare(tiny, "natural-x2", model(tiny / "a.pth", 0)) == 0
    assert {"natural-x2", "a"} <= {r["model"] for r in rows_of(tiny / "results/compared")}


def test_models_of_one_name_are_refused(tiny, capsys):
    (tiny / "other").mkdir()
    assert compare(tiny, model(tiny / "a.pth", 0), model(tiny / "other/a.pth", 1)) == 2
    assert "are named a_a; rename a file" in capsys.readouterr().err


def test_models_of_different_scales_are_refused_by_name(tiny, capsys):
    assert compare(tiny, model(tiny / "a.pth", 0), model(tiny / "b.pth", 1, scale=4)) == 2
    said = capsys.readouterr().err
    assert re.search(r"different scales.*a\.pth has scale \[2, 2\].*b\.pth has scale \[4, 4\]", said)
    assert not (tiny / "results").exists()


def test_a_file_without_any_model_is_refused(tiny, capsys):
    assert compare(tiny) == 2
    assert "path.pretrain_network_g: missing" in capsys.readouterr().err


def counted(monkeypatch):
    """Names of the pictures that networks restore from now on."""
    seen = []
    real = Evaluator._restore

    def restore(restorer, sample, set_name, stopwatch):
        seen.append(sample.name)
        return real(restorer, sample, set_name, stopwatch)

    monkeypatch.setattr(Evaluator, "_restore", staticmethod(restore))
    return seen


def test_a_stopped_test_goes_on_with_the_pictures_it_had_not_measured(tiny, monkeypatch):
    a, b = model(tiny / "a.pth", 0), model(tiny / "b.pth", 1)
    assert compare(tiny, a, b) == 0
    folder = tiny / "results/compared"
    whole = (folder / "metrics.csv").read_text()
    lines = whole.splitlines(keepends=True)
    stop = next(i for i, line in enumerate(lines) if line.startswith("val,p1,p1,b,"))
    (folder / "metrics.csv").write_text("".join(lines[:stop]) + lines[stop][:-3])  # cut in the middle of a number
    about = json.loads((folder / "metrics.json").read_text())
    about.pop("sets")
    (folder / "metrics.json").write_text(json.dumps(about))
    seen = counted(monkeypatch)
    assert compare(tiny, a, b, flags=("--resume",)) == 0
    had = {tuple(line.split(",")[1:4:2]) for line in lines[1:stop]}
    expected = [f"p{n}" for m in "ab" for n in range(4) if (f"p{n}", m) not in had]
    assert seen == expected
    assert 0 < len(seen) < 8
    assert (folder / "metrics.csv").read_text() == whole


def test_a_finished_test_is_not_run_again_and_keeps_its_times(tiny, monkeypatch):
    a = model(tiny / "a.pth", 0)
    assert compare(tiny, a) == 0
    before = json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]
    seen = counted(monkeypatch)
    assert compare(tiny, a, flags=("--resume",)) == 0
    assert seen == []
    assert json.loads((tiny / "results/compared/metrics.json").read_text())["sets"] == before


def test_other_weights_under_the_same_name_are_measured_anew(tiny, monkeypatch):
    a = model(tiny / "a.pth", 0)
    assert compare(tiny, a) == 0
    before = rows_of(tiny / "results/compared")
    model(a, 5)
    assert compare(tiny, a, flags=("--resume",)) == 0
    after = rows_of(tiny / "results/compared")
    changed = {r["model"] for r, s in zip(before, after, strict=True) if r != s}
    assert changed == {"a"}


def test_a_set_that_changed_is_measured_anew(tiny, monkeypatch):
    a = model(tiny / "a.pth", 0)
    assert compare(tiny, a) == 0
    for half in ("gt", "lq"):
        shutil.copy(tiny / f"data/{half}/p0.png", tiny / f"data/{half}/p9.png")
    seen = counted(monkeypatch)
    assert compare(tiny, a, flags=("--resume",)) == 0
    assert seen == ["p0", "p1", "p2", "p3", "p9"]


def test_another_border_is_another_measurement(tiny, monkeypatch):
    a = model(tiny / "a.pth", 0)
    assert compare(tiny, a) == 0
    seen = counted(monkeypatch)
    metrics = {"psnr": {"type": "calculate_psnr", "crop_border": 3}}
    assert compare(tiny, a, flags=("--resume",), val__metrics=metrics) == 0
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"type": "StainPSNR", "stain": "eosin"}, {"type": "StainPSNR", "stain": "haematoxylin"}),
        ({"type": "PSNR"}, {"type": "SSIM"}),
    ],
)
def test_another_metric_under_the_same_name_is_measured_anew(tiny, before, after):
    a = model(tiny / "a.pth", 0)
    assert compare(tiny, a, val__metrics={"m": before}) == 0
    assert compare(tiny, a, flags=("--resume",), val__metrics={"m": after}) == 0
    assert compare(tiny, a, name="fresh", val__metrics={"m": after}) == 0
    assert rows_of(tiny / "results/compared") == rows_of(tiny / "results/fresh")


def test_another_metric_under_the_same_name_is_not_compared(tiny):
    from srkit.engine.paired import compare_between
    from srkit.engine.stored import read_results

    a = model(tiny / "a.pth", 0)
    for stain in ("eosin", "haematoxylin"):
        assert compare(tiny, a, name=stain, val__metrics={"m": {"type": "StainPSNR", "stain": stain}}) == 0
    with pytest.raises(DataError, match=r"m: .*StainPSNR\(stain=eosin\).*StainPSNR\(stain=haematoxylin\)"):
        compare_between(*(read_results(tiny / "results" / stain) for stain in ("eosin", "haematoxylin")))


def test_another_network_of_a_file_that_says_nothing_is_measured_anew(tiny):
    a = model(tiny / "a.pth", 0)
    torch.save({"params": torch.load(a)["params"]}, a)
    networks = [{"type": "EDSR", "num_feat": 4, "num_block": 1, "res_scale": scale} for scale in (1.0, 0.1)]
    assert compare(tiny, a, network_g=networks[0]) == 0
    before = rows_of(tiny / "results/compared")
    assert compare(tiny, a, flags=("--resume",), network_g=networks[1]) == 0
    after = rows_of(tiny / "results/compared")
    assert {r["model"] for r, s in zip(before, after, strict=True) if r != s} == {"a"}


def test_a_resumed_test_makes_the_pictures_that_are_missing(tiny, monkeypatch):
    a, b = model(tiny / "a.pth", 0), model(tiny / "b.pth", 1)
    folder = tiny / "results/compared/visualization/val"
    assert compare(tiny, a) == 0
    whole = (tiny / "results/compared/metrics.csv").read_text()
    assert compare(tiny, a, flags=("--resume",), val__save_img=True) == 0
    assert len(list(folder.glob("*.png"))) == 4
    assert (tiny / "results/compared/metrics.csv").read_text() == whole
    assert compare(tiny, a, b, flags=("--resume",), val__save_img=True) == 0
    assert len(list(folder.glob("a/*.png"))) == len(list(folder.glob("b/*.png"))) == 4
    seen = counted(monkeypatch)
    assert compare(tiny, a, b, flags=("--resume",), val__save_img=True) == 0
    assert seen == []


def test_times_operations_and_parameters_stand_beside_the_values(tiny):
    assert compare(tiny, model(tiny / "a.pth", 0), val__tile=16, val__tile_overlap=4) == 0
    timing = json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]["val"]["timing"]["a"]
    assert timing["pictures"] == 3  # the first warms up
    assert 0 < timing["median_s"] <= timing["p95_s"]
    assert timing["images_per_s"] * 48 * 48 / 1e6 == pytest.approx(timing["megapixels_per_s"])
    assert "GFLOPs" in (tiny / "results/compared/table.md").read_text()


def test_operations_are_those_of_the_convolution():
    network = torch.nn.Conv2d(3, 8, 3, padding=1)
    network = torch.nn.Sequential(network, torch.nn.Upsample(scale_factor=2))
    from srkit.engine.precision import Precision
    from srkit.engine.transfer import Normalization

    cpu = torch.device("cpu")
    restorer = Restorer(
        network, normalization=Normalization(), scale=(2, 2), device=cpu, precision=Precision("fp32", cpu)
    )
    watch = Stopwatch(cpu)
    watch(restorer, np.zeros((20, 300, 3), np.uint8), 255.0, 0.0)
    timing = watch.timing()
    assert timing.parameters == 8 * 3 * 9 + 8
    assert timing.flops_lq_size == [20, 64]
    assert timing.flops == 2 * 8 * 3 * 9 * 20 * 64


def test_the_latex_table_has_the_best_bold_the_second_underlined_and_its_protocol(tiny):
    assert compare(tiny, model(tiny / "a_1.pth", 0)) == 0
    text = (tiny / "results/compared/table.tex").read_text()
    sets = json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]["val"]
    means = sorted((m["psnr"]["mean"] for m in sets["methods"].values()), reverse=True)
    assert rf"\textbf{{{means[0]:.2f}}}" in text
    assert rf"\underline{{{means[1]:.2f}}}" in text
    assert sets["protocols"]["psnr"]["hash"] in text
    assert r"a\_1 & " in text
    assert text.count("{") == text.count("}")


def test_sets_whose_gt_are_jpeg_files_are_marked(tiny):
    for path in (tiny / "data/gt").glob("*.png"):
        write_image(path.with_suffix(".jpg"), read_image(path))
        path.unlink()
    assert compare(tiny, model(tiny / "a.pth", 0)) == 0
    assert "| val (jpeg) | 4 | a |" in (tiny / "results/compared/table.md").read_text()
    assert "dagger" in (tiny / "results/compared/table.tex").read_text()
    assert json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]["val"]["jpeg_gt"] == 4


def test_the_resolved_options_lie_beside_the_values(tiny):
    assert compare(tiny, model(tiny / "a.pth", 0)) == 0
    text = (tiny / "results/compared/options.yml").read_text()
    assert "pretrain_network_g" in text
    assert "a.pth" in text


def test_the_command_takes_models_by_m(tiny):
    from compared import option_file

    code, out = run(
        "-opt", option_file(tiny), "-m", model(tiny / "a.pth", 0), model(tiny / "b.pth", 1), tool="test", cwd=tiny
    )
    assert code == 0, out
    assert (tiny / "results/compared/table.md").read_text() in out
    assert ROOT.is_dir()
