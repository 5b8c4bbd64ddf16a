"""Where each cross check begins: the last value it refuses, and beside it the first it lets pass."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from test_options_samples import TEST, TRAIN, changed, load, refusal
from tiny import options, write_options

from srkit.errors import OptionError
from srkit.options import load_options
from srkit.options.signatures import PACKAGE_ROOTS

GAN = {
    "model_type": "SRGANModel",
    "network_d": {"type": "VGGAdaptiveDiscriminator", "channels": [4, 4, 4, 4]},
    "train__optim_d": {"type": "Adam", "lr": 1e-3},
    "train__gan_opt": {"type": "GANLoss"},
}
EDGE = {
    "model_type": "EdgeAdversarial",
    "network_g": {"type": "EdgeGenerator", "num_feat": 2, "num_block": 1},
    "network_d": {"type": "SNPatchDiscriminator", "num_in_ch": 4, "num_feat": 2},
    "train__optim_d": {"type": "Adam", "lr": 1e-3},
    "train__gan_opt": {"type": "GANLoss"},
    "train__pixel_opt": None,
    "val__metrics": None,
}
REAL = {
    "datasets__train": {"type": "RealESRGANDataset", "dataroot_gt": "gt", "gt_size": 24, "batch_size_per_gpu": 2},
    "train__pixel_opt": {"type": "L1Loss", "target": "gt_usm"},
}
GRAPH = {"train__cuda_graph": True}
SGD = {"type": "SGD", "lr": 0.1}


def read(folder, **changes):
    return load_options(write_options(folder, options(folder, **deepcopy(changes))), mode="train")


def problems(folder, **changes):
    """The lines of the report, without line numbers; none when the file is read."""
    try:
        read(folder, **changes)
    except OptionError as error:
        return [line.split(", ", 1)[-1] for line in error.problems]
    return []


def cosine(periods, weights):
    return {"type": "CosineAnnealingRestartLR", "periods": periods, "restart_weights": weights}


def steps(**more):
    return {"type": "MultiStepLR", "milestones": [4, 8], **more}


def pixel(**more):
    return {"type": "L1Loss", **more}


REFUSED = [
    ({"datasets__train__gt_size": 17}, "datasets.train.gt_size: 17 is not a multiple of scale 2; 16 and 18 are"),
    ({"datasets__train__gt_size": -2}, "datasets.train.gt_size: found -2, expected a whole number above 0"),
    ({"datasets__train__gt_size": [16, 17]}, "datasets.train.gt_size: 17 is not a multiple of scale 2; 16 and 18 are"),
    ({"datasets__train__gt_size": [15, 15, 15]}, "datasets.train.gt_size: found 3 values, expected one per axis of scale, 2"),
    ({"datasets__train__gt_size": 1}, "datasets.train.gt_size: 1 is not a multiple of scale 2; 2 is"),
    ({"datasets__train__mean": [0.5]}, "datasets.train.mean: found without std; give both or neither"),
    ({"datasets__train__std": [0.5]}, "datasets.train.std: found without mean; give both or neither"),
    ({"datasets__train__mean": [0.5], "datasets__train__std": [0.5] * 3}, "datasets.train.std: found 3 values, but mean has 1"),
    ({"val__tile": [64, 64, 64], "val__tile_overlap": 8}, "val.tile: found 3 values, expected one per axis of scale, 2"),
    ({"val__tile": 64, "val__tile_overlap": [8]}, "val.tile_overlap: found 1 values, expected one per axis of scale, 2"),
    ({"val__tile": 16, "val__tile_overlap": 8}, "val.tile: found 16, expected more than two overlaps of 8"),
    ({"val__tile": [17, 16], "val__tile_overlap": 8}, "val.tile: found (17, 16), expected more than two overlaps of 8"),
    ({"train__scheduler": cosine([6, 5], [1, 1])}, "train.scheduler.periods: the periods add up to 11, below total_iter 12; lengthen them or train less"),
    ({"train__scheduler": cosine([6, 6], [1])}, "train.scheduler.restart_weights: found 1 value(s), expected one per period, 2"),
    ({"train__scheduler": steps(milestones=[4, 4])}, "train.scheduler.milestones: found [4, 4], expected ascending iterations"),
    ({"train__scheduler": steps(restarts=[8, 4], restart_weights=[1, 1])}, "train.scheduler.restarts: found [8, 4], expected ascending iterations"),
    ({"train__scheduler": steps(restarts=[4], restart_weights=[1, 1])}, "train.scheduler.restart_weights: found 2 value(s), expected one per restart, 1"),
    ({"train__use_amp": True, "train__precision": "fp32"}, "train.use_amp: contradicts precision: fp32; give one of the two"),
    ({"train__optim_g": {**SGD, "nesterov": True}}, "train.optim_g.nesterov: needs momentum above 0"),
    ({**GAN, "train__optim_d": {**SGD, "nesterov": True}}, "train.optim_d.nesterov: needs momentum above 0"),
    ({"train__pixel_opt": pixel(start_iter=1)}, "train: no loss of network_g counts at iteration 0; see start_iter and stop_iter"),
    ({"train__pixel_opt": pixel(stop_iter=11)}, "train: no loss of network_g counts at iteration 11; see start_iter and stop_iter"),
    ({"train__pixel_opt": pixel(stop_iter=5), "train__losses": {"a": pixel(start_iter=6)}}, "train: no loss of network_g counts at iteration 5; see start_iter and stop_iter"),
    ({**REAL, "datasets__train__gt_usm": False}, "train.pixel_opt.target: found 'gt_usm', but datasets.train.gt_usm is false"),
    ({"train__pixel_opt": pixel(target="gt_usm")}, "train.pixel_opt.target: found 'gt_usm', which PairedImageDataset does not make; write gt, or train on RealESRGANDataset"),
    ({**GRAPH, "train__precision": "fp16"}, "train.precision: found 'fp16' with train.cuda_graph, expected fp32 or bf16; its scaler reads values back"),
    ({**GRAPH, **GAN, "train__optim_d": {"type": "Rprop", "lr": 0.1}}, "train.optim_d.type: found 'Rprop' with train.cuda_graph, expected Adam, AdamW or SGD"),
    ({**GRAPH, "datasets__train__gt_size": None}, "datasets.train.gt_size: missing with train.cuda_graph, which needs crops of one size"),
    ({**GAN, "train__net_d_init_iters": 12}, "train.net_d_init_iters: 12 never ends before total_iter 12"),
    ({**GAN, "train__net_d_iters": 2, "train__gan_opt__stop_iter": 11}, "train.gan_opt.stop_iter: found 11, where network_d stops; net_d_iters 2 would leave iterations in which no network learns. Remove one of the two"),
    ({**GAN, "train__net_d_init_iters": 4, "train__gan_opt__stop_iter": 3}, "train.gan_opt.stop_iter: found 3, where network_d stops; net_d_init_iters 4 would leave iterations in which no network learns. Remove one of the two"),
    ({**GAN, "model_type": "SRModel", "train__gan_opt": None, "train__optim_d": None}, "network_d: model_type SRModel has no discriminator; write SRGANModel or ESRGANModel, or remove it"),
    ({"train__optim_d": SGD}, "train.optim_d: model_type SRModel has no discriminator; write SRGANModel or ESRGANModel, or remove it"),
    ({"train__feature_matching_opt": {"type": "FeatureMatchingLoss"}}, "train.feature_matching_opt: model_type SRModel has no discriminator; write SRGANModel or ESRGANModel, or remove it"),
    ({**EDGE, "network_d": None, "train__gan_opt": None, "train__optim_d": None, "train__pixel_opt": pixel()}, "train.gan_opt: missing; model_type EdgeAdversarial needs an adversarial loss such as gan_opt: {type: GANLoss, gan_type: vanilla}"),
    ({**EDGE, "model_type": "SRModel", "network_d": None, "train__gan_opt": None, "train__optim_d": None, "train__pixel_opt": pixel()}, "network_g.type: EdgeGenerator makes edge maps; write model_type: EdgeAdversarial"),
    ({**EDGE, "network_d__num_in_ch": 3}, "network_d.num_in_ch: found 3, expected 4: it is shown gt and an edge map"),
    ({**EDGE, "val__metrics": {"s": {"type": "SSIM"}}}, "val.metrics.s: SSIM measures pictures, not edge maps; write EdgeF1, EdgePrecision or EdgeRecall"),
    ({"datasets__val__on_error": "skip"}, "datasets.val.on_error: found 'skip', expected 'raise'; a mean over fewer pictures would be another number"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), REFUSED)
def test_values_just_outside_a_limit_are_refused_in_these_words(tmp_path, changes, told):
    place = told.split(": ")[0]
    assert [found for found in problems(tmp_path, **changes) if found.startswith(f"{place}: ")] == [told]


ACCEPTED = [
    {"datasets__train__gt_size": 2},
    {"datasets__train__gt_size": [16, 18]},
    {"datasets__train__gt_size": None},
    {"datasets__train__mean": [0.5], "datasets__train__std": [0.5]},
    {"val__tile": 17, "val__tile_overlap": 8},
    {"val__tile": [17, 33], "val__tile_overlap": [8, 16]},
    {"val__tile": 1, "val__tile_overlap": 0},
    {"val__tile_overlap": [8, 8]},
    {"train__scheduler": cosine([6, 6], [1, 1])},
    {"train__scheduler": cosine([12], [1])},
    {"train__scheduler": steps(restarts=[0, 6], restart_weights=[1, 1])},
    {"train__use_amp": True},
    {"train__precision": "fp32"},
    {"train__use_amp": True, "train__precision": "bf16"},
    {"train__optim_g": {**SGD, "nesterov": True, "momentum": 0.9}},
    {"train__optim_g": SGD},
    {"train__pixel_opt": pixel(reduction="sum")},
    {"train__pixel_opt": pixel(stop_iter=12)},
    {"train__pixel_opt": pixel(stop_iter=5), "train__losses": {"a": pixel(start_iter=5)}},
    {"train__pixel_opt": pixel(), "train__losses": {"a": pixel(start_iter=3, stop_iter=4)}},
    {**GAN, "train__pixel_opt": pixel(start_iter=4), "train__gan_opt__start_iter": 4, "train__net_d_init_iters": 4},
    {**GAN, "train__net_d_init_iters": 11},
    {**GAN, "train__net_d_iters": 2, "train__gan_opt__stop_iter": 12},
    {**GAN, "train__net_d_init_iters": 3, "train__gan_opt__stop_iter": 3},
    {**GAN, "train__net_d_iters": 2},
    {**GAN, "train__gan_opt__stop_iter": 3},
    REAL,
    {**REAL, "datasets__train__gt_usm": True},
    {**REAL, "train__pixel_opt": pixel(), "datasets__train__gt_usm": False},
    GRAPH,
    {**GRAPH, "train__precision": "bf16", "train__optim_g": {"type": "AdamW", "lr": 0.1}},
    {**GRAPH, "train__optim_g": SGD, "train__losses": {"e": {"type": "EdgeLoss", "method": "sobel"}}},
    {**GRAPH, "train__losses": {"e": {"type": "EdgeLoss"}}},
    {"train__losses": {"e": {"type": "EdgeLoss", "method": "canny"}}},
    EDGE,
    {**EDGE, "val__metrics": {"f": {"type": "EdgeF1"}}},
    {**EDGE, "train__feature_matching_opt": {"type": "FeatureMatchingLoss"}},
    {"datasets__val__on_error": "raise"},
    {"train__gan_opt": None, "network_d": None},
]  # fmt: skip


@pytest.mark.parametrize("changes", ACCEPTED)
def test_values_just_inside_a_limit_are_read(tmp_path, changes):
    assert problems(tmp_path, **changes) == []


def test_a_loss_may_not_end_before_it_begins(tmp_path):
    for stop in (3, 4):
        told = f"train.losses.a.stop_iter: found {stop}, expected more than start_iter 4"
        assert problems(tmp_path, train__losses={"a": pixel(start_iter=4, stop_iter=stop)}) == [told]
    assert problems(tmp_path, train__losses={"a": pixel(start_iter=4, stop_iter=5)}) == []


def test_a_key_that_says_nothing_is_as_one_that_is_not_there(tmp_path):
    text = TRAIN + "  gan_opt: ~\n  optim_d: ~\nnetwork_d: ~\n"
    assert load(tmp_path, text).network_d is None
    report = refusal(tmp_path, text.replace("SRModel", "SRGANModel"))
    for place in ("network_d", "train.gan_opt", "train.optim_d"):
        assert f"{place}: missing; model_type SRGANModel needs" in report


def test_an_edge_training_needs_no_loss_on_pictures_and_another_needs_one(tmp_path):
    assert problems(tmp_path, **EDGE) == []
    assert problems(tmp_path, train__pixel_opt=None) == ["train: no loss is given; add pixel_opt: {type: L1Loss}"]


@pytest.mark.parametrize("key", ["val", "val_2", "test", "test_1"])
def test_a_test_needs_one_dataset_of_its_own(tmp_path, key):
    assert load(tmp_path, changed("test_1", key, TEST), "test").datasets.keys() == {key}
    report = refusal(tmp_path, changed("test_1: {", "train: {batch_size_per_gpu: 1, ", TEST), "test")
    assert "datasets: a test needs at least one dataset; add datasets.test_1" in report


def test_names_of_evaluated_sets_may_not_meet_by_default_either(tmp_path):
    text = changed("name: set5\n", "name: val_2\n").replace(
        "network_g:\n", "  val_2: {type: PairedImageDataset, dataroot_gt: x}\nnetwork_g:\n"
    )
    assert "datasets.val_2.name: 'val_2' names datasets.val and datasets.val_2; their results" in refusal(
        tmp_path, text
    )
    assert set(load(tmp_path, text.replace("name: val_2", "name: other")).datasets) == {"train", "val", "val_2"}


def test_a_training_set_may_have_the_name_of_an_evaluated_one(tmp_path):
    assert load(tmp_path, changed("gt_size: 96", "gt_size: 96\n    name: set5")).warnings == ()


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ([], "found [], expected different scales"),
        ([2, 2], "found [2, 2], expected different scales"),
        ([3], "found [3] without the top-level scale 2, which the network is built for"),
    ],
)
def test_scales_of_a_training_are_different_and_hold_its_own(tmp_path, scales, told):
    vdsr = {"network_g": {"type": "VDSR", "num_feat": 4, "num_block": 1}, "datasets__train__gt_size": 12}
    paths = {"datasets__train__dataroot_lq": "lq/x{scale}"}
    assert f"datasets.train.scales: {told}" in problems(tmp_path, **vdsr, **paths, datasets__train__scales=scales)


def test_a_protocol_beside_no_metrics_is_one_of_the_two(tmp_path):
    assert load(tmp_path, TRAIN + "val: {protocol: natural-y-v1, metrics: {}}\n").val.protocol == "natural-y-v1"


@pytest.mark.parametrize("axes", ["[1, 2]", "[1, 1, 2]"])
def test_crops_are_measured_along_each_axis_of_the_scale(tmp_path, axes):
    text = changed("scale: 2\nd", f"scale: {axes}\nd").replace("  upscale: 2\n", "")
    assert "gt_size: 95 is not a multiple of scale 2; 94 and 96 are" in refusal(
        tmp_path, text.replace("gt_size: 96", "gt_size: 95")
    )
    assert "gt_size" not in refusal(tmp_path, text)


OTHERS = """
from srkit.registry import DATASETS, LOSSES
@DATASETS.register()
class Cards:
    def __init__(self, *, dataroot_gt: str, gt_size: str | int | list[str | int] | None = None, io_backend: str = "disk") -> None: ...
