"""Generators of the ESRGAN family under BasicSR's names and the two older sets of names of its authors."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from srkit.foreign.weights.found import Content, Found, State, numbers, renamed

HOLDS = "an RRDB network: conv_first and body.0.rdb1.conv1; RRDB_trunk.0.RDB1.conv1; or model.0 and model.1.sub.0.RDB1.conv1.0"

_OLD = (
    (r"RRDB_trunk\.(\d+)\.RDB(\d)\.(conv\d)\.(\w+)", r"body.\1.rdb\2.\3.\4"),
    (r"trunk_conv\.(\w+)", r"conv_body.\1"),
    (r"upconv(\d)\.(\w+)", r"conv_up\1.\2"),
    (r"HRconv\.(\w+)", r"conv_hr.\1"),
)
_OLDEST = (
    (r"model\.1\.sub\.(\d+)\.RDB(\d)\.(conv\d)\.0\.(\w+)", r"body.\1.rdb\2.\3.\4"),
    (r"model\.1\.sub\.\d+\.(\w+)", r"conv_body.\1"),
)


def read(content: Content) -> list[Found]:
    """The generator, with its averaged weights where both are there; nothing when the file is another's."""
    state = own_names(content.main)
    if not {"conv_first.weight", "body.0.rdb1.conv1.weight", "conv_last.weight"} <= state.keys():
        return []
    options, scale = _sizes(state)
    both = "params" in content.states and "params_ema" in content.states
    return [
        Found(
            arch="RRDBNet",
            options=options,
            scale=scale,
            parts={"": state},
            averaged=own_names(content.states["params_ema"]) if both else {},
            origin=f"ESRGAN family: {content.path.name}",
        )
    ]


def own_names(state: State) -> dict[str, Tensor]:
    """BasicSR's names, which are srkit's, for any of the three."""
    # In the oldest files the convolutions at the ends are known by their place alone.
    places = numbers(state, r"model\.(\d+)\.weight$")
    if len(places) < 3:
        return renamed(state, _OLD)
    layers = ["conv_first", *(f"conv_up{step}" for step in range(1, len(places) - 2)), "conv_hr", "conv_last"]
    ends = [(rf"model\.{place}\.(\w+)", rf"{layer}.\1") for place, layer in zip(places, layers, strict=True)]
    return renamed(state, (*_OLDEST, *ends))


def _sizes(state: State) -> tuple[dict[str, Any], int]:
    """Options of RRDBNet and the scale, from the shapes alone."""
    num_feat, seen = state["conv_first.weight"].shape[:2]
    num_out_ch = state["conv_last.weight"].shape[0]
    steps = numbers(state, r"conv_up(\d+)\.")
    scale, shuffled = 2 ** len(steps), 1
    if scale == 4 and seen in (4 * num_out_ch, 16 * num_out_ch):  # pixels were turned into channels first
        shuffled = 2 if seen == 4 * num_out_ch else 4
        scale //= shuffled
    shuffles = bool(steps) and state["conv_up1.weight"].shape[0] == 4 * num_feat
    options = {
        "num_in_ch": seen // shuffled**2,
        "num_out_ch": num_out_ch,
        "num_feat": num_feat,
        "num_block": len({key.split(".")[1] for key in state if re.match(r"body\.\d+\.", key)}),
        "num_grow_ch": state["body.0.rdb1.conv1.weight"].shape[0],
        "upsampler": "pixelshuffle" if shuffles else "nearest",
    }
    return options | ({"unshuffle_input": shuffled > 1} if scale < 4 else {}), scale
