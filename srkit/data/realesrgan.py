"""Pictures whose low-resolution partners are made while training: Real-ESRGAN's blind degradation, on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from srkit.data.augment import Augment
from srkit.data.folders import Folders
from srkit.data.pairs import PictureDataset, PictureReader, Reading
from srkit.data.sample import Sample
from srkit.errors import DataError, RefusedError
from srkit.imaging.blind import BlurRanges, Degradation, DegradationRanges, StageRanges
from srkit.registry import DATASETS

if TYPE_CHECKING:
    from torch import Tensor

# Written out again: options are read from the source of this file alone.
KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
_KINDS: tuple[KernelKind, ...] = (
    "iso",
    "aniso",
    "generalized_iso",
    "generalized_aniso",
    "plateau_iso",
    "plateau_aniso",
)
_USM_REACH_PX = 25


@dataclass(frozen=True)
class BlindDraw:
    """What is left to do with a sample: the degradation, and the corner (row, column) of the lq crop afterwards."""

    degradation: Degradation
    corner: tuple[int, ...]

    def lines(self) -> list[str]:
        """The degradation, for people."""
        return self.degradation.lines()


@DATASETS.register()
class RealESRGANDataset(PictureDataset):
    """High-resolution pictures alone; lq is made from each crop by two rounds of blur, resize, noise and JPEG.

    A window of `crop_pad_size` is cut out and degraded, and from gt and lq the crop of `gt_size` is taken afterwards,
    so that borders do not show and JPEG's blocks lie anywhere in it. Workers read the picture, draw the degradation and
    compute its kernels (so each device sees the same ones); the pixels are computed on the training device. All values
    are drawn anew for every sample, where Real-ESRGAN draws most of them for a whole batch and mixes batches in a pool.

    Args:
        scale: gt size / lq size for height and width.
        dataroot_gt: Folder of the pictures (or LMDB folder or archive), as in `PairedImageDataset`.
        meta_info: List of the names to use, one a line, relative to dataroot_gt; None takes every picture of the folder.
        io_backend: "lmdb" reads BasicSR's LMDB folders, "zip" and "tar" folders of archives.
        gt_size: Side of the square gt crop in pixels.
        crop_pad_size: Side of the degraded window, rounded down to a multiple of the scale. Smaller pictures are
            continued by their mirror image; the crop does not reach into that.
        use_hflip: Mirror left and right with probability 1/2.
        use_rot: Mirror top and bottom, and transpose, each with probability 1/2.
        gt_usm: lq is made from gt after unsharp masking, and batches also hold that as "gt_usm", with which a loss
            compares whose `target` says so.
        blur_kernel_size: Largest side of a kernel, odd; sides are drawn from 7, 9, ... up to it.
        kernel_list: Kinds of kernels of the first round.
        kernel_prob: How often each kind is drawn.
        sinc_prob: Probability of a sinc filter instead.
        blur_sigma: Lowest and highest extent of a kernel in pixels.
        betag_range: Lowest and highest exponent of generalised Gaussian kernels; half of the draws lie below 1.
        betap_range: The same of plateau kernels.
        resize_prob: How often the picture is enlarged, shrunk and kept.
        resize_range: Smallest and largest size after the resize, relative to the window's.
        gaussian_noise_prob: Probability of Gaussian noise; else the noise is Poisson's.
        noise_range: Lowest and highest sigma of Gaussian noise in grey levels of 255.
        poisson_scale_range: Lowest and highest factor on Poisson noise.
        gray_noise_prob: Probability that the noise is the same in all channels.
        jpeg_range: Lowest and highest JPEG quality.
        second_blur_prob: Probability that the second round has a blur.
        blur_kernel_size2: As in the first round, and so the others that end with 2.
        kernel_list2: Kinds of kernels of the second round.
        kernel_prob2: How often each kind is drawn.
        sinc_prob2: Probability of a sinc filter instead.
        blur_sigma2: Extent of a kernel.
        betag_range2: Exponent of generalised Gaussian kernels.
        betap_range2: Exponent of plateau kernels.
        resize_prob2: How often the picture is enlarged, shrunk and kept.
        resize_range2: Size relative to lq's.
        gaussian_noise_prob2: Probability of Gaussian noise.
        noise_range2: Sigma of Gaussian noise.
        poisson_scale_range2: Factor on Poisson noise.
        gray_noise_prob2: Probability of the same noise in all channels.
        jpeg_range2: JPEG quality.
        final_sinc_prob: Probability of a sinc filter at the end, before or after the second JPEG.
        queue_size: Accepted for Real-ESRGAN's files; there is no pool of pairs, for no batch needs mixing here.
        bit_depth: Bits really used in 16-bit files; None takes the whole type. lq has 8 bit at all times.
        cache: Keep decoded pictures, as in `PairedImageDataset`.
        cache_dir: Where; None is $SRKIT_CACHE or ~/.cache/srkit.
        check: What is decoded before training: up to 2,000 files all, else 500 ("auto"), all ("full"), none ("off").
        on_error: Policy for files found unreadable in the run.
        max_pixels: Larger pictures are refused before decoding.

    Raises: RefusedError naming every range that cannot be; DataError for files, as `check` finds them.
    Source: Wang et al. 2021, arXiv:2107.10833, section 3; names and defaults are those of its option files.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        dataroot_gt: str,
        gt_size: int,
        meta_info: str | None = None,
        io_backend: Literal["disk", "lmdb", "zip", "tar"] = "disk",
        crop_pad_size: int = 400,
        use_hflip: bool = False,
        use_rot: bool = False,
        gt_usm: bool = True,
        blur_kernel_size: int = 21,
        kernel_list: Sequence[KernelKind] = _KINDS,
        kernel_prob: Sequence[float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        sinc_prob: float = 0.1,
        blur_sigma: tuple[float, float] = (0.2, 3.0),
        betag_range: tuple[float, float] = (0.5, 4.0),
        betap_range: tuple[float, float] = (1.0, 2.0),
        resize_prob: tuple[float, float, float] = (0.2, 0.7, 0.1),
        resize_range: tuple[float, float] = (0.15, 1.5),
        gaussian_noise_prob: float = 0.5,
        noise_range: tuple[float, float] = (1.0, 30.0),
        poisson_scale_range: tuple[float, float] = (0.05, 3.0),
        gray_noise_prob: float = 0.4,
        jpeg_range: tuple[float, float] = (30.0, 95.0),
        second_blur_prob: float = 0.8,
        blur_kernel_size2: int = 21,
        kernel_list2: Sequence[KernelKind] = _KINDS,
        kernel_prob2: Sequence[float] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
        sinc_prob2: float = 0.1,
        blur_sigma2: tuple[float, float] = (0.2, 1.5),
        betag_range2: tuple[float, float] = (0.5, 4.0),
        betap_range2: tuple[float, float] = (1.0, 2.0),
        resize_prob2: tuple[float, float, float] = (0.3, 0.4, 0.3),
        resize_range2: tuple[float, float] = (0.3, 1.2),
        gaussian_noise_prob2: float = 0.5,
        noise_range2: tuple[float, float] = (1.0, 25.0),
        poisson_scale_range2: tuple[float, float] = (0.05, 2.5),
        gray_noise_prob2: float = 0.4,
        jpeg_range2: tuple[float, float] = (30.0, 95.0),
        final_sinc_prob: float = 0.8,
        queue_size: int | None = None,
        bit_depth: int | None = None,
        cache: Literal["auto", "disk", "none"] = "auto",
        cache_dir: str | None = None,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
        max_pixels: int = 100_000_000,
    ) -> None:
        first = StageRanges(
            blur=BlurRanges(
                largest=blur_kernel_size,
                kinds=kernel_list,
                probs=kernel_prob,
                sinc_prob=sinc_prob,
                sigma=blur_sigma,
                betag=betag_range,
                betap=betap_range,
            ),
            blur_prob=1.0,
            resize_prob=resize_prob,
            resize_range=resize_range,
            gaussian_noise_prob=gaussian_noise_prob,
            noise_range=noise_range,
            poisson_scale_range=poisson_scale_range,
            gray_noise_prob=gray_noise_prob,
            jpeg_range=jpeg_range,
        )
        second = StageRanges(
            blur=BlurRanges(
                largest=blur_kernel_size2,
                kinds=kernel_list2,
                probs=kernel_prob2,
                sinc_prob=sinc_prob2,
                sigma=blur_sigma2,
                betag=betag_range2,
                betap=betap_range2,
            ),
            blur_prob=second_blur_prob,
            resize_prob=resize_prob2,
            resize_range=resize_range2,
            gaussian_noise_prob=gaussian_noise_prob2,
            noise_range=noise_range2,
            poisson_scale_range=poisson_scale_range2,
            gray_noise_prob=gray_noise_prob2,
            jpeg_range=jpeg_range2,
        )
        self.ranges = DegradationRanges(first=first, second=second, final_sinc_prob=final_sinc_prob)
        self.gt_usm, self.scale, self.gt_size = gt_usm, tuple(scale), gt_size
        self.window = tuple(crop_pad_size // s * s for s in self.scale)
        Augment(
            scale=self.scale, gt_size=(gt_size, gt_size), use_rot=use_rot
        )  # refuses sizes that do not fit the scale
        problems = [*self.ranges.problems(), *self._window_problems(crop_pad_size)]
        if problems:
            raise RefusedError(f"{type(self).__name__}: " + "; ".join(problems))
        folders = Folders(meta_info_file=meta_info, backend=io_backend, max_pixels=max_pixels)
        gt, found = folders.open("dataroot_gt", dataroot_gt)
        augment = Augment(scale=(1, 1), gt_size=(gt_size, gt_size), use_hflip=use_hflip, use_rot=use_rot)
        reading = Reading(bit_depth=bit_depth, cache=cache, cache_dir=cache_dir, check=check, on_error=on_error)
        super().__init__(PictureReader(type(self).__name__, gt, None, augment, reading, found, alone="gt"), on_error)

    def _window_problems(self, crop_pad_size: int) -> list[str]:
        """The window must hold the crop, and stay wider than the filters reach, however small it is resized."""
        problems = []
        side = min(self.window)
        if side < self.gt_size:
            problems.append(f"crop_pad_size: {crop_pad_size} is below gt_size {self.gt_size}")
        reach = self.ranges.kernel_width // 2
        smallest = min(int(side * self.ranges.first.resize_range[0]), side // max(self.scale))
        if smallest <= reach or (self.gt_usm and side <= _USM_REACH_PX):
            problems.append(
                f"crop_pad_size: {crop_pad_size} is resized to {smallest} pixels at the least (resize_range, scale), and the "
                f"filters reach {reach} (sharpening {_USM_REACH_PX} before); enlarge it or limit blur_kernel_size"
            )
        return problems

    def sample(self, index: int, rng: np.random.Generator | None, variant: int = 0) -> Sample:
        """The window of picture `index`, turned, and what is to be done with it. DataError naming what does not fit."""
        if rng is None:
            raise RefusedError(
                f"{type(self).__name__} makes another lq at every look, so nothing can be measured on it; evaluate on "
                "pairs, such as `srkit degrade --pairs` writes, with PairedImageDataset"
            )
        reader = self.reader
        label, picture = reader.lq.label(index), reader.lq.read(index)
        height, width, channels = picture.shape
        if min(height, width) < self.gt_size:
            raise DataError(f"{label} is {width}x{height}, smaller than gt_size {self.gt_size}")
        white = reader.white(picture.dtype)
        turn = reader.augment.draw(rng, (height, width), white)
        u = rng.random(4).tolist()
        top, left = (_place(x, n - side) for x, n, side in zip(u, (height, width), self.window))
        cut = reader.augment.turn(picture[top : top + self.window[0], left : left + self.window[1]], turn)
        corner = tuple(_place(x, (n - self.gt_size) // s) for x, n, s in zip(u[2:], cut.shape, self.scale))
        window = np.pad(cut, [(0, side - n) for side, n in zip(self.window, cut.shape)] + [(0, 0)], mode="reflect")
        if channels == 1:
            window = np.repeat(window, 3, axis=-1)
        return Sample(
            {"gt": window}, reader.output_name(index), {"gt": label}, white, BlindDraw(self.ranges.draw(rng), corner)
        )

    def on_device(self, images: Mapping[str, Tensor], draws: Sequence[BlindDraw]) -> dict[str, Tensor]:
        """gt, lq and, with `gt_usm`, "gt_usm", cut to `gt_size`; from "gt" (B, 3, H, W), the windows."""
        import torch

        from srkit.imaging.degradations import degrade, sharpen

        gt = images["gt"]
        stacked = torch.from_numpy(np.stack([d.degradation.kernels for d in draws]))
        # Out of page-locked memory, for else the copy would wait for what the GPU is doing.
        kernels = stacked.pin_memory().to(gt.device, non_blocking=True) if gt.is_cuda else stacked.to(gt.device)
        pictures: dict[str, list[Tensor]] = {"gt": [], "lq": [], **({"gt_usm": []} if self.gt_usm else {})}
        crop = [self.gt_size // s for s in self.scale]
        for k, draw in enumerate(draws):
            window = gt[k : k + 1]
            source = sharpen(window) if self.gt_usm else window
            lq = degrade(source, draw.degradation, kernels[k], self.scale)
            made = {"gt": window, "gt_usm": source, "lq": lq}
            for name, kept in pictures.items():
                factor = (1, 1) if name == "lq" else self.scale
                rows, columns = (slice(c * f, (c + n) * f) for c, n, f in zip(draw.corner, crop, factor))
                kept.append(made[name][..., rows, columns])
        return {name: torch.cat(kept) for name, kept in pictures.items()}


def _place(u: float, room: int) -> int:
    """0 to `room`, each as likely; 0 where there is no room."""
    return int(u * (max(0, room) + 1))
