"""Hyper-parameters of enhanced-srgan, a JSON file of seven groups, as the option files of its two phases."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from srkit.errors import OptionError, did_you_mean
from srkit.foreign.weights.torch_sr import DENSE_BLOCKS, DENSE_CONVOLUTIONS, RESIDUAL_SCALING

_GROUPS: Mapping[str, tuple[str, ...]] = {
    "": ("scale_factor", "batch_size", "img_channels"),
    "pretraining": (
        "num_epoch", "cr_patch_size", "lr", "sched_step", "sched_gamma", "train_datasets", "val_datasets",
    ),
    "training": (
        "num_epoch", "cr_patch_size", "g_lr", "d_lr", "g_sched_steps", "g_sched_gamma", "d_sched_steps", "d_sched_gamma",
        "g_adversarial_loss_scaling", "g_content_loss_scaling", "train_datasets", "val_datasets",
    ),
    "generator": (
        "rrdb_channels", "growth_channels", "num_basic_blocks", "num_dense_blocks", "num_residual_blocks",
        "residual_scaling", "use_subpixel_conv",
    ),
    "discriminator": ("vgg_blk_ch", "fc_features"),
    "content_loss": ("loss_f",),
    "perceptual_loss": ("layer_weights", "vgg_type", "criterion", "normalize_input", "normalize_loss"),
}  # fmt: skip
"""Every key by group; "" is the top level. All of them are needed."""

_CONTENT_LOSSES = {"l1": "L1Loss", "l2": "MSELoss"}


def read_hyperparameters(path: Path) -> dict[str, Any]:
    """The file's values. Raises OptionError naming every key that is missing, unknown, or has no counterpart here."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise OptionError(str(path), [f"no JSON: {error}"]) from None
    problems = _misfits(data) if isinstance(data, dict) else ["the top level is no object of groups such as generator"]
    if problems:
        raise OptionError(str(path), problems)
    checked: dict[str, Any] = data
    return checked


def _misfits(data: Mapping[str, Any]) -> list[str]:
    problems = []
    for group, keys in _GROUPS.items():
        section = data.get(group) if group else data
        if not isinstance(section, Mapping):
            problems.append(f"{group}: missing; it holds {', '.join(keys)}")
            continue
        known = (*keys, *(g for g in _GROUPS if g)) if not group else keys
        place = f"{group}." if group else ""
        problems += [f"{place}{key}: missing" for key in keys if key not in section]
        problems += [f"{place}{key}: unknown{did_you_mean(key, known)}" for key in section if key not in known]
    return problems or _without_counterpart(data)


def _without_counterpart(data: Mapping[str, Any]) -> list[str]:
    """What srkit's networks and schedules cannot be told."""
    generator, training = data["generator"], data["training"]
    fixed = {
        "generator.num_dense_blocks": (generator["num_dense_blocks"], DENSE_BLOCKS),
        "generator.num_residual_blocks": (generator["num_residual_blocks"], DENSE_CONVOLUTIONS),
        "generator.residual_scaling": (generator["residual_scaling"], RESIDUAL_SCALING),
        "img_channels": (data["img_channels"], 3),
    }
    problems = [f"{key}: found {value}, expected {only}" for key, (value, only) in fixed.items() if value != only]
    counts = {
        "scale_factor": data["scale_factor"],
        "batch_size": data["batch_size"],
        "pretraining.num_epoch": data["pretraining"]["num_epoch"],
        "pretraining.sched_step": data["pretraining"]["sched_step"],
        "training.num_epoch": training["num_epoch"],
    }
    for key, value in counts.items():
        if type(value) is not int or value < 1:
            problems.append(f"{key}: found {value!r}, expected a whole number above 0")
    for key in ("sched_steps", "sched_gamma"):
        if training[f"d_{key}"] != training[f"g_{key}"]:
            problems.append(f"training.d_{key}: found another than g_{key}; srkit has one schedule for both networks")
    if data["content_loss"]["loss_f"] not in _CONTENT_LOSSES:
        known = " or ".join(_CONTENT_LOSSES)
        problems.append(f"content_loss.loss_f: found {data['content_loss']['loss_f']!r}, expected {known}")
    for phase in ("pretraining", "training"):
        crop = data[phase]["cr_patch_size"]
        if not isinstance(crop, list) or len(crop) != 2 or crop[0] != crop[1]:
            problems.append(f"{phase}.cr_patch_size: found {crop}, expected two equal sides, for crops are turned too")
        if not (data[phase]["train_datasets"] and data[phase]["val_datasets"]):
            problems.append(f"{phase}: train_datasets and val_datasets must each name a set")
    return problems


