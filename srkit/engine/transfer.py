"""From host batches to device tensors: integers travel, the device turns them into floats and normalises them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from srkit.data.loader import HostBatch

T = TypeVar("T")
Finish = Callable[[Mapping[str, Tensor], Sequence[Any]], Mapping[str, Tensor]]
"""A dataset's `on_device`: (arrays, draws of the samples) -> the arrays of the finished batch."""

_PATIENCE_S = 5.0  # for the item being drawn when the reader ends; a hanging loader takes longer and is left behind


@dataclass(frozen=True)
class Normalization:
    """(x - mean) / std per channel of images in [0, 1]; the network sees normalised values, everyone else [0, 1].

    One value serves every channel. It is stored in model files, so that every output is turned back.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def is_identity(self) -> bool:
        return all(m == 0 for m in self.mean) and all(s == 1 for s in self.std)

    def apply(self, x: Tensor) -> Tensor:
        return x if self.is_identity else (x - self._like(self.mean, x)) / self._like(self.std, x)

    def invert(self, x: Tensor) -> Tensor:
        return x if self.is_identity else x * self._like(self.std, x) + self._like(self.mean, x)

    @staticmethod
    def _like(values: Sequence[float], x: Tensor) -> Tensor:
        # Filled on the device: a copy from the host would wait for what a GPU is doing.
        filled = [torch.full((1, 1, *[1] * (x.ndim - 2)), v, dtype=x.dtype, device=x.device) for v in values]
        return torch.cat(filled, dim=1)


@dataclass(frozen=True)
class Batch:
    """One micro-batch on the device. `lq` and `gt` as the network sees them, (B, C, *S).

    `extras` are further tensors that share lq's or gt's geometry: other forms of gt (names that begin with "gt_"), as
    the network would see them, and edges, masks and the like, in [0, 1].
    """

    lq: Tensor
    gt: Tensor
    extras: dict[str, Tensor]
    names: list[str]

    def target(self, name: str) -> Tensor:
        """What a loss compares with: "gt", or another form of it."""
        return self.gt if name == "gt" else self.extras[name]


def to_float(image: Tensor, white: float, black: float = 0.0) -> Tensor:
    """(B, *S, C) intensities to (B, C, *S) floats, of which 0 is black and 1 white."""
    unit = image.movedim(-1, 1).contiguous().float()  # axes change places in bytes, a quarter of what floats would move
    return unit.sub(black).div(white - black) if black else unit.div(white)


def to_device(
    host: HostBatch, device: torch.device, normalization: Normalization, finish: Finish | None = None
) -> Batch:
    """The batch on the device, completed by `finish`."""
    images: Mapping[str, Tensor] = {
        name: to_float(tensor.to(device, non_blocking=True), host.white) for name, tensor in host.images.items()
    }
    if finish is not None:
        images = finish(images, host.draws)
    seen = {n: normalization.apply(t) if n in ("lq", "gt") or n.startswith("gt_") else t for n, t in images.items()}
    return Batch(seen.pop("lq"), seen.pop("gt"), seen, host.names)


def on_side_stream(
    batches: Iterator[HostBatch], move: Callable[[HostBatch], Batch], device: torch.device
) -> Generator[Batch]:
    """Copies the next batch on a stream of its own while the current one computes. CUDA only."""
    stream = torch.cuda.Stream(device)

    def fetch() -> Batch:
        host = next(batches)
        with torch.cuda.stream(stream):
            return move(host)

    ahead = fetch()
    while True:
        torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in (ahead.lq, ahead.gt, *ahead.extras.values()):
            tensor.record_stream(torch.cuda.current_stream(device))  # else its memory is reused while still read
        yield ahead
        ahead = fetch()


def in_background(items: Generator[T], depth: int) -> Generator[T]:
    """Draws items ahead on a thread, which closes `items` when the reader ends. An error there is raised at its item."""
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(maxsize=max(1, depth))
    ended = threading.Event()

    def offer(item: T | None, error: BaseException | None) -> None:
        while not ended.is_set():
            with suppress(queue.Full):  # the reader is busy, or has ended
                ready.put((item, error), timeout=0.1)
                return

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    offer(item, None)
                    if ended.is_set():
                        break
        except BaseException as error:  # noqa: BLE001 - handed to the reader, who raises it
            offer(None, error)

    thread = threading.Thread(target=work, daemon=True, name="srkit-prefetch")
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        ended.set()
        thread.join(_PATIENCE_S)
