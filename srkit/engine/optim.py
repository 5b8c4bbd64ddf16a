"""Optimizers, gradient clipping, and the step that leaves everything untouched when a gradient is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srkit.engine.precision import Precision
from srkit.engine.schedules import Schedule

FUSED = ("Adam", "AdamW", "SGD")


class OptimizerStep:
    """One optimizer with its schedule and clipping.

    Fused Adam, AdamW and SGD take the verdict "not finite" as a tensor and skip on the device, without a
    synchronisation. The others read it back, once per iteration (`reads_back`).

    Args:
        captured: Steps become part of a CUDA graph, which knows the rate as a tensor that is filled anew. On CUDA the
            fused ones always take it so: kernels round a number and a tensor differently.
    """

    def __init__(
        self,
        kind: str,
        settings: Mapping[str, Any],
        network: nn.Module,
        schedule: Schedule,
        clip: tuple[Literal["norm", "value", "value_over_lr"], float] | None,
        captured: bool = False,
    ) -> None:
        self.parameters: list[Tensor] = [p for p in network.parameters() if p.requires_grad]
        self.schedule = schedule
        self.clip = clip
        device = self.parameters[0].device.type
        self.reads_back = kind not in FUSED or device not in ("cpu", "cuda")
        fused: dict[str, Any] = {} if self.reads_back else {"fused": True}
        self.lr = float(settings["lr"])
        if fused and (captured or device == "cuda"):
            settings = {**settings, "lr": torch.tensor(self.lr, device=device)}
            if captured and device == "cuda" and kind != "SGD":  # which takes no such argument, and needs none
                fused["capturable"] = True
        self.optimizer: torch.optim.Optimizer = getattr(torch.optim, kind)(self.parameters, **settings, **fused)
        if fused and settings.get("momentum"):
            # Torch makes these at the first step without filling them, which a skipped first step leaves so. From zero the
            # first step gives the same: momentum * 0 + gradient.
            for parameter in self.parameters:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)

    def set_learning_rate(self, done: int) -> None:
        self.lr = self.schedule(done)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(self.lr)
            else:
                group["lr"] = self.lr

    def load_state(self, saved: Mapping[str, Any]) -> None:
        """Takes over moments and step counts; settings are the option file's, so that a changed one takes effect.

        Raises: ValueError when the state is of other parameters.
        """
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                if not isinstance(value, Tensor) or value.ndim == 0:
                    continue
                if value.shape != parameter.shape:
                    raise ValueError(f"{key} of shape {tuple(value.shape)} for weights of {tuple(parameter.shape)}")
                # Fused kernels walk through memory: moments must lie in it as their parameter does.
                state[key] = torch.empty_like(parameter, requires_grad=False).copy_(value)

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    def clip_gradients(self) -> Tensor:
        """Clips in place and returns the total norm before clipping, a 0-d tensor.

        Source of "value_over_lr", which bounds the step and not the gradient: Kim et al. 2016, arXiv:1511.04587,
        section 3.2.
        """
        kind, limit = self.clip or (None, 0.0)
        if kind == "norm":
            return nn.utils.clip_grad_norm_(self.parameters, limit)
        norm = nn.utils.get_total_norm(self.gradients())
        rate = self.optimizer.param_groups[0]["lr"]
        if kind == "value_over_lr" and isinstance(rate, Tensor):
            for gradient in self.gradients():
                gradient.clamp_(-limit / rate, limit / rate)
            return norm
        if kind == "value_over_lr":
            limit = limit / self.lr if self.lr > 0 else math.inf
        if kind is not None:
            nn.utils.clip_grad_value_(self.parameters, limit)
        return norm

    def step(self, found_inf: Tensor) -> None:
        """Updates unless the 0-d float tensor `found_inf` is 1."""
        if self.reads_back:
            if found_inf.item() == 0:
                self.optimizer.step()
        else:
            # The attributes that torch's own GradScaler sets; fused kernels return early when found_inf is 1.
            self.optimizer.grad_scale, self.optimizer.found_inf = None, found_inf  # type: ignore[attr-defined]
            self.optimizer.step()
            del self.optimizer.grad_scale, self.optimizer.found_inf  # type: ignore[attr-defined]
        self.optimizer.zero_grad(set_to_none=True)


def guarded_step(steps: Sequence[OptimizerStep], precision: Precision) -> Tensor:
    """Clips and steps all optimizers, or none of them. Returns 1.0 (skipped) or 0.0 as a 0-d tensor."""
    norms = []
    for step in steps:
        precision.unscale(step.optimizer)
        norms.append(step.clip_gradients())
    found_inf = (~torch.isfinite(torch.stack(norms)).all()).float()
    for step in steps:
        step.step(found_inf)
    precision.after_step(found_inf)
    return found_inf


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every floating tensor holds only finite numbers."""
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())
