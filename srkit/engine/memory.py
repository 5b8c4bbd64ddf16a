"""How much memory is free, and how much a network needs for each pixel it sees."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_CPU_COPIES = 2.0
"""Measured peak over the largest sum of living tensors, 1.0 to 2.2: convolutions on the CPU copy what they get and make
into a layout of their own."""


def free_bytes(device: torch.device) -> float:
    """Memory that is neither in use nor kept back by others; on the CPU what Linux could give without swapping, within
    the limit of a container. Where a system does not tell, half of what is built in."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, limit - used)


def _number(path: Path) -> int | None:
    text = path.read_text().strip() if path.exists() else "max"
    return None if text == "max" else int(text)


def peak_bytes(run: Callable[[Tensor], Tensor], lq: Tensor, device: torch.device) -> float:
    """The most memory that `run(lq)` holds at once: measured on CUDA, estimated from every tensor it makes on the CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run(lq)
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LivingBytes() as living:
        run(lq)
    return living.peak * _CPU_COPIES


class _LivingBytes(TorchFunctionMode):
    """Adds up the storages that operations make, until nothing refers to them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._living: dict[int, int] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._living:
                    self._living[key] = storage.nbytes()
                    weakref.finalize(storage, self._living.pop, key, None)
        self.peak = max(self.peak, sum(self._living.values()))
        return made
