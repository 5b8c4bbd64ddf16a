"""Nuclei in haematoxylin-and-eosin pictures by a classical detector, and which of two pictures' nuclei are the same ones.

A ruler, not a pathologist: it is meant to be held against two pictures of one field, whose difference is then read off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srkit.errors import DataError
from srkit.metrics.stains import stain_density

_SMOOTH = 1 / 8  # of the diameter: chromatin texture is finer, the gap between neighbours is not
_LEAST = 1 / 2  # of the diameter: a disc below it is no nucleus
_APART = 1 / 2  # of the diameter: centres nearer than that are one nucleus


@dataclass(frozen=True)
class Nuclei:
    """What was found.

    Attributes:
        centres: (N, 2) float64, row and column of the centroids in pixels.
        threshold: Density of haematoxylin from which a pixel counts as nucleus.
    """

    centres: np.ndarray
    threshold: float


def find_nuclei(
    image: np.ndarray, *, diameter_px: float, data_range: float = 255.0, threshold: float | None = None
) -> Nuclei:
    """The nuclei of an RGB picture.

    The density of haematoxylin is smoothed by a Gaussian of an eighth of the diameter and cut at a threshold; holes are
    filled and what covers less than a disc of half the diameter is dropped. Touching nuclei are parted by a watershed
    from the peaks of the distance to the background, which lie half a diameter or more from each other.

    Args:
        image: (H, W, 3).
        diameter_px: Of a typical nucleus; every other length follows from it.
        threshold: Of the density; None finds it by Otsu's method. Two pictures are compared with the same one.

    Raises: DataError for pictures without colour, or in which no pixel differs from another.
    Sources: Ruifrok and Johnston 2001 (stains); Otsu 1979, "A threshold selection method from gray-level histograms";
        Malpica et al. 1997, "Applying watershed algorithms to the segmentation of clustered nuclei".
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.measure import regionprops
    from skimage.segmentation import watershed

    density = stain_density(image, data_range, "haematoxylin")[..., 0]
    smooth = ndimage.gaussian_filter(density, _SMOOTH * diameter_px)
    if threshold is None:
        if smooth.min() == smooth.max():
            raise DataError("no pixel differs from another, so that no nucleus can be told from the rest")
        threshold = float(threshold_otsu(smooth))
    least_px = np.pi / 4 * (_LEAST * diameter_px) ** 2
    inside = ndimage.binary_fill_holes(smooth > threshold)
    labels, _ = ndimage.label(inside)
    inside &= np.bincount(labels.ravel())[labels] >= least_px
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), _SMOOTH * diameter_px)
    peaks = peak_local_max(
        depth, min_distance=max(1, round(_APART * diameter_px)), labels=inside.astype(np.int32), exclude_border=False
    )
    markers = np.zeros(inside.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    parts = regionprops(watershed(-depth, markers, mask=inside))
    centres = [part.centroid for part in parts if part.area >= least_px]
    return Nuclei(np.array(centres, np.float64).reshape(-1, 2), threshold)


def same_nuclei(first: np.ndarray, second: np.ndarray, radius_px: float) -> np.ndarray:
    """Pairs (P, 2) of indices into two lists of centres: one to one, as many as can be, of those the nearest in sum.

    Args:
        first, second: (N, 2) and (M, 2), row and column.
        radius_px: Centres further apart are never the same nucleus.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    if not len(first) or not len(second):
        return np.empty((0, 2), np.int64)
    near = KDTree(first).query_ball_point(second, radius_px)
    edges = np.array([(a, b) for b, found in enumerate(near) for a in found], np.int64).reshape(-1, 2)
    count = len(first) + len(second)
    graph = coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1] + len(first))), shape=(count, count))
    # Neighbours of neighbours are decided together, everybody else apart: cost grows with the crowd, not the field.
    _, crowd = connected_components(graph, directed=False)
    pairs = []
    for name in np.unique(crowd[edges[:, 0]]):
        ours = np.flatnonzero(crowd[: len(first)] == name)
        theirs = np.flatnonzero(crowd[len(first) :] == name)
        distance = np.linalg.norm(first[ours][:, None] - second[theirs][None], axis=-1)
        # A pair too many costs more than all others together, so that the number of true pairs comes first.
        cost = np.where(distance <= radius_px, distance, radius_px * (count + 1))
        rows, columns = linear_sum_assignment(cost)
        pairs += [(ours[r], theirs[c]) for r, c in zip(rows, columns) if distance[r, c] <= radius_px]
    return np.array(pairs, np.int64).reshape(-1, 2)
