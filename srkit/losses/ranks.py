"""Sums over the processes of a group through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def is_one_of_many() -> bool:
    """Whether this process trains together with others."""
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of every rank's tensor, on every rank; of one process the tensor itself. All ranks must call it.

    The gradient that a rank gets is that of the sum of all ranks' losses. When gradients of parameters are then averaged
    over ranks, as in data-parallel training, the result is the gradient of the mean loss of all ranks.
    """
    return _Sum.apply(values) if is_one_of_many() else values


def mean_over_ranks(values: Tensor) -> Tensor:
    """As `sum_over_ranks`, divided by the number of ranks."""
    return sum_over_ranks(values) / torch.distributed.get_world_size() if is_one_of_many() else values


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _summed(gradient)


def _summed(values: Tensor) -> Tensor:
    total = values.detach().clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total
