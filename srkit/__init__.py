"""srkit: super-resolution training from option files. Importing it costs nothing; torch comes with the parts that need it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from srkit.inference.upscaler import Upscaler

__version__ = "0.1.0"


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    tile: Literal["auto"] | int | Sequence[int] | None = "auto",
    overlap: int | Sequence[int] | None = None,
    ensemble: bool = False,
    weights: Literal["params", "params_ema"] | None = None,
    arch: str | None = None,
    arch_options: Mapping[str, Any] | None = None,
    scale: int | Sequence[int] | None = None,
    color: Literal["rgb", "y", "y_full"] | None = None,
    intensity: Literal["percentiles", "zscore", "easysr_g1", "easysr_g2"] | None = None,
    imports: Sequence[str] = (),
) -> Upscaler:
    """A trained network as a function of arrays: `srkit.load("net_g_latest.pth")(picture)`.

    Args:
        path: Model file: .pth, .safetensors or .onnx.
        device: auto, cpu, cuda or cuda:N.
        precision: Of the network's arithmetic.
        tile: Lq pixels a tile sees, one number or one per axis; "auto" takes an array whole where memory allows it, None
            always.
        overlap: Lq pixels by which tiles overlap on each side; None is as far as the network looks.
        ensemble: Take the mean over all flips, of pictures over quarter turns too.
        weights: Which of the two an own file has; None takes params_ema where there is one.
        arch, arch_options, scale: The network of a file that does not say it: "RRDBNet", {"num_block": 23}, 4.
        color: What pictures of a file that does not say it were read as: RGB, or luma of limited or full range.
        intensity: How volumes of a file that does not say it were normalised.
        imports: Modules or .py files that define networks. This runs them.

    Raises: WeightsError for a file that cannot be used; RefusedError where it and the arguments do not fit.
    """
    from pathlib import Path

    from srkit.inference.settings import ModelSettings, RunSettings
    from srkit.inference.upscaler import load as opened

    def numbers(value: Any) -> Any:
        return (value,) if isinstance(value, int) else value if value in ("auto", None) else tuple(value)

    model = ModelSettings(
        path=Path(path),
        weights=weights,
        arch=arch,
        arch_options=arch_options or {},
        scale=numbers(scale),
        color=color,
        intensity=intensity,
        imports=tuple(imports),
    )
    run = RunSettings(
        device=device, precision=precision, ensemble=ensemble, tile=numbers(tile), overlap=numbers(overlap)
    )
    return opened(model, run)
