"""Every warning about an option without effect, and beside it the file in which the option has one."""

from __future__ import annotations

from copy import deepcopy

import pytest
from test_options_limits import EDGE, GAN, REAL
from test_options_samples import TEST, TRAIN, changed, load, refusal
from tiny import options, write_options

from srkit.options import load_options


def warned(folder, launcher=None, mode="train", **changes):
    path = write_options(folder, options(folder, **deepcopy(changes)))
    found = load_options(path, mode=mode, launcher=launcher).warnings
    return [line.split(", ", 1)[-1] for line in found]


def no_effect(place, why):
    return [f"{place}: has no effect {why}"]


WARNED = [
    ({"path__param_key_g": "params"}, "path.param_key_g", "without pretrain_network_g"),
    ({"path__strict_load_g": False}, "path.strict_load_g", "without pretrain_network_g"),
    ({"path__strict_load_d": False}, "path.strict_load_d", "without pretrain_network_d"),
    ({"path__param_key_d": "params"}, "path.param_key_d", "without pretrain_network_d"),
    ({"path__ignore_resume_networks": ["network_g"]}, "path.ignore_resume_networks", "unless a checkpoint is resumed"),
    ({"path__pretrain_network_d": "d.pth"}, "path.pretrain_network_d", "without network_d"),
    ({"train__net_d_iters": 2}, "train.net_d_iters", "without network_d"),
    ({"val__suffix": "x"}, "val.suffix", "without save_img: true"),
    ({"val__tile_overlap": 31}, "val.tile_overlap", "without tile"),
    ({"val__precision": "bf16"}, "val.precision", "in training, whose validation is fp32"),
    ({"datasets__val": None}, "val", "without a dataset to evaluate, such as datasets.val"),
    ({"datasets__train__lq_dropout_holes": 3}, "datasets.train.lq_dropout_holes", "without lq_dropout_prob"),
    ({"datasets__train__lq_dropout_size": 3}, "datasets.train.lq_dropout_size", "without lq_dropout_prob"),
    ({"datasets__train__lq_jpeg_quality": [50, 90]}, "datasets.train.lq_jpeg_quality", "without lq_jpeg_prob"),
    ({"datasets__train__gt_size_step": 4}, "datasets.train.gt_size_step", "without gt_size_max"),
    ({"datasets__train__color_change_prob": 0.5}, "datasets.train.color_change_prob", "without brightness, contrast, saturation, hue"),
    ({"datasets__train__gt_size": None, "datasets__train__crop_type": "random"}, "datasets.train.crop_type", "without gt_size"),
    ({"datasets__train__lq_resize": "bicubic-float"}, "datasets.train.lq_resize", "with dataroot_lq, which brings lq pictures"),
    ({"datasets__train__num_prefetch_queue": 2}, "datasets.train.num_prefetch_queue", "without prefetch_mode: cpu"),
    ({"datasets__train__num_prefetch_queue": 2, "datasets__train__prefetch_mode": "cuda"}, "datasets.train.num_prefetch_queue", "without prefetch_mode: cpu"),
    ({"datasets__train__color_jitter_shift": 9}, "datasets.train.color_jitter_shift", "without color_jitter_prob"),
    ({**GAN, "train__gan_opt": {"type": "GANLoss", "gan_type": "wgan", "real_label_val": 0.9}}, "train.gan_opt.real_label_val", "with gan_type wgan, which has no labels"),
    ({**GAN, "train__gan_opt": {"type": "GANLoss", "gan_type": "wgan", "fake_label_val": 0.5}}, "train.gan_opt.fake_label_val", "with gan_type wgan, which has no labels"),
    ({**GAN, "train__gan_opt": {"type": "GANLoss", "detach_mean": True}}, "train.gan_opt.detach_mean", "without relativistic: true"),
    ({**EDGE, **REAL, "train__pixel_opt": None, "train__gan_opt__target": "gt_usm"}, "train.gan_opt.target", "with model_type EdgeAdversarial, which compares edge maps"),
    ({**GAN, **REAL, "train__feature_matching_opt": {"type": "FeatureMatchingLoss", "target": "gt_usm"}}, "train.feature_matching_opt.target", "beside gan_opt, whose target gives the maps"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "place", "why"), WARNED)
def test_an_option_that_does_nothing_is_the_only_one_named(tmp_path, changes, place, why):
    assert warned(tmp_path, **changes) == no_effect(place, why)


