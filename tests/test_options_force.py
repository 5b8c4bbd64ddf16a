"""--force_yml and --debug."""

from __future__ import annotations

import pytest
from test_options_samples import TEST, TRAIN, load, refusal


def test_forced_values_win_over_the_file_and_are_read_as_yaml(tmp_path):
    words = [
        "train:ema_decay=0.99",
        "datasets:train:gt_size=48",
        "train:scheduler:milestones=[1, 2]",
        "train:precision=~",
    ]
    options = load(tmp_path, force=words)
    assert options.train.ema_decay == 0.99
    assert options.datasets["train"].options["gt_size"] == 48
    assert options.train.scheduler.milestones == (1, 2)


def test_a_forced_section_may_be_new(tmp_path):
    assert load(tmp_path, force=["logger:wandb:project=x=y"]).logger.wandb.project == "x=y"


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("train:ema_deca=0.9", "command line, train.ema_deca: unknown option; did you mean 'ema_decay'"),
        (
            "train:batch_size_per_gpu=0.9",
            "command line, train.batch_size_per_gpu: unknown option; it belongs to datasets.train",
        ),
        ("train:total_iter=x", "command line, train.total_iter: found 'x', expected a whole number"),
        ("train=3", "command line, train: found 3, expected a section"),
        ("train:total_iter:x=3", "command line, train:total_iter:x: 'total_iter' is 1000, not a section"),
        ("train", "command line: found 'train', expected key=value"),
        (":=3", "command line: found ':=3', expected key=value"),
        ("name=[", "command line, name: line 1: not valid YAML"),
        ("name=!!python/name:os.system", "command line, name: "),
        ("name=__import__('os')", "command line, name: found \"__import__('os')\", expected letters"),
    ],
)
def test_a_wrong_word_is_refused_with_its_place(tmp_path, word, expected):
    assert expected in refusal(tmp_path, TRAIN, force=[word])


def test_debug_makes_a_short_trial(tmp_path):
    options = load(tmp_path, TRAIN + "val: {val_freq: 99}\n", debug=True)
    assert options.name == "debug_small_x2"
    assert (options.val.val_freq, options.logger.save_checkpoint_freq, options.logger.print_freq) == (8, 8, 1)


def test_forcing_does_not_change_sections_that_share_an_anchor(tmp_path):
    text = TEST.replace("test_1: {", "test_1: &one {").replace("path:", "  test_2: {<<: *one, name: b}\npath:")
    options = load(tmp_path, text, "test", force=["datasets:test_2:dataroot_gt=other"])
    assert options.datasets["test_1"].options["dataroot_gt"] == "data/set5"
    assert options.datasets["test_2"].options["dataroot_gt"] == "other"
