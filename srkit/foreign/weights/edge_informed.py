"""Files of edge-informed-sisr, whose edge network Edge.SRGAN uses too: EdgeModel_gen, EdgeModel_dis, SRModel_gen, SRModel_dis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from srkit.errors import WeightsError
from srkit.foreign.weights.found import Content, Found, State, numbers, renamed
from srkit.foreign.weights.spectral import with_hooks

HOLDS = (
    "generator or discriminator of edge-informed-sisr (encoder.1, middle.0.conv_block.1, decoder.7; conv1.0 to conv5.0)"
)
NON_COMMERCIAL = "weights under CC BY-NC 4.0: not for commercial use"


def read(content: Content) -> list[Found]:
    """The one network of the file; nothing when it is another's. Either style of spectral normalisation is known."""
    state = with_hooks(content.main)
    if {"conv1.0.weight_orig", "conv5.0.weight_orig"} <= state.keys():
        kernel = state["conv1.0.weight_orig"]
        own = [(rf"conv{number}\.0\.(\w+)", rf"body.{number - 1}.\1") for number in range(1, 6)]
        # The first layer is saved twice, as conv1 and as features.
        single = {key: value for key, value in state.items() if not key.startswith("features.")}
        sizes = {"num_in_ch": kernel.shape[1], "num_feat": kernel.shape[0]}
        return [_found(content, "SNPatchDiscriminator", sizes, renamed(single, own))]
    blocks = len(numbers(state, r"middle\.(\d+)\.conv_block\."))
    if not blocks or "decoder.7.weight" not in state:
        return []
    sizes = {"num_feat": state["decoder.7.weight"].shape[1], "num_block": blocks}
    if "encoder.1.weight_orig" in state:
        return [_found(content, "EdgeGenerator", sizes, state, input_range="signed")]
    return [_found(content, "EdgeInformedSR", sizes, state)]


def _found(content: Content, arch: str, sizes: Mapping[str, int], state: State, **assumed: str) -> Found:
    iteration = content.values.get("iteration")
    return Found(
        arch=arch,
        options=sizes,
        assumed={"scale": 4, **assumed},
        parts={"": state},  # keys of encoder, middle and decoder are known to the arch's own_name
        iteration=iteration if isinstance(iteration, int) else 0,
        origin=f"edge-informed-sisr: {content.path.name}; {NON_COMMERCIAL}",
    )


_RANGES = {"EdgeSRGAN": "signed", "EdgeInformedSR": "unit"}  # in which each shows its edge network pictures


def with_edge(network: Found, edge: Found) -> Found:
    """The network with an edge network as its part `edge`.

    Raises: WeightsError when `edge` is something else, or was trained for another range or scale.
    """
    if network.arch not in _RANGES:
        raise WeightsError(f"{network.origin}: {network.arch} has no edge network inside")
    if edge.arch != "EdgeGenerator":
        raise WeightsError(f"{edge.origin}: is a network of type {edge.arch}, expected an EdgeGenerator")
    stated = edge.options.get("input_range", _RANGES[network.arch])
    if stated != _RANGES[network.arch]:
        wanted = f"{network.arch} shows it pictures of range {_RANGES[network.arch]}"
        raise WeightsError(f"{edge.origin}: its input_range is {stated}, and {wanted}")
    if edge.scale and network.scale and edge.scale != network.scale:
        raise WeightsError(f"{edge.origin}: is for scale {edge.scale}, expected {network.scale}")
    sizes = {f"edge_{name}": edge.options[name] for name in ("num_feat", "num_block")}
    return replace(
        network,
        scale=network.scale or edge.scale,
        options={**network.options, **(sizes if network.arch == "EdgeSRGAN" else {"edges": "predicted"})},
        parts={**network.parts, "edge": edge.parts[""]},
        origin=f"{network.origin}; its edge network from {edge.origin}",
    )
