"""What a built data set holds: names, sizes, groups, and a digest of every file's content, to compare sets by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from srkit.data.checks import picks
from srkit.data.inplane_slices import SelfSupervisedSlices
from srkit.data.mixed_scales import MixedScales
from srkit.data.pairing import first_names
from srkit.data.pairs import PictureDataset
from srkit.data.slides import SlideDataset
from srkit.data.sources import ScaledSource, Source, in_threads
from srkit.data.volumes import VolumeDataset
from srkit.errors import DataError
from srkit.imaging.volumes import read_volume
from srkit.tools.groups import keys_of

_SIZES = 500  # files whose header is read for the summary
_TYPES = 20  # files decoded for it
_DECODED_UP_TO = 500  # sets of more files are compared by the files' bytes


@dataclass(frozen=True)
class Contents:
    """Files of one set.

    Attributes:
        names: Relative to the set's folder.
        labels: Full paths, or what stands for one.
        groups: Of each file; "" where the set does not know it.
        describe: Size and kind of file k: (sizes along the axes, a word such as "3 channels, 8 bit").
        pixels: Decoded file k.
    """

    names: Sequence[str]
    labels: Sequence[str]
    groups: Sequence[str]
    describe: Callable[[int, bool], tuple[tuple[int, ...], str]]
    pixels: Callable[[int], np.ndarray] | None
    _digests: list[bytes] = field(default_factory=list)

    @classmethod
    def of(cls, dataset: Any) -> Contents | None:
        """None for a data set of a kind that is not known here, such as a user's own."""
        if isinstance(dataset, MixedScales):
            return cls.of(dataset.datasets[0])
        if isinstance(dataset, PictureDataset):
            return _of_pictures(dataset.reader.gt or dataset.reader.lq, dataset.reader.groups)
        if isinstance(dataset, VolumeDataset | SelfSupervisedSlices):
            return _of_volumes(dataset)
        return _of_slides(dataset) if isinstance(dataset, SlideDataset) else None

    def summary(self) -> str:
        """One line: how many files, their sizes, kinds and groups."""
        sizes: list[tuple[int, ...]] = []
        kinds: dict[str, None] = {}
        decoded = set(picks(len(self.names), _TYPES))
        for k in picks(len(self.names), _SIZES):
            try:
                size, kind = self.describe(k, k in decoded)
            except DataError:
                continue  # the check of the files has said it, or on_error skips them
            sizes.append(size)
            kinds |= {kind: None} if kind else {}
        axes = list(zip(*sizes))
        low, high = ("x".join(str(pick(axis)) for axis in axes) for pick in (min, max))
        extent = low if low == high else f"{low} to {high}"
        known = len(set(self.groups) - {""})
        return f"{len(self.names)} files, {extent}, {' and '.join(kinds) or 'kind unknown'}" + (
            f", {known} groups" if known else ""
        )

    def digests(self) -> list[bytes]:
        """Of each file, computed once: of its pixels in small sets (other packing, same picture), else of its bytes."""
        if not self._digests:
            self._digests.extend(in_threads(self._digest, range(len(self.names))))
        return self._digests

    @property
    def by_pixels(self) -> bool:
        return self.pixels is not None and len(self.names) <= _DECODED_UP_TO

    def _digest(self, k: int) -> bytes:
        """Empty for what cannot be read."""
        try:
            if self.by_pixels and self.pixels is not None:
                values = np.ascontiguousarray(self.pixels(k))
                return hashlib.sha256(f"{values.shape} {values.dtype}".encode() + values.tobytes()).digest()
            with Path(self.labels[k]).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except (DataError, OSError):
            return b""


def equal_contents(a: str, first: Contents, b: str, second: Contents) -> list[str]:
    """A line when the same content stands in two sets, whatever the files' names."""
    if first.by_pixels != second.by_pixels:  # only digests of one kind compare
        first, second = (Contents(c.names, c.labels, c.groups, c.describe, None) for c in (first, second))
    held = {digest: k for k, digest in enumerate(first.digests()) if digest}
    both = [(held[digest], k) for k, digest in enumerate(second.digests()) if digest in held]
    if not both:
        return []
    pairs = first_names(f"{first.labels[i]} = {second.labels[k]}" for i, k in both)
    return [f"{len(both)} files stand in {a} and in {b}, so figures on {b} mean nothing: {pairs}"]


def shared_groups(a: str, first: Contents, b: str, second: Contents, key: str | None, table: Path | None) -> list[str]:
    """A line when a group stands in two sets. Raises what `keys_of` does for files without a key."""
    groups = []
    for contents in (first, second):
        given = (
            keys_of(contents.names, key, table).values() if key is not None or table is not None else contents.groups
        )
        groups.append(set(given) - {""})
    both = sorted(groups[0] & groups[1])
    if not both:
        return []
    return [f"{len(both)} groups stand in {a} and in {b} ({first_names(both)}): part the files anew with `srkit split`"]


def _of_pictures(source: Source, groups: Sequence[str]) -> Contents:
    inner = source.inner if isinstance(source, ScaledSource) else source
    names = list(inner.names)

    def describe(k: int, decode: bool) -> tuple[tuple[int, ...], str]:
        if not decode:
            height, width, _ = inner.shape(k)
            return (width, height), ""
        (height, width, channels), dtype = inner.inspect(k)
        return (width, height), f"{channels} channel{'s' * (channels > 1)} of {dtype.itemsize * 8} bit"

    return Contents(
        names, [inner.label(k) for k in range(len(names))], groups or [""] * len(names), describe, inner.read
    )


def _of_volumes(dataset: VolumeDataset | SelfSupervisedSlices) -> Contents:
    volumes = dataset.volumes

    def describe(k: int, decode: bool) -> tuple[tuple[int, ...], str]:
        header = volumes.headers(k)["gt"]
        spacing = "x".join(f"{s:.3g}" for s in header.spacing_mm)
        return header.shape, f"voxels of {spacing} mm, {header.dtype}"

    def pixels(k: int) -> np.ndarray:
        return read_volume(volumes.files.gt[k], volume=volumes.making.volume, repair_nan=True)[0]

    files = volumes.files
    return Contents(files.keys, files.gt, files.groups or [""] * len(files.keys), describe, pixels)


def _of_slides(dataset: SlideDataset) -> Contents:
    def describe(k: int, decode: bool) -> tuple[tuple[int, ...], str]:
        view = dataset.places(k).view
        return (view.width, view.height), f"{view.mpp:.3g} um/pixel" if view.mpp else "unknown um/pixel"

    names = list(dataset.files.names)
    labels = [dataset.files.label(k) for k in range(len(names))]
    return Contents(names, labels, dataset.groups, describe, None)
