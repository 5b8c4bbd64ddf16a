"""Edges of pictures: Canny's map, which every part of srkit takes from here, and the strength of Sobel's gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from srkit.imaging.colour import FULL_WEIGHTS

SIGMA = 2.0
LOW, HIGH = 0.1, 0.2
"""Canny's thresholds on the Sobel sums of a picture in [0, 1]; a sharp step from black to white reaches 4."""

_TIP = 1e-12  # rounds the root off, which has no slope at 0; far below any intensity


def torch_luma(image: Tensor) -> Tensor:
    """Y of BT.601, full range: (B, 3, *S) RGB to (B, 1, *S); grey is its own luma. As `colour.luma_full`, to the bit."""
    if image.shape[1] == 1:
        return image
    if image.shape[1] != 3:
        raise ValueError(f"luma needs 1 or 3 channels, got shape {tuple(image.shape)}")
    red, green, blue = (image[:, i : i + 1] * weight for i, weight in enumerate(FULL_WEIGHTS))
    return red + green + blue


def sobel_magnitude(plane: Tensor) -> Tensor:
    """Length of the gradient, in intensity per pixel, with edge pixels repeated outside. Differentiable everywhere.

    Shape: (B, C, *S) -> the same; two or three spatial axes.
    """
    axes = range(2, plane.ndim)
    steepest = 2.0 * 4.0 ** (plane.ndim - 3)  # a Sobel sum spans two pixels, and adds up 4 for each further axis
    squares = torch.stack([(_sobel(plane, axis) / steepest) ** 2 for axis in axes]).sum(dim=0)
    return torch.sqrt(squares + _TIP**2) - _TIP


@torch._disable_dynamo  # a compiler may join the sums, and a network in training would see other edges than in a test
@torch.no_grad()
def canny(image: Tensor, sigma: float = SIGMA, low: float = LOW, high: float = HIGH) -> Tensor:
    """Edges one pixel wide: 1 on an edge, 0 elsewhere. Equal to scikit-image's `feature.canny`, ties included.

    Gaussian smoothing (what lies outside the picture has no weight), Sobel sums, thinning across the edge with
    interpolated neighbours, then every pixel of at least `low` that a chain of such pixels joins to one of at least
    `high`. Pixels at the picture's rim are never edges. Computed in float64 with the sums in one fixed order: the same
    map on every device that has float64, in any batch, and under autocast.

    Args:
        image: (B, 3, H, W) RGB, of which the BT.601 luma counts, or (B, 1, H, W); intensities 0 to 1.
        sigma: Standard deviation of the Gaussian in pixels, above 0.
        low: Threshold on the Sobel sum for going on with an edge.
        high: Threshold for beginning one.

    Shape: returns (B, 1, H, W) in the type and on the device of `image`. On the meta device the map is only a shape.
    Source: Canny 1986, doi:10.1109/TPAMI.1986.4767851.
    """
    if sigma <= 0 or not 0 <= low <= high:
        raise ValueError(f"sigma {sigma} must be above 0, and low {low} from 0 to high {high}")
    if image.is_meta:
        return image.new_empty(image.shape[0], 1, *image.shape[2:])
    exact = torch.float32 if image.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    plane = torch_luma(image.to(exact))
    weights = _gaussian(sigma)
    inside = _blur(torch.ones_like(plane[:1]), weights) + torch.finfo(exact).eps
    smooth = _blur(plane, weights) / inside
    down, right = _sobel(smooth, 2), _sobel(smooth, 3)
    strength = torch.sqrt(down * down + right * right)
    weak = _is_ridge(strength, down, right) & (strength >= low) & (strength > 0)
    weak[..., [0, -1], :] = False
    weak[..., [0, -1]] = False
    return _joined(weak, weak & (strength >= high)).to(image.dtype)


def edge_map(image: np.ndarray, white: float) -> np.ndarray:
    """`canny` of (H, W, 3 or 1) intensities from 0 to `white`, as (H, W, 1) float64."""
    picture = torch.from_numpy(image / np.float64(white)).movedim(-1, 0)[None]
    edges: np.ndarray = canny(picture)[0].movedim(0, -1).numpy()
    return edges


