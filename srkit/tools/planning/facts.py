"""What option files need to know of the files themselves: measured on a sample, without reading everything."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from srkit.data.checks import picks
from srkit.data.folders import Folders
from srkit.data.known_pictures import known_pictures
from srkit.data.names import NameList
from srkit.data.pairing import first_names
from srkit.data.sources import FileSource
from srkit.errors import DataError
from srkit.imaging.files import image_size, read_image
from srkit.imaging.geometry import thick_axis
from srkit.imaging.slides import open_slide
from srkit.imaging.volumes import read_header
from srkit.tools.check_pairs import look_at_pairs
from srkit.tools.planning.layout import Part

Kind = Literal["natural", "histology", "faces", "unknown"]
PROTOCOLS = {
    "natural": "natural-y-v1",
    "histology": "histology-rgb-v1",
    "faces": "faces-rgb-v1",
    "unknown": "natural-rgb-v1",
}
_WORDS: dict[Kind, frozenset[str]] = {
    "histology": frozenset(
        {"histology", "histo", "wsi", "slide", "slides", "tcga", "pathology", "brecahad", "camelyon"}
    ),
    "faces": frozenset({"face", "faces", "ffhq", "celeba", "portrait", "portraits", "headshots"}),
    "natural": frozenset(
        {"natural", "div2k", "flickr2k", "df2k", "bsd", "bsds500", "t91", "set5", "set14", "urban100"}
    ),
}
_HEADERS, _DECODED, _PAIRS = 200, 16, 8
_NO_FACTOR = 0.5  # up to half as long again as the others, slices are no nearer to a scale of 2 than to none
_ODD_SPACING = 0.1  # relative difference of a volume from the others


@dataclass(frozen=True)
class PictureFacts:
    """Of a sample of pictures.

    Attributes:
        smallest: Shortest height and width, pixels.
        mean: Of each channel, 0 to 1.
        bits: 8 or 16.
        brightest: Largest value decoded.
        jpeg: Share of files named as JPEG.
    """

    count: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    channels: frozenset[int]
    bits: int
    brightest: int
    mean: tuple[float, ...]
    jpeg: float
    warnings: list[str] = field(default_factory=list)

    @property
    def bit_depth(self) -> int | None:
        """A guess for 16-bit files whose values end at a power of two below: 10, 12 or 14."""
        used = max(1, math.ceil(math.log2(self.brightest + 1)))
        return used if self.bits == 16 and 8 < used < 16 else None


def picture_facts(part: Part, scale: tuple[int, ...]) -> PictureFacts:
    """Raises DataError when none of the sample can be read, or two bit depths are mixed."""
    sizes, channels, warnings = [], set(), []
    for k in picks(len(part.names), _HEADERS):
        try:
            header = image_size(part.gt / part.names[k])
        except DataError as error:
            warnings.append(str(error))
            continue
        sizes.append((header.height, header.width))
        channels.add(header.channels)
    depths, brightest, means = set(), 0, []
    for k in picks(len(part.names), _DECODED):
        try:
            image = read_image(part.gt / part.names[k])
        except DataError:
            continue  # named above or by the check
        depths.add(image.dtype.itemsize * 8)
        brightest = max(brightest, int(image.max()))
        white = 255 if image.dtype == np.uint8 else 65535
        means.append(np.broadcast_to(image.mean((0, 1)) / white, 3))
    if not sizes or not depths:
        raise DataError(
            f"{part.gt}: none of the pictures can be read; first: {warnings[0] if warnings else part.names[0]}"
        )
    if len(depths) > 1:
        raise DataError(f"{part.gt}: pictures of {sorted(depths)} bit are mixed; srkit trains on one depth")
    gt = FileSource(str(part.gt), NameList(part.names))
    warnings += known_pictures(gt)
    if part.lq is not None:
        _, lq, problems = Folders().open_pairs(str(part.gt), str(part.lq), part.filename_tmpl, part.pair_pattern)
        warnings += problems or look_at_pairs(lq, gt, scale, _PAIRS).lines
    heights, widths = zip(*sizes)
    jpeg = sum(name.lower().endswith((".jpg", ".jpeg")) for name in part.names) / len(part.names)
    mean = tuple(round(float(m), 4) for m in np.mean(means, 0))
    return PictureFacts(
        len(part.names),
        (min(heights), min(widths)),
        (max(heights), max(widths)),
        frozenset(channels),
        depths.pop(),
        brightest,
        mean,
        jpeg,
        warnings,
    )


@dataclass(frozen=True)
class VolumeFacts:
    """By the headers of a sample.

    Attributes:
        spacing_mm: Median along each axis.
        thick_axis: The axis whose spacing is clearly larger than the others', or None.
        odd: Names of volumes whose spacing differs from that.
    """

    smallest: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    thick_axis: int | None
    odd: Sequence[str] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def thick_scale(self) -> tuple[int, ...] | None:
        """Slice distance over the distance of voxels within, rounded, along the thick axis; None without one."""
        if self.thick_axis is None:
            return None
        inside = [s for a, s in enumerate(self.spacing_mm) if a != self.thick_axis]
        factor = max(2, round(self.spacing_mm[self.thick_axis] / (sum(inside) / 2)))
        return tuple(factor if a == self.thick_axis else 1 for a in range(3))


def volume_facts(part: Part) -> VolumeFacts:
    """Raises DataError when no header can be read."""
    headers, warnings = [], []
    for k in picks(len(part.names), _HEADERS):
        try:
            headers.append(read_header(part.gt / part.names[k], volume=0))
        except DataError as error:
            warnings.append(str(error))
    if not headers:
        raise DataError(f"{part.gt}: no volume can be read; first: {warnings[0]}")
    spacings = np.array([header.spacing_mm for header in headers])
    typical = np.median(spacings, 0)
    odd = [h.path.name for h, s in zip(headers, spacings) if np.any(np.abs(s / typical - 1) > _ODD_SPACING)]
    if odd:
        usual = "x".join(f"{s:.3g}" for s in typical)
        warnings.append(f"{len(odd)} volumes have another spacing than {usual} mm: {first_names(odd)}")
    if series := [h.path.name for h in headers if h.n_volumes > 1]:
        warnings.append(
            f"{len(series)} files hold several volumes ({first_names(series)}); `volume: 0` takes the first"
        )
    shapes = np.array([header.shape for header in headers])
    spacing_mm = tuple(round(float(s), 4) for s in typical)
    return VolumeFacts(tuple(shapes.min(0).tolist()), spacing_mm, thick_axis(spacing_mm, _NO_FACTOR), odd, warnings)


@dataclass(frozen=True)
class SlideFacts:
    """`mpp` are microns per pixel of those slides that say it; `silent` the names of the others."""

    mpp: Sequence[float]
    silent: Sequence[str]
    warnings: list[str] = field(default_factory=list)


def slide_facts(part: Part) -> SlideFacts:
    """Raises RefusedError without OpenSlide, DataError when no slide can be opened."""
    mpp, silent, warnings = [], [], []
    for k in picks(len(part.names), _HEADERS):
        try:
            slide = open_slide(part.gt / part.names[k])
        except DataError as error:
            warnings.append(str(error))
            continue
        if slide.mpp is None:
            silent.append(part.names[k])
        else:
            mpp.append(slide.mpp)
    if not mpp and not silent:
        raise DataError(f"{part.gt}: no slide can be opened; first: {warnings[0]}")
    return SlideFacts(mpp, silent, warnings)


def kind_of(folder: Path, names: Sequence[str]) -> tuple[Kind, str]:
    """What the pictures show, as far as a word tells it that stands in the folder's path or in half of the files' names.

    ("unknown", "") where none does.
    """
    sample = [names[k] for k in picks(len(names), _HEADERS)]
    counts = Counter(word for name in sample for word in set(_words(name)))
    words = _words(str(folder.absolute())) + [word for word, count in counts.items() if count * 2 >= len(sample)]
    for kind, known in _WORDS.items():
        if word := next((w for w in words if w in known), None):
            return kind, word
    return "unknown", ""


def _words(text: str) -> list[str]:
    return re.split(r"[^a-z0-9]+", text.lower())
