"""Pictures to look at: captioned panels side by side, and a volume's three middle slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from srkit.imaging.resize import nearest_upscale

_CAPTION_PX = 22
_GAP_PX = 4
_LEAST_PX = 96  # smaller slices are enlarged for the eye


def strip(panels: Mapping[str, np.ndarray], magnify: int = 1) -> np.ndarray:
    """Equal-sized (H, W, 3) uint8 pictures side by side, captioned, enlarged by pixel repetition."""
    columns = []
    for caption, image in panels.items():
        image = np.repeat(np.repeat(image, magnify, 0), magnify, 1)
        head = np.full((_CAPTION_PX, image.shape[1], 3), 255, np.uint8)
        cv2.putText(head, caption, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        columns += [np.vstack([head, image]), np.full((image.shape[0] + _CAPTION_PX, _GAP_PX, 3), 255, np.uint8)]
    return np.hstack(columns[:-1])


def middle_slices(volume: np.ndarray, low: float, high: float, scale: Sequence[int] = (1, 1, 1)) -> np.ndarray:
    """The middle slice across each axis, below each other.

    Args:
        volume: (I, J, K).
        low, high: Intensities shown black and white.
        scale: Repetition of voxels along each axis, so that grids of several sizes look equally large.

    Returns: (H, W, 3) uint8; in each slice the first remaining axis runs to the right, the second upwards.
    """
    planes = []
    for axis in range(3):
        across, up = (scale[a] for a in range(3) if a != axis)
        planes.append(nearest_upscale(middle_slice(volume, axis, low, high), (up, across)))
    return _stacked(planes)


def middle_slice(volume: np.ndarray, axis: int, low: float, high: float) -> np.ndarray:
    """The one across `axis` of (I, J, K), as `middle_slices` shows it: (H, W, 3) uint8."""
    return _grey(np.rot90(np.take(volume, volume.shape[axis] // 2, axis)), low, high)


def three_planes(volumes: Mapping[str, np.ndarray], low: float, high: float) -> np.ndarray:
    """Volumes of one grid beside each other, and with "sr" and "gt" among them their difference: blue below, red above gt.

    The difference is shown within a tenth of the span from `low` to `high`.
    """
    panels = {name: middle_slices(volume, low, high) for name, volume in volumes.items()}
    if "sr" in volumes and "gt" in volumes:
        limit = (high - low) / 10
        caption = f"{limit:,.0f}" if limit >= 100 else f"{limit:.3g}"
        panels[f"sr - gt, +-{caption}"] = difference(volumes["sr"], volumes["gt"], limit)
    smallest = min(min(p.shape[0] // 3, p.shape[1]) for p in panels.values())
    return strip(panels, max(1, -(-_LEAST_PX // smallest)))


def difference(sr: np.ndarray, gt: np.ndarray, limit: float) -> np.ndarray:
    """The middle slices of sr - gt as `middle_slices` lays them: blue below, red above 0, full at `limit` and beyond."""
    error = np.clip((sr.astype(np.float32) - gt) / limit, -1, 1)
    signs = [middle_slices(part, 0, 1)[..., 0] for part in (np.maximum(error, 0), np.maximum(-error, 0))]
    more, less = (s.astype(np.int32) for s in signs)
    shown = 255 - np.stack([less, more + less, more], axis=-1)
    return np.clip(shown, 0, 255).astype(np.uint8)


def _grey(plane: np.ndarray, low: float, high: float) -> np.ndarray:
    values = np.clip((plane.astype(np.float32) - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat(np.rint(values * 255).astype(np.uint8)[..., None], 3, axis=-1)


def _stacked(planes: Sequence[np.ndarray]) -> np.ndarray:
    width = max(plane.shape[1] for plane in planes)
    rows = []
    for plane in planes:
        row = np.zeros((plane.shape[0], width, 3), np.uint8)
        left = (width - plane.shape[1]) // 2
        row[:, left : left + plane.shape[1]] = plane
        rows.append(row)
    return np.vstack(rows)


def heat(values: np.ndarray, limit: float) -> np.ndarray:
    """(H, W) to (H, W, 3) uint8 in false colours: black at 0, over red to pale yellow at `limit` and above."""
    scaled = np.clip(values.astype(np.float32) / max(limit, 1e-12), 0, 1) * 255
    return np.ascontiguousarray(cv2.applyColorMap(scaled.astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1])
