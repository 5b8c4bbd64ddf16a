"""Confidence: scores and quantiles by arithmetic, coverage on known errors, the command, the map beside a result, refusals."""

import hashlib
import json
import re
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from infer_made import OBLIQUE, infer, made_archs, model_file, nifti, picture, read_nifti, scan  # noqa: F401
from tiny import write_options

from srkit.engine.confidence import (
    FLOOR,
    Calibration,
    GroupCoverage,
    Tally,
    calibrated,
    factor_of,
    level_of,
    read_calibration,
)
from srkit.engine.ensemble import Spread
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.tools.__main__ import main

STEP = 10 ** (1 / 512)  # of two neighbouring bin edges


def tally(*errors: float) -> Tally:
    """Pixels without spread, errors in units of the floor: the score is the error."""
    made = Tally()
    made.add(np.array(errors) * FLOOR, np.zeros(len(errors)))
    return made


# Arithmetic.


def test_the_spread_is_mean_and_deviation_of_the_turns():
    parts = np.random.default_rng(0).normal(size=(8, 5, 4, 3)).astype(np.float32)
    made = Spread.of(iter(parts))
    assert np.allclose(made.mean, parts.mean(0), atol=1e-6)
    assert np.allclose(made.sd, np.sqrt(parts.var(0).mean(-1)), atol=1e-6)


def test_the_factor_is_the_quantile_of_the_scores_within_one_bin():
    factor = factor_of({"a": tally(*range(1, 101))}, 0.9)
    assert 90 < factor <= 90 * STEP


def test_groups_weigh_the_same_whatever_their_size():
    # Pooled by pixels nine tenths lie at 1; by groups half does, so that 0.9 needs the small group's errors of 5.
    few, many = tally(5.0), tally(*[1.0] * 9)
    assert 5 < factor_of({"few": few, "many": many}, 0.9) <= 5 * STEP


def test_coverage_counts_pixels_whose_error_is_below_factor_times_width():
    found = tally(0.5, 1.5, 2.5, 3.5)
    assert found.coverage(factor_of({"a": found}, 0.5)) == 0.5
    assert found.half_width(2.0) == pytest.approx(2 * FLOOR)


def test_only_pixels_inside_the_mask_are_scored_and_the_whole_picture_tells_its_spread():
    made = Tally()
    made.add(np.array([3.0, 9.0]) * FLOOR, np.array([0.0, 0.5]), np.array([True, False]))
    assert made.pixels == 1
    assert 3 < factor_of({"a": made}, 1.0) <= 3 * STEP
    assert made.spreads == [0.25]


def test_every_group_is_judged_by_the_others():
    told = calibrated({"calm": tally(*[1.0] * 10), "wild": tally(*[4.0] * 10)}, 0.9, False)
    calm, wild = told["left_out"]
    assert (calm.coverage, wild.coverage) == (1.0, 0.0)
    assert 4 < calm.factor <= 4 * STEP
    assert 1 < wild.factor <= STEP


def test_nine_groups_are_needed_to_prove_nine_tenths():
    with pytest.raises(RefusedError, match=r"found 8 groups.*expected 9 or more"):
        level_of(0.9, 8, True)
    assert level_of(0.9, 9, True) == 1.0
    assert level_of(0.9, 19, True) == pytest.approx(0.9 * 20 / 19)
    assert level_of(0.9, 2, False) == 0.9


def test_new_groups_are_covered_as_often_as_the_proof_says():
    """Groups whose errors differ by a factor of their own; mean coverage of new ones over 300 calibrations."""
    draw = np.random.default_rng(1)

    def group() -> Tally:
        return tally(*np.abs(draw.normal(size=200)) * np.exp(draw.normal(0, 0.5)))

    covered = []
    for _ in range(300):
        told = calibrated({str(k): group() for k in range(12)}, 0.8, True)
        covered.append(group().coverage(told["factor"]))
    assert told["proven"] == pytest.approx(0.8)
    assert np.mean(covered) > 0.8 - 3 * np.std(covered) / np.sqrt(300)


