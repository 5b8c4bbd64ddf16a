"""A network as a graph of operations that runs without its Python code, ONNX or TorchScript, checked against the network."""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.engine.joined_edges import looped, recordable_edges, scripted
from srkit.engine.onnx_model import BLOCK, open_session
from srkit.engine.onnx_seal import sealed
from srkit.errors import RefusedError

Precision = Literal["fp32", "fp16"]

OPSET = 20
LARGEST_DIFFERENCE = {"fp32": 1e-4, "fp16": 2 / 255}
"""From the network in float32, as a part of the intensity range: a fortieth of a grey level of 255, and two."""

_AXES = {2: ("height", "width"), 3: ("i", "j", "k")}
_SEEN = (2, 20, 18, 14)  # batch and sizes while recording: no two alike, so that none is taken for another
_CHECKED = ((1, 17, 23, 9), (3, 32, 26, 12))
_LINEAR = {2: "bilinear", 3: "trilinear"}


class HalfNetwork(nn.Module):
    """The network in float16 between float32 pictures."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half().eval()

    def forward(self, lq: Tensor) -> Tensor:
        sr: Tensor = self.network(lq.half())
        return sr.float()


def pictures(channels: int, batch: int, size: Sequence[int], seed: int = 0) -> Tensor:
    """(batch, channels, *size) from 0 to 1, smooth enough to have edges."""
    coarse = torch.rand(batch, channels, *(-(-n // 6) + 1 for n in size), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, tuple(size), mode=_LINEAR[len(size)], align_corners=True)


def onnx_graph(network: nn.Module, channels: int, axes: int, precision: Precision, about: str) -> bytes:
    """An ONNX file: input `lq` and output `sr`, float32, (batch, channels, height, width) or (batch, channels, i, j, k),
    any sizes. `about` goes into its metadata, and the file's own checksum behind all.

    Raises: RefusedError when a package is missing, or an operation that ONNX or the exporter does not know is met.
    """
    try:
        import onnx  # noqa: F401 - asked for by the exporter
        import onnx_ir
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RefusedError(f"writing ONNX files needs the package {error.name}; pip install 'srkit[export]'") from None
    if precision == "fp16" and any(getattr(part, "finds_edges", False) for part in network.modules()):
        raise RefusedError(
            f"{type(network).__name__} looks for edges, which intensities in float16 would move; export it in fp32"
        )
    names = ("batch", "channels", *_AXES[axes])
    free = {axis: name for axis, name in enumerate(names) if name != "channels"}
    recorded = network if precision == "fp32" else HalfNetwork(network)
    try:
        with _quiet(), recordable_edges(looped), torch.no_grad():
            program = torch.onnx.export(
                recorded.eval(),
                (pictures(channels, _SEEN[0], _SEEN[1 : axes + 1]),),
                dynamo=True,
                dynamic_shapes=(free,),
                input_names=["lq"],
                output_names=["sr"],
                opset_version=OPSET,
                custom_translation_table={torch.ops.aten.remainder.Scalar: _remainder()},
                verbose=False,
            )
    except Exception as error:  # torch has a type for each of its steps
        raise RefusedError(f"{type(network).__name__} cannot be written as ONNX: {_cause(error)}") from error
    assert program is not None
    # The exporter notes for each operation where in whose files it was met.
    onnx_ir.passes.common.ClearMetadataAndDocStringPass()(program.model)
    program.model.metadata_props[BLOCK] = about
    return sealed(program.model_proto.SerializeToString())


def torchscript_graph(network: nn.Module, channels: int, axes: int, about: str) -> bytes:
    """A TorchScript file of the traced network, on the CPU; `about` is its extra file srkit.json.

    Raises: RefusedError when tracing fails.
    """
    buffer = io.BytesIO()
    try:
        with _quiet(), recordable_edges(scripted()), torch.no_grad():
            seen = pictures(channels, _SEEN[0], _SEEN[1 : axes + 1])
            traced = torch.jit.trace(network.eval(), (seen,), check_trace=False)
            torch.jit.save(traced, buffer, _extra_files={f"{BLOCK}.json": about})
    except Exception as error:  # torch raises whatever the network's code met
        raise RefusedError(f"{type(network).__name__} cannot be written as TorchScript: {_cause(error)}") from error
    return buffer.getvalue()


def run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """What the graph makes of a batch, on the CPU."""
    session = open_session(content, torch.device("cpu"), None)
    return lambda lq: torch.from_numpy(session.run(None, {"lq": lq.numpy()})[0])


def run_torchscript(content: bytes) -> Callable[[Tensor], Tensor]:
    """What the graph makes of a batch, on the CPU."""
    with _quiet():
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    return lambda lq: module(lq)


@torch.no_grad()
def largest_difference(
    network: nn.Module,
    run: Callable[[Tensor], Tensor],
    channels: int,
    axes: int,
    apply: Callable[[Tensor], Tensor],
    batches: int = len(_CHECKED),
) -> float:
    """Between network and graph, as a part of the intensity range (or of the largest output above it), on batches of sizes
    that the recording did not see.

    Args:
        apply: What turns pictures from 0 to 1 into what the network sees.
        batches: How many batches, the smallest first.

    Raises: RefusedError when the graph stops, or its output has another size.
    """
    worst = 0.0
    for batch, *size in _CHECKED[:batches]:
        lq = apply(pictures(channels, batch, size[:axes], seed=batch))
        wanted = network.eval()(lq)
        try:
            with _quiet():
                found = run(lq)
        except Exception as error:
            raise RefusedError(
                f"the graph does not take a batch of shape {tuple(lq.shape)}: {_cause(error)}"
            ) from error
        if found.shape != wanted.shape:
            raise RefusedError(
                f"of a batch of shape {tuple(lq.shape)} the graph makes {tuple(found.shape)}, the network {tuple(wanted.shape)}"
            )
        difference = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1)
        worst = max(worst, difference.nan_to_num(nan=float("inf")).item())
    return worst


def _remainder() -> Callable[..., Any]:
    """`tensor % number` in ONNX, where the number may be a size; the exporter's own takes none."""
    from onnxscript import opset18 as op

    def remainder(self: Any, other: Any) -> Any:
        divisor = op.CastLike(other, self)
        if self.dtype.is_integer():
            return op.Mod(self, divisor)
        return op.Sub(self, op.Mul(op.Floor(op.Div(self, divisor)), divisor))

    return remainder


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says while it records: whole listings of graphs, deprecations, guesses at what may go wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _cause(error: BaseException) -> str:
    """The first line of the error that all others followed from."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text.strip()[:300]}"
