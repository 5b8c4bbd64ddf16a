"""What a dataset hands out: one sample, still in the file's integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Sample:
    """One training or evaluation sample on the host.

    Attributes:
        images: Named arrays (*S, C). "lq" always, "gt" when there is one; any further array has the geometry of
            either. RGB order, uint8 or uint16; float32 in the file's units for luma (`color: y`).
        name: Stem for output files, unique within its dataset.
        paths: Where "lq" and "gt" came from, for messages and reports.
        white: Intensity of 1.0 in the file's units: 255, 65535 or 2**bit_depth - 1.
    """

    images: dict[str, np.ndarray]
    name: str
    paths: dict[str, str]
    white: float