def psnr_phase(
    data: Mapping[str, Any], name: str, epoch: int, train: Mapping[str, Any], val: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The option file of the first phase: content loss alone.

    Args:
        name: Of the experiment.
        epoch: Iterations of one epoch.
        train: Which pictures to train on, as options of PairedImageDataset.
        val: The same for each validation set.
    """
    phase = data["pretraining"]
    total = phase["num_epoch"] * epoch
    damage = {"lq_dropout_prob": 0.25, "lq_jpeg_prob": 0.25, "lq_jpeg_quality": [65, 100]}  # in this phase alone
    milestones = list(range(phase["sched_step"], total, phase["sched_step"]))
    return {
        "name": name,
        "model_type": "SRModel",
        "scale": data["scale_factor"],
        "datasets": _datasets(data, phase, {**train, **damage}, val),
        "network_g": _generator(data),
        "train": {
            "total_iter": total,
            "optim_g": {"type": "Adam", "lr": phase["lr"], "betas": [0.9, 0.999]},
            "scheduler": {"type": "MultiStepLR", "milestones": milestones, "gamma": phase["sched_gamma"]},
            "pixel_opt": {"type": _CONTENT_LOSSES[data["content_loss"]["loss_f"]]},
        },
        "val": _VAL,
    }


def gan_phase(
    data: Mapping[str, Any],
    name: str,
    epoch: int,
    train: Mapping[str, Any],
    val: Sequence[Mapping[str, Any]],
    start: str,
) -> dict[str, Any]:
    """The option file of the second phase: perceptual, content and relativistic loss.

    Args:
        start: Model file of the first phase. The others are those of `psnr_phase`.
    """
    phase, perceptual = data["training"], data["perceptual_loss"]
    adam = {"type": "Adam", "betas": [0.9, 0.99]}
    return {
        "name": name,
        "model_type": "ESRGANModel",
        "scale": data["scale_factor"],
        "datasets": _datasets(data, phase, train, val),
        "network_g": _generator(data),
        "network_d": {
            "type": "VGGAdaptiveDiscriminator",
            "num_in_ch": data["img_channels"],
            "channels": data["discriminator"]["vgg_blk_ch"],
            "fc_features": data["discriminator"]["fc_features"],
        },
        "path": {"pretrain_network_g": start},
        "train": {
            "total_iter": phase["num_epoch"] * epoch,
            "optim_g": {**adam, "lr": phase["g_lr"]},
            "optim_d": {**adam, "lr": phase["d_lr"]},
            "scheduler": {
                "type": "MultiStepLR",
                "milestones": phase["g_sched_steps"],
                "gamma": phase["g_sched_gamma"],
            },
            "pixel_opt": {
                "type": _CONTENT_LOSSES[data["content_loss"]["loss_f"]],
                "loss_weight": phase["g_content_loss_scaling"],
            },
            "perceptual_opt": {
                "type": "PerceptualLoss",
                "layer_weights": perceptual["layer_weights"],
                "vgg_type": perceptual["vgg_type"],
                "criterion": perceptual["criterion"],
                "use_input_norm": perceptual["normalize_input"],
                "normalize_loss": perceptual["normalize_loss"],
            },
            "gan_opt": {
                "type": "GANLoss",
                "gan_type": "vanilla",
                "relativistic": True,
                "loss_weight": phase["g_adversarial_loss_scaling"],
            },
        },
        "val": _VAL,
    }


# Luma with the scale as border, by which ESRGAN and its relatives are compared.
_VAL = {
    "metrics": {
        "psnr_y": {"type": "PSNR", "test_y_channel": True},
        "ssim_y": {"type": "SSIM", "test_y_channel": True},
    }
}


def _datasets(
    data: Mapping[str, Any], phase: Mapping[str, Any], train: Mapping[str, Any], val: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    learning = {
        "gt_size": phase["cr_patch_size"][0],
        "use_hflip": True,
        "use_rot": True,
        "batch_size_per_gpu": data["batch_size"],
        "num_worker_per_gpu": 4,
    }
    kind = {"type": "PairedImageDataset"}
    phases = ["val", *(f"val_{number}" for number in range(2, len(val) + 1))]
    evaluated = {key: {**kind, **item} for key, item in zip(phases, val, strict=True)}
    return {"train": {**kind, **train, **learning}, **evaluated}


def _generator(data: Mapping[str, Any]) -> dict[str, Any]:
    generator, channels, scale = data["generator"], data["img_channels"], data["scale_factor"]
    return {
        "type": "RRDBNet",
        "num_in_ch": channels,
        "num_out_ch": channels,
        "num_feat": generator["rrdb_channels"],
        "num_block": generator["num_basic_blocks"],
        "num_grow_ch": generator["growth_channels"],
        "upsampler": "pixelshuffle" if generator["use_subpixel_conv"] else "nearest",
        **({"unshuffle_input": False} if scale < 4 else {}),  # without effect above
    }
