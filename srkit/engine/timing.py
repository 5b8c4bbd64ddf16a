"""How long a network takes for a picture, what memory and how many operations: measured while it is tested."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from srkit.engine.log import logger
from srkit.engine.restorer import Restorer

_FLOP_SIDE_PX = {2: 64, 3: 32}
"""Operations are counted on a corner of the first picture of at most so many lq pixels along each axis: of convolutions they are, per pixel,
the same on a large one, which every test would wait for."""

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall time from lq on the host to sr on the host, without reading, writing and measuring.

    Attributes:
        pictures: How many were timed; the first is left out when there are others.
        first_s: The first picture, with all that is done only once.
        median_s, p95_s: Seconds per picture.
        images_per_s, megapixels_per_s: Of sr, over the sum of all times.
        peak_memory_bytes: Largest amount beyond what was held before the set: allocated on CUDA, resident on the CPU.
        flops: Of one corner of `flops_lq_size` lq pixels (a multiplication and an addition are two); None where torch
            cannot count them.
    """

    pictures: int
    first_s: float
    median_s: float
    p95_s: float
    images_per_s: float
    megapixels_per_s: float
    peak_memory_bytes: int | None
    memory: str
    parameters: int
    flops: int | None
    flops_lq_size: list[int] | None


class Stopwatch:
    """Times a restorer's calls; one for each set and network."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds: list[float] = []
        self._pixels: list[int] = []
        self._flops: int | None = None
        self._flops_size: list[int] | None = None
        self._parameters = 0
        self._before = 0

    def __call__(self, restorer: Restorer, image: np.ndarray, white: float, black: float) -> np.ndarray:
        """What `restorer(image, white, black)` returns."""
        if not self._seconds:
            self._parameters = sum(p.numel() for p in restorer.network.parameters())
            self._count(restorer, image, white, black)
            self._before = _reset_peak(self.device)
        began = time.perf_counter()
        sr = restorer(image, white, black)  # ends with a copy to the host, which waits for the device
        self._seconds.append(time.perf_counter() - began)
        self._pixels.append(int(np.prod(sr.shape[:-1])))
        return sr

    def _count(self, restorer: Restorer, image: np.ndarray, white: float, black: float) -> None:
        corner = image[tuple(slice(0, _FLOP_SIDE_PX.get(image.ndim - 1, 32)) for _ in image.shape[:-1])]
        try:
            with OperationCounter() as counter:
                restorer(corner, white, black)
        except Exception as error:  # noqa: BLE001 - a network of any project: not to be counted is no reason to stop
            logger.info("operations of %s cannot be counted (%s)", type(restorer.network).__name__, error)
            return
        self._flops, self._flops_size = counter.flops, list(corner.shape[:-1])

    def timing(self) -> Timing | None:
        """None when nothing was timed."""
        if not self._seconds:
            return None
        counted = slice(1, None) if len(self._seconds) > 1 else slice(None)
        seconds = np.asarray(self._seconds[counted])
        return Timing(
            pictures=len(seconds),
            first_s=self._seconds[0],
            median_s=float(np.median(seconds)),
            p95_s=float(np.percentile(seconds, 95)),
            images_per_s=float(len(seconds) / seconds.sum()),
            megapixels_per_s=float(sum(self._pixels[counted]) / 1e6 / seconds.sum()),
            peak_memory_bytes=_peak(self.device, self._before),
            memory="allocated on CUDA" if self.device.type == "cuda" else "resident, growth",
            parameters=self._parameters,
            flops=self._flops,
            flops_lq_size=self._flops_size,
        )


class OperationCounter(TorchDispatchMode):
    """Context in which `flops` grows by torch's own formulas; an operation without one counts nothing, its parts do.

    The numbers are those of torch's FlopCounterMode, whose first use imports torch's compiler: 1.3 s of a short test.
    """

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry  # imports triton where that is installed

        self.flops = 0
        self._formulas = flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # True, the default, is what imports the compiler; nothing is compiled here

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = self._formulas.get(func.overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        out = func(*args, **kwargs)
        self.flops += int(formula(*args, **kwargs, out_val=out))
        return out


def _reset_peak(device: torch.device) -> int:
    """Starts a new peak; returns the bytes held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))
    try:
        _CLEAR.write_text("5")  # Linux: the largest resident size begins anew
    except OSError as error:
        logger.debug("peak memory of the process cannot be reset (%s)", error)
        return 0
    return _status_bytes("VmRSS") or 0


def _peak(device: torch.device, before: int) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device)) - before
    peak = _status_bytes("VmHWM")
    return None if peak is None or not before else max(0, peak - before)


def _status_bytes(key: str) -> int | None:
    """A line of Linux's account of this process; None elsewhere."""
    if not _STATUS.exists():
        return None
    lines = [line for line in _STATUS.read_text().splitlines() if line.startswith(key + ":")]
    return int(lines[0].split()[1]) * 1024 if lines else None


TIMING_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("pictures", lambda t: str(t["pictures"])),
    ("median s", lambda t: f"{t['median_s']:.4f}"),
    ("p95 s", lambda t: f"{t['p95_s']:.4f}"),
    ("first s", lambda t: f"{t['first_s']:.4f}"),
    ("images/s", lambda t: f"{t['images_per_s']:.3g}"),
    ("megapixels/s", lambda t: f"{t['megapixels_per_s']:.3g}"),
    ("peak MiB", lambda t: "n/a" if t["peak_memory_bytes"] is None else f"{t['peak_memory_bytes'] / 2**20:.0f}"),
    ("parameters", lambda t: f"{t['parameters']:,}"),
    ("GFLOPs", lambda t: "n/a" if t["flops"] is None else f"{t['flops'] / 1e9:.3g}"),
    ("of lq", lambda t: "n/a" if t["flops"] is None else "x".join(map(str, t["flops_lq_size"]))),
)
"""Column -> its text, from the plain values of a Timing; table.md and the report share them."""
