"""Where patches may be cut from a slide: places with enough tissue, and one of them drawn by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srkit.errors import DataError
from srkit.imaging.slides import SlideView
from srkit.imaging.tissue import find_tissue

_PITCHES = 4  # places are looked at at every quarter of a patch
_ROUNDING = 1e-6  # of a share of tissue


@dataclass(frozen=True)
class SlidePlaces:
    """Nodes of a grid over the corners that a patch may have, in lq pixels.

    Attributes:
        nodes: int32 numbers of the nodes with enough tissue, row after row; 4 bytes each: 0.4 MB of a slide of 100,000 x
            80,000 pixels whose fifth is tissue, for patches of 512.
        columns: Nodes in a row.
        pitch: From node to node, down and across.
        last: Largest corner, down and across.
    """

    view: SlideView
    nodes: np.ndarray
    columns: int
    pitch: tuple[int, int]
    last: tuple[int, int]

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """A corner within half a pitch of a node: (top, left) in lq pixels. Takes three numbers of `rng`."""
        u = rng.random(3)
        node = divmod(int(self.nodes[int(u[0] * len(self.nodes))]), self.columns)
        near = (n * p + int(x * p) - p // 2 for n, p, x in zip(node, self.pitch, u[1:]))
        top, left = (min(max(0, corner), end) for corner, end in zip(near, self.last))
        return top, left


def find_places(
    view: SlideView, lq_size: tuple[int, ...], scale: tuple[int, ...], tissue_fraction: float
) -> SlidePlaces:
    """Places of patches of `lq_size` * `scale` pixels of the view, at multiples of the scale.

    Raises: DataError when the slide is smaller than a patch or has no place with so much tissue.
    """
    path = view.slide.path
    height, width = (n * s for n, s in zip(lq_size, scale))
    down, across = (whole // s - n for whole, s, n in zip((view.height, view.width), scale, lq_size))
    if min(down, across) < 0:
        raise DataError(f"{path} has {view.width}x{view.height} pixels, less than a patch of {width}x{height}")
    pitch = (max(1, lq_size[0] // _PITCHES), max(1, lq_size[1] // _PITCHES))
    tops, lefts = (np.minimum(np.arange(0, end + step, step), end) for end, step in zip((down, across), pitch))
    y, x = (corner * s * view.downsample for corner, s in zip((tops, lefts), scale))
    boxes = (x[None, :], y[:, None], width * view.downsample, height * view.downsample)
    shares = find_tissue(view.slide).share(*boxes)
    nodes = np.flatnonzero(shares >= tissue_fraction - _ROUNDING).astype(np.int32)
    if len(nodes) == 0:
        raise DataError(
            f"{path} has no patch of {width}x{height} with {tissue_fraction:.0%} of tissue, the most is {shares.max():.0%}; "
            "lower tissue_fraction, or leave the slide out"
        )
    return SlidePlaces(view, nodes, len(lefts), pitch, (down, across))
