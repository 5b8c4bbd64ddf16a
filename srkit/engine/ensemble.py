"""Self-ensemble: the mean over what a network makes of a picture or volume seen from all its sides."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from torch import Tensor

Turn = tuple[tuple[int, ...], bool]
"""Spatial axes that are flipped, and whether the two axes of a picture are exchanged after that."""


def turns(scale: Sequence[int]) -> list[Turn]:
    """The ways to see it: 8 of a picture, 4 (flips alone) where its axes have different scales, 8 flips of a volume."""
    axes = range(len(scale))
    flips = [chosen for count in range(len(scale) + 1) for chosen in itertools.combinations(axes, count)]
    exchanges = (False, True) if len(scale) == 2 and scale[0] == scale[1] else (False,)
    return [(flip, exchange) for flip in flips for exchange in exchanges]


def mean_over_turns(restore: Callable[[Tensor, bool], Tensor], lq: Tensor, scale: Sequence[int]) -> Tensor:
    """Mean of the results of all turns, each turned back.

    Args:
        restore: Maps a turned lq, and whether its axes are exchanged, to its sr.
        lq: (B, C, *S).

    Shape: returns (B, C_out, *S * scale).
    Source: Lim et al. 2017, arXiv:1707.02921, section 3.4 (geometric self-ensemble, "EDSR+").
    """
    every = turns(scale)
    total: Tensor | None = None
    for flip, exchange in every:
        axes = [2 + axis for axis in flip]
        seen = lq.flip(axes) if axes else lq
        made = restore(seen.transpose(2, 3) if exchange else seen, exchange)
        made = made.transpose(2, 3) if exchange else made
        back = made.flip(axes) if axes else made
        total = back.clone() if total is None else total.add_(back)
    assert total is not None
    return total.div_(len(every))