def test_one_group_is_refused_by_name():
    with pytest.raises(DataError, match=r"found 1 group \(m1\), expected two or more"):
        calibrated({"m1": tally(1.0)}, 0.9, False)


def test_errors_beyond_all_bins_are_refused():
    with pytest.raises(DataError, match="do not belong together"):
        factor_of({"a": tally(1e7)}, 0.9)


# The command. BoxNet's turns differ, its errors are large, and both are the same in every picture's kind.


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve pictures of six groups, a network of seeded weights, and its calibration."""
    folder = tmp_path_factory.mktemp("confidence")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    model_file(folder / "net.pth", "BoxNet")
    for part, groups in (("some", range(4)), ("more", range(4, 6))):
        for group in groups:
            for k in range(2):
                small = picture(6, 6, 3, seed=10 * group + k)
                gt = imresize(small, 4)
                write_image(folder / part / "gt" / f"s{group}_{k}.png", gt)
                write_image(folder / part / "lq" / f"s{group}_{k}.png", imresize(gt, Fraction(1, 2)))
        options(folder, part)
    assert calibrate("-o", "cal.json", "--check", "more.yml", "--key", "^(s[0-9])_") == 0
    yield folder
    patch.undo()


def options(folder, part, **dataset):
    data = {
        "name": part, "model_type": "SRModel", "scale": 2, "num_gpu": 0,
        "datasets": {"test": {"name": part, "type": "PairedImageDataset", "dataroot_gt": f"{part}/gt",
                              "dataroot_lq": f"{part}/lq", **dataset}},
        "path": {"results_root": "results"},
        "val": {"metrics": {"psnr": {"type": "PSNR"}}},
    }  # fmt: skip
    return write_options(folder, data, f"{part}.yml")


def calibrate(*words, opt="some.yml") -> int:
    return int(main(["calibrate", "-m", "net.pth", "-opt", opt, *words]))


def test_the_calibration_names_model_groups_and_coverage(made):
    told = json.loads((made / "cal.json").read_text())
    assert [g["group"] for g in told["left_out"]] == ["s0", "s1", "s2", "s3"]
    assert [(g["group"], g["images"], g["pixels"]) for g in told["checked"]] == [("s4", 2, 1152), ("s5", 2, 1152)]
    assert (told["coverage"], told["scale"], told["white"], told["channels"]) == (0.9, [2, 2], 255.0, 3)
    assert told["proven"] == pytest.approx(0.9 * 4 / 5)
    assert (made / "cal.png").is_file()


def test_the_map_covers_the_share_that_the_check_reports(made):
    """The whole way: what infer writes, against gt, gives the coverage of the calibration's own check."""
    assert infer("-m", "net.pth", "-i", "more/lq", "-o", "out", "--confidence", "cal.json", "--device", "cpu") == 0
    told = read_calibration(made / "cal.json")
    for group in told.checked:
        inside = []
        for k in range(2):
            name = f"{group.group}_{k}"
            sr, gt = (read_image(p).astype(float) for p in (made / f"out/{name}_sr.png", made / f"more/gt/{name}.png"))
            half = cv2.imread(str(made / f"out/{name}_sr_halfwidth.tif"), cv2.IMREAD_UNCHANGED)
            assert (half.dtype, half.shape) == (np.float32, gt.shape[:2])
            inside.append(np.abs(sr - gt).max(-1) <= half)
        assert np.mean(inside) == pytest.approx(group.coverage, abs=1e-3)
        assert (made / f"out/{name}_sr_halfwidth.png").is_file()


def test_the_result_beside_a_map_is_the_ensemble(made):
    infer("-m", "net.pth", "-i", "more/lq/s4_0.png", "-o", "a.png", "--confidence", "cal.json")
    infer("-m", "net.pth", "-i", "more/lq/s4_0.png", "-o", "b.png", "--ensemble")
    ours, theirs = (read_image(made / name).astype(int) for name in ("a.png", "b.png"))
    assert np.abs(ours - theirs).max() <= 1  # sums in another order
    assert np.mean(ours != theirs) < 0.01