def _gaussian(sigma: float) -> list[float]:
    """Weights at distances 0, 1, ... up to 4 sigma."""
    radius = int(4.0 * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    return [float(w) for w in (weights / weights.sum())[radius:]]


def _blur(plane: Tensor, weights: list[float]) -> Tensor:
    """Gaussian along both axes, zeros outside. From the centre, then from the far end inwards, as scipy adds up."""
    radius = len(weights) - 1
    for axis, pad in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        length, padded = plane.shape[axis], F.pad(plane, pad)
        total = plane * weights[0]
        for distance in range(radius, 0, -1):
            before = padded.narrow(axis, radius - distance, length)
            total += (before + padded.narrow(axis, radius + distance, length)) * weights[distance]
        plane = total
    return plane


def _sobel(plane: Tensor, axis: int) -> Tensor:
    """Difference of the two neighbours along `axis`, then 1-2-1 sums along the other axes; edge pixels repeated."""
    before, after = _neighbours(plane, axis)
    total = after - before
    for other in range(2, plane.ndim):
        if other != axis:
            before, after = _neighbours(total, other)
            total = total * 2.0 + (before + after)
    return total


def _neighbours(plane: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The planes one pixel before and after along `axis`, edge pixels repeated."""
    length = plane.shape[axis]
    first, last = plane.narrow(axis, 0, 1), plane.narrow(axis, length - 1, 1)
    return (
        torch.cat([first, plane.narrow(axis, 0, length - 1)], axis),
        torch.cat([plane.narrow(axis, 1, length - 1), last], axis),
    )


def _is_ridge(strength: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Where the gradient is as strong as one step ahead and one step back along its own direction, interpolated."""
    height, width = strength.shape[2:]
    padded = F.pad(strength, (1, 1, 1, 1))
    is_steep, falls = down.abs() > right.abs(), (down > 0) == (right > 0)
    long, short = torch.maximum(down.abs(), right.abs()), torch.minimum(down.abs(), right.abs())
    share = short / long  # NaN without a gradient, which is then no ridge

    def at(row: int, column: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    def one_step(sign: int) -> Tensor:
        straight = torch.where(is_steep, at(sign, 0), at(0, sign))
        rising = torch.where(is_steep, at(sign, -sign), at(-sign, sign))
        return torch.where(falls, at(sign, sign), rising) * share + straight * (1.0 - share)

    return (one_step(1) <= strength) & (one_step(-1) <= strength)


def _joined(weak: Tensor, strong: Tensor) -> Tensor:
    """The weak pixels whose 8-connected group holds a strong one.

    Groups grow all at once: each pixel points to the lowest number it has heard of, and follows that pixel's own
    pointer, so that the length of a chain of pixels hardly matters.
    """
    count = int(weak.sum())
    number = torch.full(weak.shape, -1, dtype=torch.long, device=weak.device)
    number[weak] = torch.arange(count, device=weak.device)
    one, other = _adjacent(number)
    group = torch.arange(count, device=weak.device)
    while True:
        ahead = group[group]
        lowest = torch.minimum(ahead[one], ahead[other])
        heard = ahead.clone()
        for pixels in (one, other, group[one], group[other]):
            heard.scatter_reduce_(0, pixels, lowest, "amin")
        if torch.equal(heard, group):
            break
        group = heard
    kept = torch.zeros(count, dtype=torch.bool, device=weak.device)
    kept[group[strong[weak]]] = True
    result = torch.zeros_like(weak)
    result[weak] = kept[group]
    return result


def _adjacent(number: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of all pairs of neighbours, diagonal ones included; pixels of number -1 are nobody's neighbour."""
    height, width = number.shape[2:]
    pairs = []
    for row, column in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = number[..., : height - row, max(0, -column) : width - max(0, column)]
        other = number[..., row:, max(0, column) : width + min(0, column)]
        both = (one >= 0) & (other >= 0)
        pairs.append((one[both], other[both]))
    ones, others = zip(*pairs)
    return torch.cat(ones), torch.cat(others)
