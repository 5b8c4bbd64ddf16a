"""Networks of other projects, from their descriptions and with the names in their files, small. No tests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.imaging.edges import canny

Spectral = Callable[[nn.Module], nn.Module]


def conv3(before: int, after: int, **options) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1, **options)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def densely(x: Tensor, convs: Sequence[nn.Module], scaling: Tensor | float) -> Tensor:
    """A dense block: every convolution sees all before it; the last has no activation."""
    seen = [x]
    for conv in convs[:-1]:
        seen.append(leaky(conv(torch.cat(seen, 1))))
    return convs[-1](torch.cat(seen, 1)) * scaling + x


def dense_convs(feat: int, grow: int, wrap: Callable[[nn.Conv2d], nn.Module]) -> list[nn.Module]:
    return [wrap(conv3(feat + number * grow, grow if number < 4 else feat)) for number in range(5)]


def named(**modules: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(modules)


# enhanced-srgan


def _fixed(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value), requires_grad=False)


class TorchSRDense(nn.Module):
    def __init__(self, feat: int, grow: int, scaling: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(dense_convs(feat, grow, lambda conv: named(conv=conv)))
        self.residual_scaling = _fixed(scaling)

    def forward(self, x: Tensor) -> Tensor:
        return densely(x, [block["conv"] for block in self.blocks], self.residual_scaling)


class TorchSRBlock(nn.Module):
    def __init__(self, feat: int, grow: int, scaling: float) -> None:
        super().__init__()
        self.dense_blocks = nn.Sequential(
            OrderedDict((f"rdb_{number}", TorchSRDense(feat, grow, scaling)) for number in range(3))
        )
        self.residual_scaling = _fixed(scaling)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_blocks(x) * self.residual_scaling + x


class TorchSR(nn.Module):
    """Its generator; `old` names upsampling layers as older files do."""

    def __init__(
        self, *, feat=6, grow=4, blocks=2, steps=2, subpixel=False, old=False, scaling=0.2, channels=3
    ) -> None:
        super().__init__()
        self.steps, self.subpixel, self.old = steps, subpixel, old
        self.in_conv = conv3(channels, feat)
        self.rrdb_blocks = named(
            **{f"rrdb_{number}": TorchSRBlock(feat, grow, scaling) for number in range(blocks)},
            out_conv=conv3(feat, feat),
        )
        self.upsampling_blocks = named(
            out_conv=nn.Sequential(conv3(feat, feat), nn.LeakyReLU(0.2), conv3(feat, channels))
        )
        for step in range(steps):
            layer = named(conv=conv3(feat, 4 * feat if subpixel else feat))
            self.upsampling_blocks[f"upsampling_{step}"] = layer if old else named(block=layer)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.in_conv(x)
        for name, block in self.rrdb_blocks.items():
            x = block(x) if name != "out_conv" else x
        x = self.rrdb_blocks["out_conv"](x) + first
        for step in range(self.steps):
            layer = self.upsampling_blocks[f"upsampling_{step}"]
            conv = (layer if self.old else layer["block"])["conv"]
            x = leaky(F.pixel_shuffle(conv(x), 2) if self.subpixel else conv(F.interpolate(x, scale_factor=2)))
        return self.upsampling_blocks["out_conv"](x)


class TorchSRDiscriminator(nn.Module):
    def __init__(self, channels: Sequence[int], fc: Sequence[int]) -> None:
        super().__init__()
        self.features, self.head = nn.ModuleDict(), nn.ModuleDict()
        before = 3
        for number, after in enumerate(channels):
            conv = conv3(before, after, bias=number == 0, stride=2 if after == before else 1)
            norm = {} if number == 0 else {"bn": nn.BatchNorm2d(after)}
            self.features[f"block_{number}"] = named(conv=conv, **norm)
            before = after
        before *= 49
        for number, width in enumerate(fc):
            self.head[f"block_{number}"] = named(linear=nn.Linear(before, width))
            before = width
        self.head["linear_out"] = nn.Linear(before, 1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.features.values():
            x = block["conv"](x)
            x = leaky(block["bn"](x) if "bn" in block else x)
        x = F.adaptive_avg_pool2d(x, 7).flatten(1)
        for name, block in self.head.items():
            x = block(x) if name == "linear_out" else leaky(block["linear"](x))
        return x


# The ESRGAN family


class FamilyNetwork(nn.Module):
    """Nearest upsampling; names as BasicSR's, or the authors' second set (`old`). `shuffled`: pixels to channels first."""

    def __init__(self, *, old=False, feat=6, grow=4, blocks=2, steps=2, shuffled=1) -> None:
        super().__init__()
        self.words = ["conv_first", "conv_body", "conv_up{}", "conv_hr", "conv_last"]
        if old:
            self.words = ["conv_first", "trunk_conv", "upconv{}", "HRconv", "conv_last"]
        self.trunk, self.rdb, self.shuffled = ("RRDB_trunk", "RDB", 1) if old else ("body", "rdb", shuffled)
        first, body, up, hr, last = self.words
        self.add_module(first, conv3(3 * self.shuffled**2, feat))
        block = lambda: named(**{  # noqa: E731
            f"{self.rdb}{r}": named(**{f"conv{k + 1}": c for k, c in enumerate(dense_convs(feat, grow, lambda c: c))})
            for r in (1, 2, 3)
        })  # fmt: skip
        self.add_module(self.trunk, nn.ModuleList(block() for _ in range(blocks)))
        self.ups = [up.format(step) for step in range(1, steps + 1)]
        for name in (body, *self.ups, hr):
            self.add_module(name, conv3(feat, feat))
        self.add_module(last, conv3(feat, 3))

    def forward(self, x: Tensor) -> Tensor:
        at = self.get_submodule
        x = start = at(self.words[0])(F.pixel_unshuffle(x, self.shuffled))
        for block in at(self.trunk):
            inner = x
            for dense in block.values():
                inner = densely(inner, list(dense.values()), 0.2)
            x = inner * 0.2 + x
        x = start + at(self.words[1])(x)
        for name in self.ups:
            x = leaky(at(name)(F.interpolate(x, scale_factor=2)))
        return at(self.words[4])(leaky(at(self.words[3])(x)))


class OldestDense(nn.Module):
    def __init__(self, feat: int, grow: int) -> None:
        super().__init__()
        for number, conv in enumerate(dense_convs(feat, grow, nn.Sequential)):
            self.add_module(f"conv{number + 1}", conv)

    def forward(self, x: Tensor) -> Tensor:
        return densely(x, list(self.children()), 0.2)


class OldestBlock(nn.Module):
    def __init__(self, feat: int, grow: int) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (OldestDense(feat, grow) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.RDB3(self.RDB2(self.RDB1(x))) * 0.2 + x


class AndItself(nn.Module):
    def __init__(self, sub: nn.Module) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sub(x)


class OldestESRGAN(nn.Module):
    """A chain `model` whose places are the names."""

    def __init__(self, *, feat=6, grow=4, blocks=2, steps=2, subpixel=False) -> None:
        super().__init__()
        trunk = [OldestBlock(feat, grow) for _ in range(blocks)]
        layers: list[nn.Module] = [conv3(3, feat), AndItself(nn.Sequential(*trunk, conv3(feat, feat)))]
        for _ in range(steps):
            enlarging = (
                [conv3(feat, 4 * feat), nn.PixelShuffle(2)]
                if subpixel
                else [nn.Upsample(scale_factor=2), conv3(feat, feat)]
            )
            layers += [*enlarging, nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*layers, conv3(feat, feat), nn.LeakyReLU(0.2), conv3(feat, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


# Edge.SRGAN


def residual(ch: int) -> nn.ModuleDict:
    return named(
        conv1=conv3(ch, ch), bn1=nn.BatchNorm2d(ch), prelu=nn.PReLU(), conv2=conv3(ch, ch), bn2=nn.BatchNorm2d(ch)
    )


def through(block: nn.ModuleDict, x: Tensor) -> Tensor:
    return x + block["bn2"](block["conv2"](block["prelu"](block["bn1"](block["conv1"](x)))))


class EdgeSRGANGenerator(nn.Module):
    """Takes a picture and the map of its edges at the large size, both -1 to 1."""

    def __init__(self, feat=6, blocks=5, steps=2) -> None:
        super().__init__()
        self.blocks, self.steps, wide = blocks, steps, 2 * feat
        self.conv1, self.prelu = nn.Conv2d(3, feat, 9, padding=4), nn.PReLU()
        for number in range(1, blocks + 1):
            self.add_module(f"residual_block{number}", residual(feat))
        self.conv2, self.bn2 = conv3(feat, feat), nn.BatchNorm2d(feat)
        for number in range(1, steps + 1):
            self.add_module(f"upsample{number}", named(conv=conv3(feat, 4 * feat), prelu=nn.PReLU()))
        self.conv3 = conv3(feat + 1, wide)
        for number in range(1, blocks // 4 + 1):
            self.add_module(f"residual_block_edges{number}", residual(wide))
        self.conv4, self.bn4 = conv3(wide, wide), nn.BatchNorm2d(wide)
        self.conv5 = nn.Conv2d(wide, 3, 9, padding=4)

    def forward(self, lq: Tensor, edges: Tensor) -> Tensor:
        x = start = self.prelu(self.conv1(lq))
        for number in range(1, self.blocks + 1):
            x = through(self.get_submodule(f"residual_block{number}"), x)
        x = self.bn2(self.conv2(x)) + start
        for number in range(1, self.steps + 1):
            up = self.get_submodule(f"upsample{number}")
            x = up["prelu"](F.pixel_shuffle(up["conv"](x), 2))
        x = merged = self.prelu(self.conv3(torch.cat([x, edges], 1)))
        for number in range(1, self.blocks // 4 + 1):
            x = through(self.get_submodule(f"residual_block_edges{number}"), x)
        return torch.tanh(self.conv5(self.bn4(self.conv4(x)) + merged))


class EdgeSRGANDiscriminator(nn.Module):
    """Gives the logit; the original a sigmoid of it."""

    def __init__(self, feat=3) -> None:
        super().__init__()
        self.conv1 = conv3(3, feat)
        widths = [feat, feat, 2 * feat, 2 * feat, 4 * feat, 4 * feat, 8 * feat, 8 * feat]
        for number in range(2, 9):
            before, after = widths[number - 2 : number]
            self.add_module(f"conv{number}", conv3(before, after, stride=2 - number % 2))
            self.add_module(f"bn{number}", nn.BatchNorm2d(after))
        self.conv9 = nn.Conv2d(8 * feat, 1, 1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv1(x))
        for number in range(2, 9):
            x = F.silu(self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(x)))
        return self.conv9(x).mean((2, 3))


# edge-informed-sisr


class Dilated(nn.Module):
    def __init__(self, ch: int, spectral: Spectral, bias: bool) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(2), spectral(nn.Conv2d(ch, ch, 3, dilation=2, bias=bias)), nn.InstanceNorm2d(ch), nn.ReLU(),
            nn.ReflectionPad2d(1), spectral(nn.Conv2d(ch, ch, 3, bias=bias)), nn.InstanceNorm2d(ch),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class EdgeInformedLayers(nn.Module):
    def __init__(self, out_ch: int, spectral: Spectral | None, feat=4, blocks=3) -> None:
        super().__init__()
        own, norm, n = spectral or nn.Identity(), nn.InstanceNorm2d, feat
        self.encoder = nn.Sequential(
            nn.ReflectionPad2d(3), own(nn.Conv2d(4, n, 7)), norm(n), nn.ReLU(),
            own(nn.Conv2d(n, 2 * n, 4, 2, 1)), norm(2 * n), nn.ReLU(),
            own(nn.Conv2d(2 * n, 4 * n, 4, 2, 1)), norm(4 * n), nn.ReLU(),
        )  # fmt: skip
        self.middle = nn.Sequential(*(Dilated(4 * n, own, bias=spectral is None) for _ in range(blocks)))
        self.decoder = nn.Sequential(
            own(nn.ConvTranspose2d(4 * n, 2 * n, 4, 2, 1)), norm(2 * n), nn.ReLU(),
            own(nn.ConvTranspose2d(2 * n, n, 4, 2, 1)), norm(n), nn.ReLU(),
            nn.ReflectionPad2d(3), nn.Conv2d(n, out_ch, 7),
        )  # fmt: skip

    def deep(self, x: Tensor) -> Tensor:
        return self.decoder(self.middle(self.encoder(x)))


class EdgeNetwork(EdgeInformedLayers):
    """lq, 0 to 1 -> the x4 map; `signed` shows the layers pictures from -1 to 1, as Edge.SRGAN does."""

    def __init__(self, spectral: Spectral, signed=True, feat=4, blocks=3) -> None:
        super().__init__(1, spectral, feat, blocks)
        self.signed = signed

    def forward(self, lq: Tensor) -> Tensor:
        seen = torch.cat([lq * 2 - 1 if self.signed else lq, canny(lq)], 1)
        return torch.sigmoid(self.deep(F.interpolate(seen, scale_factor=4)))


class EdgeInformedGenerator(EdgeInformedLayers):
    """lq and the x4 map of its edges, both 0 to 1 -> sr."""

    def __init__(self, feat=4, blocks=3) -> None:
        super().__init__(3, None, feat, blocks)

    def forward(self, lq: Tensor, edges: Tensor) -> Tensor:
        spread = torch.zeros(lq.shape[0], 3, 4 * lq.shape[2], 4 * lq.shape[3])
        spread[..., ::4, ::4] = lq
        return (torch.tanh(self.deep(torch.cat([spread, edges], 1))) + 1) / 2


class PatchDiscriminator(nn.Module):
    def __init__(self, spectral: Spectral, in_ch=4, feat=3) -> None:
        super().__init__()
        widths = [in_ch, feat, 2 * feat, 4 * feat, 8 * feat, 1]
        for number in range(1, 6):
            conv = nn.Conv2d(widths[number - 1], widths[number], 4, 2 if number < 4 else 1, 1, bias=False)
            self.add_module(f"conv{number}", nn.Sequential(spectral(conv), nn.LeakyReLU(0.2)))
        self.features = self.conv1  # the same layer under two names

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, 5):
            x = self.get_submodule(f"conv{number}")(x)
        return self.conv5[0](x)


# easysr


class EasySRBlock(nn.Module):
    def __init__(self, ch: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv3d(ch, ch, 3, padding=1), nn.BatchNorm3d(ch), nn.LeakyReLU(0.2),
            nn.Conv3d(ch, ch, 3, padding=1), nn.BatchNorm3d(ch),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x) + x


class EasySRGenerator(nn.Module):
    """Volumes from 0 to 255, in and out."""

    def __init__(self, feat=4, blocks=2, kernel=(1, 3, 1)) -> None:
        super().__init__()
        self.blocks = blocks
        self.conv_block1 = nn.Sequential(nn.Conv3d(1, feat, 3, padding=1), nn.LeakyReLU(0.2))
        for number in range(1, blocks + 1):
            self.add_module(f"residual_block{number}", EasySRBlock(feat))
        self.conv_block2 = nn.Sequential(nn.Conv3d(feat, feat, 3, padding=1), nn.BatchNorm3d(feat))
        up = nn.ConvTranspose3d(feat, feat, kernel, stride=kernel)
        self.deup = named(deupblock=nn.Sequential(up, nn.LeakyReLU(0.2)))
        self.conv3 = nn.Conv3d(feat, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = first = self.conv_block1(x)
        for number in range(1, self.blocks + 1):
            x = self.get_submodule(f"residual_block{number}")(x)
        return self.conv3(self.deup["deupblock"](self.conv_block2(x) + first))


class EasySRDiscriminator(nn.Module):
    """Gives the logit; the original a sigmoid of it."""

    def __init__(self, feat=3, last=24, places=7 * 11 * 7) -> None:
        super().__init__()
        widths = [1, feat, 2 * feat, 4 * feat, 8 * feat]
        for number in range(1, 5):
            conv = nn.Conv3d(widths[number - 1], widths[number], 4, 2, 1)
            self.add_module(f"conv{number}", nn.Sequential(conv, nn.BatchNorm3d(widths[number]), nn.LeakyReLU(0.2)))
        self.conv5, self.fc = nn.Conv3d(widths[4], last, 4, 1, 1), nn.Linear(last * places, 1)

    def forward(self, x: Tensor) -> Tensor:
        for number in range(1, 6):
            x = self.get_submodule(f"conv{number}")(x)
        return self.fc(x.flatten(1))


# The face network, and VDSR


class SuperResolution(nn.Module):
    """Luma, -1 to 1, in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        widths = [1, 8, 16, 8, 1]
        for number in range(1, 5):
            self.add_module(f"conv{number}", nn.Conv2d(widths[number - 1], widths[number], 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        for number in range(1, 5):
            x = torch.tanh(self.get_submodule(f"conv{number}")(x))
        return x


class ChainVDSR(nn.Module):
    """Takes the enlarged picture, as both VDSRs here."""

    def __init__(self, ch=1, feat=4, blocks=3) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3(ch, feat, bias=False), nn.ReLU()]
        for _ in range(blocks):
            layers += [conv3(feat, feat, bias=False), nn.ReLU()]
        self.features = nn.Sequential(*layers, conv3(feat, ch, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.features(x)


class NamedVDSR(nn.Module):
    def __init__(self, ch=1, feat=4, blocks=3) -> None:
        super().__init__()
        self.input, self.output = conv3(ch, feat, bias=False), conv3(feat, ch, bias=False)
        self.residual_layer = nn.Sequential(*(named(conv=conv3(feat, feat, bias=False)) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.input(x))
        for layer in self.residual_layer:
            inner = F.relu(layer["conv"](inner))
        return x + self.output(inner)
