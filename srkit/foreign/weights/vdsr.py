"""VDSR as the community saved it: a chain `features`, or `input`, `residual_layer` and `output`."""

from __future__ import annotations

from srkit.foreign.weights.found import Content, Found, color_of, numbers, renamed

HOLDS = (
    "a VDSR: features.0.weight to features.38.weight, or input.weight, residual_layer.0.conv.weight and output.weight"
)

_NAMED = (
    (r"input\.(\w+)", r"conv_first.\1"),
    (r"residual_layer\.(\d+)\.conv\.(\w+)", r"body.\1.\2"),
    (r"output\.(\w+)", r"conv_last.\1"),
)
_CHAIN = r"features\.(\d+)\."


def read(content: Content) -> list[Found]:
    """The network; nothing when the file is another's, such as a VGG, whose chain changes its width."""
    state = content.main
    places = numbers(state, _CHAIN)
    if len(places) > 2:
        layers = ["conv_first", *(f"body.{number}" for number in range(len(places) - 2)), "conv_last"]
        rules = [(rf"features\.{place}\.(\w+)", rf"{layer}.\1") for place, layer in zip(places, layers, strict=True)]
        own = renamed(state, rules)
    else:
        own = renamed(state, _NAMED)
    ends = [own.get("conv_first.weight"), own.get("conv_last.weight")]
    if any(kernel is None or kernel.ndim != 4 for kernel in ends) or "body.0.weight" not in own:
        return []
    opening, closing = (kernel.shape for kernel in ends if kernel is not None)
    if (opening[0], opening[1]) != (closing[1], closing[0]):
        return []
    return [
        Found(
            arch="VDSR",
            options={
                "num_ch": opening[1],
                "num_feat": opening[0],
                "num_block": len(numbers(own, r"body\.(\d+)\.")),
                "bias": "conv_first.bias" in own,
            },
            assumed={"scale": 2, "enlarge_input": True},
            parts={"": own},
            color=color_of(opening[1]),
            origin=f"VDSR: {content.path.name}",
        )
    ]
