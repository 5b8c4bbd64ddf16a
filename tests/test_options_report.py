"""The report of mistakes: all at once, each with line, key, what was found, what was expected, and a hint."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from test_options_samples import TEST, TRAIN, changed, load, refusal, write

REPORTED = [
    (
        "total_iter: 1000",
        "total_iters: 1000",
        r"line 20, train\.total_iters: unknown option; did you mean 'total_iter'\?",
    ),
    (
        "total_iter: 1000",
        "total_iter: '3'",
        r"line 20, train\.total_iter: found '3', expected a whole number; write the number without",
    ),
    ("total_iter: 1000", "total_iter: true", r"train\.total_iter: found true, expected a whole number"),
    ("total_iter: 1000", "total_iter: 1.5", r"train\.total_iter: found 1\.5, expected a whole number"),
    ("total_iter: 1000", "total_iter: -1", r"train\.total_iter: found -1, expected a number not below 1"),
    ("total_iter: 1000", "use_amp: yes", r"line 20, train\.use_amp: found 'yes', expected true or false; write true"),
    (
        "total_iter: 1000",
        "batch_size_per_gpu: 4",
        r"train\.batch_size_per_gpu: unknown option; it belongs to datasets\.train",
    ),
    ("total_iter: 1000", "gt_size: 4", r"train\.gt_size: unknown option; it belongs to datasets\.train"),
    ("total_iter: 1000", "res_scale: 4", r"train\.res_scale: unknown option; it belongs to network_g of type EDSR"),
    ("total_iter: 1000", "lr: 1", r"train\.lr: unknown option; it belongs to train\.optim_g"),
    ("total_iter: 1000", "ema_decay: 1", r"line 20, train\.ema_decay: found 1, expected a number below 1"),
    ("total_iter: 1000", "total_iter: ", r"train\.total_iter: found nothing, expected a whole number"),
    ("name: small_x2\n", "name: ../x\n", r"line 1, name: found '\.\./x', expected letters, digits"),
    ("name: small_x2\n", "name: ..\n", r"line 1, name: found '\.\.', expected letters, digits"),
    ("SRModel", "SRModle", r"line 2, model_type: found 'SRModle', expected one of .*; did you mean 'SRModel'"),
    ("scale: 2\nd", "scale: 17\nd", r"line 3, scale: found 17, expected a whole number from 1 to 16"),
    ("scale: 2\nd", "scale: [2, x]\nd", r"line 3, scale: found \[2, 'x'\], expected a whole number from 1 to 16"),
    ("scale: 2\nd", "total_iter: 2\nd", r"line 3, total_iter: unknown option; it belongs to train"),
    (
        "num_feat: 16",
        "num_blok: 16",
        r"line 17, network_g\.num_blok: EDSR takes no such option; did you mean 'num_block'",
    ),
    ("num_feat: 16", "num_feat: [16]", r"network_g\.num_feat: found \[16\], expected a whole number"),
    ("num_feat: 16", "rgb_mean: [0.4, x]", r"network_g\.rgb_mean\[1\]: found 'x', expected a number"),
    (
        "upscale: 2",
        "upscale: 4",
        r"line 18, network_g\.upscale: found 4, but the top-level scale is 2; they must agree",
    ),
    (
        "type: EDSR",
        "type: EDRS",
        r"line 16, network_g\.type: no arch is named 'EDRS'; did you mean 'EDSR'\? \(known: .*EDSR",
    ),
    ("type: EDSR", "num_block: 3", r"line 15, network_g\.type: missing"),
    ("  train:\n", "  trian:\n", r"datasets\.trian: unknown option; did you mean 'train'"),
    (
        "gt_size: 96",
        "gt_szie: 96",
        r"line 9, datasets\.train\.gt_szie: PairedImageDataset takes no such option; did you mean 'gt_size'",
    ),
    ("gt_size: 96", "crop_type: middle", r"datasets\.train\.crop_type: found 'middle', expected 'random' or 'center'"),
    (
        "gt_size: 96",
        "val_freq: 9",
        r"datasets\.train\.val_freq: PairedImageDataset takes no such option; it belongs to val",
    ),
    ("name: set5", "name: a/b", r"line 12, datasets\.val\.name: found 'a/b', expected a name without slashes"),
    (
        "dataroot_gt: data/set5",
        "io_backend: {type: dsk}",
        r"datasets\.val\.io_backend\.type: found 'dsk', expected 'disk', 'lmdb', 'zip' or 'tar'",
    ),
    ("dataroot_gt: data/set5", "use_rot: false", r"line 11, datasets\.val\.dataroot_gt: missing; it has no default"),
    ("type: Adam", "type: Adm", r"train\.optim_g\.type: found 'Adm', expected Adam or .*; did you mean 'Adam'"),
    ("type: Adam, ", "", r"train\.optim_g\.type: missing"),
    ("1e-4", "0", r"train\.optim_g\.lr: found 0(\.0)?, expected a number above 0"),
    ("1e-4", ".nan", r"train\.optim_g\.lr: found nan, expected a finite number"),
    ("1e-4}", "1e-4, betas: [0.9]}", r"train\.optim_g\.betas: found \[0\.9\], expected more values"),
    ("1e-4}", "1e-4, betas: [0.9, 0.9, 0.9]}", r"train\.optim_g\.betas: found .*, expected a list of at most 2"),
    (
        "gamma: 0.5",
        "periods: [3]",
        r"train\.scheduler\.periods: unknown option; it belongs to .*CosineAnnealingRestartLR",
    ),
    (
        "type: L1Loss",
        "type: L1Loss, reduction: avg",
        r"train\.pixel_opt\.reduction: found 'avg', expected 'mean' or 'sum'",
    ),
    (
        "type: L1Loss",
        "type: L1Loss, weight: 1",
        r"train\.pixel_opt\.weight: L1Loss takes no such option; did you mean 'loss_weight'",
    ),
    ("{type: L1Loss}", "L1Loss", r"train\.pixel_opt: found 'L1Loss', expected a section with type"),
]


@pytest.mark.parametrize(("old", "new", "expected"), REPORTED)
def test_a_mistake_is_reported_with_place_found_expected_and_hint(tmp_path, old, new, expected):
    report = refusal(tmp_path, changed(old, new))
    assert re.search(expected, report), report


def test_all_mistakes_of_all_sections_are_in_one_report(tmp_path):
    text = changed("total_iter: 1000", "total_iters: 1000").replace("num_feat", "num_faet").replace("SRModel", "SR")
    text = text.replace("gt_size: 96", "gt_size: 97") + "extra: 1\n"
    report = refusal(tmp_path, text)
    for place in (
        "model_type",
        "datasets.train.gt_size",
        "network_g.num_faet",
        "train.total_iters",
        "train.total_iter",
        "extra",
    ):
        assert f", {place}: " in report
    assert report.startswith(f"{tmp_path / 'options.yml'}: 6 problems\n  - ")


def test_the_report_follows_the_order_of_the_file(tmp_path):
    report = refusal(tmp_path, changed("num_feat: 16", "a: 1").replace("gamma: 0.5", "b: 1").replace("gt_size", "c"))
    assert report.index(".c:") < report.index(".a:") < report.index(".b:")


def test_no_wording_of_the_validation_library_reaches_the_user(tmp_path):
    for old, new, _ in REPORTED:
        report = refusal(tmp_path, changed(old, new)).lower()
        for foreign in ("pydantic", "input", "valid ", "extra_", "union", "field required", "another kind of value"):
            assert foreign not in report, report


def test_escape_sequences_do_not_reach_the_terminal(tmp_path):
    assert "\x1b" not in refusal(tmp_path, TRAIN + '"\\e[31m": 1\nprint_network: "\\e[31m"\n')


@pytest.mark.parametrize("text", [changed("num_feat: 16", "num_blok: 16"), TRAIN + "nme: x\n", "a: ["])
def test_mistakes_are_reported_without_importing_torch_numpy_or_cv2(tmp_path, text):
    code = (
        "import sys\nfrom srkit.errors import OptionError\nfrom srkit.options import load_options\n"
        "try:\n    load_options(sys.argv[1], mode='train')\n"
        "except OptionError as error:\n"
        "    heavy = {'torch', 'numpy', 'cv2'} & set(sys.modules)\n    assert not heavy, heavy\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(write(tmp_path, text))], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "problem" in run.stdout


def test_a_valid_file_is_read_without_importing_torch_numpy_or_cv2(tmp_path):
    code = (
        "import sys\nfrom srkit.options import load_options\nload_options(sys.argv[1], mode='train')\n"
        "assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(write(tmp_path, TRAIN))], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_an_empty_section_is_one_without_keys(tmp_path):
    assert load(tmp_path, TRAIN + "path:\nlogger:\nval:\n  metrics: {}\n").logger.print_freq == 100


@pytest.mark.parametrize(
    ("cut", "place"),
    [("datasets", "datasets"), ("network_g", "network_g"), ("train", "train")],
)
def test_a_training_needs_its_sections(tmp_path, cut, place):
    blocks = TRAIN.replace("\nd", "\n\0d").replace("\nn", "\n\0n").replace("\nt", "\n\0t").split("\0")
    report = refusal(tmp_path, "".join(b for b in blocks if not b.startswith(f"{cut}:")))
    assert f"{place}" in report.splitlines()[1]
    assert "missing" in report


def test_a_test_needs_weights_and_a_dataset(tmp_path):
    report = refusal(tmp_path, "name: a\nmodel_type: SRModel\nscale: 2\n", "test")
    assert "datasets: a test needs at least one dataset" in report
    assert "path.pretrain_network_g: missing; name the model file to test" in report
    assert load(tmp_path, TEST, "test").networks == {}
