"""A trained network for arrays: what the command uses, and what `srkit.load` gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch

from srkit.engine.distributed import choose_device
from srkit.engine.precision import Precision
from srkit.engine.restorer import GuideTooLarge, Restorer
from srkit.engine.tile_size import TileSize, Tiling
from srkit.errors import DataError, DivergedError, OutOfMemoryError, RefusedError
from srkit.imaging.colour import quantize
from srkit.imaging.intensity import intensity_range
from srkit.imaging.resize import imresize
from srkit.imaging.tiles import Span, Tick, tile_spans
from srkit.inference.colours import finished, seen_by_network
from srkit.inference.opening import OpenModel, open_model
from srkit.inference.settings import ModelSettings, RunSettings

T = TypeVar("T")
_ROWS = 256  # rounded at a time, so that no second copy of a large picture exists in float64
_CHROMA_PX = 4  # bicubic enlargement looks no further
_BEYOND = 2.0  # floats further from 0 to 1 than this are of another range


class Upscaler:
    """Enlarges pictures, or volumes where its network does.

    Attributes:
        scale: Output size / input size per axis.
        info: What the model file says: arch, options, training; None for files of others.
        model: The network and how its input is made.
    """

    def __init__(self, model: OpenModel, run: RunSettings, device: torch.device) -> None:
        if model.path.suffix == ".onnx" and run.precision != "fp32":
            raise RefusedError(f"--precision {run.precision}: {model.path} computes in the one it was exported in")
        self.model, self.scale, self.info = model, model.scale, model.info
        axes = len(self.scale)
        self._restorer = Restorer(
            model.network,
            normalization=model.normalization,
            scale=self.scale,
            device=device,
            precision=Precision(run.precision, device),
            ensemble=run.ensemble,
            flags=("--tile", "--overlap"),
        )
        tiling = Tiling(
            tile=run.tile if run.tile in ("auto", None) else _per_axis(run.tile, axes),
            overlap=None if run.overlap is None else _per_axis(run.overlap, axes),
            blend=run.blend,
            batch=run.batch,
            memory_bytes=run.memory_bytes,
        )
        self._tiles = TileSize(self._restorer, tiling)

    @property
    def device(self) -> torch.device:
        return self._restorer.device

    def __call__(self, array: Any) -> Any:
        """The enlargement, of the array's own kind (numpy, torch), type and range; tensors stay on their device.

        Pictures are uint8 (0 to 255), uint16 (0 to 65535) or floats (0 to 1; cut to that range), as numpy (H, W),
        (H, W, C), (N, H, W, C) or torch (B, C, H, W), with 1 (grey), 3 (RGB) or 4 (RGB and alpha, which is enlarged by
        bicubic) channels; for a network of another number of channels, with those. Volumes are (I, J, K) in any unit and of
        any type of numbers, numpy or torch; whole numbers are rounded, and cut to what their type holds.

        Raises: DataError for another shape, type or range; OutOfMemoryError.
        """
        if isinstance(array, torch.Tensor):
            given = array.detach().cpu()
            given = given.float() if given.is_floating_point() else given  # numpy has no bfloat16
            made = self._array(given.numpy(), channels_first=True)
            return torch.from_numpy(np.ascontiguousarray(made)).to(array.device, array.dtype)
        return self._array(np.asarray(array), channels_first=False)

    def _array(self, array: np.ndarray, channels_first: bool) -> np.ndarray:
        if len(self.scale) == 3:
            return self._volume_array(array)
        if channels_first:
            if array.ndim != 4:
                raise _unfit(array, "(B, C, H, W)")
            return np.moveaxis(self._pictures(np.moveaxis(array, 1, -1)), -1, 1)
        if array.ndim == 2:
            return self.picture(array[..., None])[..., 0]
        if array.ndim == 3:
            return self.picture(array)
        if array.ndim == 4:
            return self._pictures(array)
        raise _unfit(array, "(H, W), (H, W, C) or (N, H, W, C)")

    def _pictures(self, batch: np.ndarray) -> np.ndarray:
        if not len(batch):
            raise _unfit(batch, "at least one picture")
        return np.stack([self.picture(image) for image in batch])

    def picture(self, image: np.ndarray, tick: Tick = lambda done, total: None) -> np.ndarray:
        """(H, W, C) of any type and number of channels that calling takes -> (H * scale, W * scale, C), same type.

        `tick` is told how much of it is done. Raises as calling does.
        """
        if len(self.scale) != 2:
            raise DataError(f"this network enlarges volumes by {self.scale}, not pictures")
        own = self.model.channels
        is_colour = own in (None, 1, 3)
        if image.ndim != 3 or image.shape[-1] not in ((1, 3, 4) if is_colour else (own,)) or min(image.shape) < 1:
            taken = "1 (grey), 3 (RGB) or 4 (RGB and alpha)" if is_colour else f"the {own} of this network's"
            raise _unfit(image, f"(H, W, C) with {taken} channels")
        white = _white(image)
        if is_colour and image.shape[-1] == 4:
            colours = self.picture(np.ascontiguousarray(image[..., :3]), tick)
            return np.concatenate([colours, self.enlarged_alpha(image[..., 3:])], axis=-1)

        shape = seen_by_network(image[:1, :1], white, self.model.color).shape
        return self._in_tiles(
            (*image.shape[:2], shape[-1]), lambda restorer: self._by_rows(restorer, image, white, tick)
        )

    def _by_rows(self, restorer: Restorer, image: np.ndarray, white: float, tick: Tick) -> np.ndarray:
        """(H, W, 1 or 3) enlarged, one row of tiles after another: beside both pictures only one row exists, in floats."""
        made: np.ndarray | None = None
        spans, factor = self._rows(restorer, image), self.scale[0]
        for number, span in enumerate(spans):
            part = image[span.start : span.stop]
            seen = seen_by_network(part, white, self.model.color)
            sr = restorer(seen, white, 0.0, lambda k, n, row=number: tick(row * n + k, len(spans) * n))  # type: ignore[misc]
            self._require_shape(sr.shape, seen.shape)
            sr = finished(sr, part, white, self.model.color, self.scale)
            kept = sr[(span.keep_from - span.start) * factor : (span.keep_to - span.start) * factor]
            row = self._typed(kept, image.dtype, white)
            if made is None:
                if len(spans) == 1:
                    return row
                made = np.empty((image.shape[0] * factor, *row.shape[1:]), image.dtype)
            made[span.keep_from * factor : span.keep_to * factor] = row
        assert made is not None
        return made

    def _rows(self, restorer: Restorer, image: np.ndarray) -> list[Span]:
        """The rows of tiles that can be made one by one; a single one where something wants the whole picture."""
        height = image.shape[0]
        is_recoloured = self.model.color != "rgb" and image.shape[-1] == 3
        if (
            restorer.tile is None
            or restorer.blend != "crop"
            or restorer.ensemble
            or hasattr(restorer.network, "guide")
            or (is_recoloured and restorer.overlap[0] < _CHROMA_PX)
        ):
            return [Span(0, height, 0, height)]
        return tile_spans(height, restorer.tile[0], restorer.overlap[0], restorer.step)

    def picture_and_spread(
        self, image: np.ndarray, tick: Tick = lambda done, total: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 1 or 3) uint8 or uint16 -> the mean over all turns as `picture` gives it, and (H * scale, W * scale) float32:
        the standard deviation over them, 1.0 is white. Raises as calling does."""
        white = _white(image)

        def view(sr: np.ndarray) -> np.ndarray:
            return finished(sr, image, white, self.model.color, self.scale)

        seen = seen_by_network(image, white, self.model.color)
        spread = self._in_tiles(seen.shape, lambda restorer: restorer.spread(seen, white, 0.0, view, tick))
        self._require_shape(spread.mean.shape, seen.shape)
        return self._typed(spread.mean, image.dtype, white), spread.sd

    @staticmethod
    def _typed(sr: np.ndarray, dtype: np.dtype, white: float) -> np.ndarray:
        if np.issubdtype(dtype, np.floating):
            return np.clip(sr, 0, 1).astype(dtype)
        made = np.empty(sr.shape, dtype)
        for start in range(0, len(sr), _ROWS):
            made[start : start + _ROWS] = quantize(sr[start : start + _ROWS], dtype, white)
        return made

    def tiles_of_side(self, longest: int) -> tuple[int, int, int]:
        """For pictures too large to be held: side and overlap of tiles in lq pixels, and of what their starts are multiples.

        Sides are `longest` where memory allows it.
        """
        cut = self._tiles.square(longest, 3)
        assert cut.tile is not None
        return min(cut.tile), max(cut.overlap), self._restorer.step

    def enlarged_alpha(self, alpha: np.ndarray) -> np.ndarray:
        """(H, W, 1) by bicubic interpolation, same type and range."""
        made = imresize(alpha, self.scale)
        return np.clip(made, 0, 1).astype(alpha.dtype) if np.issubdtype(alpha.dtype, np.floating) else made

    def volume(
        self, volume: np.ndarray, tick: Tick = lambda done, total: None, levels: tuple[float, float] | None = None
    ) -> np.ndarray:
        """(I, J, K) in any unit -> (I, J, K) * scale, float32 in that unit, not clipped.

        Which values are black and white is read from this volume alone, as in training, and undone; `levels` are the two
        where the caller asked `intensity_range` already.
        Raises: DataError for intensities that cannot be told apart; DivergedError; OutOfMemoryError.
        """
        seen, black, white = self._seen_volume(volume, levels)
        return self._in_units(self._restored(seen, white, black, tick), black, white)

    def volume_and_spread(
        self, volume: np.ndarray, tick: Tick = lambda done, total: None, levels: tuple[float, float] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `volume`, the mean over all flips, and their standard deviation: both (I, J, K) * scale float32; the second
        counts the span from black to white as 1."""
        seen, black, white = self._seen_volume(volume, levels)
        spread = self._in_tiles(seen.shape, lambda restorer: restorer.spread(seen, white, black, tick=tick))
        self._require_shape(spread.mean.shape, seen.shape)
        return self._in_units(spread.mean, black, white), spread.sd

    def _seen_volume(self, volume: np.ndarray, levels: tuple[float, float] | None) -> tuple[np.ndarray, float, float]:
        """(I, J, K, 1) as the network is given it, black and white."""
        black, white = levels or self.intensity_range(volume)
        # easysr cuts at black and white; elsewhere what lies outside is shown as it is.
        seen = np.clip(volume, black, white) if self.model.intensity.startswith("easysr") else volume
        return seen.astype(np.float32, copy=False)[..., None], black, white

    @staticmethod
    def _in_units(sr: np.ndarray, black: float, white: float) -> np.ndarray:
        if not np.isfinite(sr).all():
            raise DivergedError("the network's output is not finite; use earlier weights, or --precision fp32")
        return (sr[..., 0] * np.float64(white - black) + black).astype(np.float32)

    def intensity_range(self, volume: np.ndarray) -> tuple[float, float]:
        """(black, white) of a volume, in its unit."""
        return intensity_range(volume, self.model.intensity)

    def _volume_array(self, array: np.ndarray) -> np.ndarray:
        if array.ndim != 3 or not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
            raise _unfit(array, "(I, J, K) of numbers")
        if not np.isfinite(array).all():
            raise DataError("the volume holds NaN or infinite values")
        made = self.volume(array.astype(np.float32))
        if np.issubdtype(array.dtype, np.integer):
            held = np.iinfo(array.dtype)
            return np.rint(made.astype(np.float64)).clip(held.min, held.max).astype(array.dtype)
        return made.astype(array.dtype)

    def _restored(self, image: np.ndarray, white: float, black: float, tick: Tick) -> np.ndarray:
        """(*S, C) to (*S * scale, C_out), 0 to 1 and not clipped, in tiles where that is needed."""
        sr = self._in_tiles(image.shape, lambda restorer: restorer(image, white, black, tick))
        self._require_shape(sr.shape, image.shape)
        return sr

    def _in_tiles(self, shape: tuple[int, ...], work: Callable[[Restorer], T]) -> T:
        """`work` with tiles for an lq of that shape, again with smaller ones where memory does not suffice."""
        while True:
            cut = self._tiles.cut(shape)
            try:
                return work(self._restorer.in_tiles(*cut))
            except OutOfMemoryError as error:
                if isinstance(error, GuideTooLarge) or not self._tiles.shrink(cut, shape):
                    raise
                torch.cuda.empty_cache()

    def _require_shape(self, made: tuple[int, ...], given: tuple[int, ...]) -> None:
        wanted = tuple(n * s for n, s in zip(given, self.scale))
        if made[:-1] != wanted:
            raise RefusedError(
                f"{self.model.path} made {made[:-1]} of {given[:-1]}, its scale {self.scale} wants {wanted}; the "
                "network may expect an input that is enlarged already"
            )


def load(model: ModelSettings, run: RunSettings) -> Upscaler:
    """The network of a model file, ready for arrays. Raises as `srkit.load` does."""
    device = device_of(run.device)
    return Upscaler(open_model(model, device), run, device)


def device_of(name: str, local_rank: int = 0) -> torch.device:
    """What auto, cpu, cuda or cuda:N means here. Raises RefusedError for a GPU that is not there."""
    if name == "auto":
        return choose_device("auto", local_rank)[0]
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if kind != "cuda" or (number and not number.isdigit()):
        raise RefusedError(f"--device: found '{name}', expected auto, cpu, cuda or cuda:N")
    index = int(number) if number else local_rank % max(1, count)
    if index >= count:
        raise RefusedError(f"--device {name}: {count} CUDA GPUs are visible; use --device cpu or auto")
    return torch.device("cuda", index)


def _per_axis(numbers: Any, axes: int) -> tuple[int, ...]:
    return tuple(numbers) * axes if len(numbers) == 1 else tuple(numbers)


def _white(image: np.ndarray) -> float:
    """Intensity of 1.0."""
    if image.dtype in (np.uint8, np.uint16):
        return float(np.iinfo(image.dtype).max)
    if not np.issubdtype(image.dtype, np.floating):
        raise DataError(
            f"a picture of {image.dtype}: expected uint8 (0 to 255), uint16 (0 to 65535) or floats (0 to 1)"
        )
    low, high = float(image.min()), float(image.max())
    if not (math.isfinite(low) and math.isfinite(high)) or low < 1 - _BEYOND or high > _BEYOND:
        raise DataError(f"a float picture of {low:g} to {high:g}: expected 0 to 1; divide it, or give uint8 or uint16")
    return 1.0


def _unfit(array: np.ndarray, expected: str) -> DataError:
    return DataError(f"an array of {array.dtype} {array.shape}: expected {expected}")
