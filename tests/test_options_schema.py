"""Round trip of resolved options, and the JSON Schema for editors."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from test_options_samples import TEST, TRAIN, changed, load, write

from srkit.options import load_options
from srkit.options.json_schema import build_schema
from srkit.options.reader import read_file, read_text

RICH = (
    changed("gt_size: 96", "gt_size: 96\n    mean: [0.5, 0.5, 0.5]\n    std: [1, 1, 1]\n    io_backend: {type: lmdb}")
    + """\
  losses: {edges: {type: CharbonnierLoss, loss_weight: 0.1, eps: 1e-6}}
  grad_clip: {max: 0.5}
  precision: bf16
val: {metrics: {y: {type: calculate_psnr, test_y_channel: true, crop_border: 4}}, tile: [96, 80],
  save_img: true, suffix: '1e5'}
logger: {wandb: {project: ~}}
num_gpu: 0
"""
)


@pytest.mark.parametrize(
    ("text", "mode"),
    [(TRAIN, "train"), (TEST, "test"), (RICH, "train"), (TRAIN + "val: {protocol: natural-y-v1}\n", "train")],
)
def test_resolved_options_read_back_equal(tmp_path, text, mode):
    options = load(tmp_path, text, mode)
    again = load_options(write(tmp_path, options.to_yaml(), "resolved.yml"), mode=mode)
    assert again == options
    assert again.digest() == options.digest()
    assert again.to_yaml() == options.to_yaml()
    assert again.warnings == options.warnings
    assert again.source.endswith("resolved.yml")


def test_different_options_have_different_digests(tmp_path):
    assert load(tmp_path).digest() != load(tmp_path, changed("num_feat: 16", "num_feat: 17")).digest()


@pytest.fixture(scope="module")
def validator():
    schema = build_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def data(text):
    return read_text(text, "x").data


@pytest.mark.parametrize(
    "text", [TRAIN, TEST, RICH, TRAIN.replace("MultiStepLR", "MultiStepRestartLR"), TRAIN + "path:\n"]
)
def test_valid_files_pass_the_json_schema(validator, text):
    assert [e.message for e in validator.iter_errors(data(text))] == []


def test_resolved_options_pass_the_json_schema(validator, tmp_path):
    assert [e.message for e in validator.iter_errors(data(load(tmp_path, RICH).to_yaml()))] == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("num_feat: 16", "num_faet: 16"),
        ("num_feat: 16", "num_feat: a"),
        ("total_iter: 1000", "total_iters: 1000"),
        ("gt_size: 96", "gt_szie: 96"),
        ("type: EDSR", "type: EDRS"),
        ("scale: 2\nd", "scale: 0\nd"),
        ("SRModel", "SRModle"),
        ("type: L1Loss", "type: L1Loss, weight: 2"),
        ("  train:\n", "  trian:\n"),
        ("1e-4", "0"),
        ("type: Adam", "type: SGD, betas: [0.9, 0.99]"),
    ],
)
def test_a_slip_fails_the_json_schema(validator, old, new):
    assert list(validator.iter_errors(data(changed(old, new))))


def test_every_option_of_the_json_schema_is_described(validator):
    bare = []

    def walk(part, path):
        for key, inner in part.get("properties", {}).items():
            described = "description" in inner or "$ref" in inner or "allOf" in inner
            if not described and path.split("_")[0] not in ("arch", "dataset", "loss", "metric"):
                bare.append(f"{path}.{key}")

    walk(validator.schema, "top")
    for name, part in validator.schema["$defs"].items():
        walk(part, name)
    assert bare == []


@pytest.mark.parametrize("name", ["train_x2", "advanced", "test_x2"])
def test_the_published_guides_files_load_unchanged_and_pass_the_json_schema(acceptance, validator, name):
    path = acceptance / f"edsr_histopathology_{name}.yml"
    options = load_options(path, mode="test" if name.startswith("test") else "train")
    assert options.warnings == ()
    assert options.scale == (2, 2)
    assert [e.message for e in validator.iter_errors(read_file(path).data)] == []


def test_the_shipped_json_schema_is_what_the_code_gives():
    """After a change of an option: `python -m srkit.tools schema` writes it anew."""
    shipped = json.loads((Path(__file__).parent.parent / "options/srkit.schema.json").read_text())
    assert shipped == json.loads(json.dumps(build_schema()))
