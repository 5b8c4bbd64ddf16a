"""How a picture becomes a number: named, versioned, hashed conventions (colour, rounding, border, windows, range)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal, NamedTuple

import numpy as np

from srkit.errors import DataError, RefusedError, did_you_mean
from srkit.imaging.colour import luma, luma_full
from srkit.imaging.edges import edge_map
from srkit.metrics.msssim import MSSSIM_WINDOW
from srkit.metrics.ssim import SSIM_WINDOW

_NOT_HASHED = ("name", "baselines")


class Prepared(NamedTuple):
    """What metrics compare: float64 (*S, C) arrays after colour and border, and the intensity span."""

    sr: np.ndarray
    gt: np.ndarray
    data_range: float


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that decides a metric's value for given files; two equal hashes may share a table column.

    Attributes:
        name: Versioned name; any change of the other fields needs a new one.
        colour: "y" compares luma only, "rgb" all channels, "values" volumes as they are, "edges" the pictures' Canny maps.
        y_range: BT.601 range of luma, "limited" (16 to 235, what papers use) or "full"; "none" unless colour is "y".
        rounding: "file" compares what an integer file would hold, "none" the floats.
        border: Pixels left out on every side: "scale" (per axis) or a number; 0 is none.
        data_range: "white" is the file's white, "gt-set" max - min over all gt volumes, "gt-volume" of this one.
        mask: "none", or "whole-and-inside" for one value each of the volume and of its mask.
        window: What SSIM computes (`ssim.py`); a record, not a switch.
        ms_window: What MSSSIM computes.
        axes: Spatial axes, 2 or 3.
        aggregation: How a set's number comes from its images.
        baselines: Interpolation rows that belong beside every result. Not hashed, like the name.
    """

    name: str
    colour: Literal["y", "rgb", "values", "edges"]
    y_range: Literal["limited", "full", "none"] = "none"
    rounding: Literal["file", "none"] = "file"
    border: int | Literal["scale"] = "scale"
    data_range: Literal["white", "gt-set", "gt-volume"] = "white"
    mask: Literal["none", "whole-and-inside"] = "none"
    window: str = SSIM_WINDOW
    ms_window: str = MSSSIM_WINDOW
    axes: Literal[2, 3] = 2
    aggregation: str = "mean over images of the image's value"
    baselines: tuple[str, ...] = ("nearest", "bicubic-matlab")

    def __post_init__(self) -> None:
        if (self.colour == "y") == (self.y_range == "none"):
            raise RefusedError(f"{self.name}: y_range '{self.y_range}' does not go with colour '{self.colour}'")
        if self.border != "scale" and self.border < 0:
            raise RefusedError(f"{self.name}: border must be 0 or more, got {self.border}")

    @property
    def hash(self) -> str:
        """First 8 hex digits of the SHA-256 of all fields but name and baselines."""
        fields = {key: value for key, value in asdict(self).items() if key not in _NOT_HASHED}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:8]

    def prepare(self, sr: np.ndarray, gt: np.ndarray, scale: Sequence[int], white: float) -> Prepared:
        """Bring sr and gt to what the metrics compare.

        Args:
            sr, gt: (*S, C) of equal S; under rounding "file" of one integer type (see `quantize`). A colour sr of a
                grey gt is reduced to full-range luma, its brightness on gt's own scale. A one-channel sr of a colour gt
                is limited-range luma already (`color: y`), and is compared with gt's where that is what is measured;
                where edges are, it is a map of them already.
            scale: One number per axis, for border "scale".
            white: Intensity of full white in the arrays: 255, 65535, 2**bit_depth - 1, or 1.0. Under data_range
                "gt-set" the set's gt maximum minus minimum.

        Raises: DataError when the two do not fit together, gt exceeds white, or the border leaves nothing.
        """
        self._check(sr, gt, white)
        pair = []
        for image in (sr, gt):
            if self.colour == "edges":
                image = edge_map(image, white) if image.shape[-1] == gt.shape[-1] else image / white
            elif gt.shape[-1] == 1:
                image = luma_full(image)
            elif self.colour == "y":
                image = luma(image, white) if self.y_range == "limited" else luma_full(image)
            pair.append(_without_border(image, self._border(scale)).astype(np.float64, copy=False))
        span = float(gt.max() - gt.min()) if self.data_range == "gt-volume" else float(white)
        span = 1.0 if self.colour == "edges" else span
        if not span > 0:
            raise DataError(f"{self.name}: data_range must be above 0, got {span}; is gt constant?")
        return Prepared(pair[0], pair[1], span)

    def prepare_mask(self, mask: np.ndarray, scale: Sequence[int]) -> np.ndarray:
        """A mask (*S) without the border that `prepare` takes off."""
        return _without_border(mask, self._border(scale))

    def _border(self, scale: Sequence[int]) -> Sequence[int]:
        if len(scale) != self.axes:
            raise RefusedError(f"{self.name} is for {self.axes} axes, scale {tuple(scale)} has {len(scale)}")
        return list(scale) if self.border == "scale" else [self.border] * self.axes

    def _check(self, sr: np.ndarray, gt: np.ndarray, white: float) -> None:
        if gt.ndim != self.axes + 1 or sr.shape[:-1] != gt.shape[:-1]:
            raise DataError(f"{self.name}: sr {sr.shape} and gt {gt.shape} must be of one size, {self.axes}D")
        is_measured = sr.shape[-1] == 1 and (self.y_range == "limited" or self.colour == "edges")
        if sr.shape[-1] != gt.shape[-1] and gt.shape[-1] != 1 and not is_measured:
            raise DataError(
                f"{self.name}: sr has {sr.shape[-1]} channels, gt {gt.shape[-1]}; a luma network (color: y) is measured with "
                "test_y_channel: true or protocol: natural-y-v1, an edge map with EdgeF1, EdgePrecision or EdgeRecall"
            )
        if self.rounding == "none":
            return
        if sr.dtype != gt.dtype or not np.issubdtype(gt.dtype, np.integer):
            raise DataError(f"{self.name} compares file values: sr is {sr.dtype}, gt {gt.dtype}, want one integer type")
        if gt.max() > white:
            raise DataError(f"{self.name}: gt holds {gt.max()}, above its white of {white:g}; the bit depth is wrong")
        if gt.dtype == np.uint8 and white != 255:
            raise DataError(f"{self.name}: white of 8-bit pictures is 255, got {white:g}")


