"""What the page does with a file: recognise it, restore it as `srkit infer` does, and describe the result. No gradio."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from srkit.demo.views import Box, Pair, SlideMap, is_whole, picture_pair, slide_map, volume_pairs
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import IMAGE_SUFFIXES, image_size, read_image
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.slides import SLIDE_SUFFIXES, Slide, open_slide
from srkit.imaging.tiles import Tick
from srkit.imaging.volumes import VOLUME_SUFFIXES, is_nifti, read_header, read_volume
from srkit.inference.jobs import find_jobs
from srkit.inference.kinds import Kind
from srkit.inference.run import kinds_of
from srkit.inference.settings import FileSettings, PictureSettings, SlideSettings, VolumeSettings
from srkit.inference.slides import is_slide
from srkit.inference.upscaler import Upscaler

FileKind = Literal["picture", "volume", "slide"]
_PLANES = ("sagittal", "coronal", "axial")  # across the patient's axes right, front, top


@dataclass(frozen=True)
class Found:
    """A file that the page can work with.

    Attributes:
        text: What it is, in one line.
        volumes: How many a NIfTI file holds, 1 for others.
        slide: Its facts, where it is one.
    """

    kind: FileKind
    text: str
    volumes: int = 1
    slide: Slide | None = None


@dataclass(frozen=True)
class Result:
    """A restored file.

    Attributes:
        out: The file to download.
        pairs: What is shown of it, with a caption each.
        text: What was done, a line each.
    """

    out: Path
    pairs: list[tuple[str, Pair]]
    text: list[str]


class Workbench:
    """The models, limits and folder of one page. One job runs at a time; its files stay until the next one begins.

    Args:
        models: By the name that the page shows.
        folder: Private, for results.
        max_pixels: Of a picture, a region of a slide or a volume (voxels), before it is enlarged.
    """

    def __init__(self, models: Mapping[str, Upscaler], folder: Path, max_pixels: int) -> None:
        self.models, self.max_pixels = models, max_pixels
        self._folder = folder

    def look(self, source: Path) -> Found:
        """What a file is, by its name and header; no pixel is decoded.

        Raises: DataError for what the page does not take, RefusedError for a slide where OpenSlide is missing.
        """
        with _plain_names(source):
            if is_nifti(source):
                return self._look_at_volume(source)
            if is_slide(source):
                slide = open_slide(source)
                size = f"{slide.width:,} x {slide.height:,} pixels"
                mpp = f"{slide.mpp:.4g} µm per pixel" if slide.mpp else "it does not say its microns per pixel"
                return Found("slide", f"Slide `{_code(source.name)}`: {size}, {mpp}", slide=slide)
            if source.suffix.lower() in IMAGE_SUFFIXES:
                header = image_size(source)
                self._require_size(source, (header.width, header.height), "pixels")
                colours = "grey" if header.channels == 1 else "colour"
                size = f"{header.width} x {header.height} pixels"
                return Found("picture", f"Picture `{_code(source.name)}`: {header.format}, {size}, {colours}")
            raise DataError(
                f"{source}: a name that ends with '{source.suffix}' is none of what this page takes: pictures "
                f"({', '.join(IMAGE_SUFFIXES)}), volumes ({', '.join(VOLUME_SUFFIXES)}), slides ({', '.join(SLIDE_SUFFIXES)})"
            )

    def chart(self, source: Path, slide: Slide) -> SlideMap:
        """The slide to choose a region on. Raises DataError when it cannot be decoded."""
        with _plain_names(source):
            return slide_map(slide)

    def fits(self, found: Found, name: str) -> bool:
        """Whether that model enlarges files of this kind."""
        return (len(self.models[name].scale) == 3) == (found.kind == "volume")

    def enlarge(
        self,
        source: Path,
        name: str,
        volumes: VolumeSettings,
        box: Box | None = None,
        mpp: float | None = None,
        tick: Tick = lambda done, total: None,
    ) -> Result:
        """A file, or of a slide a region, through a model.

        Args:
            volumes: For NIfTI; its `preview` is left to the page.
            box: Of a slide.
            mpp: Microns per pixel at which a slide is read; None is its finest level.

        Raises: SrkitError with one message, in which files have no folders.
        """
        found, upscaler = self.look(source), self._model(name)
        if not self.fits(found, name):
            raise RefusedError(
                f"{source.name} is a {found.kind}; the model {name} enlarges {_wanted(upscaler)}. Choose another model, or "
                "give another file"
            )
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        started = time.monotonic()
        with _plain_names(source), _notes(source) as notes:
            if found.kind == "volume":
                result = self._volume(source, upscaler, volumes, tick)
            elif found.slide is not None:
                result = self._region(
                    found.slide, upscaler, box or Box(0, 0, found.slide.width, found.slide.height), mpp, tick
                )
            else:
                result = self._picture(source, upscaler, tick)
        arch = upscaler.info.arch if upscaler.info else type(upscaler.model.network).__name__
        done = f"{name} ({arch}) on {upscaler.device.type}, {time.monotonic() - started:.1f} s"
        return Result(result.out, result.pairs, [*result.text, f"Model: {done}", *notes])

    def _model(self, name: str) -> Upscaler:
        if name not in self.models:
            raise RefusedError(f"there is no model '{name}' here; expected one of {', '.join(self.models)}")
        return self.models[name]

    def _look_at_volume(self, source: Path) -> Found:
        header = read_header(source, volume=0)
        self._require_size(source, header.shape, "voxels")
        sides = " x ".join(map(str, header.shape))
        series = f", {header.n_volumes} volumes" if header.n_volumes > 1 else ""
        text = f"Volume `{_code(source.name)}`: {sides} voxels of {_mm(header.spacing_mm)} mm{series}"
        return Found("volume", text, header.n_volumes)

    def _require_size(self, source: Path, sides: Sequence[int], unit: str) -> None:
        if math.prod(sides) > self.max_pixels:
            raise DataError(
                f"{source}: has {' x '.join(map(str, sides))} = {math.prod(sides):,} {unit}, this page takes "
                f"{self.max_pixels:,} at most; give a smaller one, or start the page with a larger --max_pixels"
            )

    def _restored(self, source: Path, upscaler: Upscaler, volumes: VolumeSettings, tick: Tick) -> Path:
        """The result of `srkit infer -m MODEL -i SOURCE -o FOLDER`."""
        is_2d = len(upscaler.scale) == 2
        pictures = PictureSettings(max_pixels=self.max_pixels) if is_2d else PictureSettings()
        kinds: Sequence[Kind] = kinds_of(upscaler, pictures, SlideSettings(), volumes)
        files = FileSettings(inputs=(source,), out=self._folder, out_is_folder=True)
        job = find_jobs(files, kinds, upscaler.model.path.stem, upscaler.scale)[0]
        try:
            job.kind.restore(job.source, job.out, tick)
        except (
            RuntimeError
        ) as error:  # torch, for what a network cannot take, such as a picture too small for its padding
            raise RefusedError(f"{source}: the network refused it ({str(error).splitlines()[0]})") from error
        return job.out

    def _picture(self, source: Path, upscaler: Upscaler, tick: Tick) -> Result:
        out = self._restored(source, upscaler, VolumeSettings(), tick)
        lq = read_image(source, max_pixels=self.max_pixels)
        sr = read_image(out, max_pixels=self.max_pixels * math.prod(upscaler.scale))
        return Result(out, [_compared(lq, sr, upscaler.scale)], [_sizes(lq, sr, upscaler.scale)])

    def _region(self, slide: Slide, upscaler: Upscaler, box: Box, mpp: float | None, tick: Tick) -> Result:
        """Written without loss, because it is to be looked at closely."""
        right, below = box.x + box.width, box.y + box.height
        if min(box.x, box.y) < 0 or min(box.width, box.height) < 1 or right > slide.width or below > slide.height:
            raise DataError(
                f"{slide.path}: a region of {box.width} x {box.height} pixels at ({box.x}, {box.y}) is not inside its "
                f"{slide.width} x {slide.height} pixels; x + width and y + height may be no more than these"
            )
        view = slide.view(mpp=mpp)
        sides = (math.ceil(box.width / view.downsample), math.ceil(box.height / view.downsample))
        self._require_size(Path(slide.path), sides, "pixels in this region")
        lq = slide.region(box.x, box.y, box.width, box.height, mpp=mpp)
        sr = upscaler.picture(lq, tick)
        scale = upscaler.scale[0]
        place = f"x{box.x}_y{box.y}_w{box.width}_h{box.height}"
        out = self._folder / f"{Path(slide.path).stem}_{place}_sr.tif"
        note = f"enlarged x{scale} by srkit, {upscaler.model.path.name}; {place} of {Path(slide.path).name}"
        made_mpp = None if view.mpp is None else view.mpp / scale
        with SlideWriter(
            out, sr.shape[1], sr.shape[0], mpp=made_mpp, compression="deflate", description=note
        ) as writer:
            writer.append(sr)
        size = _sizes(lq, sr, upscaler.scale)
        if view.mpp is None or made_mpp is None:
            fine = "The slide does not say its microns per pixel, so neither does the result"
        else:
            fine = f"Pixels: {view.mpp:.4g} µm before, {made_mpp:.4g} µm after, which the TIFF carries"
        return Result(out, [_compared(lq, sr, upscaler.scale)], [size, fine])

    def _volume(self, source: Path, upscaler: Upscaler, settings: VolumeSettings, tick: Tick) -> Result:
        import nibabel

        out = self._restored(source, upscaler, settings, tick)
        (scan, before), (sr, after) = read_volume(source, volume=settings.volume), read_volume(out)
        scale = [after_n // n for after_n, n in zip(sr.shape, scan.shape)]
        pairs = volume_pairs(scan, sr, scale, after.spacing_mm, *upscaler.intensity_range(scan))
        towards = nibabel.orientations.io_orientation(after.affine)[:, 0]
        captions = [f"Across axis {axis} ({_PLANES[int(towards[axis])]} by the header)" for axis in range(3)]
        text = [
            f"Size: {_sides(scan)} → {_sides(sr)} voxels",
            f"Voxels: {_mm(before.spacing_mm)} → {_mm(after.spacing_mm)} mm, at the same place in the scanner",
        ]
        return Result(out, list(zip(captions, pairs)), text)


@contextmanager
def _plain_names(source: Path) -> Iterator[None]:
    """Errors name a file as its owner does, without the folder that it was put into."""
    try:
        yield
    except (DataError, RefusedError) as error:
        raise type(error)(_plain(str(error), source)) from error


@contextmanager
def _notes(source: Path) -> Iterator[list[str]]:
    """What srkit logs about the file meanwhile, such as an axis that had to be guessed."""
    notes: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if text.startswith(str(source)):
                notes.append(f"Note: {_plain(text, source)}")

    log, collector = logging.getLogger("srkit"), Collector(logging.INFO)
    log.addHandler(collector)
    try:
        yield notes
    finally:
        log.removeHandler(collector)


def _plain(text: str, source: Path) -> str:
    return text.replace(f"{source.parent}/", "")


def _code(name: str) -> str:
    """A file name inside a Markdown code span."""
    return name.replace("`", "'")


def _wanted(upscaler: Upscaler) -> str:
    factors = "x".join(map(str, upscaler.scale))
    return f"volumes (NIfTI) by {factors}" if len(upscaler.scale) == 3 else f"pictures and slides by {factors}"


def _compared(lq: np.ndarray, sr: np.ndarray, scale: Sequence[int]) -> tuple[str, Pair]:
    pair = picture_pair(lq, sr, scale)
    height, width = pair[0].shape[:2]
    part = "" if is_whole(lq, scale) else f"; the middle {width} x {height} pixels, the download has all"
    return f"Bicubic | network{part}", pair


def _sizes(lq: np.ndarray, sr: np.ndarray, scale: Sequence[int]) -> str:
    factor = "x".join(map(str, scale[:1] if len(set(scale)) == 1 else scale))
    return f"Size: {lq.shape[1]} x {lq.shape[0]} → {sr.shape[1]} x {sr.shape[0]} pixels (x{factor})"


def _sides(volume: np.ndarray) -> str:
    return " x ".join(map(str, volume.shape))


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:.4g}" for mm in spacing)
