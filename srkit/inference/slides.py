"""Whole slides through a network, into a tiled pyramid: in memory of a few rows of tiles, whatever the slide's size."""

from __future__ import annotations

from pathlib import Path

from srkit.engine.distributed import Group
from srkit.errors import DataError, RefusedError
from srkit.imaging.slide_upscale import SlideRows, write_rows
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.slides import SLIDE_SUFFIXES, SlideView, open_slide
from srkit.imaging.tiles import Tick
from srkit.imaging.tissue import TissueMask, find_tissue
from srkit.inference.settings import SlideSettings
from srkit.inference.together import Together, write_together
from srkit.inference.upscaler import Upscaler

_SHARED = (".tif", ".tiff")  # pictures too: a slide is one that holds a pyramid
_LONGEST_PX = 1024  # side of a tile at most: a row of tiles is held at output size


class Slides:
    """SVS, NDPI and others that OpenSlide reads, and TIFF with a pyramid; see `Kind`. Results are pyramids in TIFF.

    Microns per pixel of the result are those of what was read over the scale.

    Raises: RefusedError when OpenSlide is missing or the network enlarges other than by one factor.
    """

    name = "slides"
    suffixes: tuple[str, ...] = SLIDE_SUFFIXES
    extensions: tuple[str, ...] = _SHARED
    unit = "pixels"

    def __init__(self, upscaler: Upscaler, settings: SlideSettings) -> None:
        self._upscaler, self._settings = upscaler, settings

    def takes(self, source: Path) -> bool:
        return is_slide(source)

    def stem(self, source: Path) -> str:
        return source.stem

    def extension(self, source: Path) -> str:
        return ".ome.tif" if self._settings.ome else ".tif"

    def require(self, source: Path, out: Path) -> None:
        if len(set(self._upscaler.scale)) > 1:
            raise RefusedError(f"{source}: slides are enlarged by one factor, this network by {self._upscaler.scale}")
        if out.suffix.lower() not in _SHARED:
            raise RefusedError(f"-o {out}: slides are written as .tif, found '{out.suffix}'")

    def restore(self, source: Path, out: Path, tick: Tick) -> int:
        view, tissue, cut = self._opened(source)
        with self._writer(out, view) as writer:
            write_rows(self._rows(view, tissue, cut), writer, tick)
        return writer.width * writer.height

    def restore_together(self, source: Path, out: Path, tick: Tick, group: Group) -> int:
        """As `restore`, all ranks at once: each restores some of the rows, rank 0 writes the file.

        Raises: what `restore` raises on any rank, on every rank; PeerLostError.
        """
        ranks = Together(group)
        opened = ranks.attempt(self._opened, source)
        cuts = ranks.agree(opened and opened[2])
        assert opened is not None  # else `agree` has raised
        view, tissue, _ = opened
        cut = min(cut for cut in cuts if cut)  # free memory differs from rank to rank, and all must cut alike
        rows = self._rows(view, tissue, cut)
        writer = self._writer(out, view)
        write_together(rows, writer, ranks, tick)
        return writer.width * writer.height

    def _opened(self, source: Path) -> tuple[SlideView, TissueMask | None, tuple[int, int, int]]:
        """The slide as it is read, where its tissue is, and side, overlap and step of tiles."""
        settings = self._settings
        slide = open_slide(source, mpp=settings.slide_mpp)
        if slide.mpp is None:
            scanned = (
                f" (its objective of {slide.objective:g}x suggests {10 / slide.objective:g})" if slide.objective else ""
            )
            raise DataError(
                f"{source}: does not say its microns per pixel{scanned}, which the result is to carry; "
                "give them by --slide_mpp"
            )
        view = slide.view(level=0) if settings.mpp is None else slide.view(mpp=settings.mpp)
        cut = self._upscaler.tiles_of_side(min(_LONGEST_PX, max(view.width, view.height)))
        return view, None if settings.everything else find_tissue(slide), cut

    def _rows(self, view: SlideView, tissue: TissueMask | None, cut: tuple[int, int, int]) -> SlideRows:
        tile, overlap, step = cut
        scale = self._upscaler.scale[0]
        return SlideRows(
            view, self._upscaler.picture, scale=scale, tile=tile, overlap=overlap, step=step, tissue=tissue
        )

    def _writer(self, out: Path, view: SlideView) -> SlideWriter:
        settings, scale = self._settings, self._upscaler.scale[0]
        assert view.mpp is not None  # known of the slide, so of every view
        return SlideWriter(
            out,
            view.width * scale,
            view.height * scale,
            mpp=view.mpp / scale,
            compression=settings.compression,
            quality=settings.quality,
            ome=settings.ome,
            description=f"enlarged x{scale} by srkit, {self._upscaler.model.path.name}",
        )


def is_slide(source: Path) -> bool:
    """Whether a file is a slide by its suffix; a TIFF is one when it holds a pyramid, else it is a picture."""
    suffix = source.suffix.lower()
    if suffix not in _SHARED:
        return suffix in SLIDE_SUFFIXES
    try:
        return len(open_slide(source).levels) > 1
    except (DataError, RefusedError):  # no slide, or nothing here to tell it by: a picture then
        return False
