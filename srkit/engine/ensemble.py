"""Self-ensemble: what a network makes of a picture or volume seen from all its sides: the mean, and how far they differ."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

Turn = tuple[tuple[int, ...], bool]
"""Spatial axes that are flipped, and whether the two axes of a picture are exchanged after that."""


def turns(scale: Sequence[int]) -> list[Turn]:
    """The ways to see it: 8 of a picture, 4 (flips alone) where its axes have different scales, 8 flips of a volume."""
    axes = range(len(scale))
    flips = [chosen for count in range(len(scale) + 1) for chosen in itertools.combinations(axes, count)]
    exchanges = (False, True) if len(scale) == 2 and scale[0] == scale[1] else (False,)
    return [(flip, exchange) for flip in flips for exchange in exchanges]


def each_turn(restore: Callable[[Tensor, bool], Tensor], lq: Tensor, scale: Sequence[int]) -> Iterator[Tensor]:
    """The results of all turns, each turned back, (B, C_out, *S * scale). Arguments as of `mean_over_turns`."""
    for flip, exchange in turns(scale):
        axes = [2 + axis for axis in flip]
        seen = lq.flip(axes) if axes else lq
        made = restore(seen.transpose(2, 3) if exchange else seen, exchange)
        made = made.transpose(2, 3) if exchange else made
        yield made.flip(axes) if axes else made


def mean_over_turns(restore: Callable[[Tensor, bool], Tensor], lq: Tensor, scale: Sequence[int]) -> Tensor:
    """Mean of the results of all turns, each turned back.

    Args:
        restore: Maps a turned lq, and whether its axes are exchanged, to its sr.
        lq: (B, C, *S).

    Shape: returns (B, C_out, *S * scale).
    Source: Lim et al. 2017, arXiv:1707.02921, section 3.4 (geometric self-ensemble, "EDSR+").
    """
    total: Tensor | None = None
    for back in each_turn(restore, lq, scale):
        total = back.clone() if total is None else total.add_(back)
    assert total is not None
    return total.div_(len(turns(scale)))


@dataclass(frozen=True)
class Spread:
    """What the turns agree on and how far they differ.

    Attributes:
        mean: (*S, C) float32.
        sd: (*S) float32, standard deviation over the turns: root of the mean of the channels' variances.
    """

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[np.ndarray]) -> Spread:
        """Of arrays (*S, C), one at a time: memory does not grow with their number.

        Source: Welford 1962, "Note on a method for calculating corrected sums of squares and products".
        """
        mean: np.ndarray = np.zeros((), np.float32)
        squares: np.ndarray = np.zeros((), np.float32)
        count = 0
        for part in parts:
            count += 1
            away = part - mean
            mean = np.asarray(mean + away / np.float32(count), np.float32)
            squares = np.asarray(squares + (away * (part - mean)).mean(-1), np.float32)
        return cls(mean, np.sqrt(np.maximum(squares, 0) / np.float32(count)))
