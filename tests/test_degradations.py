"""Blur, resize, noise, JPEG and sharpening: against arithmetic, OpenCV and Pillow."""

from __future__ import annotations

import io
import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from srkit.imaging.blind import BlurRanges, DegradationRanges, StageRanges
from srkit.imaging.degradations import (
    add_gaussian_noise,
    add_poisson_noise,
    degrade,
    filter2d,
    resize,
    sharpen,
)
from srkit.imaging.jpeg import jpeg
from srkit.imaging.kernels import bell_kernel
from srkit.tools.example_data import load


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=generator(seed))


def tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) uint8 to (1, C, H, W) in 0 to 1."""
    return torch.from_numpy(np.ascontiguousarray(image)).movedim(-1, 0)[None].float() / 255


def array(images: torch.Tensor) -> np.ndarray:
    """The first picture, (H, W, C) in 0 to 255."""
    return (images[0].movedim(0, -1) * 255).numpy()


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return load("astronaut")


# Filters


@pytest.mark.parametrize(("size", "height", "width"), [(7, 40, 33), (21, 31, 64), (51, 40, 60)])
def test_filtering_equals_opencv_with_mirrored_borders(size, height, width):
    pictures = random_pictures(2, 3, height, width)
    kernels = np.stack([bell_kernel(size, (2.0, 0.7), 0.4), bell_kernel(size, (1.0, 3.0), -1.1, profile="plateau")])
    ours = filter2d(pictures, torch.from_numpy(kernels).float())
    for k in range(2):
        planes = pictures[k].movedim(0, -1).numpy()
        theirs = cv2.filter2D(planes, -1, kernels[k], borderType=cv2.BORDER_REFLECT_101)
        np.testing.assert_allclose(ours[k].movedim(0, -1).numpy(), theirs, atol=3e-6)


def test_a_kernel_that_is_no_mirror_image_is_not_turned_around():
    kernel = torch.zeros(1, 3, 3)
    kernel[0, 1, 2] = 1.0  # takes the pixel to the right
    picture = random_pictures(1, 3, 5, 6)
    torch.testing.assert_close(filter2d(picture, kernel)[..., :-1], picture[..., 1:], atol=1e-6, rtol=0)


def test_sharpening_leaves_flat_and_faint_pictures_as_they_are():
    faint = 0.5 + random_pictures(1, 3, 64, 64) * (9 / 255)  # no pixel is 10 grey levels from its surroundings
    torch.testing.assert_close(sharpen(faint), faint, atol=1e-6, rtol=0)


def test_sharpening_equals_its_recipe_on_opencvs_blur(photograph):
    picture = tensor(photograph[:120, :150])
    image = picture[0].movedim(0, -1).numpy()
    detail = image - cv2.GaussianBlur(image, (51, 51), 0)
    share = cv2.GaussianBlur((np.abs(detail) * 255 > 10).astype(np.float32), (51, 51), 0)
    wanted = share * np.clip(image + 0.5 * detail, 0, 1) + (1 - share) * image
    # A pixel whose detail is 10 levels to the last bit may fall on either side: it changes the share by 1/400 at most.
    np.testing.assert_allclose(sharpen(picture)[0].movedim(0, -1).numpy(), wanted, atol=1e-4)


# Resizing


@pytest.mark.parametrize(("mode", "flag"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
@pytest.mark.parametrize("size", [(13, 50), (40, 21)])
def test_resizing_equals_opencvs(mode, flag, size):
    picture = random_pictures(1, 3, 30, 36)
    theirs = cv2.resize(picture[0].movedim(0, -1).numpy(), size[::-1], interpolation=flag)
    np.testing.assert_allclose(resize(picture, size, mode)[0].movedim(0, -1).numpy(), theirs, atol=2e-5)


def test_area_resizing_takes_means():
    picture = random_pictures(1, 3, 12, 18)
    means = picture.reshape(1, 3, 4, 3, 9, 2).mean(dim=(3, 5))
    torch.testing.assert_close(resize(picture, (4, 9), "area"), means)


# Noise


def test_gaussian_noise_has_the_sigma_in_grey_levels():
    grey = torch.full((1, 3, 200, 200), 0.5)
    noise = (add_gaussian_noise(grey, 12.0, False, generator()) - grey) * 255
    assert noise.mean().item() == pytest.approx(0.0, abs=4 * 12 / math.sqrt(noise.numel()))
    assert noise.std().item() == pytest.approx(12.0, rel=4 / math.sqrt(2 * noise.numel()))


@pytest.mark.parametrize("add", [add_gaussian_noise, add_poisson_noise])
def test_grey_noise_is_the_same_in_all_channels_and_colour_noise_is_not(add):
    picture = random_pictures(1, 1, 16, 16).expand(1, 3, 16, 16) * 0.5 + 0.25
    grey = add(picture, 0.5, True, generator())
    assert torch.equal(grey[:, :1].expand_as(grey), grey)
    colour = add(picture, 0.5, False, generator())
    assert not torch.equal(colour[:, 0], colour[:, 1])


@pytest.mark.parametrize("add", [add_gaussian_noise, add_poisson_noise])
def test_noise_follows_its_generator_and_stays_in_range(add):
    picture = random_pictures(1, 3, 16, 16)
    first, again, other = (add(picture, 30.0, False, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() == 0
    assert first.max() == 1


@pytest.mark.parametrize(("levels", "counts"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_poisson_noise_counts_in_the_levels_held_rounded_up_to_a_power_of_two(levels, counts):
    values = torch.arange(levels) * 20 + 60
    picture = (values.repeat(40)[None, None, None].expand(1, 3, 30, -1) / 255).contiguous()
    noisy = add_poisson_noise(picture, 1.0, False, generator()) * counts
    torch.testing.assert_close(noisy, noisy.round(), atol=1e-4, rtol=0)
    assert len(noisy.round().unique()) == counts + 1  # from 0 to white, so no smaller count would do


def test_poisson_noise_varies_with_the_intensity_over_the_count():
    ramp = (torch.arange(256) / 255).expand(1, 3, 3000, 256)
    noise = add_poisson_noise(ramp, 1.0, False, generator()) - ramp
    for level in (50, 128, 200):
        assert noise[..., level].var().item() == pytest.approx(level / 255 / 256, rel=0.06)
    half = add_poisson_noise(ramp, 0.5, False, generator()) - ramp
    torch.testing.assert_close(half[..., 128], noise[..., 128] / 2, atol=1e-5, rtol=0)


# JPEG


def pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file)).astype(float)


def opencv(image: np.ndarray, quality: int) -> np.ndarray:
    flags = [
        cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    ]  # fmt: skip
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)[1]
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(float)


@pytest.mark.parametrize("encode", [pillow, opencv])
@pytest.mark.parametrize("quality", [1, 10, 30, 50, 75, 95, 100])
@pytest.mark.parametrize("size", [(256, 240), (251, 247)])
def test_jpeg_differs_less_from_real_encoders_than_rounding_to_8_bit_does_from_no_rounding(
    photograph, encode, quality, size
):
    image = np.ascontiguousarray(photograph[40 : 40 + size[0], 100 : 100 + size[1]])
    theirs, ours = encode(image, quality), array(jpeg(tensor(image), [quality]))
    assert np.abs(ours - theirs).mean() < 0.25  # the mean error of rounding; compression itself changes 1 to 20 levels


def test_jpeg_of_blocks_in_one_grey_loses_what_its_first_coefficient_loses():
    # A block of level v has the one coefficient 8 (v - 128). At quality 50 it is rounded to multiples of 16: v to those of 2.
    levels = torch.tensor([128, 129, 130, 135, 200, 0]).float()
    image = (levels / 255).repeat_interleave(16)[None, None, None].expand(1, 3, 16, -1)
    wanted = torch.tensor([128, 130, 130, 136, 200, 0]).float()  # halves away from 128
    assert torch.equal((jpeg(image, [50]) * 255).round()[0, 0, 0, ::16], wanted)


def test_every_picture_of_a_batch_has_its_own_quality(photograph):
    image = tensor(photograph[:40, :56])
    both = jpeg(torch.cat([image, image]), [20, 90])
    assert torch.equal(both[:1], jpeg(image, [20]))
    assert torch.equal(both[1:], jpeg(image, [90]))


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_is_none_is_refused(quality):
    with pytest.raises(ValueError, match="JPEG quality is 1 to 100"):
        jpeg(torch.zeros(1, 3, 8, 8), [quality])


# The whole


def ranges(**changes) -> DegradationRanges:
    """Both rounds do next to nothing, but for `changes`."""
    kinds = {"blur_" + name: value for name, value in (("sigma", (0.05, 0.05)), ("sinc_prob", 0.0))} | changes
    blur = BlurRanges(
        largest=7, kinds=["iso"], probs=[1.0], sinc_prob=kinds["blur_sinc_prob"], sigma=kinds["blur_sigma"],
        betag=(1, 1), betap=(1, 1),
    )  # fmt: skip
    stage = {
        "blur": blur, "blur_prob": 1.0, "resize_prob": (0, 0, 1), "resize_range": (1, 1), "gaussian_noise_prob": 1.0,
        "noise_range": (0, 0), "poisson_scale_range": (0, 0), "gray_noise_prob": 0.0, "jpeg_range": (100, 100),
    }  # fmt: skip
    stage |= {k: v for k, v in changes.items() if k in stage}
    return DegradationRanges(
        first=StageRanges(**stage), second=StageRanges(**stage), final_sinc_prob=changes.get("final_sinc_prob", 0.0)
    )


def degraded(gt: torch.Tensor, given: DegradationRanges, seed: int, scale: tuple[int, int]) -> torch.Tensor:
    drawn = given.draw(np.random.default_rng(seed))
    return degrade(gt, drawn, torch.from_numpy(drawn.kernels), scale)


def test_a_degradation_that_does_nothing_but_jpeg_100_keeps_a_grey_picture(photograph):
    grey = np.repeat(photograph[:60, :60, :1], 3, axis=2)
    lq = array(degraded(tensor(grey), ranges(), 0, (1, 1)))
    assert np.abs(lq - grey).max() <= 2  # each JPEG rounds once: half a level in the coefficients, half in the pixels


@pytest.mark.parametrize("seed", range(3))
def test_lq_has_the_size_and_the_levels_of_an_8_bit_picture(photograph, seed):
    full = ranges(
        blur_sigma=(0.2, 3.0), resize_prob=(1, 1, 1), resize_range=(0.3, 1.5), noise_range=(1, 30),
        gaussian_noise_prob=0.5, poisson_scale_range=(0.05, 3), jpeg_range=(30, 95), final_sinc_prob=0.8,
    )  # fmt: skip
    lq = degraded(tensor(photograph[:96, :120]), full, seed, (4, 2))
    assert lq.shape == (1, 3, 24, 60)
    assert lq.min() >= 0
    assert lq.max() <= 1
    torch.testing.assert_close(lq * 255, (lq * 255).round(), atol=1e-4, rtol=0)


def test_whatever_sizes_a_picture_passes_through_it_stays_in_place():
    rows, columns = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
    blob = torch.exp(-((rows - 59.5) ** 2 + (columns - 59.5) ** 2) / 800).expand(1, 3, 120, 120)
    there = torch.arange(30.0)
    for seed in range(20):
        lq = degraded(blob, ranges(resize_prob=(1, 1, 0), resize_range=(0.2, 1.5), jpeg_range=(95, 95)), seed, (4, 4))
        weight = lq[0, 1] / lq[0, 1].sum()
        assert (weight.sum(1) * there).sum().item() == pytest.approx(14.5, abs=0.1)
        assert (weight.sum(0) * there).sum().item() == pytest.approx(14.5, abs=0.1)