@DATASETS.register()
class Plain:
    def __init__(self, *, dataroot_gt: str) -> None: ...
@LOSSES.register()
class Summed:
    def __init__(self, reduction: str = "mean") -> None: ...
"""


@pytest.fixture
def others(tmp_path):
    """Where srkit's classes are, and beside them those of somebody else, which say less about their arguments."""
    (tmp_path / "others.py").write_text(OTHERS)
    return [*PACKAGE_ROOTS, Path(tmp_path / "others.py")]


@pytest.mark.parametrize("place", ["pixel_opt", "perceptual_opt"])
def test_a_loss_of_any_class_is_one_number(tmp_path, others, place):
    text = changed("  pixel_opt: {type: L1Loss}", f"  {place}: {{type: Summed, reduction: none}}")
    told = f"train.{place}.reduction: found 'none'; a loss must be one number: mean or sum"
    assert told in refusal(tmp_path, text, roots=others)
    load(tmp_path, text.replace("none}", "sum}"), roots=others)


def test_a_crop_that_is_no_number_is_the_classs_own_affair(tmp_path, others):
    cards = changed(
        "type: PairedImageDataset\n    dataroot_gt: data/gt\n    dataroot_lq: data/lq",
        "type: Cards\n    dataroot_gt: x",
    )
    assert load(tmp_path, cards.replace("96", "whole"), roots=others).datasets["train"].options["gt_size"] == "whole"
    report = refusal(tmp_path, cards.replace("96", "[whole, 97]"), roots=others)
    assert "gt_size: 97 is not a multiple of scale 2" in report
    load(tmp_path, cards.replace("96", "96\n    io_backend: {type: lmdb}"), roots=others)


