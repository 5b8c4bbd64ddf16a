"""What a dataset hands out: one sample, still in the file's integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from srkit.data.forms import Form


@dataclass
class Sample:
    """One training or evaluation sample on the host.

    Attributes:
        images: Named arrays (*S, C). "lq" always, "gt" when there is one; any further array has the geometry of
            either. A dataset with `on_device` may leave out what that will make. RGB order, uint8 or uint16; float32 in the file's units for luma (`color: y`).
        name: Stem for output files, unique within its dataset.
        paths: Where "lq" and "gt" came from, for messages and reports.
        white: Intensity of 1.0 in the file's units: 255, 65535 or 2**bit_depth - 1; a volume's own.
        draw: What chance decided that `on_device` is to carry out: plain values and small arrays.
        black: Intensity of 0.0 in the file's units; other than 0 only in volumes that are evaluated.
        group: Slide, person or animal it comes from, where that is known: what counts as independent.
        form: What a restored array becomes, in evaluation; None is a picture of the arrays' integers.
    """

    images: dict[str, np.ndarray]
    name: str
    paths: dict[str, str]
    white: float
    draw: Any = None
    black: float = 0.0
    group: str = ""
    form: Form | None = None
