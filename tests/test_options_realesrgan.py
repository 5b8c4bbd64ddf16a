"""Option files in Real-ESRGAN's layout: the degradation at the top level, sharpened targets by flag."""

from __future__ import annotations

import pytest
from test_options_samples import TRAIN, changed, load, refusal, write

from srkit.options import load_options

STAGE = """\
resize_prob{n}: [0.2, 0.7, 0.1]
resize_range{n}: [0.15, 1.5]
gaussian_noise_prob{n}: 0.5
noise_range{n}: [1, 30]
poisson_scale_range{n}: [0.05, 3]
gray_noise_prob{n}: 0.4
jpeg_range{n}: [30, 95]
"""
KERNELS = """\
    blur_kernel_size{n}: 21
    kernel_list{n}: ['iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso']
    kernel_prob{n}: [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
    sinc_prob{n}: 0.1
    blur_sigma{n}: [0.2, 3]
    betag_range{n}: [0.5, 4]
    betap_range{n}: [1, 2]
"""
TOP = STAGE.format(n="") + "second_blur_prob: 0.8\n" + STAGE.format(n="2") + "gt_size: 256\nqueue_size: 180\n"
DATASET = f"""\
datasets:
  train:
    name: many
    type: RealESRGANDataset
    dataroot_gt: data/gt
    meta_info: data/meta.txt
    io_backend: {{type: disk}}
{KERNELS.format(n="")}{KERNELS.format(n="2")}\
    final_sinc_prob: 0.8
    gt_size: 256
    use_hflip: true
    use_rot: false
    batch_size_per_gpu: 12
"""
REST = """\
network_g: {type: EDSR, num_feat: 16}
train:
  total_iter: 1000
  optim_g: {type: Adam, lr: !!float 1e-4}
  pixel_opt: {type: L1Loss}
"""
REALESRNET = f"name: net\nmodel_type: RealESRNetModel\nscale: 4\ngt_usm: true\n{TOP}{DATASET}{REST}"


def test_the_degradation_moves_to_the_training_set(tmp_path):
    options = load(tmp_path, REALESRNET)
    train = options.datasets["train"]
    assert options.model_type == "Supervised"
    assert train.type == "RealESRGANDataset"
    for key, value in {"resize_prob": (0.2, 0.7, 0.1), "jpeg_range2": (30, 95), "second_blur_prob": 0.8}.items():
        assert train.options[key] == value
    assert train.options["gt_size"] == 256
    assert train.options["meta_info"] == "data/meta.txt"


@pytest.mark.parametrize(("flag", "target"), [("true", "gt_usm"), ("false", "gt")])
def test_gt_usm_sharpens_both_what_lq_is_made_of_and_what_sr_is_compared_with(tmp_path, flag, target):
    options = load(tmp_path, changed("gt_usm: true", f"gt_usm: {flag}", REALESRNET))
    assert options.datasets["train"].options["gt_usm"] is (flag == "true")
    assert options.train.pixel_opt.target == target


def test_the_three_flags_of_the_gan_set_the_target_of_their_loss(tmp_path):
    text = changed("gt_usm: true", "l1_gt_usm: true\ngan_gt_usm: true\npercep_gt_usm: true", REALESRNET)
    text = changed("RealESRNetModel", "RealESRGANModel", text) + (
        "  optim_d: {type: Adam, lr: !!float 1e-4}\n"
        "  gan_opt: {type: GANLoss, gan_type: vanilla, loss_weight: 0.1}\n"
        "network_d: {type: EDSR}\n"
    )
    options = load(tmp_path, text)
    assert options.model_type == "Adversarial"
    assert options.train.pixel_opt.target == options.train.gan_opt.target == "gt_usm"
    assert options.train.perceptual_opt is None
    plain = load(tmp_path, text.replace("gan_gt_usm: true", "gan_gt_usm: false"))
    assert plain.train.gan_opt.target == "gt"


def test_the_pool_is_warned_about_with_its_line(tmp_path):
    line = REALESRNET.splitlines().index("queue_size: 180") + 1
    assert f"line {line}, datasets.train.queue_size: has no effect in srkit" in " ".join(
        load(tmp_path, REALESRNET).warnings
    )


def test_what_was_read_is_written_in_srkits_own_layout(tmp_path):
    options = load(tmp_path, REALESRNET)
    assert load_options(write(tmp_path, options.to_yaml(), "resolved.yml"), mode="train") == options


def test_a_wrong_value_is_reported_at_its_line(tmp_path):
    text = changed("jpeg_range2: [30, 95]", "jpeg_range2: 30", REALESRNET)
    line = text.splitlines().index("jpeg_range2: 30") + 1
    assert f"line {line}, datasets.train.jpeg_range2: found 30" in refusal(tmp_path, text)


def test_unknown_keys_are_refused_as_anywhere(tmp_path):
    assert "resize_rang: unknown option" in refusal(tmp_path, changed("\nresize_range:", "\nresize_rang:", REALESRNET))


def test_two_crops_that_differ_are_refused(tmp_path):
    text = changed("    gt_size: 256", "    gt_size: 128", REALESRNET)
    assert "gt_size: found 256, but datasets.train.gt_size is 128; they must agree" in refusal(tmp_path, text)


def test_the_keys_belong_to_real_esrgans_model_types_alone(tmp_path):
    text = changed("RealESRNetModel", "SRModel", REALESRNET)
    assert "resize_prob: unknown option" in refusal(tmp_path, text)


def test_they_need_a_training_set_to_belong_to(tmp_path):
    text = REALESRNET.replace(DATASET, "")
    assert "resize_prob: found without datasets.train, to which it belongs" in refusal(tmp_path, text)


def test_a_flag_must_be_true_or_false(tmp_path):
    text = changed("gt_usm: true", "gt_usm: 1", REALESRNET)
    assert "gt_usm: found 1, expected true or false" in refusal(tmp_path, text)


def test_the_command_line_may_set_them_too(tmp_path):
    options = load(tmp_path, REALESRNET, force=["jpeg_range=[60, 70]"])
    assert options.datasets["train"].options["jpeg_range"] == (60, 70)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (changed("{type: L1Loss}", "{type: L1Loss, target: gt_usm}"), "which PairedImageDataset does not make"),
        (
            changed("{type: L1Loss}", "{type: L1Loss, target: gt_usm}", REALESRNET).replace(
                "gt_usm: true", "gt_usm: false"
            ),
            "but datasets.train.gt_usm is false",
        ),
        (changed("{type: L1Loss}", "{type: L1Loss, target: lq}"), "found 'lq', expected 'gt' or 'gt_usm'"),
    ],
)
def test_a_target_that_no_batch_holds_is_refused(tmp_path, text, words):
    assert f"train.pixel_opt.target: {words}" in refusal(tmp_path, text).replace("found 'gt_usm', ", "")


def test_without_real_esrgan_a_loss_compares_with_gt(tmp_path):
    assert load(tmp_path, TRAIN).train.pixel_opt.target == "gt"
