"""Networks in ONNX files, run by onnxruntime and called like any other network."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from srkit.engine.memory import free_bytes
from srkit.engine.model_file import ModelInfo
from srkit.engine.onnx_seal import require_unchanged
from srkit.errors import DivergedError, RefusedError, WeightsError

BLOCK = "srkit"
"""Name under which a file's metadata hold what srkit wrote about the network (JSON)."""

_OLDEST = (1, 26)  # of onnxruntime: earlier ones read weights from any file of the disk that a model names
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MADE_TYPES = {*_TYPES, "tensor(double)"}
_FOLDED_BYTES = 64 << 20  # of a result computed while a file is opened, where the bound on memory does not hold
_MEMORY = ("allocate memory", "Available memory", "bad_alloc")  # in what onnxruntime says for want of it


class OnnxNetwork(nn.Module):
    """The network of an .onnx file. Nothing but standard operations is run, in no more memory than is free when the first of
    them is opened; weights beside the file are read from its own folder only.

    Args:
        path: A file of `srkit export`, or anybody's that makes one picture of one picture.
        device: Where onnxruntime computes; cuda needs the package onnxruntime-gpu.
        threads: Threads of one call; None takes as many as torch uses.
        scale: Output size / input size per axis, for a file that does not say it. One that does must agree.

    Attributes:
        info: What srkit wrote about the network, or None in files of others.
        scale: Output size / input size per axis.
        weights: Which weights these are, params or params_ema; empty in files of others.
        receptive_radius_px, tile_step: As the network itself had them; None and 1 when unknown.
        num_in_ch: Channels of `lq`; None in files that leave them open.

    Shape: (B, C, *S) -> (B, C, *S * scale), float32 on the device of `lq`, whatever the file's own type is.
    Raises: WeightsError for a file that is missing, damaged, of operations that onnxruntime does not know, or no network
        from picture to picture; RefusedError for a device or package that is missing, and when called with a shape that
        the network does not take, or of which it makes no picture; DivergedError when that is not finite; MemoryError when
        called with too large a one.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        scale: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        if not path.is_file():
            raise WeightsError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected an .onnx file")
        self.path = path
        require_unchanged(path)
        try:
            self._session = open_session(path, torch.device(device), threads)
            self._input, self._type, shape = _picture_to_picture(path, self._session)
            told = _told(path, self._session)
        except RefusedError:
            raise
        except Exception as error:  # onnxruntime has a type for each kind of damage, and names may be no UTF-8
            raise WeightsError(f"{path}: damaged, or no ONNX network that can be run ({_first_line(error)})") from error
        self.num_in_ch: int | None = shape[1] if isinstance(shape[1], int) else None
        self.info = _info(path, told)
        self.scale = _agreed(path, self.info, scale, len(shape) - 2)
        self.weights: str = told.get("weights", "")
        reach = told.get("receptive_radius_px")
        self.receptive_radius_px: float | None = math.inf if reach == "inf" else reach
        self.tile_step: int = told.get("tile_step", 1)

    def forward(self, lq: Tensor, scale: int | None = None) -> Tensor:
        """`scale` is for networks that take one with each call; here it can only be the file's own."""
        if scale is not None and any(scale != own for own in self.scale):
            raise RefusedError(
                f"{self.path}: enlarges by {list(self.scale)} and was asked for {scale}; the .pth it was made of takes any scale"
            )
        given: np.ndarray = np.ascontiguousarray(lq.detach().float().cpu().numpy(), self._type)
        try:
            (sr,) = self._session.run(None, {self._input: given})
        except Exception as error:  # onnxruntime has its own types, none of them for memory
            text = _first_line(error)
            if any(word in str(error) for word in _MEMORY):
                raise MemoryError(text) from error
            raise RefusedError(f"{self.path}: does not take a batch of shape {tuple(lq.shape)} ({text})") from error
        if sr.ndim != lq.ndim or sr.shape[0] != lq.shape[0] or sr.shape[1] not in (lq.shape[1], 1, 3):
            raise RefusedError(
                f"{self.path}: made {sr.shape} of a batch of shape {tuple(lq.shape)}; expected as many pictures and axes, and as "
                "many channels, 1 or 3; this is no network that enlarges pictures or volumes"
            )
        if not np.isfinite(sr).all():
            raise DivergedError(
                f"{self.path}: {np.count_nonzero(~np.isfinite(sr))} of the {sr.size} values it made are not finite; use another file"
            )
        return torch.from_numpy(sr).float().to(lq.device)


