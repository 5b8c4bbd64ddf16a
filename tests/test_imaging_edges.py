"""Canny against scikit-image, pixel by pixel, and the Sobel gradient against arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data, feature
from torch import Tensor

from srkit.imaging.colour import luma_full
from srkit.imaging.edges import canny, edge_map, sobel_magnitude, torch_luma

ROWS, COLUMNS = np.mgrid[:60, :71]
DRAW = np.random.default_rng(0)
# Photographs, and made pictures full of ties: steps along rows and columns, a disc, pictures smaller than the kernel.
PICTURES = {
    "astronaut": data.astronaut(),
    "camera": data.camera(),
    "coffee": data.coffee(),
    "chessboard": ((COLUMNS // 8 + ROWS // 8) % 2 * 255).astype(np.uint8),
    "disc": ((COLUMNS - 35) ** 2 + (ROWS - 30) ** 2 < 400).astype(np.uint8) * 255,
    "ramp": (COLUMNS * 3).astype(np.uint8),
    "flat": np.full((20, 20), 100, np.uint8),
    "noise": DRAW.integers(0, 256, (50, 61, 3), np.uint8),
    "tiny": DRAW.integers(0, 256, (5, 7), np.uint8),
    "line": DRAW.integers(0, 256, (1, 9), np.uint8),
}


def picture(name: str) -> np.ndarray:
    """(H, W, C) float64, 0 to 1."""
    image = PICTURES[name] / 255.0
    return image if image.ndim == 3 else image[..., None]


def as_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).movedim(-1, 0)[None]


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("name", PICTURES)
def test_canny_is_scikit_images_map_in_every_pixel(name, sigma):
    image = picture(name)
    wanted = feature.canny(luma_full(image)[..., 0], sigma=sigma)
    np.testing.assert_array_equal(canny(as_tensor(image), sigma)[0, 0].numpy(), wanted)


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.5), (0.05, 0.9), (0.3, 0.3)])
def test_both_thresholds_are_scikit_images(low, high):
    image = picture("coffee")[:200, :200]
    wanted = feature.canny(luma_full(image)[..., 0], sigma=1.0, low_threshold=low, high_threshold=high)
    np.testing.assert_array_equal(canny(as_tensor(image), 1.0, low, high)[0, 0].numpy(), wanted)


def test_a_chain_of_weak_pixels_is_followed_to_its_end():
    """A spiral that is strong only in its middle: as one chain it is an edge from end to end."""
    angle = np.arctan2(ROWS - 30, COLUMNS - 35)
    radius = np.hypot(ROWS - 30, COLUMNS - 35)
    image = (np.sin(radius / 2 - angle) * np.exp(-((radius / 18) ** 2)) + 1) / 2
    arguments = {"sigma": 1.0, "low": 0.02, "high": 1.0}
    wanted = feature.canny(image, sigma=1.0, low_threshold=0.02, high_threshold=1.0)
    np.testing.assert_array_equal(canny(as_tensor(image[..., None]), **arguments)[0, 0].numpy(), wanted)
    assert wanted.sum() > 3 * feature.canny(image, sigma=1.0, low_threshold=1.0, high_threshold=1.0).sum()


def test_pictures_of_a_batch_do_not_touch():
    halves = as_tensor(picture("coffee")[:100, :180]).split(90, dim=3)
    batch = canny(torch.cat(halves))
    for map_, half in zip(batch, halves):
        assert torch.equal(map_, canny(half)[0])


def test_maps_have_the_type_of_the_picture_and_hold_zeros_and_ones():
    image = as_tensor(picture("disc")).float().requires_grad_()
    edges = canny(image)
    assert edges.dtype == torch.float32
    assert not edges.requires_grad
    assert edges.unique().tolist() == [0.0, 1.0]


def test_autocast_changes_no_pixel():
    image = as_tensor(picture("coffee")[:90, :90]).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        edges = canny(image)
    assert torch.equal(edges, canny(image))


def test_a_compiler_leaves_the_sums_as_they_are():
    seen = []

    def backend(graph, _):
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    doubled = torch.compile(lambda image: canny(image * 1.0) * 2, backend=backend)(picture)
    assert torch.equal(doubled, 2 * canny(picture))
    assert any("mul" in target for target in seen)
    assert not any("sqrt" in target or "pad" in target for target in seen)


def test_on_the_meta_device_a_map_is_a_shape():
    assert canny(torch.empty(2, 3, 8, 9, device="meta")).shape == (2, 1, 8, 9)


@pytest.mark.parametrize("arguments", [{"sigma": 0.0}, {"low": 0.3, "high": 0.2}, {"low": -0.1}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="must be above 0, and low"):
        canny(torch.zeros(1, 1, 5, 5), **arguments)


def test_edge_map_takes_file_values():
    image = PICTURES["coffee"][:80, :80]
    np.testing.assert_array_equal(
        edge_map(image, 255.0)[..., 0], feature.canny(luma_full(image / 255.0)[..., 0], sigma=2)
    )


def test_luma_of_tensors_is_that_of_arrays_to_the_bit():
    image = picture("noise")
    np.testing.assert_array_equal(torch_luma(as_tensor(image))[0, 0].numpy(), luma_full(image)[..., 0])
    with pytest.raises(ValueError, match="1 or 3 channels"):
        torch_luma(torch.zeros(1, 2, 4, 4))


@pytest.mark.parametrize("space", [(6, 7), (5, 6, 7)])
def test_sobel_magnitude_of_a_ramp_is_its_slope_per_pixel(space):
    """3 hundredths along one axis and 4 along another: 5 per pixel; half of each at its own two ends."""
    steps = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in space), indexing="ij"))
    plane = (0.03 * steps[-1] + 0.04 * steps[-2])[None, None]
    inner = (0, 0, *(slice(1, -1) for _ in space))
    magnitude = sobel_magnitude(plane)
    torch.testing.assert_close(magnitude[inner], torch.full_like(magnitude[inner], 0.05))
    torch.testing.assert_close(magnitude[0, 0, ..., 2, 0].mean().item(), float(np.hypot(0.015, 0.04)))


def test_sobel_magnitude_of_a_flat_picture_has_a_finite_gradient():
    plane = torch.full((1, 1, 5, 5), 0.5, requires_grad=True)
    sobel_magnitude(plane).sum().backward()
    assert plane.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_same_map():
    image = as_tensor(picture("astronaut"))
    assert torch.equal(canny(image.cuda()).cpu(), canny(image))
