"""What chance decides about one picture's degradation: ranges from the option file, and the plain values drawn from them.

Two rounds of blur, resize, noise and JPEG, then a sinc filter: Real-ESRGAN's second-order degradation. The pixels are
computed elsewhere (`degradations.py`), on any device; all that is drawn here is drawn from numpy's generator of the
sample, so it depends on nothing but the seed and the sample's place in the run.

Source: Wang et al. 2021, arXiv:2107.10833, sections 3.1 to 3.3; names and values are those of its option files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from srkit.imaging.kernels import bell_kernel, sinc_kernel

KernelKind = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
ResizeMode = Literal["area", "bilinear", "bicubic"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("area", "bilinear", "bicubic")
SMALLEST_KERNEL = 7
_WIDE = 13  # sinc kernels from this side on may have a lower cutoff: a small one cannot hold its ripples


@dataclass(frozen=True)
class Blur:
    """One drawn kernel; of sigma, theta, beta and cutoff, those count that its kind has."""

    kind: KernelKind | Literal["sinc", "none"]
    size: int = 1
    sigma: tuple[float, float] = (1.0, 1.0)
    theta: float = 0.0
    beta: float = 1.0
    cutoff: float = math.pi

    def kernel(self, width: int) -> np.ndarray:
        """(width, width) float32, the kernel in the middle of zeros; "none" is a single 1, which changes no picture."""
        if self.kind == "none":
            inner = np.ones((1, 1))
        elif self.kind == "sinc":
            inner = sinc_kernel(self.size, self.cutoff)
        else:
            profile: Literal["gaussian", "plateau"] = "plateau" if self.kind.startswith("plateau") else "gaussian"
            inner = bell_kernel(self.size, self.sigma, self.theta, profile=profile, beta=self.beta)
        return np.pad(inner.astype(np.float32), (width - len(inner)) // 2)

    def __str__(self) -> str:
        if self.kind == "none":
            return "no blur"
        if self.kind == "sinc":
            return f"sinc {self.size} px, cutoff {self.cutoff / math.pi:.2f} pi"
        extent = f"{self.sigma[0]:.1f}"
        if "aniso" in self.kind:
            extent += f" x {self.sigma[1]:.1f} at {math.degrees(self.theta) % 180:.0f} deg"
        beta = f", beta {self.beta:.1f}" if "_" in self.kind else ""
        return f"{self.kind} {self.size} px, sigma {extent}{beta}"


@dataclass(frozen=True)
class Stage:
    """One drawn round.

    Attributes:
        resize: Size afterwards, relative to the picture's own in the first round, to lq's in the second.
        noise: Which noise is added, and `level`: sigma in grey levels of 255, or the factor on Poisson noise.
        grey: The same noise in all channels.
        quality: JPEG quality, 1 to 100.
    """

    blur: Blur
    resize: float
    mode: ResizeMode
    noise: Literal["gaussian", "poisson"]
    level: float
    grey: bool
    quality: int

    def lines(self, of: str) -> list[str]:
        """The drawn values but for the quality, for people; `of` says what the size is relative to."""
        noise = f"{self.noise} noise {self.level:.1f}{', grey' if self.grey else ''}"
        return [str(self.blur), f"{self.resize:.2f} of {of}'s size, {self.mode}", noise]


@dataclass(frozen=True)
class Degradation:
    """Everything drawn for one picture.

    Attributes:
        mode: How the picture is brought to lq's size in the end.
        jpeg_last: The second JPEG comes after that and the sinc filter, else before.
        noise_seed: Seeds the generator of the noise on the device.
        kernels: (3, K, K) float32: of the first and second round, and the sinc filter.
    """

    first: Stage
    second: Stage
    sinc: Blur
    mode: ResizeMode
    jpeg_last: bool
    noise_seed: int
    kernels: np.ndarray

    def lines(self) -> list[str]:
        """The drawn values in the order they take effect, for people."""
        jpeg, finish = (
            f"JPEG {self.second.quality}",
            [f"lq's size, {self.mode}", str(self.sinc).replace("no blur", "no sinc")],
        )
        end = [*finish, jpeg] if self.jpeg_last else [jpeg, *finish]
        return [*self.first.lines("gt"), f"JPEG {self.first.quality}", *self.second.lines("lq"), *end]


@dataclass(frozen=True, kw_only=True)
class BlurRanges:
    """Kernels of one round: sinc with probability `sinc_prob`, else one of `kinds`; sides 7, 9, ... up to `largest`."""

    largest: int
    kinds: Sequence[KernelKind]
    probs: Sequence[float]
    sinc_prob: float
    sigma: Sequence[float]
    betag: Sequence[float]
    betap: Sequence[float]

    def draw(self, rng: np.random.Generator) -> Blur:
        """Always draws as many numbers, so that a changed option changes only what it is about."""
        which, kind_u, size_u, x, y, turn, half, beta_u = rng.random(8).tolist()
        size = _odd_size(size_u, self.largest)
        if which < self.sinc_prob:
            return Blur("sinc", size, cutoff=_between((math.pi / (3 if size < _WIDE else 5), math.pi), x))
        kind = self.kinds[_choice(self.probs, kind_u)]
        is_round = "aniso" not in kind
        sigma = (_between(self.sigma, x), _between(self.sigma, x if is_round else y))
        beta = 1.0
        if kind not in ("iso", "aniso"):
            low, high = self.betag if kind.startswith("generalized") else self.betap
            beta = _between((low, 1.0) if half < 0.5 else (1.0, high), beta_u)
        return Blur(kind, size, sigma, 0.0 if is_round else _between((-math.pi, math.pi), turn), beta)

    def problems(self, suffix: str) -> Iterator[str]:
        if self.largest < SMALLEST_KERNEL or self.largest % 2 == 0:
            yield f"blur_kernel_size{suffix}: {self.largest} is no odd number from {SMALLEST_KERNEL}"
        if not self.kinds or len(self.kinds) != len(self.probs):
            yield f"kernel_prob{suffix}: found {len(self.probs)} values, expected one per kernel of kernel_list{suffix}"
        yield from _weights_problems(f"kernel_prob{suffix}", self.probs)
        yield from _range_problems(f"blur_sigma{suffix}", self.sigma, above=0)
        for name, values in (("betag_range", self.betag), ("betap_range", self.betap)):
            yield from _around_one_problems(f"{name}{suffix}", values)


@dataclass(frozen=True, kw_only=True)
class StageRanges:
    """One round; in option files the names are followed by 2 for the second."""

    blur: BlurRanges
    blur_prob: float
    resize_prob: Sequence[float]
    resize_range: Sequence[float]
    gaussian_noise_prob: float
    noise_range: Sequence[float]
    poisson_scale_range: Sequence[float]
    gray_noise_prob: float
    jpeg_range: Sequence[float]

    def draw(self, rng: np.random.Generator) -> Stage:
        blurred, direction, factor, mode, noise, level, grey, quality = rng.random(8).tolist()
        blur = self.blur.draw(rng)
        low, high = self.resize_range
        spans = ((1.0, high), (low, 1.0), (1.0, 1.0))  # up, down, keep
        is_gaussian = noise < self.gaussian_noise_prob
        return Stage(
            blur if blurred < self.blur_prob else Blur("none"),
            _between(spans[_choice(self.resize_prob, direction)], factor),
            RESIZE_MODES[int(mode * 3)],
            "gaussian" if is_gaussian else "poisson",
            _between(self.noise_range if is_gaussian else self.poisson_scale_range, level),
            grey < self.gray_noise_prob,
            round(_between(self.jpeg_range, quality)),
        )

    def problems(self, suffix: str) -> Iterator[str]:
        yield from self.blur.problems(suffix)
        if len(self.resize_prob) != 3:
            yield f"resize_prob{suffix}: found {len(self.resize_prob)} values, expected three: up, down, keep"
        yield from _weights_problems(f"resize_prob{suffix}", self.resize_prob)
        yield from _around_one_problems(f"resize_range{suffix}", self.resize_range)
        yield from _range_problems(f"noise_range{suffix}", self.noise_range, low=0)
        yield from _range_problems(f"poisson_scale_range{suffix}", self.poisson_scale_range, low=0)
        yield from _range_problems(f"jpeg_range{suffix}", self.jpeg_range, low=1, high=100)
        for name, value in (
            ("sinc_prob", self.blur.sinc_prob),
            ("gaussian_noise_prob", self.gaussian_noise_prob),
            ("gray_noise_prob", self.gray_noise_prob),
        ):
            yield from _share_problems(f"{name}{suffix}", value)


@dataclass(frozen=True, kw_only=True)
class DegradationRanges:
    """The whole degradation."""

    first: StageRanges
    second: StageRanges
    final_sinc_prob: float

    @property
    def kernel_width(self) -> int:
        """Side of the largest kernel."""
        return max(self.first.blur.largest, self.second.blur.largest)

    def draw(self, rng: np.random.Generator) -> Degradation:
        """Draws from `rng` alone, and always as many numbers."""
        first, second = self.first.draw(rng), self.second.draw(rng)
        has_sinc, size, cutoff, mode, order = rng.random(5).tolist()
        sinc = Blur("none")
        if has_sinc < self.final_sinc_prob:
            sinc = Blur("sinc", _odd_size(size, self.kernel_width), cutoff=_between((math.pi / 3, math.pi), cutoff))
        kernels = np.stack([blur.kernel(self.kernel_width) for blur in (first.blur, second.blur, sinc)])
        seed = int(rng.integers(2**63))
        return Degradation(first, second, sinc, RESIZE_MODES[int(mode * 3)], order < 0.5, seed, kernels)

    def problems(self) -> list[str]:
        """What is wrong with the ranges, under their names in option files."""
        return [
            *self.first.problems(""),
            *self.second.problems("2"),
            *_share_problems("second_blur_prob", self.second.blur_prob),
            *_share_problems("final_sinc_prob", self.final_sinc_prob),
        ]


def _odd_size(u: float, largest: int) -> int:
    return SMALLEST_KERNEL + 2 * int(u * ((largest - SMALLEST_KERNEL) // 2 + 1))


def _between(span: Sequence[float], u: float) -> float:
    return float(span[0] + (span[1] - span[0]) * u)


def _choice(weights: Sequence[float], u: float) -> int:
    """Index drawn with these weights, whose sum need not be 1."""
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, u * edges[-1], side="right"))


def _share_problems(name: str, value: float) -> Iterator[str]:
    if not 0 <= value <= 1:
        yield f"{name}: {value} is no probability, which lies in 0 to 1"


def _weights_problems(name: str, weights: Sequence[float]) -> Iterator[str]:
    if min(weights, default=0) < 0 or sum(weights) <= 0:
        yield f"{name}: found {list(weights)}, expected weights that are not negative and not all 0"


def _range_problems(
    name: str, values: Sequence[float], *, above: float = -math.inf, low: float = -math.inf, high: float = math.inf
) -> Iterator[str]:
    if len(values) != 2 or not (low <= values[0] <= values[1] <= high and values[0] > above):
        least = f" above {above:g}" if above > -math.inf else f" from {low:g}"
        most = f" to {high:g}" if high < math.inf else ""
        yield f"{name}: found {list(values)}, expected the lowest and the highest value, numbers{least}{most}"


def _around_one_problems(name: str, values: Sequence[float]) -> Iterator[str]:
    if len(values) != 2 or not 0 < values[0] <= 1 <= values[1]:
        yield f"{name}: found {list(values)}, expected two numbers, one above 0 and at most 1, one from 1 on"
