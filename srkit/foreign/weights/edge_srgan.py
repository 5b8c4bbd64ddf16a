"""Files of Edge.SRGAN: the generator and its discriminator, `{epoch, state_dict, optim_dict}`."""

from __future__ import annotations

from srkit.foreign.weights.found import Content, Found, numbers, renamed

HOLDS = (
    "Edge.SRGAN's generator (residual_block1, residual_block_edges1, conv5) or discriminator (conv1, bn2 to bn8, conv9)"
)

_DISCRIMINATOR = (
    (r"conv1\.(\w+)", r"conv_first.\1"),
    (r"conv9\.(\w+)", r"conv_last.\1"),
    *((rf"conv{number}\.(\w+)", rf"body.{number - 2}.conv.\1") for number in range(2, 9)),
    *((rf"bn{number}\.(\w+)", rf"body.{number - 2}.bn.\1") for number in range(2, 9)),
)


def read(content: Content) -> list[Found]:
    """The one network of the file; nothing when it is another's."""
    state, origin = content.main, f"Edge.SRGAN: {content.path.name}"
    if {"residual_block1.conv1.weight", "conv1.weight", "conv5.weight"} <= state.keys():
        return [
            Found(
                arch="EdgeSRGAN",
                options={
                    "num_feat": state["conv1.weight"].shape[0],
                    "num_block": len(numbers(state, r"residual_block(\d+)\.")),
                },
                scale=2 ** len(numbers(state, r"upsample(\d+)\.")),
                parts={"generator": state},  # the part's own_name knows these keys
                origin=origin,
            )
        ]
    if {"conv1.weight", "bn8.weight", "conv9.weight"} <= state.keys():
        kernel = state["conv1.weight"]
        return [
            Found(
                arch="SwishDiscriminator",
                options={"num_in_ch": kernel.shape[1], "num_feat": kernel.shape[0]},
                assumed={"scale": 4},
                parts={"": renamed(state, _DISCRIMINATOR)},
                origin=origin,
            )
        ]
    return []