def test_an_unknown_group_is_warned_about(made, capsys):
    assert calibrate("-o", "alone.json") == 0
    assert "8 of 8 pictures have no known group" in capsys.readouterr().out
    assert len(read_calibration(made / "alone.json").left_out) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--coverage", "1.5"], "found 1.5, expected a share between 0 and 1"),
        (["--key", "^(s)"], r"found 1 group \(s\), expected two or more"),
        (["--key", "^(s[0-9])_", "--guaranteed"], "found 4 groups, which prove a coverage of at most 0.8"),
        (["--key", "^(s[0-9])_", "--check", "some.yml"], "group s0 was calibrated on too"),
        (["--key", "nothing([0-9])"], "8 of 8 pictures have no group"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(made, capsys, words, message):
    assert calibrate("-o", "no.json", *words) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (made / "no.json").exists()


def test_an_existing_calibration_is_not_replaced(made, capsys):
    assert calibrate("-o", "cal.json") == 2
    assert "cal.json exists" in capsys.readouterr().err


def test_sets_without_gt_are_refused(made, capsys):
    options(made, "bare", dataroot_gt=None, dataroot_lq="some/lq", type="SingleImageDataset")
    text = (
        (made / "bare.yml").read_text().replace("      dataroot_gt: null\n", "").replace("    dataroot_gt: null\n", "")
    )
    (made / "bare.yml").write_text(text)
    assert calibrate("-o", "no.json", opt="bare.yml") == 2
    assert "has no gt" in capsys.readouterr().err


# What the map is refused for.


def refused(capsys, *words) -> str:
    assert infer("-m", "net.pth", "-o", "refused/", "--confidence", "cal.json", *words) == 2
    return capsys.readouterr().err


def test_another_model_is_refused(made, capsys):
    model_file(made / "other.pth", "RepeatingNet")
    assert infer("-m", "other.pth", "-i", "more/lq", "-o", "refused/", "--confidence", "cal.json") == 2
    assert re.search(r"was made with model \S*net.pth \(sha256 \w+\), this is other.pth", capsys.readouterr().err)


def test_a_renamed_model_file_is_the_same_model(made):
    (made / "moved.pth").write_bytes((made / "net.pth").read_bytes())
    assert infer("-m", "moved.pth", "-i", "more/lq/s5_0.png", "-o", "moved.png", "--confidence", "cal.json") == 0


def test_another_precision_is_refused(made, capsys):
    assert "precision fp32, this is bf16" in refused(capsys, "-i", "more/lq/s4_0.png", "--precision", "bf16")


def test_grey_and_16_bit_pictures_are_refused_by_a_calibration_of_8_bit_colour(made, capsys):
    write_image(made / "grey.png", picture(8, 8, 1))
    write_image(made / "deep.png", picture(8, 8, 3, dtype=np.uint16))
    assert "has 1 channels and white 255" in refused(capsys, "-i", "grey.png")
    assert "has 3 channels and white 65535" in refused(capsys, "-i", "deep.png")


def test_jpeg_results_are_refused(made, capsys):
    assert "would not keep the grey levels" in refused(capsys, "-i", "more/lq", "--format", "jpg")


def test_results_without_a_map_are_not_taken_for_done(made, capsys):
    infer("-m", "net.pth", "-i", "more/lq", "-o", "plain")
    assert infer("-m", "net.pth", "-i", "more/lq", "-o", "plain", "--confidence", "cal.json") == 2
    assert "exists without a map" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"srkit_calibration": 99}', '{"srkit_calibration": 1}'])
def test_a_file_that_is_no_calibration_is_refused_in_one_message(made, capsys, text):
    (made / "bad.json").write_text(text)
    assert infer("-m", "net.pth", "-i", "more/lq", "-o", "refused/", "--confidence", "bad.json") == 2
    assert "bad.json" in capsys.readouterr().err


