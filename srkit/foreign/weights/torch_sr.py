"""Files of enhanced-srgan (the package torch_sr): ESRGAN's PSNR and GAN phases, checkpoints, interpolated networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from srkit.errors import WeightsError
from srkit.foreign.weights.found import Content, Found, State, numbers, renamed

HOLDS = "enhanced-srgan's model_state_dict, or g_model_state_dict and d_model_state_dict, with hparams"

RESIDUAL_SCALING = 0.2  # of every residual branch in ESRGAN's generator, which has no option for it here
DENSE_BLOCKS, DENSE_CONVOLUTIONS = 3, 5  # of a residual block there, and of each dense block

_GENERATOR = (
    (r"in_conv\.(\w+)", r"conv_first.\1"),
    (r"rrdb_blocks\.out_conv\.(\w+)", r"conv_body.\1"),
    (r"upsampling_blocks\.out_conv\.0\.(\w+)", r"conv_hr.\1"),
    (r"upsampling_blocks\.out_conv\.2\.(\w+)", r"conv_last.\1"),
)
_DENSE = r"rrdb_blocks\.rrdb_(\d+)\.dense_blocks\.rdb_(\d+)\.blocks\.(\d+)\.conv\.(\w+)"
_UP = r"upsampling_blocks\.upsampling_(\d+)\.(?:block\.)?conv\.(\w+)"
_DISCRIMINATOR = (
    (r"features\.block_(\d+)\.(conv|bn)\.(\w+)", r"body.\1.\2.\3"),
    (r"head\.block_(\d+)\.linear\.(\w+)", r"fc.\1.\2"),
    (r"head\.linear_out\.(\w+)", r"fc_last.\1"),
)
_USED = {  # of hparams, by group; "" is the top level
    "": ("scale_factor", "img_channels"),
    "generator": ("rrdb_channels", "growth_channels", "num_basic_blocks", "use_subpixel_conv"),
}
_USED_BY_D = {"discriminator": ("vgg_blk_ch", "fc_features")}


def read(content: Content) -> list[Found]:
    """The generator, and the discriminator of a checkpoint of the GAN phase; nothing when the file is another's.

    Raises: WeightsError for a file without hparams, and for networks that RRDBNet cannot be.
    """
    generator = content.states.get("model_state_dict", content.states.get("g_model_state_dict"))
    if generator is None or not any(key.startswith("rrdb_blocks.") for key in generator):
        return []
    discriminator = content.states.get("d_model_state_dict")
    hparams = _hparams(content, with_d=discriminator is not None)
    channels, scale = hparams["img_channels"], hparams["scale_factor"]
    _require_fixed(content.path, generator, hparams["generator"])
    steps = len(numbers(generator, _UP))
    if 2**steps != scale:
        raise WeightsError(
            f"{content.path}: has {steps} upsampling steps of 2, which enlarge by {2**steps}, and its hparams say "
            f"scale_factor {scale}; such a network has no counterpart here"
        )
    networks = [
        Found(
            arch="RRDBNet",
            options={
                "num_in_ch": channels,
                "num_out_ch": channels,
                "num_feat": hparams["generator"]["rrdb_channels"],
                "num_grow_ch": hparams["generator"]["growth_channels"],
                "num_block": hparams["generator"]["num_basic_blocks"],
                "upsampler": "pixelshuffle" if hparams["generator"]["use_subpixel_conv"] else "nearest",
                **({"unshuffle_input": False} if scale < 4 else {}),  # without effect above
            },
            scale=scale,
            parts={"": _own_names(generator)},
            origin=_origin(content),
        )
    ]
    if discriminator is not None:
        networks.append(
            Found(
                arch="VGGAdaptiveDiscriminator",
                options={
                    "num_in_ch": channels,
                    "channels": list(hparams["discriminator"]["vgg_blk_ch"]),
                    "fc_features": list(hparams["discriminator"]["fc_features"]),
                },
                scale=scale,
                parts={"": renamed(discriminator, _DISCRIMINATOR)},
                origin=_origin(content),
            )
        )
    return networks


def _hparams(content: Content, with_d: bool) -> Mapping[str, Any]:
    """The hyper-parameters, with all that is read of them. Raises WeightsError naming what is missing."""
    held = content.values.get("hparams")
    if not isinstance(held, Mapping):
        raise WeightsError(f"{content.path}: has no hparams, which say the network's scale, blocks and channels")
    missing = []
    for group, keys in {**_USED, **(_USED_BY_D if with_d else {})}.items():
        section = held.get(group) if group else held
        section = section if isinstance(section, Mapping) else {}
        missing += [f"{group}.{key}".removeprefix(".") for key in keys if key not in section]
    if missing:
        raise WeightsError(f"{content.path}: its hparams lack {', '.join(missing)}")
    return held


def _require_fixed(path: Path, generator: State, section: Mapping[str, Any]) -> None:
    """WeightsError unless residual branches are scaled by 0.2 and dense blocks are as many and as long as ESRGAN's."""
    fixed = {
        "residual_scaling": RESIDUAL_SCALING,
        "num_dense_blocks": DENSE_BLOCKS,
        "num_residual_blocks": DENSE_CONVOLUTIONS,
    }
    wrong = [
        f"{key} {section[key]} in its hparams, expected {value}"
        for key, value in fixed.items()
        if section.get(key, value) != value
    ]
    for key, factor in generator.items():
        if key.endswith("residual_scaling") and not torch.equal(factor.float(), torch.full_like(factor, 0.2).float()):
            wrong.append(f"{key} {factor.flatten()[0].item():g}, expected {RESIDUAL_SCALING}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"{path}: is no network that RRDBNet can be: {'; '.join(wrong[:3])}{more}")


def _own_names(generator: State) -> dict[str, torch.Tensor]:
    named = {}
    for key, value in renamed(generator, _GENERATOR).items():
        if key.endswith("residual_scaling"):
            continue
        if dense := re.fullmatch(_DENSE, key):  # they count from 0, BasicSR's names from 1
            block, rdb, conv, what = dense.groups()
            key = f"body.{block}.rdb{int(rdb) + 1}.conv{int(conv) + 1}.{what}"
        elif up := re.fullmatch(_UP, key):
            key = f"conv_up{int(up[1]) + 1}.{up[2]}"
        named[key] = value
    return named


def _origin(content: Content) -> str:
    said = [str(content.values["stage"])] if "stage" in content.values else []
    said += [f"{key} {content.values[key]}" for key in ("epoch_i", "alpha") if content.values.get(key) is not None]
    return f"enhanced-srgan: {content.path.name}" + (f" ({', '.join(said)})" if said else "")
