"""What is looked at before training on volumes: headers of all, places in the scanner, sizes, and voxels of all or a part."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from srkit.data.checks import Findings, to_decode
from srkit.data.order import skip_limit
from srkit.data.pairing import first_names
from srkit.data.sources import in_threads
from srkit.data.volume_pairs import VolumePairs
from srkit.errors import DataError
from srkit.imaging.volumes import VolumeHeader

_log = logging.getLogger("srkit")


def check_volumes(
    volumes: VolumePairs,
    findings: Findings,
    *,
    gt_size: tuple[int, ...] | None,
    all_voxels: bool,
    skips: bool,
    build: Callable[[Sequence[int]], dict[int, str]],
) -> None:
    """Adds to `findings`; logs which volumes will be cut to a multiple of the scale.

    Args:
        gt_size: The patch that gt must hold.
        all_voxels: Decode all, however many they are.
        skips: A few unusable volumes are warned about instead.
        build: Decodes the volumes of these numbers; number -> reason of those that cannot be used.
    """
    unusable, small, cut = {}, [], []
    for k, found in enumerate(in_threads(lambda k: _headers(volumes, k), range(len(volumes)))):
        if isinstance(found, str):
            unusable[k] = found
            continue
        path, shape = found["gt"].path, found["gt"].shape
        kept = tuple(n // s * s for n, s in zip(shape, volumes.making.scale))
        if kept != shape:
            cut.append(f"{path} {shape} to {kept}")
        if gt_size is not None and any(n < m for n, m in zip(kept, gt_size)):
            small.append(f"{path} {shape}")
    unusable |= build([k for k in to_decode(len(volumes), everything=all_voxels) if k not in unusable])
    bearable = skip_limit(len(volumes)) if skips else 0
    findings.add_unusable("volumes cannot be used", [unusable[k] for k in sorted(unusable)], bearable)
    findings.add(f"volumes are smaller than gt_size {gt_size}", small)
    if cut:
        text = "%s: %d gt volumes are cut at the far end to a multiple of scale %s: %s"
        _log.info(text, findings.title, len(cut), volumes.making.scale, first_names(cut))


def _headers(volumes: VolumePairs, index: int) -> dict[str, VolumeHeader] | str:
    try:
        return volumes.headers(index)
    except DataError as error:
        return str(error)