def open_session(model: Path | bytes, device: torch.device, threads: int | None) -> Any:
    """An onnxruntime session. Raises RefusedError without a fitting onnxruntime; onnxruntime's errors for bad files."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RefusedError(f"ONNX files need the package onnxruntime ({error}); pip install 'srkit[export]'") from None
    if tuple(int(n) for n in onnxruntime.__version__.split(".")[:2]) < _OLDEST:
        wanted = ".".join(map(str, _OLDEST))
        raise RefusedError(f"onnxruntime is {onnxruntime.__version__}, expected {wanted} or newer; update it")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise RefusedError(
                "this onnxruntime computes on the CPU only; for cuda: pip uninstall onnxruntime, pip install onnxruntime-gpu"
            )
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
    elif device.type != "cpu":
        raise RefusedError(f"ONNX files run on cpu or cuda, not on {device.type}")
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads or torch.get_num_threads()
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # what goes wrong is raised, once
    _bound_memory()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    settings.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(_FOLDED_BYTES))
    given = str(model) if isinstance(model, Path) else model
    # Without the fallback, which would try the same again on the CPU and print about it.
    return onnxruntime.InferenceSession(given, settings, providers=providers, enable_fallback=0)


@functools.cache  # onnxruntime takes one for each process
def _bound_memory() -> None:
    """Lets all sessions together take the memory that is free now: a file may ask for any amount, and what a system grants
    and then has not costs processes their lives."""
    import onnxruntime as ort

    place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    most = int(free_bytes(torch.device("cpu")))
    ort.create_and_register_allocator(
        place, ort.OrtArenaCfg({"max_mem": most, "arena_extend_strategy": 1})
    )  # 1: as asked, not doubled


def _picture_to_picture(path: Path, session: Any) -> tuple[str, type, list[int | str | None]]:
    """Name, type and shape of the one input; sizes that may vary have a name, or None. Raises WeightsError for a network of another kind."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = "; ".join(f"{i.name} {i.type} {i.shape}" for i in (*inputs, *outputs))
    are_one = len(inputs) == len(outputs) == 1 and inputs[0].type in _TYPES and outputs[0].type in _MADE_TYPES
    if not are_one or len(inputs[0].shape) not in (4, 5):
        raise WeightsError(f"{path}: found {found}; expected one batch of pictures or volumes in, one out, of floats")
    return inputs[0].name, _TYPES[inputs[0].type], inputs[0].shape


def _told(path: Path, session: Any) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(BLOCK, "{}")
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{path}: its metadata '{BLOCK}' are no JSON ({error})") from None
    if not isinstance(told, dict):
        raise WeightsError(f"{path}: its metadata '{BLOCK}' are a {type(told).__name__}, expected names with values")
    return told


def _info(path: Path, told: dict[str, Any]) -> ModelInfo | None:
    try:
        return ModelInfo.from_plain(told) if told else None
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: its metadata '{BLOCK}' lack or garble {error}") from None


def _agreed(path: Path, info: ModelInfo | None, scale: tuple[int, ...] | None, axes: int) -> tuple[int, ...]:
    own = info.scale if info else scale
    if own is None:
        raise WeightsError(f"{path}: does not say by how much it enlarges (it is not srkit's); give the scale")
    if scale is not None and scale != own:
        raise RefusedError(f"{path}: enlarges by {list(own)}, not by {list(scale)}")
    if len(own) != axes:
        raise RefusedError(f"{path}: takes data of {axes} axes, found the scale {list(own)}; give one number per axis")
    return own


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line), type(error).__name__)[:300]
