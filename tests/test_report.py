"""The report: one file that stands alone, what it holds, that it works in a browser, and what is said when it cannot."""

import json
import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from browser import BROWSER, seen
from compared import compare, model
from tiny import pictures

pytest.importorskip("matplotlib", reason="the extra `report` is not installed")
pytest.importorskip("jinja2", reason="the extra `report` is not installed")

from srkit.errors import DataError, RefusedError
from srkit.report import charts
from srkit.report.encode import data_uri
from srkit.report.figure import _broken, write_figure
from srkit.report.pictures import picture_error, worst_place
from srkit.report.write import MAX_BYTES, write_report

METRICS = {"psnr": {"type": "PSNR", "crop_border": 2}, "ssim": {"type": "SSIM", "crop_border": 2}}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Folder of a test of two models, and its report."""
    folder = tmp_path_factory.mktemp("report")
    pictures(folder / "data")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    files = model(folder / "first.pth", 0), model(folder / "second.pth", 1)
    assert compare(folder, *files, val__save_img=True, val__metrics=METRICS) == 0
    records = [
        {"kind": "train", "iteration": n, "epoch": 0, "lr": {"g": 1e-4}, "l_pix": 1 / n, "skipped": 0} for n in (1, 2)
    ]
    records.append({"kind": "validation", "iteration": 2, "set": "val", "weights": "params", "psnr": 20.5})
    (folder / "run").mkdir()
    (folder / "run/records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records) + '{"kind": "tr')
    write_report(folder / "results/compared", folder / "run")
    yield folder / "results/compared"
    patch.undo()


def test_the_page_needs_nothing_from_elsewhere_and_is_small(compared):
    text = (compared / "report.html").read_text()
    assert len(text) < MAX_BYTES
    assert not re.search(r"""(src|href)=["'](?!#|data:)[^"']""", text)
    assert not re.search(r"@import|url\((?!\"\$\{image)(?!#)", text)
    assert "https://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", re.sub(r"<!DOCTYPE[^>]*>", "", text))


def test_the_page_is_well_formed(compared):
    html5lib = pytest.importorskip("html5lib")
    parser = html5lib.HTMLParser()
    parser.parse((compared / "report.html").read_text())
    problems = {code for _, code, _ in parser.errors}
    assert problems <= {"deprecated-attribute"}, parser.errors[:5]


def test_tables_hold_the_means_of_metrics_json_and_the_hash_of_the_protocol(compared):
    text = (compared / "report.html").read_text()
    sets = json.loads((compared / "metrics.json").read_text())["sets"]["val"]
    for method in sets["methods"].values():
        assert f"{method['psnr']['mean']:.4f}" in text
        assert f"{method['ssim']['mean']:.4f}" in text
    assert sets["protocols"]["psnr"]["hash"] in text
    for told in json.loads((compared / "metrics.json").read_text())["models"].values():
        assert told["model_sha256"] in text


def test_below_six_groups_the_page_lists_the_groups_own_differences(compared):
    text = (compared / "report.html").read_text()
    assert "Differences of each group" in text
    assert re.search(r"<p>val, psnr, \w+ - bicubic-matlab: p0 [+-][0-9.]+, p1 ", text)


def test_the_pictures_are_those_that_were_measured(compared):
    import base64

    import cv2

    from srkit.imaging.files import read_image

    text = (compared / "report.html").read_text()
    views = [json.loads(v) for v in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]
    assert len(views) == 3  # worst, median, best
    assert list(views[0]) == [
        "lq", "bicubic-matlab", "first", "second", "gt", "error of first", "error of second"
    ]  # fmt: skip
    rank = re.search(r"val: (p\d) \(worst\)", text).group(1)
    data = base64.b64decode(views[0]["second"][0].split(",")[1])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(shown, read_image(compared / f"visualization/val/second/{rank}.png"))


def test_the_worst_picture_has_the_lowest_value(compared):
    text = (compared / "report.html").read_text()
    rows = [line.split(",") for line in (compared / "metrics.csv").read_text().splitlines()[1:]]
    values = {r[1]: float(r[6]) for r in rows if r[3] == "first" and r[4] == "psnr"}
    assert f"val: {min(values, key=values.get)} (worst)" in text
    assert f"val: {max(values, key=values.get)} (best)" in text


browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@browser
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1600, False)])
def test_the_page_works_in_a_browser(compared, tmp_path, width, dark):
    script = """
        const view = document.querySelector('.view'), compare = view.querySelector('.compare');
        const at = view.querySelector('.at');
        at.value = 20; at.dispatchEvent(new Event('input'));
        const moved = getComputedStyle(compare).getPropertyValue('--at');
        const box = compare.getBoundingClientRect();
        compare.dispatchEvent(new PointerEvent('pointermove',
            {clientX: box.left + box.width * 0.75, clientY: box.top + 5, pointerType: 'mouse'}));
        const followed = getComputedStyle(compare).getPropertyValue('--at');
        const hold = view.querySelector('.hold');
        hold.dispatchEvent(new PointerEvent('pointermove', {clientX: 0, clientY: 0}));
        const lens = getComputedStyle(view.querySelectorAll('.lens')[3]);
        const zoomed = lens.display + ' ' + lens.backgroundSize;
        hold.dispatchEvent(new PointerEvent('pointerleave'));
        const right = view.querySelector('.r'), under = view.querySelector('.under');
        const before = under.src;
        right.value = 'gt'; right.dispatchEvent(new Event('change'));
        return {moved, followed, zoomed, unzoomed: getComputedStyle(view.querySelector('.lens')).display,
            changed: before !== under.src, loaded: [...document.images].every((i) => i.complete && i.naturalWidth > 0),
            images: document.images.length, overflow: document.documentElement.scrollWidth - innerWidth,
            paper: getComputedStyle(document.body).backgroundColor,
            ink: getComputedStyle(document.querySelector('.charts svg text')).fill};
    """
    found = seen(compared / "report.html", script, width, tmp_path, dark)
    assert found["errors"] == []
    assert found["moved"] == "20%"
    assert float(found["followed"].rstrip("%")) == pytest.approx(75, abs=0.6)
    assert found["zoomed"] == "block 400%"
    assert found["unzoomed"] == "none"
    assert found["changed"]
    assert found["loaded"]
    assert found["images"] == 3 * (2 + 7)
    assert found["overflow"] <= 0  # nothing wider than the window
    paper, ink = (sum(map(int, re.findall(r"\d+", found[key])[:3])) for key in ("paper", "ink"))
    assert (paper < ink) == dark


def test_a_test_without_saved_pictures_gets_a_page_that_says_so(tiny):
    assert compare(tiny, model(tiny / "a.pth", 0)) == 0
    text = write_report(tiny / "results/compared").read_text()
    assert "test with val.save_img: true to see pictures" in text
    assert '<h2 id="pictures">' not in text


def test_data_that_changed_after_the_test_are_said_and_not_shown(tiny):
    assert compare(tiny, model(tiny / "a.pth", 0), val__save_img=True) == 0
    for half in ("gt", "lq"):
        shutil.move(tiny / f"data/{half}/p0.png", tiny / f"data/{half}/p7.png")
    text = write_report(tiny / "results/compared").read_text()
    assert "its data changed after the test" in text


def test_a_run_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match="no finished test; expected"):
        write_report(tmp_path)


def test_a_set_without_gt_is_refused(tiny):
    data = {"val": {"name": "val", "type": "SingleImageDataset", "dataroot_lq": str(tiny / "data/lq")}}
    assert compare(tiny, model(tiny / "a.pth", 0), datasets=data | {"train": {}}, val__save_img=True) == 0
    with pytest.raises(DataError, match="no values; sets without gt can be looked at, not compared"):
        write_report(tiny / "results/compared")


def test_an_experiment_without_records_is_refused(compared, tmp_path):
    with pytest.raises(DataError, match="--experiment names a folder"):
        write_report(compared, tmp_path)


def test_charts_are_well_formed_and_take_the_colour_of_the_page():
    draw = np.random.default_rng(0)
    values = {"a": list(draw.normal(size=50)), "b": [1.0, float("inf")]}
    svg = charts.distribution("psnr", values, charts.colours(["a", "b"], ["a"]))
    ET.fromstring(svg)
    assert "currentColor" in svg
    assert "#010203" not in svg
    ids = [set(re.findall(r'id="([^"]+)"', charts.curves("x", {"l": [(1, 1.0), (2, 0.5)]}))) for _ in range(2)]
    clips = [{i for i in found if i.startswith("p") and not i.startswith("patch")} for found in ids]
    assert not clips[0] & clips[1]


