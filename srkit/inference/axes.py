"""Which voxel axis of a scan a network for one axis enlarges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from srkit.engine.log import logger
from srkit.errors import RefusedError
from srkit.imaging.geometry import thick_axis

_ALIKE = 1.25  # ratio of spacings that passes without a word

Order = tuple[int, int, int]


def axis_order(source: Path, scale: Sequence[int], spacing_mm: Sequence[float], asked: int | None) -> Order:
    """Order of axes, `volume.transpose(order)`, in which the network sees a scan; applied to the result it undoes itself.

    The scan's thick axis changes places with the one that the network enlarges. A scan whose factor is another than the
    network's is warned about.

    Args:
        scale: Of the network, per axis.
        spacing_mm: Of the scan.
        asked: Its axis to enlarge; None is the one whose voxels are longest, or the network's own where none is.

    Raises: RefusedError when `asked` meets a network that enlarges several axes, or none.
    """
    enlarged = [axis for axis, factor in enumerate(scale) if factor > 1]
    if len(enlarged) != 1:
        if asked is not None:
            raise RefusedError(f"--axis {asked}: this model enlarges by {tuple(scale)}; it is no matter of one axis")
        return (0, 1, 2)
    own, thick = enlarged[0], thick_axis(spacing_mm) if asked is None else asked
    shown = " x ".join(f"{mm:.4g}" for mm in spacing_mm)
    if thick is None:
        logger.info(
            "%s: no axis is thicker than the others (%s mm); enlarged along axis %d, --axis says otherwise",
            source,
            shown,
            own,
        )
    axis = own if thick is None else thick
    others = [mm for a, mm in enumerate(spacing_mm) if a != axis]
    ratio = spacing_mm[axis] / (sum(others) / 2)
    if abs(math.log(ratio / scale[own])) > math.log(_ALIKE):
        logger.warning(
            "%s: voxels of %s mm are %.3g times as long along axis %d, the model enlarges that %d times; the result's are %.4g mm",
            source, shown, ratio, axis, scale[own], spacing_mm[axis] / scale[own],
        )  # fmt: skip
    order = [0, 1, 2]
    order[own], order[axis] = order[axis], order[own]
    return (order[0], order[1], order[2])
