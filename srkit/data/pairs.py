"""Everything the picture datasets share: reading, fitting, augmenting and checking lq and gt together."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from srkit.data.augment import Augment
from srkit.data.cache import CachedSource, cache_root
from srkit.data.checks import Findings, check_files, picks
from srkit.data.colour_change import ColourChange
from srkit.data.damage import LqDamage
from srkit.data.forms import PictureForm, integer_type
from srkit.data.known_pictures import known_pictures
from srkit.data.names import need_folders, output_name
from srkit.data.resident import ResidentDraw, ResidentPictures, ResidentSet
from srkit.data.sample import Sample
from srkit.data.sources import ShrunkSource, Source
from srkit.disk import free_disk_bytes
from srkit.errors import DataError, RefusedError
from srkit.imaging.colour import chroma, luma, luma_full

if TYPE_CHECKING:
    import torch

_CACHE_LIMIT_BYTES = 64e9
_log = logging.getLogger("srkit")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The settings every picture dataset takes; the datasets explain them."""

    color: Literal["rgb", "y", "y_full"] = "rgb"
    bit_depth: int | None = None
    cache: Literal["auto", "disk", "none", "device"] = "auto"
    cache_dir: str | None = None
    check: Literal["auto", "full", "off"] = "auto"
    on_error: Literal["raise", "skip"] = "raise"


