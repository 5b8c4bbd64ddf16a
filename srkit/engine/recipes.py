"""Which networks play and in which turns. The trainer knows turns; it does not know what they teach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from srkit.engine.transfer import Batch
from srkit.registry import RECIPES


@dataclass(frozen=True)
class WeightedLoss:
    """A loss and how much it counts."""

    loss: nn.Module
    weight: float


@dataclass(frozen=True)
class Turn:
    """One network's share of an iteration.

    `terms(batch, sr)` returns named, weighted scalars whose sum is differentiated with respect to the
    parameters of `network` alone. The turn plays in every `every`-th iteration from `start_iteration` on.
    """

    name: str
    network: str
    terms: Callable[[Batch, Tensor], Mapping[str, Tensor]]
    every: int = 1
    start_iteration: int = 0
    stop_iteration: int | None = None

    def is_due(self, iteration: int) -> bool:
        started = iteration >= self.start_iteration
        stopped = self.stop_iteration is not None and iteration >= self.stop_iteration
        return started and not stopped and iteration % self.every == 0


@dataclass
class Recipe:
    """Base of all recipes: networks under their option names, and the turns they play in order."""

    networks: Mapping[str, nn.Module]
    turns: Sequence[Turn] = field(default=(), init=False)

    def restore(self, batch: Batch) -> Tensor:
        """lq -> sr in the network's own intensities, (B, C, *S)."""
        return self.networks["network_g"](batch.lq)

    def turns_at(self, iteration: int) -> list[Turn]:
        return [turn for turn in self.turns if turn.is_due(iteration)]


@RECIPES.register()
class Supervised(Recipe):
    """One network, losses that compare its output with the target.

    Args:
        networks: {"network_g": generator}.
        losses: Log name (l_pix, ...) to weighted loss.
    """

    def __init__(self, networks: Mapping[str, nn.Module], losses: Mapping[str, WeightedLoss]) -> None:
        super().__init__(networks)
        self.losses = dict(losses)
        self.turns = (Turn("g", "network_g", self._terms),)

    def _terms(self, batch: Batch, sr: Tensor) -> dict[str, Tensor]:
        return {name: item.weight * item.loss(sr, batch.gt) for name, item in self.losses.items()}


def in_full_precision(sr: Tensor, turn: Turn, batch: Batch) -> Mapping[str, Tensor]:
    """The turn's terms from an fp32 `sr`, whatever autocast made it; networks inside a turn re-enter autocast."""
    with torch.autocast(sr.device.type, enabled=False):
        return turn.terms(batch, sr.float())
