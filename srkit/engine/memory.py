"""How much memory is free, and how much a network needs for each pixel it sees."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
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
    the limit of a container or batch job. Where a system does not tell, half of what is built in."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    meminfo, groups = Path("/proc/meminfo"), Path("/proc/self/cgroup")
    if not meminfo.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    return min(available, group_bytes(groups.read_text())) if groups.exists() else available


@dataclass(frozen=True)
class _GroupFiles:
    """Where a version of Linux's control groups says what a group may use and uses."""

    folder: str
    limit: str
    used: str
    inactive: str


_V1 = _GroupFiles("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _GroupFiles("", "memory.max", "memory.current", "inactive_file")


def group_bytes(groups: str, root: Path = Path("/sys/fs/cgroup")) -> float:
    """What the control groups that hold this process would still give it; infinite where none has a limit.

    Pages of files that nobody read lately count as free, for they go before a limit is enforced.

    Args:
        groups: Text of /proc/self/cgroup: the groups of this process. In a container they are often those of the host; the
            container's own limit then lies in the topmost folder.
        root: Where groups are mounted, of either version.
    """
    left = math.inf
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _V1 if controllers else _V2
        top = root / names.folder
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            if group.is_relative_to(top) and (group / names.limit).exists():
                left = min(left, _left(group, names))
    return left


def _left(group: Path, names: _GroupFiles) -> float:
    limit = (group / names.limit).read_text().strip()
    if limit == "max":
        return math.inf
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(limit) - int((group / names.used).read_text()) + int(stat[names.inactive])


def is_out_of_memory(error: BaseException) -> bool:
    """On the CPU torch raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "DefaultCPUAllocator" in str(error)


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
