"""`srkit plan`: what it sees in folders, what it decides, and that its option files load silently and train."""

import csv
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from slide_files import WITHOUT, stained, write_slide
from tiny import pictures

from srkit.errors import DataError, OutOfMemoryError, RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize
from srkit.imaging.volumes import write_volume
from srkit.options import load_options
from srkit.test import main as run_test
from srkit.tools import plan
from srkit.tools.__main__ import main
from srkit.tools.plan import parse_scale, patch_sizes, round_down, split_parts
from srkit.tools.planning import fitting
from srkit.tools.planning.facts import PictureFacts, VolumeFacts, kind_of, picture_facts, volume_facts
from srkit.tools.planning.fitting import fit
from srkit.tools.planning.groups import guess_key
from srkit.tools.planning.layout import Layout, Part, infer_naming, look, ratio
from srkit.tools.planning.text import _ema_decay, quoted
from srkit.train import main as train

GB = 1 << 30
SHORT = ["train:total_iter=2", "network_g:num_feat=4", "network_g:num_block=1", "datasets:train:batch_size_per_gpu=2"]


def picture(side=32, seed=0):
    draw = np.random.default_rng(seed)
    return imresize(draw.integers(0, 256, (side // 8, side // 8, 3)).astype(np.uint8), 8)


def pairs(folder, gt, lq, scale=2, count=3, name="{}"):
    for k in range(count):
        image = picture(seed=k)
        write_image(folder / gt / f"p{k}.png", image)
        write_image(folder / lq / f"{name.format(f'p{k}')}.png", imresize(image, Fraction(1, scale)))


def volume(path, spacing=(0.15, 0.15, 0.15), shape=(16, 24, 16), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = gaussian_filter(np.random.default_rng(seed).random(shape), 1) * 1000
    write_volume(path, values.astype(np.float32), np.diag([*spacing, 1.0]), like=None)


# What a folder holds


def test_a_folder_of_pictures_is_gt_alone(tmp_path):
    for k in range(3):
        write_image(tmp_path / f"{k}.png", picture(seed=k))
    found = look(tmp_path, None, slides=False)
    assert (found.holds, found.scale) == ("pictures", None)
    assert found.parts["all"] == Part(tmp_path, ["0.png", "1.png", "2.png"])


@pytest.mark.parametrize(
    ("gt", "lq"), [("HR", "LR"), ("gt", "lq"), ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2"), ("b", "a")]
)
def test_two_folders_whose_files_pair_are_gt_and_lq_by_size_whatever_their_names(tmp_path, gt, lq):
    pairs(tmp_path, gt, lq)
    found = look(tmp_path, None, slides=False)
    (part,) = found.parts.values()
    assert (part.gt, part.lq, found.scale) == (tmp_path / gt, tmp_path / lq, (2, 2))


def test_the_template_of_lq_names_is_inferred(tmp_path):
    pairs(tmp_path, "HR", "X4", scale=4, name="{}x4")
    found = look(tmp_path, None, slides=False)
    assert (found.parts["all"].filename_tmpl, found.scale) == ("{}x4", (4, 4))


@pytest.mark.parametrize(
    ("gt", "lq", "naming"),
    [
        (["a", "b"], ["a", "b"], ("{}", None)),
        (["01", "02"], ["01x4", "02x4"], ("{}x4", None)),
        (["01", "02"], ["lr_01_small", "lr_02_small"], ("lr_{}_small", None)),
        (["image_2400px_0007", "image_2400px_0008"], ["image_600px_0007", "image_600px_0008"], ("{}", r"(\d+)$")),
        (["a", "b"], ["c", "d"], None),
    ],
)
def test_naming_is_what_gives_every_gt_a_partner(gt, lq, naming):
    assert infer_naming(gt, lq) == naming


def test_of_several_lq_folders_the_user_chooses_by_scale(tmp_path):
    pairs(tmp_path, "HR", "LR/X2", 2)
    pairs(tmp_path, "HR", "LR/X4", 4)
    with pytest.raises(RefusedError, match=r"LR/X2 \(x2\), LR/X4 \(x4\); choose one by --scale"):
        look(tmp_path, None, slides=False)
    assert look(tmp_path, (4, 4), slides=False).parts["all"].lq == tmp_path / "LR/X4"
    with pytest.raises(RefusedError, match="--scale 3: where gt is a whole number of times as large, it is 2, 4"):
        look(tmp_path, (3, 3), slides=False)


def test_parts_are_known_by_the_names_of_their_folders(tmp_path):
    for where in ("train", "validation", "Test"):
        write_image(tmp_path / where / "a.png", picture())
    assert set(look(tmp_path, None, slides=False).parts) == {"train", "val", "test"}


def test_folders_of_one_tree_are_taken_together_with_their_folders_in_the_names(tmp_path):
    for where in ("ann", "bob"):
        write_image(tmp_path / where / "images/1.png", picture())
    (part,) = look(tmp_path, None, slides=False).parts.values()
    assert (part.gt, part.recursive, part.names) == (tmp_path, True, ["ann/images/1.png", "bob/images/1.png"])


def test_a_folder_of_two_kinds_of_things_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no picture"):
        look(tmp_path, None, slides=False)
    write_image(tmp_path / "a.png", picture())
    volume(tmp_path / "b.nii.gz")
    with pytest.raises(DataError, match="give a folder with one of them"):
        look(tmp_path, None, slides=False)


def test_a_ratio_is_whole_along_every_axis_or_none():
    assert ratio((32, 48), (16, 24)) == (2, 2)
    assert ratio((33, 48), (16, 24)) is None
    assert ratio((10, 10, 30), (10, 10, 10)) == (1, 1, 3)


def test_published_benchmark_folders_are_understood(test_data):
    set5 = test_data / "benchmark/Set5"
    if not set5.is_dir():
        pytest.skip(f"no Set5 in {test_data}")
    with pytest.raises(RefusedError, match=r"X2/LR \(x2\), X3/LR \(x3\), X4/LR \(x4\)"):
        look(set5, None, slides=False)
    part = look(set5, (3, 3), slides=False).parts["all"]
    assert (part.gt, part.lq, len(part.names)) == (set5 / "X3/HR", set5 / "X3/LR", 5)


def test_a_real_scan_with_thick_slices_is_recognised(test_data):
    """Its slices lie 0.75 mm apart, its voxels 0.125 mm: six times."""
    if not (test_data / "mri/other/mouse_T1_aniso_sherm.nii").is_file():
        pytest.skip(f"no mouse_T1_aniso_sherm.nii in {test_data}")
    facts = volume_facts(Part(test_data / "mri/other", ["mouse_T1_aniso_sherm.nii"]))
    assert (facts.thick_axis, facts.thick_scale, facts.smallest) == (2, (1, 1, 6), (128, 128, 20))


# Groups and splits


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["TCGA-CR-7395-01A.svs", "TCGA-CR-7395-02A.svs", "other.svs"], "TCGA patients"),
        (["sub-01_T1.nii", "sub-01_T2.nii", "sub-02_T1.nii"], "BIDS subjects"),
        (["ann/1.png", "ann/2.png", "bob/1.png"], "folders"),
        (["s1_0.png", "s1_1.png", "s2_0.png", "s2_1.png", "s3_0.png"], "what stands before the first _"),
        (["img_1.png", "img_2.png", "img_3.png"], None),  # one group only
        (["amy-a.png", "ben-b.png", "ben-c.png", "cid-d.png", "eve-e.png"], None),  # hardly any repeats
        (["0001.png", "0002.png"], None),
    ],
)
def test_a_key_is_guessed_only_where_it_repeats(names, title):
    guess = guess_key(names)
    assert (guess and guess[0]) == title


def test_a_split_takes_every_file_once_and_keeps_groups_together():
    names = [f"s{g}_{k}.png" for g in range(12) for k in range(3)]
    layout = Layout("pictures", {"all": Part(tmp := plan.Path("x"), names)})
    parts, listed, rows = split_parts(layout, r"^([^_]+)_", 0, keep_all=False)
    assert listed == {"train", "val", "test"}
    assert sorted(n for part in parts.values() for n in part.names) == sorted(names)
    groups = {phase: {n.split("_")[0] for n in part.names} for phase, part in parts.items()}
    assert sum(map(len, groups.values())) == 12
    assert all(part.gt == tmp for part in parts.values())
    assert {(key, part) for _, key, part in rows} == {(g, phase) for phase, held in groups.items() for g in held}


def test_parts_that_are_folders_already_stay_and_only_what_lacks_is_parted_off():
    given = {"train": Part(plan.Path("a"), [f"{k}.png" for k in range(10)]), "test": Part(plan.Path("b"), ["0.png"])}
    parts, listed, _ = split_parts(Layout("pictures", given), None, 0, keep_all=False)
    assert listed == {"train", "val"}
    assert parts["test"] == given["test"]
    assert len(parts["train"].names) + len(parts["val"].names) == 10


def test_one_group_alone_gives_no_validation():
    parts, listed, _ = split_parts(
        Layout("pictures", {"all": Part(plan.Path("a"), ["0.png"])}), None, 0, keep_all=False
    )
    assert (set(parts), listed) == ({"train"}, frozenset())


# Facts


def test_the_thick_axis_is_the_one_whose_spacing_stands_out(tmp_path):
    for k in range(2):
        volume(tmp_path / f"{k}.nii.gz", (0.125, 0.75, 0.125), (32, 8, 40))
    facts = volume_facts(Part(tmp_path, ["0.nii.gz", "1.nii.gz"]))
    assert (facts.thick_axis, facts.thick_scale, facts.smallest) == (1, (1, 6, 1), (32, 8, 40))


@pytest.mark.parametrize(("spacing_mm", "scale"), [(1.4, None), (1.6, (2, 1, 1))])
def test_slices_that_no_whole_scale_brings_nearer_to_cubes_are_not_thick(tmp_path, spacing_mm, scale):
    volume(tmp_path / "a.nii.gz", (spacing_mm, 1.0, 1.0), (16, 16, 16))
    assert volume_facts(Part(tmp_path, ["a.nii.gz"])).thick_scale == scale


def test_isotropic_voxels_have_no_thick_axis_and_an_odd_volume_is_named(tmp_path):
    for k in range(3):
        volume(tmp_path / f"{k}.nii.gz", (2.0,) * 3 if k == 2 else (0.15,) * 3)
    facts = volume_facts(Part(tmp_path, [f"{k}.nii.gz" for k in range(3)]))
    assert (facts.thick_axis, facts.thick_scale, list(facts.odd)) == (None, None, ["2.nii.gz"])


@pytest.mark.parametrize(("top", "depth"), [(4095, 12), (1000, 10), (65535, None)])
def test_the_depth_of_16_bit_files_is_guessed_from_their_brightest_value(tmp_path, top, depth):
    image = np.full((16, 16, 3), top // 2, np.uint16)
    image[0, 0] = top
    write_image(tmp_path / "a.png", image)
    assert picture_facts(Part(tmp_path, ["a.png"]), (2, 2)).bit_depth == depth


def test_pairs_that_show_different_things_are_warned_about(tmp_path):
    pairs(tmp_path, "gt", "lq")
    write_image(tmp_path / "lq/p1.png", imresize(picture(seed=99), Fraction(1, 2)))
    part = look(tmp_path, None, slides=False).parts["all"]
    assert any("lq/p1.png hardly shows" in line for line in picture_facts(part, (2, 2)).warnings)


def test_what_pictures_show_is_guessed_from_words_that_stand_for_the_whole_folder(tmp_path):
    assert kind_of(tmp_path / "faces/train", ["a.png"]) == ("faces", "faces")
    assert kind_of(tmp_path / "x", ["histology_left.png", "cat.png", "dog.png"]) == ("unknown", "")


# Patch, batch, accumulation, length


def test_patches_are_multiples_of_the_scale_inside_the_smallest_file():
    facts = PictureFacts(9, (40, 100), (500, 500), frozenset({3}), 8, 255, (0.5,) * 3, 0.0)
    assert patch_sizes("pictures", (4, 4), facts, True, False) == [(40, 40), (24, 24)]
    volumes = VolumeFacts((112, 20, 80), (0.15,) * 3, None)
    assert patch_sizes("volumes", (1, 3, 1), volumes, True, False) == [(32, 18, 32), (16, 18, 16), (8, 9, 8)]
    thick = VolumeFacts((128, 128, 20), (0.125, 0.125, 0.75), 2)
    assert patch_sizes("volumes", (1, 1, 6), thick, True, True) == [(48,), (24,), (12,)]


def costs(monkeypatch, bytes_of, seconds_of=lambda batch: 0.1 + 0.2 * batch, free=10 * GB):
    monkeypatch.setattr(fitting, "measure_step", lambda option, _: (seconds_of(option[1]), bytes_of(*option)))
    monkeypatch.setattr(fitting, "free_bytes", lambda _: free)
    monkeypatch.setattr(fitting, "_held", lambda _: 0)


def test_the_largest_batch_that_fits_is_taken_and_the_rest_accumulated(monkeypatch):
    """8 of 10 GiB may be used: 1 fixed and 1 a sample leave room for 7, which is 4 as a power of two."""
    costs(monkeypatch, lambda size, batch: GB * (1 + batch))
    found = fit(lambda size, batch: (size, batch), [(48, 48)], 16, torch.device("cpu"))
    assert (found.batch, found.accum) == (4, 4)
    assert found.peak_bytes == 5 * GB
    assert found.step_s == pytest.approx(4 * (0.1 + 4 * 0.2))


def test_a_patch_of_which_not_one_fits_is_halved(monkeypatch):
    costs(monkeypatch, lambda size, batch: GB * (1 + batch * size[0]))
    found = fit(lambda size, batch: (size, batch), [(48,), (24,), (6,)], 16, torch.device("cpu"))
    assert (found.gt_size, found.batch) == ((6,), 1)
    with pytest.raises(OutOfMemoryError, match="not even one sample"):
        fit(lambda size, batch: (size, batch), [(48,), (24,)], 16, torch.device("cpu"))


def test_a_size_that_runs_out_of_memory_while_it_is_tried_is_passed_over(monkeypatch):
    def bytes_of(size, batch):
        if size == (48,):
            raise MemoryError
        return GB

    costs(monkeypatch, bytes_of)
    assert fit(lambda size, batch: (size, batch), [(48,), (24,)], 16, torch.device("cpu")).gt_size == (24,)


def test_where_memory_cannot_be_told_the_wanted_batch_is_kept(monkeypatch):
    costs(monkeypatch, lambda size, batch: None)
    assert fit(lambda size, batch: (size, batch), [(48,)], 16, torch.device("cpu")).batch == 16


@pytest.mark.parametrize(("given", "kept"), [(12_345, 12_000), (199, 190), (3, 100), (10**9, 300_000)])
def test_iterations_are_rounded_down_to_two_digits_within_sense(given, kept):
    assert round_down(given) == kept


def test_scales_on_the_command_line():
    assert (parse_scale("4"), parse_scale("1,3,1"), parse_scale(None)) == ((4, 4), (1, 3, 1), None)
    for wrong in ("x4", "0", "1,2,3,4", "2.5"):
        with pytest.raises(RefusedError):
            parse_scale(wrong)


def test_paths_that_yaml_would_misread_are_quoted():
    assert [quoted(t) for t in ("a/b-c.x", "a b", "{}x4", "a: b", "#x", "*x")] == [
        "a/b-c.x", "a b", '"{}x4"', '"a: b"', '"#x"', '"*x"',
    ]  # fmt: skip


# What is written


def trains_silently(folder, *force):
    """The file loads without warnings and trains two iterations by the real command."""
    assert load_options(folder / "train.yml", mode="train").warnings == ()
    words = [*SHORT, "logger:use_tb_logger=false", *force]
    return train(["-opt", str(folder / "train.yml"), "--force_yml", *words]) == 0


def test_pairs_are_probed_planned_trained_and_tested_by_the_real_commands(tiny, capsys, monkeypatch):
    monkeypatch.setenv("SRKIT_CACHE", str(tiny / "cache"))
    monkeypatch.setattr(fitting, "_SECONDS", 0.1)
    for k in range(4, 6):
        write_image(tiny / f"data/gt/p{k}.png", image := picture(48, seed=k))
        write_image(tiny / f"data/lq/p{k}.png", imresize(image, Fraction(1, 2)))
    assert main(["plan", "data", "--hours", "0.01", "--out", "out"]) == 0
    out = capsys.readouterr().out
    assert "scale 2x2: measured" in out
    assert "to beat: psnr" in out
    text = (tiny / "out/train.yml").read_text()
    assert "dataroot_gt: data/gt\n" in text
    assert "# Expected: " in text
    options = load_options(tiny / "out/train.yml", mode="train")
    assert options.scale == (2, 2)
    held = [(tiny / f"out/{phase}.txt").read_text().split() for phase in ("train", "val", "test")]
    assert sorted(name for names in held for name in names) == [f"p{k}.png" for k in range(6)]
    with (tiny / "out/split.csv").open() as file:
        assert {row["part"] for row in csv.DictReader(file)} == {"train", "val", "test"}
    assert not (tiny / "out/trial.yml").exists()
    assert trains_silently(tiny / "out")
    best = next((tiny / "experiments/data_x2/models").glob("net_g_latest.pth"))
    force = [f"path:pretrain_network_g={best}"]
    assert run_test(["-opt", "out/test.yml", "--force_yml", *force]) == 0


def test_the_hours_asked_for_are_kept(tiny, monkeypatch, capsys):
    """At 0.1 + 16 * 0.2 = 3.3 s an iteration, two hours hold 2,181 iterations: 2,100 in two digits."""
    costs(monkeypatch, lambda *_: None)
    monkeypatch.setattr(
        fitting, "measure_step", lambda options, _: (0.1 + 0.2 * options.datasets["train"].batch_size_per_gpu, None)
    )
    assert main(["plan", "data", "--hours", "2", "--out", "out"]) == 0
    options = load_options(tiny / "out/train.yml", mode="train")
    assert options.train.total_iter == 2100
    assert f"expected: {2100 * 3.3 / 3600:.2g} hours" in capsys.readouterr().out


def test_volumes_are_planned_and_trained(tiny, monkeypatch):
    monkeypatch.setenv("SRKIT_CACHE", str(tiny / "cache"))
    for phase, count in (("train", 2), ("val", 1)):
        for k in range(count):
            volume(tiny / f"rats/{phase}/rat{k}.nii.gz", seed=k)
    assert main(["plan", "rats", "--scale", "1,3,1", "--no_probe", "--out", "out"]) == 0
    options = load_options(tiny / "out/train.yml", mode="train")
    assert (options.scale, options.network_g.type, options.val.protocol) == (
        (1, 3, 1),
        "ResnetGenerator",
        "mri-volume-v1",
    )
    assert trains_silently(tiny / "out")


def test_thick_scans_are_planned_to_learn_from_their_own_slices(tiny, monkeypatch):
    monkeypatch.setenv("SRKIT_CACHE", str(tiny / "cache"))
    for k in range(2):
        volume(tiny / f"scans/{k}.nii.gz", (0.2, 0.2, 0.8), (32, 32, 8), seed=k)
    assert main(["plan", "scans", "--no_probe", "--out", "out"]) == 0
    options = load_options(tiny / "out/train.yml", mode="train")
    assert (options.scale, options.network_g.type) == ((1, 1, 4), "ThroughPlane")
    assert set(options.datasets) == {"train"}
    assert trains_silently(tiny / "out")


def test_thick_scans_of_different_spacing_are_refused(tiny, capsys):
    for k, thick in enumerate((0.8, 0.8, 2.0)):
        volume(tiny / f"scans/{k}.nii.gz", (0.2, 0.2, thick), (32, 32, 8))
    assert main(["plan", "scans", "--no_probe", "--out", "out"]) == 2
    assert "2.nii.gz; give a folder whose scans share one spacing" in capsys.readouterr().err
    assert not (tiny / "out").exists()


def test_slides_are_planned_at_the_microns_that_all_can_give_and_trained(tiny):
    pytest.importorskip("openslide", reason=WITHOUT)
    (tiny / "slides").mkdir()
    for k, mpp in enumerate((0.25, 0.25, 0.5)):
        write_slide(tiny / f"slides/s{k}.tif", stained(600, 1200, seed=k), mpp=mpp)
    assert main(["plan", "slides", "--kind", "slides", "--scale", "2", "--no_probe", "--out", "out"]) == 0
    options = load_options(tiny / "out/train.yml", mode="train")
    assert options.datasets["train"].options["mpp"] == 0.5
    assert options.val.protocol == "histology-rgb-v1"
    force = ["datasets:train:patches_per_slide=4", "datasets:val:patches_per_slide=1", "datasets:train:gt_size=32"]
    assert trains_silently(tiny / "out", *force, "datasets:val:gt_size=64")


@pytest.mark.parametrize("total", [100, 1_000, 10_000, 300_000])
def test_the_average_of_weights_reaches_back_a_tenth_of_the_training_at_most(total):
    assert 1 / (1 - _ema_decay(total)) <= total / 10 + 1e-6


def test_an_existing_plan_is_not_overwritten(tiny, capsys):
    (tiny / "out").mkdir()
    assert main(["plan", "data", "--no_probe", "--out", "out"]) == 2
    assert "out exists" in capsys.readouterr().err
    assert list((tiny / "out").iterdir()) == []


def test_tiny_pictures_are_planned_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "d", count=3, size=16)
    assert main(["plan", "d/gt", "--scale", "2", "--kind", "natural", "--no_probe", "--out", "out"]) == 0
    options = load_options(tmp_path / "out/train.yml", mode="train")
    assert options.datasets["train"].options["gt_size"] == 16
    assert options.val.protocol == "natural-y-v1"


def test_the_bar_is_measured_as_a_test_measures_it(tiny, monkeypatch):
    from tiny import options, write_options

    from srkit.metrics import LPIPS
    from srkit.options import load_options
    from srkit.tools.planning.baseline import baseline_lines

    monkeypatch.setattr(LPIPS, "__init__", lambda self: setattr(self, "unavailable", "LPIPS lacks a file"))
    metrics = {"c": {"type": "LRConsistency"}, "psnr": {"type": "PSNR"}, "lpips": {"type": "LPIPS"}}
    (line,) = baseline_lines(load_options(write_options(tiny, options(tiny, val__metrics=metrics)), mode="train"), 4)
    values = dict(part.split()[:2] for part in line.split(", "))
    assert values.keys() == {"c", "psnr"}
    assert values["c"] != values["psnr"]
