"""Patch, batch and accumulation for the memory there is, found by single training steps; and the seconds they take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from srkit.engine.memory import free_bytes
from srkit.errors import OutOfMemoryError
from srkit.options import Options
from srkit.tools.measuring import measure_step

Size = tuple[int, ...]
_PROBED = (2, 4)  # batch sizes; one alone takes other paths (torch's slow 3D convolution on CPUs)
_SHARE = 0.8  # of the free memory; validation and fragments need the rest
_SECONDS = 2.0
_LEAST_BYTES = 1e5  # a sample needs at least so much; below, two measurements differ by chance


@dataclass(frozen=True)
class Fit:
    """What was chosen, and what it was measured to cost.

    Attributes:
        gt_size: Side of the patch along each axis.
        batch: Samples of a micro-batch; `batch * accum` is what was asked for.
        step_s: Seconds of an iteration, accumulation included; None when nothing was measured.
        peak_bytes: Expected peak of memory; None where the system does not tell.
        device: The device, in words.
    """

    gt_size: Size
    batch: int
    accum: int
    step_s: float | None = None
    peak_bytes: float | None = None
    device: str = ""


def fit(trial: Callable[[Size, int], Options], sizes: Sequence[Size], wanted: int, device: torch.device) -> Fit:
    """The first of `sizes` that fits, with the largest batch up to `wanted` (a power of two) that does.

    Args:
        trial: Options of a training with that patch and batch.
        sizes: From the wanted patch downwards.

    Raises: OutOfMemoryError when not even one sample of the smallest patch fits.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    for size in sizes:
        try:
            found = _measured(trial, size)
        except (torch.OutOfMemoryError, MemoryError):
            continue
        (first_s, first_b), (second_s, second_b) = found
        per_sample_s = max(0.0, (second_s - first_s) / (_PROBED[1] - _PROBED[0]))
        fixed_s = max(0.0, first_s - _PROBED[0] * per_sample_s)
        batch, peak = wanted, None
        if first_b is not None and second_b is not None:
            per_sample = max(_LEAST_BYTES, (second_b - first_b) / (_PROBED[1] - _PROBED[0]))
            fixed = max(0.0, first_b - _PROBED[0] * per_sample)
            room = _SHARE * (free_bytes(device) + _held(device)) - fixed
            while batch > 1 and batch * per_sample > room:
                batch //= 2
            peak = fixed + batch * per_sample
            if batch * per_sample > room:
                continue
        accum = wanted // batch
        return Fit(size, batch, accum, accum * (fixed_s + batch * per_sample_s), peak, name)
    raise OutOfMemoryError(
        f"not even one sample of {sizes[-1]} fits into the memory of {name}; close what else uses it"
    )


def _measured(trial: Callable[[Size, int], Options], size: Size) -> list[tuple[float, float | None]]:
    return [measure_step(trial(size, batch), _SECONDS) for batch in _PROBED]


def _held(device: torch.device) -> float:
    """Bytes that this process holds already, which are not free and yet counted in its peak."""
    if device.type == "cuda":
        return float(torch.cuda.memory_allocated(device))
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = next((line.split() for line in lines if line.startswith("VmRSS")), None)
    return 0.0 if found is None else float(found[1]) * 1024
