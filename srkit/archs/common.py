"""What several networks share: plain convolutions, first weights, recomputed blocks, layers that autocast must not reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from srkit.errors import RefusedError


def conv3(in_ch: int, out_ch: int) -> nn.Conv2d:
    """3x3 convolution that keeps the size."""
    return nn.Conv2d(in_ch, out_ch, kernel_size=3, padding=1)


@torch.no_grad()
def kaiming_normal(layers: Iterable[nn.Conv2d], factor: float = 1.0) -> None:
    """First weights of He et al. 2015, arXiv:1502.01852 (normal, fan-in), times `factor`; biases 0."""
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight).mul_(factor)
        if layer.bias is not None:
            layer.bias.zero_()


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Context in which layers compute in the type they are given, on the device of `x`."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # there is no autocast to ask about on meta
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def in_weight_precision(layer: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """`layer(x)`, never in reduced precision: as a network's last layer in bf16 it would cost 0.02 dB at 38 dB."""
    with without_autocast(x):
        out: Tensor = layer(x.to(layer.weight.dtype))
        return out


def run_blocks(blocks: nn.Sequential, x: Tensor, recompute: bool) -> Tensor:
    """`blocks(x)`; with `recompute` each block's activations are made again in the backward pass instead of kept."""
    if not (recompute and torch.is_grad_enabled()):
        out: Tensor = blocks(x)
        return out
    for block in blocks:
        # The blocks draw no random numbers; saving the generators' states would cost a device sync each.
        x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False)
    return x


def one_scale(arch: str, scale: int | Sequence[int]) -> int:
    """The enlargement that both axes share. Raises RefusedError when they differ, or there are not two."""
    numbers = (scale, scale) if isinstance(scale, int) else tuple(scale)
    if len(numbers) != 2 or numbers[0] != numbers[1] or numbers[0] < 1:
        raise RefusedError(f"{arch}: scale is {scale}; it takes one whole number from 1, the same for height and width")
    return numbers[0]


def below_one(**sizes: int) -> list[str]:
    """A line for every count that is less than 1."""
    return [f"{name} is {size}; it must be at least 1" for name, size in sizes.items() if size < 1]


def refuse(arch: str, problems: Sequence[str]) -> None:
    """Raises RefusedError naming all problems, if there are any."""
    if problems:
        raise RefusedError(f"{arch}: " + "; ".join(problems))


def require_sides(arch: str, x: Tensor, least_px: int) -> None:
    """Raises RefusedError for a picture that a discriminator cannot judge."""
    height, width = x.shape[2:]
    if min(height, width) < least_px:
        raise RefusedError(
            f"{arch} was shown {width}x{height} pixels and needs at least {least_px} on each side; enlarge gt_size"
        )
