"""Number formats of the forward and backward pass, decided in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

PrecisionName = Literal["fp32", "bf16", "fp16"]


def choose_precision(
    wish: PrecisionName | None, use_amp: bool, device: torch.device
) -> tuple[PrecisionName, str | None]:
    """The format to use and, when `use_amp` had to be interpreted or the device is slow in the format, one line that says so.

    An explicit `precision` is obeyed on every device. `use_amp: true` means bf16 where the device is good at it,
    else fp16 with a gradient scaler on CUDA, else fp32.
    """
    if wish is not None:
        return wish, _slow(wish, device)
    if not use_amp:
        return "fp32", None
    if device.type == "cuda":
        good = torch.cuda.get_device_capability(device) >= (8, 0)
        return (
            ("bf16", None)
            if good
            else ("fp16", "use_amp: this GPU has no fast bf16; using fp16 with a gradient scaler")
        )
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16", None
    return "fp32", f"use_amp: no fast half precision on this {device.type}; training in fp32"


def _slow(wish: PrecisionName, device: torch.device) -> str | None:
    """What is obeyed, but not good for speed here."""
    if wish == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return "precision: bf16: this GPU computes it slowly, for it has no instructions for bf16; fp16 is what it is fast in"
    if wish == "bf16" and device.type == "cpu" and not _cpu_has_bf16():
        return "precision: bf16: this processor has no instructions for bf16, and fp32 is faster on it"
    return None


def _cpu_has_bf16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Precision:
    """Autocast, loss scaling and their saved state. Weights, losses and metrics stay fp32."""

    def __init__(self, name: PrecisionName, device: torch.device) -> None:
        self.name = name
        self.device = device
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None

    @property
    def told(self) -> str:
        """The format, for the log; torch's default for float32 convolutions on newer GPUs is a shorter one, which is fast."""
        is_tf32 = self.name == "fp32" and self.device.type == "cuda" and torch.backends.cudnn.allow_tf32
        is_tf32 &= os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"  # NVIDIA's libraries obey it, and torch does not know
        if is_tf32 and torch.cuda.get_device_capability(self.device) >= (8, 0):
            return "fp32, convolutions in TF32"
        return self.name

    def autocast(self) -> AbstractContextManager[Any]:
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor, inputs: Sequence[Tensor], retain_graph: bool = False) -> None:
        """Gradients of (scaled) loss into `inputs` alone, so one turn never touches another's network."""
        scaled = self.scaler.scale(loss) if self.scaler else loss
        scaled.backward(inputs=list(inputs), retain_graph=retain_graph)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        if self.scaler:
            self.scaler.unscale_(optimizer)

    def after_step(self, found_inf: Tensor) -> None:
        """Lets the scaler back off after an overflow or grow after a long finite stretch."""
        if self.scaler:
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return self.scaler.state_dict() if self.scaler else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler and state:
            self.scaler.load_state_dict(state)
