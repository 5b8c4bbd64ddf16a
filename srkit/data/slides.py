"""Patches of tissue straight out of whole slides; lq is made from them."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from srkit.data.augment import Augment, sides
from srkit.data.checks import Findings
from srkit.data.colour_change import ColourChange
from srkit.data.names import NameList, require_folder, stem
from srkit.data.order import skip_limit
from srkit.data.pairing import by_key, first_names, meta_info_names
from srkit.data.pairs import require_plane
from srkit.data.ranges import require_within
from srkit.data.sample import Sample
from srkit.data.slide_places import SlidePlaces, find_places
from srkit.data.sources import FileSource, in_threads
from srkit.data.volume_files import unique_names
from srkit.errors import DataError, RefusedError
from srkit.imaging.resize import imresize
from srkit.imaging.slide_handles import import_openslide
from srkit.imaging.slides import SLIDE_SUFFIXES, SlideView, find_slides, open_slide
from srkit.registry import DATASETS

_WHITE = 255.0
_MARGIN = 3  # lq pixels round a patch that the bicubic reduction reaches, generously


@DATASETS.register()
class SlideDataset:
    """Patches at random places with tissue; lq is made from gt, as if the whole slide had been reduced.

    A slide's pixels are read where they are needed and kept nowhere. Sample n is of slide n modulo the number of slides.
    Evaluated patches are fixed: a slide's name and the number of the patch decide the place, nothing else.

    Args:
        scale: gt size / lq size for height and width.
        dataroot_gt: Folder of slides: SVS, NDPI, MRXS, SCN, BIF, CZI, tiled TIFF; other files are passed over.
        meta_info_file: Names to use, one a line, relative to dataroot_gt; any suffix.
        recursive: Take the slides of all folders below too.
        mpp: Microns per pixel of gt. Slides within 2 % of it are taken as they are, finer ones reduced to within 1 % of it,
            coarser ones refused. None takes level 0 of every slide as it is.
        slide_mpp: Microns per pixel of level 0 of those slides that do not say it.
        gt_size: Side of a patch in gt pixels, or height and width.
        patches_per_slide: Samples of each slide in an epoch, or in an evaluation.
        tissue_fraction: Part of a patch, 0 to 1, that is tissue at least; measured in cells of 8 microns, at every quarter
            of a patch.
        use_hflip: Mirror left and right with probability 1/2.
        use_rot: Mirror top and bottom, and transpose, each with probability 1/2.
        brightness: Factor on intensities, uniform in 1 +- this. This and the next three, as in torchvision's ColorJitter
            but each by its own chance, change lq and gt alike.
        contrast: Factor on the distance from the crop's mean grey.
        saturation: Factor on the distance from each pixel's grey.
        hue: Turn of the hue in +- parts of the colour wheel, at most 0.5.
        color_change_prob: Probability of each of the four.
        check: "auto" opens every slide, finds its tissue and decodes one patch; "full" decodes all of every slide; "off"
            looks for missing and empty files only.
        on_error: Policy for slides found unreadable in the run.

    Raises: DataError with every name that is wrong and, of the files, what `check` finds; RefusedError when OpenSlide is not
        installed or options contradict each other.
    """

    def __init__(
        self,
        *,
        scale: tuple[int, ...],
        dataroot_gt: str,
        meta_info_file: str | None = None,
        recursive: bool = False,
        mpp: float | None = None,
        slide_mpp: float | None = None,
        gt_size: int | list[int],
        patches_per_slide: int = 1000,
        tissue_fraction: float = 0.5,
        use_hflip: bool = False,
        use_rot: bool = False,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        color_change_prob: float = 0.5,
        check: Literal["auto", "full", "off"] = "auto",
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        require_plane(tuple(scale))
        for name, value in (("mpp", mpp), ("slide_mpp", slide_mpp), ("patches_per_slide", patches_per_slide)):
            if value is not None and value <= 0:
                raise RefusedError(f"{name}: found {value}, expected a number above 0")
        require_within("tissue_fraction", tissue_fraction)
        import_openslide()
        self.augment = Augment(scale=tuple(scale), gt_size=sides(gt_size, 2), use_hflip=use_hflip, use_rot=use_rot)
        self.colours = ColourChange(
            prob=color_change_prob, brightness=brightness, contrast=contrast, saturation=saturation, hue=hue
        )
        self.mpp, self.slide_mpp, self.tissue_fraction = mpp, slide_mpp, tissue_fraction
        self.patches_per_slide, self.check_mode, self.on_error = patches_per_slide, check, on_error
        names, self._problems = _slide_names(dataroot_gt, meta_info_file, recursive)
        self.files = FileSource(dataroot_gt, NameList(names))
        self.groups = unique_names(stem(name) for name in names)
        self._places: dict[int, SlidePlaces] = {}
        if self._problems:
            self.check()

    def __len__(self) -> int:
        return len(self.groups) * self.patches_per_slide

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """Patch `index`, drawn and augmented by `rng`, or the fixed one (None). DataError naming the slide, and the place."""
        patch, slide = divmod(index, len(self.groups))
        places = self.places(slide)
        augmented = rng is not None
        if rng is None:
            seed = hashlib.sha256(f"{self.groups[slide]}\0{patch}".encode("utf-8", "surrogateescape")).digest()
            rng = np.random.default_rng(list(seed))
        top, left = places.draw(rng)
        images = self._cut(places.view, top, left)
        if augmented:
            draw = self.augment.draw(rng, images["lq"].shape[:2], _WHITE)
            factors = self.colours.draw(rng.spawn(1)[0]) if self.colours.is_on else None
            if factors is not None:
                pivot = factors.pivot(images["lq"], _WHITE)
                images = {role: factors(image, _WHITE, pivot) for role, image in images.items()}
            images = {role: self.augment.turn(image, draw) for role, image in images.items()}
        factor = places.view.downsample
        x, y = round(left * self.augment.scale[1] * factor), round(top * self.augment.scale[0] * factor)
        label = f"{self.files.label(slide)} at level-0 pixel ({x}, {y})"
        name = f"{self.groups[slide]}_{patch:04d}"
        return Sample(images, name, {"lq": label, "gt": label}, _WHITE, group=self.groups[slide])

    def places(self, slide: int) -> SlidePlaces:
        """Where slide number `slide` may be cut, found once. DataError when it cannot be cut as asked."""
        if slide not in self._places:
            opened = open_slide(self.files.label(slide), mpp=self.slide_mpp)
            assert self.augment.lq_size is not None
            found = find_places(
                opened.view(mpp=self.mpp), self.augment.lq_size, self.augment.scale, self.tissue_fraction
            )
            self._places[slide] = found
        return self._places[slide]

    def _cut(self, view: SlideView, top: int, left: int) -> dict[str, np.ndarray]:
        """lq and gt of the patch at this lq pixel; lq equals that part of the whole view's reduction."""
        scale, size = self.augment.scale, self.augment.lq_size
        assert size is not None
        whole = (view.height // scale[0], view.width // scale[1])
        first = [max(0, begin - _MARGIN) for begin in (top, left)]
        last = [min(n, begin + side + _MARGIN) for n, begin, side in zip(whole, (top, left), size)]
        y, x = (a * s for a, s in zip(first, scale))
        rows, columns = ((b - a) * s for a, b, s in zip(first, last, scale))
        wide = view.read(x, y, columns, rows)
        skip = [begin - a for begin, a in zip((top, left), first)]
        small = imresize(wide, [Fraction(1, s) for s in scale])
        inner = [tuple(slice(k * s, (k + n) * s) for k, n, s in zip(skip, size, f)) for f in ((1, 1), scale)]
        return {"lq": np.ascontiguousarray(small[inner[0]]), "gt": np.ascontiguousarray(wide[inner[1]])}

    def check(self) -> None:
        """Look at the slides, as the option `check` says; DataError names every problem found."""
        findings = Findings(type(self).__name__, list(self._problems))
        lost = findings.add_lost("slides", self.files)
        if self.check_mode != "off":
            there = [k for k in range(len(self.groups)) if k not in lost]
            reasons = [reason for reason in in_threads(self._trouble, there) if reason]
            bearable = skip_limit(len(self)) // self.patches_per_slide if self.on_error == "skip" else 0
            findings.add_unusable("slides cannot be used", reasons, bearable)
        findings.refuse()

    def _trouble(self, slide: int) -> str | None:
        try:
            places = self.places(slide)
            self._cut(places.view, *places.draw(np.random.default_rng(0)))
            if self.check_mode == "full":
                _decode_all(places.view)
        except DataError as error:
            return str(error)
        return None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of names and sizes in the list's order, and of what decides where and how slides are cut."""
        recipe = [self.mpp, self.slide_mpp, self.tissue_fraction, self.patches_per_slide]
        digest = hashlib.sha256(f"{recipe}\n".encode())
        for name, size in zip(self.files.names, self.files.stats()[:, 0].tolist()):
            digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def describe(self) -> str:
        """One line: how many, their size, and how the first slide is read."""
        size = "x".join(str(n) for n in reversed(self.augment.gt_size or ()))
        line = f"{type(self).__name__}: {len(self.groups)} slides, {self.patches_per_slide} patches of {size} of each"
        try:
            places = self.places(0)
        except DataError as error:
            return f"{line}; the first cannot be used ({error})"
        view = places.view
        at = f"{view.mpp:.4g} um/pixel" if view.mpp else "unknown um/pixel"
        reduced = "" if view.factor == 1 else f" times {view.factor}"
        return f"{line}; first {view.slide.path}, level {view.level}{reduced}, {at}, {len(places.nodes)} places with tissue"


def _slide_names(root: str, list_file: str | None, recursive: bool) -> tuple[list[str], list[str]]:
    """Names relative to root, and what is wrong with them. DataError for a folder that is missing or holds no slides."""
    require_folder("dataroot_gt", root)
    problems: list[str] = []
    if list_file is not None:
        if recursive:
            raise RefusedError(
                "recursive searches folders; found with meta_info_file, which names its slides: drop one"
            )
        names = meta_info_names(list_file)
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            problems.append(f"{len(repeated)} names stand twice in {list_file}: {first_names(repeated)}")
    else:
        names = find_slides(Path(root), recursive=recursive)
        if not names:
            where = "" if recursive else " itself"
            raise DataError(f"dataroot_gt: no slides ({', '.join(SLIDE_SUFFIXES)}) in '{root}'{where}")
    by_key(names, root, problems)
    return names, problems


def _decode_all(view: SlideView) -> None:
    """The level that a view is read from, tile after tile. DataError naming the place that does not decode."""
    view, side = view.slide.view(level=view.level), 1024
    for y in range(0, view.height, side):
        for x in range(0, view.width, side):
            view.read(x, y, min(side, view.width - x), min(side, view.height - y))
