"""Going on from a training that BasicSR saved: its weights, optimizer states and iteration are all it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from srkit.engine.checkpoint import Snapshot, load_tensors
from srkit.engine.model_file import read_model
from srkit.errors import WeightsError

_NETWORKS = ("g", "d")  # in the order of BasicSR's list of optimizers


def read_basicsr_state(path: Path) -> Snapshot:
    """`EXPERIMENT/training_states/N.state` with the `EXPERIMENT/models/net_*_N.pth` it was saved beside.

    The snapshot has no `meta` and no random states, and of `training` only the optimizers, without their settings.

    Raises: WeightsError when it is something else, or when a model file is missing or damaged.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or not {"iter", "optimizers"} <= content.keys():
        raise WeightsError(
            f"path.resume_state: {path}: is no training state of BasicSR (it has no 'iter' and 'optimizers'); "
            "a model file belongs under path.pretrain_network_g"
        )
    iteration = int(content["iter"])
    networks: dict[str, dict[str, Tensor]] = {}
    optimizers: dict[str, Any] = {}
    for name, state in zip(_NETWORKS, content["optimizers"], strict=False):
        file = path.parent.parent / "models" / f"net_{name}_{iteration}.pth"
        chosen = read_model(file)
        if chosen.key == "params_ema":
            networks[f"net_{name}_ema"] = chosen.state
            chosen = read_model(file, "params")
        networks[f"net_{name}"] = chosen.state
        optimizers[f"network_{name}"] = {"state": state["state"]}
    return Snapshot(iteration, networks, {"optimizers": optimizers}, [])
