"""Which file the n-th sample of a run is: a pure function of the seed, so that a resumed run needs no state."""

from __future__ import annotations

import numpy as np


class SampleOrder:
    """Maps the global sample number to (epoch, position).

    Args:
        seed: The run's seed.
        length: Samples per epoch (files times the enlarge ratio).
        shuffle: A new permutation each epoch, from (seed, epoch); else the list's order.
    """

    def __init__(self, seed: int, length: int, shuffle: bool) -> None:
        if length < 1:
            raise ValueError(f"an epoch needs at least one sample, got {length}")
        self.seed, self.length, self.shuffle = seed, length, shuffle
        self._epoch = -1
        self._permutation = np.empty(0, dtype=np.int64)

    def __call__(self, n: int) -> tuple[int, int]:
        """(epoch, position in the enlarged list) of global sample `n`, counted from 0."""
        epoch, k = divmod(n, self.length)
        if not self.shuffle:
            return epoch, k
        if epoch != self._epoch:
            self._permutation = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            self._epoch = epoch
        return epoch, int(self._permutation[k])


def sample_rng(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The generator of one sample's draws; equal in every worker, rank and resumed run."""
    return np.random.default_rng([seed, epoch, position])


def variant_of(seed: int, epoch: int, position: int, variants: int) -> int:
    """Which variant of the data set the batch that begins at this place has; independent of its samples' draws."""
    return int(np.random.default_rng([seed, epoch, position, variants]).integers(variants))


def skip_limit(files: int) -> int:
    """Unreadable files a run passes over under `on_error: skip` before it stops: 10, or 1 % of a large set."""
    return max(10, files // 100)