def _without_border(image: np.ndarray, border: Sequence[int]) -> np.ndarray:
    # From b to n - b, not b:-b, which is empty for 0.
    kept = image[tuple(slice(b, n - b) for n, b in zip(image.shape, border))]
    if kept.size == 0 or any(n <= 2 * b for n, b in zip(image.shape, border)):
        raise DataError(f"a border of {tuple(border)} leaves nothing of {image.shape[: len(border)]}")
    return kept


_RGB = Protocol(name="natural-rgb-v1", colour="rgb")
PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(name="natural-y-v1", colour="y", y_range="limited"),
        _RGB,
        replace(_RGB, name="histology-rgb-v1"),
        replace(_RGB, name="faces-rgb-v1"),
        Protocol(
            name="mri-volume-v1",
            colour="values",
            rounding="none",
            border=0,
            data_range="gt-set",
            mask="whole-and-inside",
            axes=3,
            baselines=("nearest", "linear", "cubic"),
        ),
    )
}


def protocol_named(name: str) -> Protocol:
    """The protocol of that name. Raises RefusedError with the nearest known name."""
    if name not in PROTOCOLS:
        raise RefusedError(f"no protocol is named '{name}'{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def custom_protocol(
    crop_border: int | None, test_y_channel: bool, edges: bool = False, axes: Literal[2, 3] = 2
) -> Protocol:
    """What `crop_border` and `test_y_channel` of a BasicSR option file spell out, named `custom:<hash>`.

    Args:
        crop_border: Pixels left out on every side; 0 is none, None as many as the scale (none in volumes).
        test_y_channel: Compare limited-range luma instead of RGB.
        edges: Compare edge maps, which are made from luma anyway.
        axes: Of the pictures; 3 is mri-volume-v1 but for the border.

    Raises: RefusedError for edges or luma of volumes.
    """
    if axes == 3:
        if edges or test_y_channel:
            raise RefusedError(f"volumes have no {'edge maps' if edges else 'luma (test_y_channel)'}; remove it")
        volumes = replace(PROTOCOLS["mri-volume-v1"], border=crop_border or 0)
        return volumes if not crop_border else replace(volumes, name=f"custom:{volumes.hash}")
    protocol = Protocol(
        name="custom",
        colour="edges" if edges else "y" if test_y_channel else "rgb",
        y_range="limited" if test_y_channel and not edges else "none",
        border="scale" if crop_border is None else crop_border,
    )
    return replace(protocol, name=f"custom:{protocol.hash}")