def test_an_input_unlike_the_calibration_is_said(made):
    told = read_calibration(made / "cal.json")
    assert told.unlike(np.full((4, 4), told.spreads[1])) == ""
    assert "unlike those the map was calibrated on" in told.unlike(np.full((4, 4), 2 * told.spreads[1]))
    assert "unlike" in told.unlike(np.full((4, 4), told.spreads[0] / 2))


# Scales that differ between axes, and volumes.


def test_no_turn_exchanges_axes_of_different_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_file(tmp_path / "net.pth", "BoxNet", (1, 3))
    from srkit import load

    made, spread = load("net.pth", device="cpu").picture_and_spread(picture(6, 8, 3))
    assert (made.shape, spread.shape) == ((6, 24, 3), (6, 24))
    assert spread.max() > 0


def volume_calibration(path, model) -> Calibration:
    group = GroupCoverage(group="m1", images=1, pixels=1, coverage=0.9, half_width=0.1, factor=2.0)
    told = Calibration(
        kind="volumes", scale=(1, 3, 1), model=str(model), model_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        weights="params", precision="fp32", channels=1, white=None, region="mask", coverage=0.9, proven=0.6, factor=2.0,
        floor=FLOOR, spreads=(0.0, 1.0), left_out=(group,), checked=(),
    )  # fmt: skip
    path.write_text(told.to_json())
    assert read_calibration(path) == told
    return told


def test_the_map_of_a_volume_lies_on_the_result_in_its_units(tmp_path, monkeypatch):
    """The thick axis is the first one, so that the network sees the volume turned; all of its turns agree, so that the
    half-width is factor x floor of the span everywhere."""
    monkeypatch.chdir(tmp_path)
    model = model_file(tmp_path / "net.pth", "RepeatingNet", (1, 3, 1), num_in_ch=1, intensity="percentiles")
    told = volume_calibration(tmp_path / "cal.json", model)
    volume = scan(6, 12, 10)
    nifti(tmp_path / "a.nii.gz", volume, spacing=(0.45, 0.15, 0.15))
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz", "--confidence", "cal.json") == 0
    sr, there = read_nifti(tmp_path / "b.nii.gz")
    half, affine = read_nifti(tmp_path / "b_halfwidth.nii.gz")
    from srkit.imaging.intensity import intensity_range

    black, white = intensity_range(volume, "percentiles")
    assert half.shape == sr.shape == (18, 12, 10)
    assert np.array_equal(affine, there)
    assert np.allclose(half, told.factor * FLOOR * (white - black), rtol=1e-4)
    assert (tmp_path / "b_halfwidth.png").is_file()


@pytest.mark.parametrize("words", [["--target_spacing", "0.2"], ["--dtype", "int16"]])
def test_volumes_that_are_changed_after_the_network_get_no_map(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    model = model_file(tmp_path / "net.pth", "RepeatingNet", (1, 3, 1), num_in_ch=1, intensity="percentiles")
    volume_calibration(tmp_path / "cal.json", model)
    nifti(tmp_path / "a.nii.gz", scan(6, 6, 6), affine=OBLIQUE)
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz", "--confidence", "cal.json", *words) == 2
    assert words[0] in capsys.readouterr().err


def test_half_widths_follow_the_spread():
    told = replace_factor(3.0)
    assert told.half_width(np.float32([0, 0.1])) == pytest.approx([3 * FLOOR, 3 * (0.1 + FLOOR)])


def replace_factor(factor: float) -> Calibration:
    group = GroupCoverage(group="a", images=1, pixels=1, coverage=1.0, half_width=0.1, factor=1.0)
    base = Calibration(
        kind="pictures", scale=(2, 2), model="m", model_sha256="0", weights="params", precision="fp32", channels=3,
        white=255.0, region="whole", coverage=0.9, proven=0.5, factor=1.0, floor=FLOOR, spreads=(0.0, 1.0),
        left_out=(group,), checked=(),
    )  # fmt: skip
    return replace(base, factor=factor)