NOT_WARNED = [
    {},
    GAN,
    EDGE,
    REAL,
    {"path__param_key_g": "params", "path__strict_load_g": False, "path__pretrain_network_g": "g.pth"},
    {**GAN, "path__param_key_d": "params", "path__strict_load_d": False, "path__pretrain_network_d": "d.pth"},
    {"path__ignore_resume_networks": ["network_g"], "path__resume_state": "iter_5"},
    {**GAN, "train__net_d_iters": 2, "train__net_d_init_iters": 2},
    {"val__suffix": "x", "val__save_img": True},
    {"val__tile_overlap": 8, "val__tile": 64},
    {"val__tile_overlap": 32},
    {"val__precision": "fp32"},
    {"val": {"metrics": {}}, "datasets__val": None},
    {"val": None, "datasets__val": None},
    {"datasets__train__lq_dropout_holes": 3, "datasets__train__lq_dropout_size": 3, "datasets__train__lq_dropout_prob": 0.5},
    {"datasets__train__lq_jpeg_quality": [50, 90], "datasets__train__lq_jpeg_prob": 0.5},
    {"datasets__train__gt_size_step": 4, "datasets__train__gt_size_max": 32},
    {"datasets__train__color_change_prob": 0.5, "datasets__train__hue": 0.1},
    {"datasets__train__crop_type": "center"},
    {"datasets__train__lq_resize": "bicubic-float", "datasets__train__dataroot_lq": None},
    {"datasets__train__num_prefetch_queue": 2, "datasets__train__prefetch_mode": "cpu"},
    {"datasets__train__color_jitter_shift": 9, "datasets__train__color_jitter_prob": 0.5},
    {**GAN, "train__gan_opt": {"type": "GANLoss", "gan_type": "lsgan", "real_label_val": 0.9, "fake_label_val": 0.1}},
    {**GAN, "train__gan_opt": {"type": "GANLoss", "real_label_val": 0.9, "fake_label_val": 0.1}},
    {**GAN, "train__gan_opt": {"type": "GANLoss", "gan_type": "hinge", "real_label_val": 1, "fake_label_val": 0}},
    {**GAN, "train__gan_opt": {"type": "GANLoss", "detach_mean": True, "relativistic": True}},
    {**GAN, **REAL, "train__gan_opt__target": "gt_usm"},
    {**GAN, "train__feature_matching_opt": {"type": "FeatureMatchingLoss"}},
    {"train__warmup_iter": 11},
    {"train__scheduler": {"type": "MultiStepLR", "milestones": [11]}},
]  # fmt: skip


@pytest.mark.parametrize("changes", NOT_WARNED)
def test_an_option_that_does_something_is_not_warned_about(tmp_path, changes):
    assert warned(tmp_path, **changes) == []


def test_both_iterations_of_a_discriminator_that_is_not_there_are_named(tmp_path):
    """The generator would learn from iteration 2 on; without network_d nothing learns before, so a loss must count there."""
    assert warned(tmp_path, train__net_d_init_iters=2) == no_effect("train.net_d_init_iters", "without network_d")


@pytest.mark.parametrize(("launcher", "count"), [("none", 2), ("pytorch", 0), (None, 0)])
def test_options_for_several_processes_are_named_where_it_is_known_that_there_is_one(tmp_path, launcher, count):
    changes = {"dist_params__timeout_s": 60, "train__sync_batchnorm": True}
    expected = [
        *no_effect("train.sync_batchnorm", "without --launcher"),
        *no_effect("dist_params", "without --launcher"),
    ]
    assert sorted(warned(tmp_path, launcher, **changes)) == sorted(expected[:count])


def test_one_process_without_such_options_is_not_warned(tmp_path):
    assert warned(tmp_path, "none") == []


TRAINING_KEYS = {
    "cache": "device", "gt_size": 16, "use_hflip": True, "use_rot": True, "use_shuffle": True, "batch_size_per_gpu": 2,
    "dataset_enlarge_ratio": 2, "prefetch_mode": "cpu", "pin_memory": True, "crop_type": "center", "lq_jpeg_prob": 0.5,
    "lq_dropout_prob": 0.5, "color_jitter_prob": 0.5, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1,
    "num_prefetch_queue": 1, "gt_size_max": 32, "color_jitter_shift": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(TRAINING_KEYS))
def test_every_key_of_training_alone_is_named_in_an_evaluated_dataset(tmp_path, key):
    given = {f"datasets__val__{key}": TRAINING_KEYS[key]}
    assert f"datasets.val.{key}: has no effect in a dataset that is evaluated" in warned(tmp_path, **given)


