"""What every image loss checks and how it becomes one number."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from srkit.errors import RefusedError

Reduction = Literal["mean", "sum"]


def require_same_shape(sr: Tensor, gt: Tensor) -> None:
    """Raises ValueError when the shapes differ; broadcasting would hide a wrong crop."""
    if sr.shape != gt.shape:
        raise ValueError(f"sr has shape {tuple(sr.shape)} but gt {tuple(gt.shape)}; a loss compares equal shapes only")


def require_known_reduction(loss: str, reduction: str) -> None:
    """Raises RefusedError for anything but 'mean' and 'sum': an unreduced loss cannot be minimised."""
    if reduction not in get_args(Reduction):
        raise RefusedError(f"{loss}: reduction is '{reduction}'; known: {', '.join(get_args(Reduction))}")


def reduced(errors: Tensor, reduction: Reduction) -> Tensor:
    """Mean or sum over all elements, a 0-d tensor."""
    return errors.sum() if reduction == "sum" else errors.mean()
