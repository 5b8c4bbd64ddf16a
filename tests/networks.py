"""What the tests of networks share: pictures, counts, reach. No tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn


def picture(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def counts(build: Callable[[], nn.Module]) -> tuple[int, int]:
    """Parameters and state-dict entries, without making any weights."""
    with torch.device("meta"):
        net = build()
    return sum(p.numel() for p in net.parameters()), len(net.state_dict())


def untaught(net: nn.Module) -> list[str]:
    """Parameters whose gradient is missing, zero or not finite."""
    bad = []
    for name, p in net.named_parameters():
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any():
            bad.append(name)
    return bad


def reach(net: nn.Module, channels: int, scale: int, radius: int, phases: int = 1) -> int:
    """Distance in lq pixels of the farthest lq pixel on which the outputs of one lq pixel depend.

    `phases` neighbouring pixels are tried. All weights are made positive, so that no path cancels another.
    """
    net = net.double().eval()
    for p in net.parameters():
        nn.init.constant_(p, 1e-3)
    side = 2 * (radius + 3 * phases)
    side += -side % phases
    farthest = 0
    for middle in range(side // 2 // phases * phases, side // 2 // phases * phases + phases):
        lq = torch.full((1, channels, 2 * phases, side), 0.9, dtype=torch.float64, requires_grad=True)
        net(lq)[..., middle * scale : (middle + 1) * scale].sum().backward()
        columns = lq.grad.abs().sum(dim=(0, 1, 2)).nonzero().flatten()
        farthest = max(farthest, middle - columns.min().item(), columns.max().item() - middle)
    return farthest