def test_pictures_are_encoded_without_loss_within_their_budget_and_with_loss_beyond():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert data_uri(noise, 50_000).startswith("data:image/webp")
    small = data_uri(noise, 5_000)
    assert small.startswith("data:image/jpeg")
    assert len(small) < 5_100


def test_the_crop_lies_where_the_error_is():
    error = np.zeros((100, 200, 3), np.uint8)
    error[60:70, 150:160] = 9
    top, left = worst_place(error, 40)
    assert top <= 60
    assert top + 40 >= 70
    assert left <= 150
    assert left + 40 >= 160
    assert worst_place(error, 500) == (0, 0)


def test_the_error_map_is_black_at_none_and_full_at_a_fifth():
    gt = np.zeros((1, 3, 3), np.uint8)
    sr = gt.copy()
    sr[0, 1], sr[0, 2] = 51, 255
    shown = picture_error(sr, gt)
    assert shown[0, 0].max() < 10
    np.testing.assert_array_equal(shown[0, 1], shown[0, 2])


@pytest.mark.parametrize("suffix", [".png", ".pdf"])
def test_a_figure_is_written(compared, tmp_path, suffix):
    out = tmp_path / f"f{suffix}"
    write_figure(compared, "val", "p1", [(4, 4, 16, 16), (20, 8, 16, 16)], out, dpi=80)
    assert out.read_bytes()[:4] in (b"\x89PNG", b"%PDF")


def test_a_long_name_below_a_crop_is_broken_between_its_words():
    assert _broken("edsr_skimage_x2_small", 14) == ["edsr_skimage_", "x2_small"]
    assert _broken("bicubic-matlab", 20) == ["bicubic-matlab"]
    assert _broken("a" * 9, 6) == ["aaaaaa", "aaa"]


def test_bad_figures_are_refused(compared, tmp_path):
    box = [(0, 0, 8, 8)]
    for said, *call in (
        (r"leaves gt of 48 x 48", "val", "p1", [(44, 0, 8, 8)], tmp_path / "f.png"),
        (r"no set is named 'vall'; did you mean 'val'", "vall", "p1", box, tmp_path / "f.png"),
        (r"has no picture p77", "val", "p77", box, tmp_path / "f.png"),
        (r"expected a name ending with", "val", "p1", box, tmp_path / "f.gif"),
        (r"'secnd' is none of them; did you mean 'second'", "val", "p1", box, tmp_path / "f.png", ["secnd"]),
    ):
        with pytest.raises(RefusedError, match=said):
            write_figure(compared, *call)
    assert not list(tmp_path.iterdir())


def test_volumes_are_shown_as_slices_along_three_axes(tiny):
    import torch

    from srkit import build
    from srkit.engine.model_file import ModelInfo, write_model
    from srkit.engine.transfer import Normalization
    from srkit.imaging.volumes import write_volume

    draw = np.random.default_rng(0)
    for number in range(2):
        values = draw.random((16, 18, 30)).astype(np.float32) * 900
        write_volume(tiny / f"val/rat{number}.nii.gz", values, np.diag([0.2, 0.2, 0.2, 1]), like=None)
    torch.manual_seed(0)
    given = {"num_feat": 4, "num_block": 1, "residual": "linear"}
    network = build.build_network("ResnetGenerator", given, (1, 3, 1))
    full = build.full_arch_options("ResnetGenerator", given, (1, 3, 1))
    info = ModelInfo("ResnetGenerator", full, (1, 3, 1), Normalization(), "", 1, "untrained")
    write_model(tiny / "v.pth", network.state_dict(), None, info)
    data = {"val": {"name": "val", "type": "VolumeDataset", "dataroot_gt": str(tiny / "val")}, "train": {}}
    metrics = {"psnr": {"type": "PSNR"}}
    changes = {"scale": [1, 3, 1], "datasets": data, "val__metrics": metrics, "val__save_img": True}
    assert compare(tiny, tiny / "v.pth", **changes) == 0
    text = write_report(tiny / "results/compared").read_text()
    assert len(text) < MAX_BYTES
    views = [json.loads(v) for v in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)]
    assert [len(v["gt"]) for v in views] == [16, 18, 24] * 2  # of 30 slices 24 are shown
    assert list(views[0]) == ["lq", "cubic", "untrained", "gt", "error of untrained"]
    with pytest.raises(RefusedError, match="figures are of pictures"):
        write_figure(tiny / "results/compared", "val", "rat0", [(0, 0, 4, 4)], tiny / "f.png")


