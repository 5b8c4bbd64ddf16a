"""Cross checks, warnings about options without effect, and defaults."""

from __future__ import annotations

import pytest
from test_options_samples import TEST, TRAIN, changed, load, refusal

COSINE = "{type: CosineAnnealingRestartLR, periods: %s, restart_weights: %s}"
MULTI = "{type: MultiStepLR, milestones: [400, 800], gamma: 0.5}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("gt_size: 96", "gt_size: 97", "datasets.train.gt_size: 97 is not a multiple of scale 2; 96 and 98 are"),
        ("gt_size: 96", "gt_size: 1", "datasets.train.gt_size: 1 is not a multiple of scale 2; 2 is"),
        ("gt_size: 96", "gt_size: 0", "datasets.train.gt_size: found 0, expected a whole number above 0"),
        ("gt_size: 96", "mean: [0.5]", "datasets.train.mean: found without std"),
        ("gt_size: 96", "std: [0.5]", "datasets.train.std: found without mean"),
        ("gt_size: 96", "mean: [0.5, 0.5]\n    std: [0.5]", "datasets.train.std: found 1 values, but mean has 2"),
        ("    batch_size_per_gpu: 4\n", "", "datasets.train.batch_size_per_gpu: missing"),
        (
            MULTI,
            COSINE % ("[500, 499]", "[1, 1]"),
            "train.scheduler.periods: the periods add up to 999, below total_iter 1,000",
        ),
        (
            MULTI,
            COSINE % ("[500, 500]", "[1]"),
            "train.scheduler.restart_weights: found 1 value(s), expected one per period, 2",
        ),
        ("[400, 800]", "[800, 400]", "train.scheduler.milestones: found [800, 400], expected ascending"),
        (
            "gamma: 0.5",
            "restarts: [0, 500]",
            "train.scheduler.restart_weights: found 0 value(s), expected one per restart, 2",
        ),
        ("  pixel_opt: {type: L1Loss}\n", "", "train: no loss is given"),
        (
            "  total_iter",
            "  use_amp: true\n  precision: fp32\n  total_iter",
            "train.use_amp: contradicts precision: fp32",
        ),
        ("type: Adam, ", "type: SGD, nesterov: true, ", "train.optim_g.nesterov: needs momentum"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused(tmp_path, old, new, expected):
    assert expected in refusal(tmp_path, changed(old, new))


def test_two_evaluated_datasets_of_one_name_are_refused(tmp_path):
    text = changed("network_g:\n", "  val_2: {type: PairedImageDataset, dataroot_gt: x, name: set5}\nnetwork_g:\n")
    assert "datasets.val_2.name: 'set5' names datasets.val and datasets.val_2" in refusal(tmp_path, text)


def test_a_protocol_and_metrics_exclude_each_other(tmp_path):
    text = TRAIN + "val: {protocol: natural-y-v1, metrics: {psnr: {type: calculate_psnr}}}\n"
    assert "val.protocol: found beside metrics" in refusal(tmp_path, text)


def test_a_network_for_one_scale_refuses_one_scale_per_axis(tmp_path):
    text = TRAIN.replace("scale: 2\nd", "scale: [1, 2]\nd").replace("  upscale: 2\n", "")
    assert "network_g.type: EDSR takes upscale 1 or 2 or 3 or 4 or 8 or 16; the top-level scale is [1, 2]" in refusal(
        tmp_path, text
    )


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ("name: set5", "gt_size: 96", "line 12, datasets.val.gt_size: has no effect in a dataset that is evaluated"),
        ("name: set5", "use_hflip: true", "line 12, datasets.val.use_hflip: has no effect"),
        ("name: set5", "batch_size_per_gpu: 2", "line 12, datasets.val.batch_size_per_gpu: has no effect"),
        (
            "gt_size: 96",
            "num_prefetch_queue: 2",
            "line 9, datasets.train.num_prefetch_queue: has no effect without prefetch_mode: cpu",
        ),
        (
            "gt_size: 96",
            "color_jitter_shift: 9",
            "line 9, datasets.train.color_jitter_shift: has no effect without color_jitter_prob",
        ),
        ("[400, 800]", "[400, 1000]", "line 22, train.scheduler.milestones: 1000 not reached before total_iter 1,000"),
        ("  total_iter", "  warmup_iter: 1000\n  total_iter", "line 20, train.warmup_iter: 1,000 never ends"),
        (
            "network_g:",
            "path: {strict_load_g: false}\nnetwork_g:",
            "line 15, path.strict_load_g: has no effect without pretrain",
        ),
        ("network_g:", "val: {suffix: x}\nnetwork_g:", "line 15, val.suffix: has no effect without save_img"),
        ("network_g:", "val: {tile_overlap: 8}\nnetwork_g:", "line 15, val.tile_overlap: has no effect without tile"),
        ("network_g:", "print_network: true\nnetwork_g:", "line 15, print_network: has no effect in srkit"),
        (
            "network_g:",
            "dist_params: {backend: gloo}\nnetwork_g:",
            "line 15, dist_params: has no effect without --launcher",
        ),
    ],
)
def test_an_option_without_effect_is_warned_about_by_name(tmp_path, old, new, warning):
    found = load(tmp_path, changed(old, new), launcher="none").warnings
    assert len(found) == 1
    assert found[0].startswith(warning)


