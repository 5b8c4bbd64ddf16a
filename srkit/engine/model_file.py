"""Weights for users: one `.pth` that BasicSR and spandrel load too, and that says how to rebuild its network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srkit import __version__
from srkit.engine.checkpoint import load_tensors, require_whole, write_atomically
from srkit.engine.transfer import Normalization
from srkit.errors import WeightsError
from srkit.models import found

WeightsKey = Literal["params", "params_ema"]
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says about itself (its third key, `srkit`, plain values only).

    Args:
        color: What its pictures were read as: rgb, y, y_full.
        intensity: How a volume's values become 0 to 1, a name of `imaging.intensity`.
        origin: How the weights came about when not by training alone.
    """

    arch: str
    arch_options: dict[str, Any]
    scale: tuple[int, ...]
    normalization: Normalization
    color: str
    iteration: int
    experiment: str
    origin: str = ""
    intensity: str = ""

    def read_as(self) -> dict[str, str]:
        """How a dataset has to read what this network is shown, under the datasets' option names."""
        return {k: v for k, v in (("color", self.color), ("normalization", self.intensity)) if v}

    def to_plain(self) -> dict[str, Any]:
        plain = asdict(self)
        plain["scale"] = list(self.scale)
        plain["normalization"] = {"mean": list(self.normalization.mean), "std": list(self.normalization.std)}
        return {**plain, "version": __version__}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ModelInfo:
        fields = {k: plain[k] for k in ("arch", "arch_options", "color", "iteration", "experiment")}
        fields |= {k: plain.get(k, "") for k in ("origin", "intensity")}
        norm = plain["normalization"]
        return cls(
            **fields,
            scale=tuple(plain["scale"]),
            normalization=Normalization(tuple(norm["mean"]), tuple(norm["std"])),
        )


@dataclass(frozen=True)
class ModelFile:
    """A loaded model file: weights under `key`, and `info` unless the file came from elsewhere."""

    path: Path
    key: str
    state: dict[str, Tensor]
    info: ModelInfo | None


def write_model(
    path: Path, params: Mapping[str, Tensor], params_ema: Mapping[str, Tensor] | None, info: ModelInfo | None
) -> None:
    """Writes `{"params", "params_ema", "srkit"}` atomically; the last two where there are any. Raises StorageError."""
    content: dict[str, Any] = {"params": dict(params)}
    if params_ema is not None:
        content["params_ema"] = dict(params_ema)
    if info is not None:
        content["srkit"] = info.to_plain()
    write_atomically(path, content)


def weights_keys(path: Path) -> list[WeightsKey]:
    """Which of `params` and `params_ema` a model file has."""
    content = _content(found(path))
    known: tuple[WeightsKey, ...] = ("params", "params_ema")
    return [key for key in known if isinstance(content, dict) and isinstance(content.get(key), dict)]


def read_model(path: Path, key: WeightsKey | None = None) -> ModelFile:
    """Reads srkit's, BasicSR's or a bare state dict, all from a .safetensors file too.

    Args:
        path: A file, or the name of a model that comes with srkit.
        key: Which weights; None takes `params_ema` when present, else `params`.

    Raises: WeightsError when the file is a training state, lacks the key, or holds non-finite weights.
    """
    path = found(path)
    content = _content(path)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, expected a state dict")
    if "optimizers" in content or "optimizer" in content or "training" in content:
        raise WeightsError(
            f"{path}: is a training state, not a model file; give models/net_g_<iteration>.pth, "
            "or name it under path.resume_state to continue training"
        )
    used, state = _pick(path, content, key)
    tensors = {_strip(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{path}: '{used}' holds no tensors; found keys {_first(content)}")
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise WeightsError(f"{path}: weights are not finite in {_first(bad)}; this model diverged, use an earlier file")
    info = ModelInfo.from_plain(content["srkit"]) if isinstance(content.get("srkit"), dict) else None
    return ModelFile(path, used, tensors, info)


def _content(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    require_whole(path)
    return load_tensors(path)


def _load_safetensors(path: Path) -> dict[str, Any]:
    """A bare state dict, or what a .pth of srkit holds where the file's metadata `srkit` (JSON) say so."""
    try:
        from safetensors import safe_open
    except ImportError:
        raise WeightsError(f"{path}: reading it needs the package safetensors; pip install safetensors") from None
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            state = {name: file.get_tensor(name) for name in names}
            told = json.loads((file.metadata() or {}).get("srkit", "{}"))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except Exception as error:  # safetensors raises its own type and OSError for bad files
        raise WeightsError(f"{path}: damaged or not a safetensors file ({error})") from error
    return {told["weights"]: state, "srkit": told} if isinstance(told, dict) and "weights" in told else state


def _pick(path: Path, content: dict[str, Any], key: WeightsKey | None) -> tuple[str, dict[str, Any]]:
    known = ("params_ema", "params", "state_dict", "generator", "discriminator")
    named = [k for k in known if isinstance(content.get(k), dict)]
    if key is not None:
        if key not in named:
            raise WeightsError(f"{path}: has no weights under '{key}'; found {', '.join(named) or 'a bare state dict'}")
        return key, content[key]
    if named:
        return named[0], content[named[0]]
    return "state dict", content


def _strip(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name[len(next(p for p in _PREFIXES if name.startswith(p))) :]
    return name


def load_weights(network: nn.Module, model: ModelFile, strict: bool = True) -> list[str]:
    """Copies weights into a network; returns one line per kind of mismatch that `strict=False` let pass.

    A network that knows published files of other keys has a function `own_name(published) -> key`, or, where that is not
    enough, `translated(state) -> (state, note)`, whose note says what network the weights are of.

    Raises: WeightsError with the first ten missing, unexpected and mis-shaped keys; also when nothing fits at all.
    """
    own = network.state_dict()
    rename: Callable[[str], str] = getattr(network, "own_name", str)
    translate = getattr(network, "translated", None)
    state, note = translate(model.state) if translate else (model.state, "")
    given = {rename(name): value for name, value in state.items()}
    missing = [k for k in own if k not in given]
    unexpected = [k for k in given if k not in own]
    shaped = [
        f"{k} {tuple(v.shape)} in the file, {tuple(own[k].shape)} in the network"
        for k, v in given.items()
        if k in own and own[k].shape != v.shape
    ]
    fits = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    lines = [
        f"{len(keys)} {what}: {_first(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shaped))
        if keys
    ]
    if lines and (strict or not fits):
        raise WeightsError(
            f"{model.path} ('{model.key}') does not fit {type(network).__name__}:\n  "
            + "\n  ".join(lines)
            + ("\n  no key fits at all" if not fits else "")
            + (f"\n  {note}" if note else "")
        )
    network.load_state_dict(fits, strict=False)
    return lines


def _first(names: Any, count: int = 10) -> str:
    names = [str(n) for n in names]
    return ", ".join(names[:count]) + (f", ... ({len(names) - count} more)" if len(names) > count else "")