class PictureReader:
    """Samples out of an lq source and, unless it is None, a gt source of the same length and order.

    Args:
        title: Name of the dataset in messages.
        problems: What pairing found wrong; with any, DataError names them together with what `check` finds.
        damage: What befalls the lq of training crops, and only that.
        colours: How colours of training crops change, alike in lq and gt.
        more_sizes: Further crops, larger than that of `augment`; a training batch has one of all these sizes.
        alone: Role of the pictures of `lq` when there is no gt source: a set that makes lq on the device has "gt" alone.
        groups: Slide, patient or person of each picture, before `ScaledSource` repeats them; empty where nothing says it.
    """

    def __init__(
        self,
        title: str,
        lq: Source,
        gt: Source | None,
        augment: Augment,
        reading: Reading,
        problems: list[str] | None = None,
        damage: LqDamage | None = None,
        colours: ColourChange | None = None,
        more_sizes: Sequence[tuple[int, ...]] = (),
        alone: Literal["lq", "gt"] = "lq",
        groups: Sequence[str] = (),
    ) -> None:
        self.alone, self.groups = alone, groups
        require_plane(augment.scale)
        self.damage, self.colours = damage or LqDamage(), colours or ColourChange()
        self.augments = [augment, *(replace(augment, gt_size=size) for size in more_sizes)]
        self.title, self.augment, self.reading, self.scale = title, augment, reading, augment.scale
        self._recipe = lq.recipe if isinstance(lq, ShrunkSource) else ""
        self.lq_is_made = bool(self._recipe)
        self.lq, self.gt = lq, gt
        if problems:
            findings = Findings(title, list(problems))
            if len(lq.names):
                check_files(self, findings)
            findings.refuse()
        self._named_by = (gt or lq).names  # gt's names, so that results of one picture at two scales compare
        self._keep_folders = need_folders(self._named_by)
        self._use_cache: tuple[bool, str] | None = None
        self._unreadable: dict[int, str] = {}
        self.resident: ResidentSet | None = None

    def __len__(self) -> int:
        return len(self.lq.names)

    @property
    def sources(self) -> dict[str, Source]:
        """The sources by role."""
        return {self.alone: self.lq} if self.gt is None else {"lq": self.lq, "gt": self.gt}

    def white(self, dtype: np.dtype) -> float:
        """Intensity of 1.0."""
        depth = self.reading.bit_depth
        return float((255 if dtype == np.uint8 else 65535) if depth is None else 2**depth - 1)

    def sample(self, index: int, rng: np.random.Generator | None, variant: int = 0) -> Sample:
        """See the datasets; `variant` numbers the crop's size. DataError, naming the files, when they cannot be read or do not fit."""
        paths = {role: source.label(index) for role, source in self.sources.items()}
        if self.resident is not None and rng is not None:
            return self._resident_sample(self.resident, index, rng, self.augments[variant], paths)
        images = {role: source.read(index) for role, source in self.sources.items()}
        lq, gt = images["lq"], images.get("gt")
        white = self.white(lq.dtype)
        if gt is not None:
            if gt.dtype != lq.dtype:
                raise DataError(f"{paths['lq']} is {lq.dtype}, {paths['gt']} is {gt.dtype}")
            images["gt"] = self._fit(lq, gt, paths)
        name = self.output_name(index)
        if rng is None:
            whole = {role: self._colour(role, image, white, augmented=False) for role, image in images.items()}
            whole = {role: np.require(image, requirements=["C", "W"]) for role, image in whole.items()}
            kind: Literal["", "limited", "full", "own"] = ""
            if self.reading.color != "rgb":
                kind = "own" if lq.shape[-1] == 1 else "limited" if self.reading.color == "y" else "full"
            form = PictureForm(
                white=white,
                dtype=integer_type(images, white),
                luma=kind,
                chroma=chroma(lq) if kind in ("limited", "full") else None,
            )
            group = self.groups[index % len(self.groups)] if self.groups else ""
            return Sample(whole, name, paths, white, group=group, form=form)
        augment = self.augments[variant]
        try:
            draw = augment.draw(rng, lq.shape[:-1], white)
        except DataError as error:
            raise DataError(f"{paths['lq']}: {error}") from None
        # Children, in this order at all times: nothing that is switched on changes the draws of another thing.
        chances = rng.spawn(2) if self.damage.is_on or self.colours.is_on else None
        factors = self.colours.draw(chances[1]) if chances and self.colours.is_on else None
        pivot = 0.0 if factors is None else factors.pivot(augment.crop(lq, draw), white)
        for role, image in images.items():
            cut = augment.crop(image, draw, self.scale if role == "gt" else None)
            if factors is not None:
                cut = factors(cut, white, pivot)
            if cut.shape[-1] == 1 and self.reading.color == "rgb":
                cut = np.repeat(cut, 3, axis=-1)
            turned = augment.turn(augment.jitter(cut, draw, white), draw)
            if role == "lq" and chances and self.damage.is_on:
                turned = self.damage(turned, chances[0], white)
            images[role] = self._colour(role, turned, white, augmented=True)
        return Sample(images, name, paths, white)

    def output_name(self, index: int) -> str:
        """Stem for output files, unique in the set."""
        return output_name(self._named_by[index], self._keep_folders)

    def fits(self, lq_shape: tuple[int, ...], gt_shape: tuple[int, ...]) -> bool:
        """Whether gt is lq times the scale: exactly for training on crops, else up to less than one step more."""
        slack = self.augment.gt_size is None or self.lq_is_made
        return all(0 <= g - n * s <= (s - 1 if slack else 0) for n, g, s in zip(lq_shape, gt_shape, self.scale))

    def _fit(self, lq: np.ndarray, gt: np.ndarray, paths: dict[str, str]) -> np.ndarray:
        height, width = lq.shape[0] * self.scale[0], lq.shape[1] * self.scale[1]
        if gt.shape[0] == height and gt.shape[1] == width:
            return gt
        if not self.fits(lq.shape, gt.shape):
            raise DataError(
                f"{paths['gt']} is {gt.shape[1]}x{gt.shape[0]}; expected {width}x{height}, "
                f"scale {self.scale} times {paths['lq']} of {lq.shape[1]}x{lq.shape[0]}"
            )
        return gt[:height, :width]

    def _colour(self, role: str, image: np.ndarray, white: float, *, augmented: bool) -> np.ndarray:
        if role == "gt" and not augmented:
            return image  # metrics take luma, or compare grey with grey, from the file's own integers
        if self.reading.color != "rgb":
            return (luma(image, white) if self.reading.color == "y" else luma_full(image)).astype(np.float32)
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image

    def prepare(self, progress: bool) -> None:
        """Build or open the decoded cache where one is used; later calls find it current and return at once."""
        if not self._decide_cache()[0]:
            return
        root = cache_root(self.reading.cache_dir)
        gt = None if self.gt is None else _cached(self.gt, root)
        lq: Source = self.lq
        if isinstance(lq, ShrunkSource) and gt is not None:
            lq = ShrunkSource(gt, lq.scale, lq.recipe)  # made from the decoded gt, not by decoding again
        cached = {"gt": gt, "lq": _cached(lq, root)}
        try:
            failed = {role: source.build(progress=progress) for role, source in cached.items() if source is not None}
        except OSError as error:
            if self.reading.cache == "disk":
                raise RefusedError(f"{self.title}: the cache in {root} cannot be written ({error})") from error
            _log.warning("%s: no cache, %s cannot be written (%s)", self.title, root, error)
            self._use_cache = (False, f"{root} cannot be written")
            return
        self._unreadable = {k: reason for reasons in failed.values() for k, reason in reasons.items()}
        self.gt, self.lq = gt, cached["lq"]  # type: ignore[assignment]

    def hold(self, device: torch.device, room_bytes: float) -> str:
        """Puts the whole set into the device's memory; training samples are then draws that `resident` carries out there.

        Returns: Why it was not done; empty when it was.
        """
        if self.resident is not None:
            return ""
        if self.gt is None or self.augment.gt_size is None:
            return "it holds pairs that are trained on in crops (gt_size)"
        if self.damage.is_on or self.colours.is_on:
            return (
                "the device crops, flips and adds color_jitter; the options lq_... and brightness to hue need the CPU"
            )
        if self.reading.color != "rgb" and self.augment.jitter_prob:
            return "luma is made before color_jitter there, and after it in the file's own order"
        self.prepare(progress=True)
        need = self._resident_bytes()
        if need > room_bytes:
            return f"the set needs {need / 1e9:.3g} GB, and {room_bytes / 1e9:.3g} GB of {device} may be used (half of what is free)"
        try:
            self.resident = self._loaded(device)
        except RefusedError as error:
            return str(error)
        return ""

    def _resident_bytes(self) -> float:
        """Estimated from up to 200 pictures."""
        total = 0.0
        for source in self.sources.values():
            sizes = []
            for k in picks(len(self), 200):
                try:
                    (height, width, channels), dtype = source.inspect(k)
                except DataError:
                    continue  # left out, as in the run
                per_pixel = 4 if self.reading.color != "rgb" else max(3, channels) * dtype.itemsize
                sizes.append(height * width * per_pixel)
            total += sum(sizes) / max(1, len(sizes)) * len(self)
        return total

    def _loaded(self, device: torch.device) -> ResidentSet:
        """All pictures as crops of them would be coloured: what is done to each pixel alone can be done before."""
        held: dict[str, list[np.ndarray | None]] = {role: [] for role in self.sources}
        unreadable, whites = {}, set()
        for index in range(len(self)):
            paths = {role: source.label(index) for role, source in self.sources.items()}
            try:
                images = {role: source.read(index) for role, source in self.sources.items()}
                images["gt"] = self._fit(images["lq"], images["gt"], paths)
            except DataError as error:
                unreadable[index] = str(error)
                for pictures in held.values():
                    pictures.append(None)
                continue
            white = self.white(images["lq"].dtype)
            whites.add(white)
            for role, pictures in held.items():
                pictures.append(self._colour(role, images[role], white, augmented=True))
        if len(whites) != 1:
            raise RefusedError("pictures of 8 and 16 bit are mixed")
        factors = {"lq": (1, 1), "gt": self.scale}
        roles = {role: ResidentPictures(pictures, factors[role], device) for role, pictures in held.items()}
        return ResidentSet(roles, whites.pop(), unreadable)

    def _resident_sample(
        self, held: ResidentSet, index: int, rng: np.random.Generator, augment: Augment, paths: dict[str, str]
    ) -> Sample:
        """No pixels, but what chance decided; the same draws as where the pixels are on the host."""
        size = held.lq_size(index)
        try:
            draw = augment.draw(rng, size, held.white)
        except DataError as error:
            raise DataError(f"{paths['lq']}: {error}") from None
        assert augment.lq_size is not None
        return Sample({}, self.output_name(index), paths, held.white, ResidentDraw(index, draw, augment.lq_size))

    def _decide_cache(self) -> tuple[bool, str]:
        if self._use_cache is None:
            self._use_cache = self._judge_cache()
        return self._use_cache

    def _judge_cache(self) -> tuple[bool, str]:
        reading, root = self.reading, cache_root(self.reading.cache_dir)
        if reading.cache == "none" or (reading.cache != "disk" and self.augment.gt_size is None):
            return False, "off"
        if reading.cache == "disk":
            return True, str(root)
        need = self._decoded_bytes()
        have = sum(_cached(source, root).nbytes for source in self.sources.values())
        free = free_disk_bytes(root)
        if need > _CACHE_LIMIT_BYTES:
            return False, f"off (decoded {need / 1e9:.0f} GB, above the limit of {_CACHE_LIMIT_BYTES / 1e9:.0f})"
        if need - have > free / 2:
            return False, f"off (decoded {need / 1e9:.1f} GB, more than half of the {free / 1e9:.1f} free in {root})"
        return True, str(root)

    def _decoded_bytes(self) -> float:
        """Estimated from the headers of up to 200 files."""
        total = 0.0
        for source in self.sources.values():
            sizes = []
            for k in picks(len(self), 200):
                try:
                    sizes.append(math.prod(source.shape(k)))
                except DataError:
                    continue  # `check` reports it
            total += sum(sizes) / max(1, len(sizes)) * len(self)
        return total

    def check(self) -> None:
        """DataError naming every problem of the files: see `checks.check_files`. Warns of known double uses."""
        findings = Findings(self.title)
        check_files(self, findings, self._cache_failures)
        findings.refuse()
        gt = self.sources.get("gt")
        for line in known_pictures(gt) if gt is not None else ():
            _log.warning("%s: %s", self.title, line)

    def _cache_failures(self) -> dict[int, str]:
        self.prepare(progress=True)
        return self._unreadable

    def fingerprint(self) -> str:
        """SHA-256 (hex) of names and sizes in the list's order, which decides what a resumed run would read."""
        digest = hashlib.sha256(self._recipe.encode())
        for role, source in self.sources.items():
            for name, size in zip(source.names, source.stats()[:, 0].tolist()):
                digest.update(f"{role}\0{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> str:
        """One line: how many, the first pair, where lq comes from, the cache."""
        count = f"{len(self)} {'pictures' if self.gt is None else 'pairs'}"
        lq = "lq made from gt" if self.lq_is_made else f"{self.alone} {self.lq.label(0)}"
        first = f"first {lq}" if self.gt is None else f"first gt {self.gt.label(0)}, {lq}"
        return f"{self.title}: {count}, {first}; cache {self._decide_cache()[1]}"


class PictureDataset:
    """The dataset methods, for classes that differ only in how they find their files.

    Attributes:
        on_error: Policy for files found unreadable in the run, for the loader.
    """

    def __init__(self, reader: PictureReader, on_error: Literal["raise", "skip"]) -> None:
        self.reader, self.on_error = reader, on_error

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def variants(self) -> int:
        """How many sizes of crops there are; the loader draws one for each batch."""
        return len(self.reader.augments)

    def sample(self, index: int, rng: np.random.Generator | None, variant: int = 0) -> Sample:
        """Sample `index`: cropped and augmented by `rng`, or whole (None). DataError naming what does not fit."""
        return self.reader.sample(index, rng, variant)

    def check(self) -> None:
        """Look at the files before training; DataError names every problem found."""
        self.reader.check()

    def prepare(self, progress: bool) -> None:
        """Build or open the decoded cache; `progress` draws a bar on a terminal."""
        self.reader.prepare(progress)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of names and sizes."""
        return self.reader.fingerprint()

    def describe(self) -> str:
        """One line for the start screen."""
        return self.reader.describe()


def _cached(source: Source, root: Path) -> CachedSource:
    return source if isinstance(source, CachedSource) else CachedSource(source, root)


def require_plane(scale: tuple[int, ...]) -> None:
    """RefusedError unless it is the scale of pictures."""
    if len(scale) != 2 or min(scale) < 1:
        raise RefusedError(f"scale of a picture dataset is two whole numbers from 1, for height and width; got {scale}")
