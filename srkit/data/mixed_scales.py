"""One data set at several scales: `datasets.X.scales: [2, 3, 4]`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from srkit.data.loader import Dataset
from srkit.data.sample import Sample


class MixedScales:
    """The same pictures at several scales; the loader draws one scale for each batch, whose lq crops are then of one size.

    Args:
        datasets: Scale -> the pictures at that scale, equally many.

    Attributes:
        variants: How many scales; `sample` takes the number of one.
    """

    def __init__(self, datasets: Mapping[int, Dataset]) -> None:
        self.scales: Sequence[int] = tuple(datasets)
        self.datasets = tuple(datasets.values())
        self.variants = len(self.datasets)
        self.on_error = getattr(self.datasets[0], "on_error", "raise")

    def __len__(self) -> int:
        return len(self.datasets[0])

    def sample(self, index: int, rng: np.random.Generator | None, variant: int = 0) -> Sample:
        """Sample `index` at the scale of that number."""
        return self.datasets[variant].sample(index, rng)

    def check(self) -> None:
        """DataError naming every problem found, at any scale."""
        self._each("check")

    def prepare(self, progress: bool) -> None:
        """Builds or opens the decoded caches."""
        self._each("prepare", progress)

    def fingerprint(self) -> str:
        """Names, sizes and scales."""
        return " ".join(f"x{scale} {text}" for scale, text in zip(self.scales, self._each("fingerprint"), strict=True))

    def describe(self) -> str:
        """One line for the start screen."""
        return f"scales {', '.join(f'x{s}' for s in self.scales)} of {self._each('describe')[0]}"

    def _each(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(dataset, method)(*arguments) for dataset in self.datasets if hasattr(dataset, method)]
