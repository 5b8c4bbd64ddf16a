"""The most floating-point operations a second that this device reaches: a large matrix product, measured."""

from __future__ import annotations

import time

import torch

from srkit.tools.measuring import wait

_SIDE = {"cuda": 8192, "cpu": 1536}
_BEST_OF = 7


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the best of several products of two square matrices of random numbers, in the format networks run in.

    On the CPU a second is one of CPU time, summed over threads: other work on the machine then takes nothing from either
    side of a comparison.

    float32 on CUDA is TF32 here where convolutions are, as they are unless somebody switched that off: else a network
    could exceed its ceiling.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    side = _SIDE.get(device.type, 1536)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        best = float("inf")
        for _ in range(_BEST_OF):
            wait(device)
            began = clock()
            torch.mm(a, b)
            wait(device)
            best = min(best, clock() - began)
    finally:
        torch.set_float32_matmul_precision(before)
    return 2 * side**3 / best
