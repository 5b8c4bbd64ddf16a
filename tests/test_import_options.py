"""`srkit import-options`: enhanced-srgan's hyper-parameters become option files that say the same."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from srkit.imaging.files import write_image
from srkit.options import Options, load_options
from srkit.tools.__main__ import main

# The table of defaults, with every value that allows it changed, so that none can come from elsewhere.
VALUES = {
    "scale_factor": 4, "batch_size": 20, "img_channels": 3,
    "pretraining": {
        "num_epoch": 1000, "cr_patch_size": [192, 192], "lr": 3e-4, "sched_step": 15000, "sched_gamma": 0.4,
        "train_datasets": ["div2k"], "val_datasets": ["bsds500"],
    },
    "training": {
        "num_epoch": 900, "cr_patch_size": [128, 128], "g_lr": 2e-4, "d_lr": 1e-5, "g_sched_steps": [5000, 10000],
        "g_sched_gamma": 0.6, "d_sched_steps": [5000, 10000], "d_sched_gamma": 0.6,
        "g_adversarial_loss_scaling": 0.004, "g_content_loss_scaling": 0.02,
        "train_datasets": ["div2k"], "val_datasets": ["div2k", "set5"],
    },
    "generator": {
        "rrdb_channels": 48, "growth_channels": 24, "num_basic_blocks": 7, "num_dense_blocks": 3,
        "num_residual_blocks": 5, "residual_scaling": 0.2, "use_subpixel_conv": True,
    },
    "discriminator": {"vgg_blk_ch": [32, 32, 64], "fc_features": [50, 20]},
    "content_loss": {"loss_f": "l2"},
    "perceptual_loss": {
        "layer_weights": {"conv5_4": 1.0, "conv3_4": 0.5}, "vgg_type": "vgg16", "criterion": "l2",
        "normalize_input": False, "normalize_loss": True,
    },
}  # fmt: skip


def changed(**changes) -> dict:
    """`changes` are paths with double underscores; None removes."""
    data = copy.deepcopy(VALUES)
    for path, value in changes.items():
        *groups, key = path.split("__")
        section = data
        for group in groups:
            section = section[group]
        if value is None:
            del section[key]
        else:
            section[key] = value
    return data


def converted(tmp: Path, data: dict, *flags: str) -> tuple[Options, Options]:
    (tmp / "run.json").write_text(json.dumps(data))
    assert main(["import-options", str(tmp / "run.json"), "-o", str(tmp / "out"), *flags]) == 0
    psnr, gan = (load_options(tmp / f"out/run_{phase}.yml", mode="train") for phase in ("psnr", "gan"))
    return psnr, gan


def refused(tmp: Path, capsys, data: dict, *flags: str) -> str:
    (tmp / "run.json").write_text(json.dumps(data))
    assert main(["import-options", str(tmp / "run.json"), "-o", str(tmp / "out"), *flags]) == 2
    assert not (tmp / "out").exists()
    return capsys.readouterr().err


def test_the_psnr_phase_says_what_its_groups_say(tmp_path):
    psnr, _ = converted(tmp_path, VALUES)
    train, data = psnr.train, psnr.datasets["train"]
    assert (psnr.model_type, psnr.scale) == ("Supervised", (4, 4))
    assert (train.optim_g.type, train.optim_g.lr, train.optim_g.betas) == ("Adam", 3e-4, (0.9, 0.999))
    assert train.total_iter == 1000 * (800 // 20)
    assert train.scheduler.milestones == (15000, 30000)
    assert train.scheduler.gamma == 0.4
    assert train.pixel_opt.type == "MSELoss"
    assert train.pixel_opt.loss_weight == 1
    assert list(train.image_losses()) == ["pix"]
    assert (data.batch_size_per_gpu, data.options["gt_size"]) == (20, 192)
    assert psnr.network_d is None


def test_lq_is_damaged_in_the_psnr_phase_alone(tmp_path):
    psnr, gan = (options.datasets["train"].options for options in converted(tmp_path, VALUES))
    assert (psnr["lq_dropout_prob"], psnr["lq_jpeg_prob"], psnr["lq_jpeg_quality"]) == (0.25, 0.25, (65, 100))
    assert not any(key.startswith("lq_") for key in gan)
    assert all(options["use_hflip"] and options["use_rot"] for options in (psnr, gan))


def test_the_gan_phase_says_what_its_groups_say(tmp_path):
    _, gan = converted(tmp_path, VALUES)
    train = gan.train
    assert gan.model_type == "Adversarial"
    assert train.total_iter == 900 * 40
    assert (train.optim_g.lr, train.optim_d.lr) == (2e-4, 1e-5)
    assert train.optim_g.betas == train.optim_d.betas == (0.9, 0.99)
    assert (train.scheduler.milestones, train.scheduler.gamma) == ((5000, 10000), 0.6)
    assert (train.pixel_opt.type, train.pixel_opt.loss_weight) == ("MSELoss", 0.02)
    assert (train.gan_opt.type, train.gan_opt.loss_weight) == ("GANLoss", 0.004)
    assert train.gan_opt.options == {"gan_type": "vanilla", "relativistic": True}
    assert train.perceptual_opt.loss_weight == 1
    assert train.perceptual_opt.options == {
        "layer_weights": {"conv5_4": 1.0, "conv3_4": 0.5},
        "vgg_type": "vgg16",
        "criterion": "l2",
        "use_input_norm": False,
        "normalize_loss": True,
    }
    assert gan.datasets["train"].options["gt_size"] == 128
    assert gan.path.pretrain_network_g == "experiments/run_psnr/models/net_g_latest.pth"


def test_networks_are_those_of_the_groups(tmp_path):
    psnr, gan = converted(tmp_path, VALUES)
    assert psnr.network_g == gan.network_g
    assert gan.network_g.type == "RRDBNet"
    assert gan.network_g.options == {
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": 48,
        "num_grow_ch": 24,
        "num_block": 7,
        "upsampler": "pixelshuffle",
    }
    assert gan.network_d.type == "VGGAdaptiveDiscriminator"
    assert gan.network_d.options == {"num_in_ch": 3, "channels": (32, 32, 64), "fc_features": (50, 20)}


def test_at_scale_2_the_input_is_not_unshuffled(tmp_path):
    psnr, _ = converted(tmp_path, changed(scale_factor=2))
    assert psnr.network_g.options["unshuffle_input"] is False


def test_sets_lie_below_the_data_root_with_the_lq_they_have(tmp_path):
    psnr, gan = converted(tmp_path, VALUES, "--data-root", "/data")
    assert (
        psnr.datasets["train"].options.items()
        >= {
            "dataroot_gt": "/data/DIV2K/DIV2K_train_HR",
            "dataroot_lq": "/data/DIV2K/DIV2K_train_LR_bicubic/X4",
            "filename_tmpl": "{}x4",
        }.items()
    )
    assert psnr.datasets["val"].options == {"dataroot_gt": "/data/BSR/BSDS500/data/images/val"}
    assert [item.name for item in gan.datasets.values()] == ["div2k_train", "div2k_val", "set5_val"]
    assert gan.datasets["val"].options["dataroot_lq"] == "/data/DIV2K/DIV2K_valid_LR_bicubic/X4"
    assert gan.datasets["val_2"].options == {
        "dataroot_gt": "/data/Set5/GTmod12",
        "dataroot_lq": "/data/Set5/LRbicx4",
    }


def test_the_folder_of_a_set_or_of_one_half_can_be_given(tmp_path):
    psnr, gan = converted(tmp_path, VALUES, "--set", "div2k=/big", "bsds500.val=/other/pictures")
    assert psnr.datasets["train"].options["dataroot_gt"] == "/big/DIV2K_train_HR"
    assert psnr.datasets["val"].options == {"dataroot_gt": "/other/pictures"}
    assert gan.datasets["val"].options["dataroot_gt"] == "/big/DIV2K_valid_HR"


def test_validation_on_bsds500_warns_of_bsd100(tmp_path, capsys):
    converted(tmp_path, VALUES)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "BSD100" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: {tmp_path / 'out/run_psnr.yml'}: bsds500's val pictures")


def test_several_training_sets_become_one_list_and_their_epochs_are_counted_together(tmp_path):
    for folder, name in (("DIV2K/DIV2K_train_HR", "0001.png"), ("BSR/BSDS500/data/images/train", "100075.png")):
        write_image(tmp_path / folder / name, np.zeros((4, 4, 3), np.uint8))
    both = changed(pretraining__train_datasets=["bsds500", "div2k"])
    psnr, gan = converted(tmp_path, both, "--data-root", str(tmp_path))
    section = psnr.datasets["train"]
    assert section.options["dataroot_gt"] == str(tmp_path)
    assert "dataroot_lq" not in section.options
    names = Path(section.options["meta_info_file"]).read_text().splitlines()
    assert names == ["BSR/BSDS500/data/images/train/100075.png", "DIV2K/DIV2K_train_HR/0001.png"]
    assert psnr.train.total_iter == 1000 * ((200 + 800) // 20)
    assert gan.train.total_iter == 900 * (800 // 20)


def test_a_mixture_without_its_pictures_is_refused(tmp_path, capsys):
    both = changed(pretraining__train_datasets=["bsds500", "div2k"])
    assert "no pictures, and a mixture of sets needs their names" in refused(
        tmp_path, capsys, both, "--data-root", str(tmp_path)
    )


def test_check_finds_nothing_wrong_with_the_psnr_file(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for number in range(4):
        picture = draw.integers(0, 256, (64, 64, 3)).astype(np.uint8)
        write_image(tmp_path / f"DIV2K/DIV2K_train_HR/{number:04}.png", picture)
        write_image(tmp_path / f"DIV2K/DIV2K_train_LR_bicubic/X4/{number:04}x4.png", picture[::4, ::4].copy())
        write_image(tmp_path / f"BSR/BSDS500/data/images/val/{number}.png", picture)
    small = changed(batch_size=4, pretraining__cr_patch_size=[32, 32], generator__num_basic_blocks=1)
    converted(tmp_path, small, "--data-root", str(tmp_path))
    assert main(["check", str(tmp_path / "out/run_psnr.yml")]) == 0
    assert "no problem found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"generator__num_basic_block": 3, "training__g_lr": None},
            ["generator.num_basic_block: unknown; did you mean 'num_basic_blocks'?", "training.g_lr: missing"],
        ),
        ({"discriminator": None}, ["discriminator: missing; it holds vgg_blk_ch, fc_features"]),
        ({"generator__residual_scaling": 0.1}, ["generator.residual_scaling: found 0.1, expected 0.2"]),
        ({"training__d_sched_steps": [1]}, ["training.d_sched_steps: found another than g_sched_steps"]),
        ({"content_loss__loss_f": "l3"}, ["content_loss.loss_f: found 'l3', expected l1 or l2"]),
        ({"training__val_datasets": ["div2j"]}, ["training.val_datasets: found 'div2j'; did you mean 'div2k'?"]),
        ({"training__train_datasets": ["set5"]}, ["training.train_datasets: found 'set5'"]),
        ({"pretraining__val_datasets": []}, ["pretraining: train_datasets and val_datasets must each name a set"]),
        ({"training__cr_patch_size": [128, 64]}, ["training.cr_patch_size: found [128, 64], expected two equal sides"]),
        ({"training__num_epoch": "8"}, ["training.num_epoch: found '8', expected a whole number above 0"]),
        ({"batch_size": 801}, ["batch_size 801 is more than the 800 pictures"]),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(tmp_path, capsys, changes, messages):
    report = refused(tmp_path, capsys, changed(**changes))
    assert all(message in report for message in messages)


@pytest.mark.parametrize("word", ["div2j=/x", "div2k", "set5.train=/x"])
def test_a_folder_for_no_set_is_refused(tmp_path, capsys, word):
    assert f"--set: found '{word.partition('=')[0]}'" in refused(tmp_path, capsys, VALUES, "--set", word)


@pytest.mark.parametrize(("text", "message"), [("{", "no JSON"), ("[]", "the top level is no object")])
def test_another_file_is_refused(tmp_path, capsys, text, message):
    (tmp_path / "run.json").write_text(text)
    assert main(["import-options", str(tmp_path / "run.json"), "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_overwritten(tmp_path, capsys):
    converted(tmp_path, VALUES)
    before = (tmp_path / "out/run_gan.yml").read_text()
    assert main(["import-options", str(tmp_path / "run.json"), "-o", str(tmp_path / "out")]) == 2
    assert "exists; remove it" in capsys.readouterr().err
    assert (tmp_path / "out/run_gan.yml").read_text() == before


def test_the_published_defaults_give_500_000_and_400_000_iterations(tmp_path, acceptance, capsys):
    file = acceptance / "esrgan_defaults.json"
    if not file.is_file():
        pytest.skip(f"no hyper-parameters in {acceptance}")
    assert main(["import-options", str(file), "-o", str(tmp_path)]) == 0
    psnr, gan = (load_options(tmp_path / f"esrgan_defaults_{phase}.yml", mode="train") for phase in ("psnr", "gan"))
    assert (psnr.train.total_iter, gan.train.total_iter) == (500_000, 400_000)
    assert psnr.train.scheduler.milestones == (200_000, 400_000)
    assert (psnr.train.optim_g.lr, gan.train.optim_d.lr) == (2e-4, 1e-4)
    assert (gan.network_g.options["num_block"], gan.train.gan_opt.loss_weight) == (16, 0.005)
    assert capsys.readouterr().out.count("BSD100") == 2
