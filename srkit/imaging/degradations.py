"""Blind degradation of pictures, computed on their device: blur, resize, noise, JPEG and sharpening.

What is drawn and in which order is decided before (`blind.py`). Every picture is computed on its own, so that it does
not depend on the others in its batch, and because resizing gives each another size.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from srkit.imaging.blind import Degradation, ResizeMode, Stage
from srkit.imaging.colour import FULL_WEIGHTS
from srkit.imaging.jpeg import jpeg
from srkit.imaging.kernels import bell_kernel

USM_RADIUS_PX = 25
_USM_SIGMA = 8.0  # what OpenCV makes of a window of 51 pixels
_USM_WEIGHT, _USM_THRESHOLD = 0.5, 10 / 255


def filter2d(images: Tensor, kernels: Tensor) -> Tensor:
    """Every picture filtered with its own kernel, mirrored at the border without the edge pixel.

    The kernel is not turned around (correlation), which makes no difference to kernels that are their own mirror image
    through the centre, as all of `kernels.py` are. By Fourier transform: faster than direct sums from about 9 x 9 on.

    Shape: images (B, C, H, W) and kernels (B, k, k), k odd and below twice H and W; returns (B, C, H, W).
    """
    radius = kernels.shape[-1] // 2
    height, width = images.shape[-2:]
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    size = tuple(
        -(-n // 32) * 32 for n in padded.shape[-2:]
    )  # lengths with large prime factors take several times as long
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernels, s=size).conj().unsqueeze(1)
    # The circular sum wraps around only behind the picture's own rows and columns, which alone are kept.
    return torch.fft.irfft2(spectrum, s=size)[..., :height, :width]


def resize(images: Tensor, size: tuple[int, int], mode: ResizeMode) -> Tensor:
    """To that height and width. "bilinear" and "bicubic" take no mean when shrinking, so they alias as careless software does.

    Outer edges stay on outer edges, so that pictures resized back and forth remain in place.
    """
    if mode == "area":
        return F.interpolate(images, size=size, mode="area")
    return F.interpolate(images, size=size, mode=mode, align_corners=False)


def add_gaussian_noise(images: Tensor, sigma: float, grey: bool, generator: torch.Generator) -> Tensor:
    """Normal noise of `sigma` grey levels of 255, clipped to 0 and 1.

    Args:
        images: (B, C, H, W) in 0 to 1.
        grey: The same value in all channels of a pixel.
    """
    batch, channels, height, width = images.shape
    noise = torch.randn(
        (batch, 1 if grey else channels, height, width), generator=generator, device=images.device, dtype=images.dtype
    )
    return (images + noise * (sigma / 255)).clamp_(0, 1)


def add_poisson_noise(images: Tensor, scale: float, grey: bool, generator: torch.Generator) -> Tensor:
    """Shot noise, clipped to 0 and 1: brighter pixels vary more.

    A pixel of intensity x counts Poisson(x n) / n, n being the number of 8-bit levels that the picture holds, rounded
    up to a power of two; its deviation from x is multiplied by `scale`.

    Args:
        images: (B, 3, H, W) in 0 to 1.
        grey: The noise is that of the luma, the same in all channels.

    Source: Wang et al. 2021, arXiv:2107.10833, section 3.1; the count as in scikit-image's `random_noise`.
    """
    source = images
    if grey:
        source = sum(weight * images[:, k : k + 1] for k, weight in enumerate(FULL_WEIGHTS))  # type: ignore[assignment]
    levels = (source * 255).round().clamp(0, 255)
    noise = torch.empty_like(source)
    for index in range(len(images)):
        count = _levels_held(levels[index])
        x = levels[index] / 255
        noise[index] = torch.poisson(x * count, generator=generator) / count - x
    return (images + noise * scale).clamp_(0, 1)


def _levels_held(levels: Tensor) -> Tensor:
    """How many different values of 0 to 255 there are, rounded up to a power of two; a scalar, without asking the device."""
    held = torch.zeros(256, device=levels.device).index_fill_(0, levels.long().flatten(), 1.0)
    powers = 2.0 ** torch.arange(8, device=levels.device)
    return 2.0 ** (held.sum() > powers).sum()


def sharpen(images: Tensor) -> Tensor:
    """Unsharp masking: half the difference to a wide blur is added where it exceeds 10 grey levels, with soft borders.

    Shape: (B, C, H, W) in 0 to 1, in and out; H and W above 25.
    Source: Wang et al. 2021, arXiv:2107.10833, section 3.4; window of 51 pixels, sigma 8, weight 0.5, threshold 10.
    """
    kernels = _usm_kernel(images.device, images.dtype).expand(len(images), -1, -1)
    detail = images - filter2d(images, kernels)
    share = filter2d((detail.abs() > _USM_THRESHOLD).to(images.dtype), kernels)
    return torch.lerp(images, (images + _USM_WEIGHT * detail).clamp_(0, 1), share)


@functools.cache
def _usm_kernel(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Kept on the device: every copy to a GPU would wait for what the GPU is doing."""
    bell = bell_kernel(2 * USM_RADIUS_PX + 1, (_USM_SIGMA, _USM_SIGMA))
    return torch.from_numpy(bell).to(device, dtype)


def degrade(gt: Tensor, drawn: Degradation, kernels: Tensor, scale: Sequence[int]) -> Tensor:
    """lq of one picture.

    Args:
        gt: (1, 3, H, W) in 0 to 1, sides multiples of the scale.
        kernels: `drawn.kernels` on gt's device.

    Shape: returns (1, 3, H / scale, W / scale), on the 8-bit levels of 0 to 1.
    """
    generator = torch.Generator(gt.device).manual_seed(drawn.noise_seed)
    size = (gt.shape[-2] // scale[0], gt.shape[-1] // scale[1])
    first, second = drawn.first, drawn.second
    image = jpeg(_stage(gt, first, kernels[:1], gt.shape[-2:], generator), [first.quality])
    image = _stage(image, second, kernels[1:2], size, generator)
    if not drawn.jpeg_last:
        image = jpeg(image, [second.quality])
    image = resize(image, size, drawn.mode)
    if drawn.sinc.kind != "none":
        image = filter2d(image, kernels[2:])
    if drawn.jpeg_last:
        image = jpeg(image, [second.quality])
    return (image * 255).round_().clamp_(0, 255) / 255


def _stage(image: Tensor, stage: Stage, kernel: Tensor, size: Sequence[int], generator: torch.Generator) -> Tensor:
    """Blur, resize to `stage.resize` times `size`, noise."""
    if stage.blur.kind != "none":
        image = filter2d(image, kernel)
    height, width = (max(1, int(n * stage.resize)) for n in size)
    image = resize(image, (height, width), stage.mode)
    add = add_gaussian_noise if stage.noise == "gaussian" else add_poisson_noise
    return add(image, stage.level, stage.grey, generator)
