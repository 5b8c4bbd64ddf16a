"""Which voxel axis of a scan a network for one axis enlarges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from srkit.engine.log import logger
from srkit.errors import DataError, RefusedError
from srkit.imaging.geometry import thick_axis

_ALIKE = 1.25  # ratio of spacings that passes without a word

Order = tuple[int, int, int]


def axis_order(source: Path, scale: Sequence[int], spacing_mm: Sequence[float], asked: int | None) -> Order:
    """Order of axes, `volume.transpose(order)`, in which the network sees a scan; applied to the result it undoes itself.

    The scan's thick axis changes places with the one that the network enlarges.

    Args:
        scale: Of the network, per axis.
        spacing_mm: Of the scan.
        asked: Its axis to enlarge, however long the voxels are; None is the one whose voxels are longest.

    Raises: RefusedError when `asked` meets a network that enlarges several axes, or none. DataError for a scan that is not
        as thick as the network's factor says, unless its axis was asked for.
    """
    enlarged = [axis for axis, factor in enumerate(scale) if factor > 1]
    if len(enlarged) != 1:
        if asked is not None:
            raise RefusedError(f"--axis {asked}: this model enlarges by {tuple(scale)}; it is no matter of one axis")
        return (0, 1, 2)
    own, thick = enlarged[0], thick_axis(spacing_mm)
    axis = asked if asked is not None else own if thick is None else thick
    ratio = spacing_mm[axis] / (sum(mm for a, mm in enumerate(spacing_mm) if a != axis) / 2)
    if abs(math.log(ratio / scale[own])) > math.log(_ALIKE):
        text = (
            f"{source}: voxels of {' x '.join(f'{mm:.4g}' for mm in spacing_mm)} mm are {ratio:.3g} times as long along axis "
            f"{axis}, this model is for {scale[own]} times"
        )
        if asked is None:
            raise DataError(f"{text}; --axis {axis} enlarges it all the same, --spacing corrects a wrong header")
        logger.warning("%s; the result's are %.4g mm", text, spacing_mm[axis] / scale[own])
    order = [0, 1, 2]
    order[own], order[axis] = order[axis], order[own]
    return (order[0], order[1], order[2])
