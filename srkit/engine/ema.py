"""Exponential moving average of a network: parameters and floating buffers (batch-norm statistics included)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Keeps `network`, the average, beside the network that learns.

    avg <- avg + (1 - decay) * (source - avg); the same as decay * avg + (1 - decay) * source up to rounding.

    Args:
        source: The network being trained, without any wrapper.
        decay: In [0, 1).
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.decay = decay
        self.source = source
        self.network = copy.deepcopy(source).eval().requires_grad_(False)
        # Listed once: to walk through a deep network's modules takes as long as to average. Buffers may be replaced.
        self._parameters: tuple[list[Tensor], list[Tensor]] = list(self.network.parameters()), list(source.parameters())

    @torch.no_grad()
    def update(self, found_inf: Tensor) -> None:
        """One step, or none when the 0-d tensor `found_inf` is 1; never reads a value back from the device."""
        ours, theirs = map(list, self._parameters)
        for mine, other in zip(self.network.buffers(), self.source.buffers(), strict=True):
            if mine.is_floating_point():
                ours.append(mine)
                theirs.append(other)
            else:
                mine.copy_(other)
        step = torch._foreach_sub(theirs, ours)
        torch._foreach_mul_(step, (1.0 - self.decay) * (1.0 - found_inf))
        torch._foreach_add_(ours, step)
