"""The last step of Canny for graphs of operations: chains of pixels followed by a loop that ONNX and TorchScript know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn import functional as F

from srkit.imaging import edges

_STEPS = 8  # in one turn of the loop: asking whether anything changed costs as much as a step

Joined = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def recordable_edges(joined: Joined) -> Iterator[None]:
    """`canny` takes its last step by `joined`, whose loop a recording of operations keeps; its own loop would be recorded
    as often as it turned for the picture shown."""
    own = edges._joined
    edges._joined = joined  # type: ignore[assignment]
    try:
        yield
    finally:
        edges._joined = own


def looped(weak: Tensor, strong: Tensor) -> Tensor:
    """The weak pixels whose 8-connected group holds a strong one, by a loop that torch.export records."""
    from torch._higher_order_ops.while_loop import while_loop

    allowed = weak.float()

    def differ(marked: Tensor, before: Tensor) -> Tensor:
        return (marked != before).any()

    def spread(marked: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        grown = marked
        for _ in range(_STEPS):
            grown = F.max_pool2d(grown, 3, stride=1, padding=1) * allowed
        return grown, marked.clone()

    marked, _ = while_loop(differ, spread, (strong.float(), torch.zeros_like(allowed) - 1))
    return marked > 0.5


def scripted() -> Joined:
    """The same as a TorchScript function, whose loop a trace keeps."""
    compiled: Joined = torch.jit.script(_spread)
    return compiled


def _spread(weak: Tensor, strong: Tensor, steps: int = _STEPS) -> Tensor:
    allowed = weak.float()
    marked, before = strong.float(), torch.zeros_like(allowed) - 1
    while bool((marked != before).any()):
        before = marked
        for _ in range(steps):
            marked = F.max_pool2d(marked, [3, 3], [1, 1], [1, 1]) * allowed
    return marked > 0.5
