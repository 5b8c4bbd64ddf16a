"""Files of easysr, which enlarges one axis of rodent MRI: G_*.pth and D_*.pth of both its generations, bare state dicts."""

from __future__ import annotations

from srkit.foreign.weights.found import Content, Found, State, numbers, renamed

HOLDS = (
    "easysr's 3D generator (conv_block1.0, residual_block1, deup.deupblock.0) or discriminator (conv1.0 to conv5, fc)"
)

_IMG_RANGE = 255.0  # it min-max normalises every volume to 0 to 255
_SIZE = [128, 192, 128]  # of every volume its discriminators saw; they hold only the size of the last map, 7 x 11 x 7
_LAYERS = (("0", "conv1"), ("1", "bn1"), ("3", "conv2"), ("4", "bn2"))  # place in a block there, name here
# Features, blocks and enlargement of the published networks: the file does not say which generation's normalisation it saw.
_INTENSITIES: dict[tuple[int, ...], str] = {(16, 4, 1, 6, 1): "easysr_g1", (32, 2, 1, 3, 1): "easysr_g2"}
_GENERATOR = (
    (r"conv_block1\.0\.(\w+)", r"conv_first.\1"),
    (r"conv_block2\.0\.(\w+)", r"conv_body.\1"),
    (r"conv_block2\.1\.(\w+)", r"bn_body.\1"),
    (r"deup\.deupblock\.0\.(\w+)", r"upsample.0.\1"),
    (r"conv3\.(\w+)", r"conv_last.\1"),
)
_DISCRIMINATOR = (
    *((rf"conv{number}\.0\.(\w+)", rf"body.{number - 1}.conv.\1") for number in range(1, 5)),
    *((rf"conv{number}\.1\.(\w+)", rf"body.{number - 1}.bn.\1") for number in range(1, 5)),
    (r"conv5\.(\w+)", r"conv_last.\1"),
)


_GENERATOR_HAS = {
    "conv_block1.0.weight",
    "residual_block1.conv_block.0.weight",
    "deup.deupblock.0.weight",
    "conv3.weight",
}
_DISCRIMINATOR_HAS = {"conv1.0.weight", "conv4.1.running_mean", "conv5.weight", "fc.weight"}


def read(content: Content) -> list[Found]:
    """The one network of the file; nothing when it is another's."""
    origin = f"easysr: {content.path.name}; no licence stated"
    if content.main.keys() >= _GENERATOR_HAS:
        return [_generator(content.main, origin)]
    return [_discriminator(content.main, origin)] if content.main.keys() >= _DISCRIMINATOR_HAS else []


def _generator(state: State, origin: str) -> Found:
    opening, closing = state["conv_block1.0.weight"].shape, state["conv3.weight"].shape
    blocks = numbers(state, r"residual_block(\d+)\.")
    own = [
        (rf"residual_block{number}\.conv_block\.{place}\.(\w+)", rf"body.{index}.{layer}.\1")
        for index, number in enumerate(blocks)
        for place, layer in _LAYERS
    ]
    scale = tuple(state["deup.deupblock.0.weight"].shape[2:])
    return Found(
        arch="ResnetGenerator",
        options={
            "num_in_ch": opening[1],
            "num_out_ch": closing[0],
            "num_feat": opening[0],
            "num_block": len(blocks),
            "img_range": _IMG_RANGE,
        },
        scale=scale,
        intensity=_INTENSITIES.get((opening[0], len(blocks), *scale), ""),
        parts={"": renamed(state, (*_GENERATOR, *own))},
        origin=origin,
    )


def _discriminator(state: State, origin: str) -> Found:
    opening, last_ch = state["conv1.0.weight"].shape, state["conv5.weight"].shape[0]
    return Found(
        arch="PatchDiscriminator3D",
        options={"num_in_ch": opening[1], "num_feat": opening[0], "last_ch": last_ch},
        # Both generations' files are told apart by this count; the first enlarged by 6, the second by 3.
        assumed={"scale": (1, 6, 1) if last_ch == 1 else (1, 3, 1), "fixed_size": _SIZE},
        parts={"": renamed(state, _DISCRIMINATOR)},
        origin=origin,
    )