@pytest.mark.parametrize(
    "new",
    ["use_shuffle: false", "batch_size_per_gpu: 1", "use_rot: false", "prefetch_mode: ~", "num_worker_per_gpu: 2"],
)
def test_asking_an_evaluated_dataset_for_nothing_is_not_warned_about(tmp_path, new):
    assert load(tmp_path, changed("name: set5", new)).warnings == ()


def test_training_sections_are_without_effect_in_a_test(tmp_path):
    text = TRAIN + "path: {pretrain_network_g: x.pth}\nval: {val_freq: 7}\nlogger: {print_freq: 7}\n"
    warned = [w.split(":")[0] for w in load(tmp_path, text, "test").warnings]
    assert warned == ["line 5, datasets.train", "line 19, train", "line 25, val.val_freq", "line 26, logger"]


def test_missing_sections_have_the_documented_defaults(tmp_path):
    options = load(tmp_path)
    assert options.scale == (2, 2)
    assert options.model_type == "Supervised"
    assert options.manual_seed == 0
    assert options.path.pretrain_network_g is None
    assert options.val.val_freq == 5000
    assert {n: (m.type, m.crop_border, m.test_y_channel) for n, m in options.val.metrics.items()} == {
        "psnr": ("PSNR", None, False),
        "ssim": ("SSIM", None, False),
    }
    assert (options.logger.print_freq, options.logger.save_checkpoint_freq, options.logger.use_tb_logger) == (
        100,
        5000,
        True,
    )


@pytest.mark.parametrize(
    ("val", "count"), [("{metrics: {}}", 0), ("{metrics: ~}", 2), ("{protocol: natural-y-v1}", 0), ("{}", 2)]
)
def test_only_a_file_that_says_nothing_gets_the_default_metrics(tmp_path, val, count):
    assert len(load(tmp_path, TRAIN + f"val: {val}\n").val.metrics) == count


def test_family_names_become_srkits(tmp_path):
    text = changed("MultiStepLR", "MultiStepRestartLR").replace("SRModel", "SRModelMicroscopy")
    options = load(tmp_path, text + "val: {metrics: {p: {type: calculate_psnr_micro}, m: {type: calculate_msssim}}}\n")
    assert options.model_type == "Supervised"
    assert options.train.scheduler.type == "MultiStepLR"
    assert [m.type for m in options.val.metrics.values()] == ["PSNR", "MSSSIM"]


def test_component_options_hold_what_was_given_without_the_scale(tmp_path):
    options = load(tmp_path)
    assert options.networks["network_g"].options == {"num_feat": 16}
    assert options.datasets["train"].options == {"dataroot_gt": "data/gt", "dataroot_lq": "data/lq", "gt_size": 96}
    assert (options.datasets["val"].phase, options.datasets["val"].name) == ("val", "set5")


def test_options_cannot_be_changed(tmp_path):
    options = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        options.train.total_iter = 3


def test_whole_floats_are_whole_numbers(tmp_path):
    assert load(tmp_path, TRAIN + "val: {val_freq: !!float 5e3}\n").val.val_freq == 5000


def test_a_test_file_needs_no_network_section(tmp_path):
    assert load(tmp_path, TEST, "test").train is None


def test_a_tile_that_its_overlaps_fill_is_refused(tmp_path):
    report = refusal(tmp_path, TRAIN + "val: {tile: 64}\n")
    assert "val.tile: found 64, expected more than two overlaps of 32" in report


def test_evaluated_sets_may_not_skip_pictures(tmp_path):
    text = TRAIN.replace("  val:\n", "  val:\n    on_error: skip\n")
    assert "datasets.val.on_error: found 'skip', expected 'raise'" in refusal(tmp_path, text)


def test_evaluated_sets_keep_the_size_of_their_pictures(tmp_path):
    text = TRAIN.replace("  val:\n", "  val:\n    scale_augment: [1, 0.9]\n")
    assert "datasets.val.scale_augment: found in a dataset that is evaluated" in refusal(tmp_path, text)