def test_a_graph_needs_crops_of_one_size_only_of_a_dataset_that_has_crops(tmp_path, others):
    plain = changed(
        "type: PairedImageDataset\n    dataroot_gt: data/gt\n    dataroot_lq: data/lq\n    gt_size: 96",
        "type: Plain\n    dataroot_gt: x",
    )
    assert load(tmp_path, plain + "  cuda_graph: true\n", roots=others).train.cuda_graph is True


@pytest.mark.parametrize("more", ["  cuda_graph: true\n", "  losses: {u: {type: L1Loss, target: gt_usm}}\n"])
def test_what_hangs_on_the_training_set_waits_until_there_is_one(tmp_path, more):
    text = TRAIN[: TRAIN.index("  train:")] + TRAIN[TRAIN.index("  val:") :] + more
    assert refusal(tmp_path, text).splitlines()[1:] == ["  - line 4, datasets.train: missing; training needs a dataset"]


def test_several_scales_go_with_one_number_for_all_axes(tmp_path):
    text = changed("scale: 2\nd", "scale: [1, 2]\nd").replace("  upscale: 2\n", "").replace("data/lq", "lq/x{scale}")
    report = refusal(tmp_path, text.replace("gt_size: 96", "gt_size: 96\n    scales: [1, 2]"))
    assert "datasets.train.scales: found [1, 2] without the top-level scale 1" in report