IDLE_VALUES = {
    "cache": ["auto", "disk", "none"], "use_hflip": [False], "use_rot": [False], "use_shuffle": [False], "batch_size_per_gpu": [1],
    "dataset_enlarge_ratio": [1], "pin_memory": [False], "lq_jpeg_prob": [0], "lq_dropout_prob": [0], "color_jitter_prob": [0],
    "color_jitter_shift": [0], "brightness": [0], "contrast": [0], "saturation": [0], "hue": [0],
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, values in IDLE_VALUES.items() for v in values])
def test_the_value_that_asks_for_nothing_is_not_named_there(tmp_path, key, value):
    assert warned(tmp_path, **{f"datasets__val__{key}": value}) == []


def test_training_options_in_a_test_are_named_each(tmp_path):
    text = TEST + "logger: {print_freq: 7}\nval: {val_freq: 7}\n"
    text = text.replace("path: {", "path: {resume_state: x, ")
    assert [w.split(", ")[-1] for w in load(tmp_path, text, "test").warnings] == [
        "path.resume_state: has no effect in a test",
        "logger: has no effect in a test",
        "val.val_freq: has no effect in a test",
    ]


def test_half_precision_is_for_tests(tmp_path):
    assert load(tmp_path, TEST + "val: {precision: bf16}\n", "test").warnings == ()


def test_schedules_are_looked_at_in_training_alone(tmp_path):
    text = changed("[400, 800]", "[400, 1000, 2000]") + "  warmup_iter: 1000\n"
    found = [w.split(", ", 1)[-1] for w in load(tmp_path, text).warnings]
    assert found == [
        "train.scheduler.milestones: 1000, 2000 not reached before total_iter 1,000",
        "train.warmup_iter: 1,000 never ends before total_iter 1,000",
    ]
    tested = load(tmp_path, text + "path: {pretrain_network_g: x.pth}\n", "test").warnings
    assert not any("never ends" in w or "not reached" in w for w in tested)


def test_the_queue_of_batches_that_shared_a_degradation_is_named(tmp_path):
    assert warned(tmp_path, **{**REAL, "datasets__train__queue_size": 180}) == no_effect(
        "datasets.train.queue_size", "in srkit: every sample of a batch has a degradation of its own"
    )


def test_debug_values_stand_for_the_command_line_in_the_report(tmp_path):
    assert "command line, val.val_freq: has no effect in a test" in load(tmp_path, TEST, "test", debug=True).warnings
    report = refusal(tmp_path, changed("name: small_x2\n", "name: a/b\n"), debug=True)
    assert "command line, name: found 'debug_a/b', expected letters" in report


def test_debug_leaves_a_section_that_is_none_to_the_report(tmp_path):
    report = refusal(tmp_path, TRAIN + "val: 3\n", debug=True)
    assert "line 24, val: found 3, expected a section" in report
    assert "1 problem\n" in report


def test_debug_names_an_experiment_once(tmp_path):
    assert load(tmp_path, changed("small_x2", "debug_small"), debug=True).name == "debug_small"


def test_a_wrong_word_of_the_command_line_is_one_problem_and_the_others_are_read(tmp_path):
    report = refusal(tmp_path, TRAIN, force=["train", "train:nope=1"])
    assert "2 problems\n" in report
    assert "command line: found 'train', expected key=value" in report
    assert "command line, train.nope: unknown option" in report


def test_a_test_does_not_look_at_how_training_data_are_loaded(tmp_path):
    """A training file may be given to a test; what its training would not use is no matter there."""
    told = warned(tmp_path, mode="test", path__pretrain_network_g="g.pth", datasets__train__num_prefetch_queue=4)
    assert [line for line in told if "num_prefetch_queue" in line] == []


OWN = """
from srkit.registry import DATASETS


@DATASETS.register()
class CropsAlways:
    def __init__(self, dataroot_gt: str, gt_size: int):
        pass
"""


def test_what_a_dataset_cannot_do_without_is_not_named_where_it_is_evaluated(tmp_path):
    (tmp_path / "crops_always.py").write_text(OWN)
    val = {"name": "own", "type": "CropsAlways", "dataroot_gt": "gt", "gt_size": 16}
    assert warned(tmp_path, imports=[str(tmp_path / "crops_always.py")], datasets__val=val) == []
