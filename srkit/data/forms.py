"""What a network's output becomes: values of a file of the sample's kind, the file itself, and the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import numpy as np

from srkit.imaging.colour import full_from_limited, limited_from_full, luma, quantize, with_chroma
from srkit.imaging.files import write_image
from srkit.imaging.montage import difference, middle_slices, three_planes
from srkit.imaging.resize import imresize, nearest_upscale
from srkit.imaging.slices import Profile, enlarge, thicken
from srkit.imaging.volumes import VolumeHeader, write_volume

if TYPE_CHECKING:
    from srkit.data.sample import Sample

Enlarge = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


class Form(Protocol):
    """Arrays are (*S, C). `sr` is what the restorer returns: float, 1.0 is the sample's white, not clipped.

    Attributes:
        baselines: Interpolation rows that stand beside a network's.
        data_range: Intensity span that metrics are told.
    """

    @property
    def baselines(self) -> tuple[str, ...]: ...

    @property
    def data_range(self) -> float: ...

    def values(self, sr: np.ndarray) -> np.ndarray:
        """What a file of the kind would hold: what is measured."""

    def enlarged(self, baseline: str, lq: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        """The interpolation of that name, as `values` gives the network's."""

    def ideal(self, gt: np.ndarray, channels: int) -> np.ndarray:
        """The values of a network of so many channels that restores gt perfectly."""

    def reduced(self, values: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        """`values` made as small as lq, the way lq is usually made."""

    def low(self, lq: np.ndarray) -> np.ndarray:
        """lq as `values` would give it."""

    @property
    def span(self) -> float:
        """What 1.0 of sr is in the file's units."""

    def finished(self, sr: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        """sr in the colours of the file that `write` writes, still from 0 to 1 and not clipped."""

    def stored(self, finished: np.ndarray) -> np.ndarray:
        """The values of that file."""

    def path(self, place: Path) -> Path:
        """Where `write` puts the file."""

    def write(self, place: Path, sr: np.ndarray, sample: Sample, scale: tuple[int, ...]) -> None:
        """The file; `place` is its path without the suffix, which the kind adds."""

    def preview(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Pictures (H, W, C) from 0 to 1 to look at, of lq, of gt and of `values` as "sr"."""


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """Pictures of integers.

    Args:
        white: Intensity of 1.0.
        dtype: Integer type of the file.
        luma: Range of lq's luma when lq is luma of a colour picture; what is measured is then limited-range luma. "own" is
            a grey picture among those of a luma network: its values stay, and its interpolation is called as theirs.
        chroma: Its colour, (H, W, 2): Cb and Cr of lq.
    """

    BASELINES: ClassVar[tuple[str, ...]] = ("nearest", "bicubic-matlab")
    LUMA_BASELINES: ClassVar[tuple[str, ...]] = ("nearest-y", "bicubic-matlab-y")
    _ENLARGE: ClassVar[Mapping[str, Enlarge]] = {"nearest": nearest_upscale, "bicubic-matlab": imresize}

    white: float
    dtype: np.dtype
    luma: Literal["", "limited", "full", "own"] = ""
    chroma: np.ndarray | None = None

    @classmethod
    def of(cls, sample: Sample) -> PictureForm:
        """The form of a sample that does not say it: the type of its integer arrays."""
        return cls(white=sample.white, dtype=integer_type(sample.images, sample.white))

    @property
    def baselines(self) -> tuple[str, ...]:
        """Luma that is enlarged and rounded by itself differs from the luma of enlarged colour by 0.01 dB: other names."""
        return self.LUMA_BASELINES if self.luma else self.BASELINES

    @property
    def data_range(self) -> float:
        return self.white

    def values(self, sr: np.ndarray) -> np.ndarray:
        return quantize(limited_from_full(sr) if self.luma == "full" else sr, self.dtype, self.white)

    def enlarged(self, baseline: str, lq: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        made = self._ENLARGE[baseline.removesuffix("-y")](lq, scale)
        if self.luma == "full":
            made = limited_from_full(made, self.white)
        return made if np.issubdtype(made.dtype, np.integer) else quantize(made / self.white, self.dtype, self.white)

    def ideal(self, gt: np.ndarray, channels: int) -> np.ndarray:
        if channels >= gt.shape[-1]:
            return gt
        return quantize(luma(gt, self.white) / self.white, gt.dtype, self.white)

    def reduced(self, values: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        return imresize(values, [Fraction(1, s) for s in scale])

    def low(self, lq: np.ndarray) -> np.ndarray:
        return lq if np.issubdtype(lq.dtype, np.integer) else self.values(lq / self.white)

    @property
    def span(self) -> float:
        return self.white

    def finished(self, sr: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        """Luma gets the bicubic enlargement of lq's chroma."""
        if self.chroma is None:
            return sr
        y = sr if self.luma == "full" else full_from_limited(sr)
        return with_chroma(y, imresize(self.chroma / self.white, scale))

    def stored(self, finished: np.ndarray) -> np.ndarray:
        return quantize(finished, self.dtype, self.white)

    def path(self, place: Path) -> Path:
        return place.with_name(f"{place.name}.png")

    def write(self, place: Path, sr: np.ndarray, sample: Sample, scale: tuple[int, ...]) -> None:
        """A PNG."""
        write_image(self.path(place), self.stored(self.finished(sr, scale)))

    def preview(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: (images[name] / self.white).astype(np.float32) for name in ("lq", "sr", "gt") if name in images}


@dataclass(frozen=True, kw_only=True)
class VolumeForm:
    """Volumes (I, J, K, 1) of floats in a file's own units, which are measured unrounded.

    Args:
        header: Of lq, or of gt when lq is made from it: types and codes of what is written.
        affine: (4, 4) of the restored grid.
        black, white: Intensities the network knows as 0 and 1.
        data_range: Maximum minus minimum over the gt volumes of the set.
        profile, thickness: Of the slices that lq is made by; acquired lq is taken for slices without gaps.
    """

    baselines: ClassVar[tuple[str, ...]] = ("nearest", "linear", "cubic")
    _ORDERS: ClassVar[Mapping[str, Literal[0, 1, 3]]] = {"nearest": 0, "linear": 1, "cubic": 3}

    header: VolumeHeader
    affine: np.ndarray
    black: float
    white: float
    data_range: float
    profile: Profile = "box"
    thickness: float = 1.0

    def values(self, sr: np.ndarray) -> np.ndarray:
        return (sr * np.float64(self.white - self.black) + self.black).astype(np.float32)

    def enlarged(self, baseline: str, lq: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        return enlarge(lq[..., 0], scale, self._ORDERS[baseline])[..., None]

    def ideal(self, gt: np.ndarray, channels: int) -> np.ndarray:
        return gt

    def reduced(self, values: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        return thicken(values[..., 0], scale, profile=self.profile, thickness=self.thickness)[..., None]

    def low(self, lq: np.ndarray) -> np.ndarray:
        return lq

    @property
    def span(self) -> float:
        return self.white - self.black

    def finished(self, sr: np.ndarray, scale: tuple[int, ...]) -> np.ndarray:
        return sr

    def stored(self, finished: np.ndarray) -> np.ndarray:
        return self.values(finished)

    def path(self, place: Path) -> Path:
        return place.with_name(f"{place.name}.nii.gz")

    def write(self, place: Path, sr: np.ndarray, sample: Sample, scale: tuple[int, ...]) -> None:
        """A packed NIfTI of float32, and beside it a PNG of the middle slices: lq, sr, gt and difference."""
        values = self.values(sr)
        write_volume(self.path(place), values[..., 0], self.affine, like=self.header)
        shown = {"lq": enlarge(sample.images["lq"][..., 0], scale, 0), "sr": values[..., 0]}
        if "gt" in sample.images:
            shown["gt"] = sample.images["gt"][..., 0]
        write_image(place.with_name(f"{place.name}.png"), three_planes(shown, self.black, self.white))

    def preview(self, images: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        size = images["sr"].shape
        shown = {}
        for name in ("lq", "sr", "gt"):
            if name in images:
                times = [n // m for n, m in zip(size[:3], images[name].shape)]
                shown[name] = middle_slices(images[name][..., 0], self.black, self.white, times) / np.float32(255)
        if "gt" in images:
            apart = difference(images["sr"][..., 0], images["gt"][..., 0], self.span / 10)
            shown["difference"] = apart / np.float32(255)
        return shown


def form_of(sample: Sample) -> Form:
    """The sample's form; pictures need not say it."""
    return sample.form or PictureForm.of(sample)


def integer_type(images: Mapping[str, np.ndarray], white: float) -> np.dtype:
    """Integer type of a sample's files; luma that was made from them is float32."""
    types = [image.dtype for image in images.values() if np.issubdtype(image.dtype, np.integer)]
    return types[0] if types else np.dtype(np.uint8 if white == 255 else np.uint16)