def test_consistency_with_lq_is_no_bar_that_interpolation_sets(tiny):
    metrics = {"c": {"type": "LRConsistency"}}
    assert compare(tiny, model(tiny / "a.pth", 0), val__metrics=metrics) == 0
    write_report(tiny / "results/compared")
    values = (tiny / "results/compared/report.html").read_text().split('id="paired"')[0].split('id="spread"')[0]
    assert "<td" in values
    assert "(!)</td>" not in values
    assert "(!)" not in (tiny / "results/compared/table.md").read_text()


@pytest.mark.parametrize("size", [48, 64])
def test_pictures_whose_data_changed_under_the_same_names_are_not_shown(tiny, size):
    assert compare(tiny, model(tiny / "a.pth", 0), val__save_img=True) == 0
    pictures(tiny / "data", size=size, seed=4)
    write_report(tiny / "results/compared")
    assert "No pictures: val: its data changed after the test" in (tiny / "results/compared/report.html").read_text()


def test_a_set_whose_data_changed_leaves_the_pictures_of_the_others(tiny):
    from tiny import options

    sets = options(tiny)["datasets"]
    pictures(tiny / "other", seed=5)
    roots = {f"dataroot_{half}": str(tiny / "other" / half) for half in ("gt", "lq")}
    sets["val_2"] = {**sets["val"], "name": "other", **roots}
    assert compare(tiny, model(tiny / "a.pth", 0), datasets=sets, val__save_img=True) == 0
    pictures(tiny / "data", seed=4)
    text = write_report(tiny / "results/compared").read_text()
    assert "No pictures: val: its data changed after the test" in text
    assert re.search(r"other: p\d \(worst\)", text)
    assert not re.search(r"val: p\d \(worst\)", text)


def test_a_set_that_a_model_restores_perfectly_is_reported(tiny, monkeypatch):
    from srkit.engine.evaluator import Evaluator

    monkeypatch.setattr(Evaluator, "_restore", staticmethod(lambda r, sample, *a: sample.images["gt"] / 255))
    assert compare(tiny, model(tiny / "a.pth", 0)) == 0
    write_report(tiny / "results/compared")
    assert "identical" in (tiny / "results/compared/report.html").read_text()


def test_the_interpolation_shown_of_a_luma_network_is_the_one_measured(tiny):
    from tiny import in_process, measured, options

    luma = {
        "network_g__num_in_ch": 1,
        "network_g__num_out_ch": 1,
        "network_g__rgb_mean": [0],
        "datasets__train__color": "y",
    }
    luma |= {"val__metrics": {"psnr": {"type": "PSNR", "test_y_channel": True}}}
    assert in_process(tiny, options(tiny, **luma)) == 0
    assert measured(tiny, **{**luma, "datasets__train__color": "y", "val__save_img": True, "network_g": None}) == 0
    write_report(tiny / "results/tested")
    assert '"bicubic-matlab-y": ["data:' in (tiny / "results/tested/report.html").read_text()


def test_a_calibration_beside_the_results_is_shown_group_by_group(compared, tmp_path):
    from srkit.engine.confidence import Calibration, GroupCoverage

    copy = tmp_path / "copy"
    shutil.copytree(compared, copy)
    told = json.loads((copy / "metrics.json").read_text())["models"]["first"]
    group = GroupCoverage(group="mouse_7", images=2, pixels=9, coverage=0.876, half_width=0.02, factor=1.0)
    calibration = Calibration(
        kind="pictures", scale=(2, 2), model="first.pth", model_sha256=told["model_sha256"], weights="params",
        precision="fp32", channels=3, white=255.0, region="whole", coverage=0.9, proven=0.45, factor=1.0, floor=1 / 255,
        spreads=(0.0, 1.0), left_out=(group,), checked=(),
    )  # fmt: skip
    (copy / "calibration.json").write_text(calibration.to_json())
    text = write_report(copy).read_text()
    assert 'href="#trust"' in text
    assert re.search(r"mouse_<wbr>7</td><td[^>]*>2</td><td[^>]*>0\.876</td><td[^>]*>5\.10</td>", text)
    (copy / "calibration.json").write_text(calibration.to_json().replace(told["model_sha256"], "0" * 64))
    text = write_report(copy).read_text()
    assert "mouse_" not in text
    assert "is of another model (first.pth)" in text
