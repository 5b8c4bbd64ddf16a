"""Megapixels per second and peak memory of restoring one picture, by tile size, over the bare network on the same tiles."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srkit.engine.memory import is_out_of_memory
from srkit.engine.restorer import Restorer
from srkit.engine.timing import Stopwatch
from srkit.errors import OutOfMemoryError
from srkit.options import Options
from srkit.tools.benchmarking.stages import Spread, ratio, timed
from srkit.tools.benchmarking.trained import restorer_and_sets

_LEAST = 3  # measurements of each tile size


def measure_inference(
    options: Options, tiles: Sequence[int], size: Sequence[int], seconds: float, channels: int | None = None
) -> dict[str, Any]:
    """A row for each tile size; 0 takes the picture whole.

    Args:
        tiles: Sides in lq pixels.
        size: Of the lq picture of noise that is restored, one number or one per axis.
        seconds: For each tile size.
        channels: Of the picture; None asks the network.
    """
    restorer, _ = restorer_and_sets(options, with_sets=False)
    axes = len(options.scale)
    space = tuple(size) * axes if len(size) == 1 else tuple(size)
    seen = channels or _channels(restorer, axes)
    lq = np.random.default_rng(0).integers(0, 256, (*space, seen)).astype(np.uint8)
    rows = [_row(restorer, lq, tile, options, seconds) for tile in tiles]
    return {
        "lq_size": list(space),
        "scale": list(options.scale),
        "channels": seen,
        "precision": restorer.precision.name,
        "rows": rows,
        "verdict": _verdict(rows),
    }


def _row(restorer: Restorer, lq: np.ndarray, tile: int, options: Options, seconds: float) -> dict[str, Any]:
    axes = lq.ndim - 1
    overlap = tuple(min(o, max(0, tile // 4)) for o in restorer.overlap) if tile else restorer.overlap
    run = restorer.in_tiles((tile,) * axes if tile else None, overlap)
    stopwatch = Stopwatch(restorer.device)
    try:
        seen = _inputs(run, lq)
        stopwatch(run, lq, 255.0, 0.0)  # warms up, and is counted apart
        began = time.perf_counter()
        bare: list[tuple[float, float]] = []
        ours: list[tuple[float, float]] = []
        while len(ours) < _LEAST or time.perf_counter() - began < seconds:
            bare.append(timed(lambda: _bare(run, seen), 1, run.device))
            ours.append(timed(lambda: stopwatch(run, lq, 255.0, 0.0), 1, run.device))
    # RuntimeError: no kernel takes a tensor of that size, say. Other tiles still tell something.
    except (OutOfMemoryError, RuntimeError) as error:
        is_full = isinstance(error, OutOfMemoryError) or is_out_of_memory(error)
        return {"tile": tile, "out_of_memory" if is_full else "failed": str(error).partition("\n")[0]}
    megapixels = math.prod(n * s for n, s in zip(lq.shape, restorer.scale)) / 1e6
    timing = stopwatch.timing()
    assert timing is not None
    return {
        "tile": tile,
        "overlap": list(overlap) if tile else None,
        "tiles": len(seen),
        "megapixels_per_s": Spread.of([megapixels / wall for wall, _ in ours]),
        "srkit_over_bare": ratio(ours, bare),
        "peak_memory_bytes": timing.peak_memory_bytes,
        "memory": timing.memory,
    }


def _inputs(run: Restorer, lq: np.ndarray) -> list[tuple[tuple[Tensor, ...], dict[str, Any]]]:
    """What the network is called with for this picture, in order."""
    calls: list[tuple[tuple[Tensor, ...], dict[str, Any]]] = []

    def note(module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        calls.append((tuple(a.clone() if isinstance(a, Tensor) else a for a in args), kwargs))

    handle = run.network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        run(lq, 255.0)
    finally:
        handle.remove()
    return calls


def _bare(run: Restorer, calls: Sequence[tuple[tuple[Tensor, ...], dict[str, Any]]]) -> None:
    """The network alone on the same tiles, which lie on the device already."""
    run.network.eval()
    with torch.no_grad(), run.precision.autocast():
        for args, kwargs in calls:
            run.network(*args, **kwargs)


def _channels(restorer: Restorer, axes: int) -> int:
    """3, else 1: whichever the network takes."""
    for channels in (3, 1):
        try:
            restorer.run_once(torch.zeros(1, channels, *(16,) * axes))
        except (RuntimeError, ValueError):
            continue
        return channels
    return 3


def _verdict(rows: Sequence[dict[str, Any]]) -> str:
    fits = [row for row in rows if "megapixels_per_s" in row]
    if not fits:
        return "no tile size works here; try smaller ones with --tiles"
    best = max(fits, key=lambda row: row["megapixels_per_s"].median)
    least = min(fits, key=lambda row: row["peak_memory_bytes"] or 0)
    name = f"tiles of {best['tile']}" if best["tile"] else "the whole picture"
    text = f"{name} is fastest: {best['megapixels_per_s'].median:.2f} megapixels/s, {best['srkit_over_bare']['cpu'].median:.2f} times the bare network's CPU time"
    if least is not best:
        part = least["megapixels_per_s"].median / best["megapixels_per_s"].median
        text += f"; tiles of {least['tile']} take the least memory, at {part:.0%} of that speed"
    return text
