"""Model files and option files for tests that compare models. No tests."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny import options, write_options

from srkit.archs import EDSR
from srkit.engine.model_file import ModelInfo, write_model
from srkit.engine.transfer import Normalization


def model(path: Path, seed: int, scale: int = 2, experiment: str = "", num_feat: int = 4) -> Path:
    """An untrained EDSR in a model file."""
    torch.manual_seed(seed)
    network = EDSR(num_feat=num_feat, num_block=1, upscale=scale)
    arch_options = {"num_feat": num_feat, "num_block": 1, "upscale": scale}
    info = ModelInfo("EDSR", arch_options, (scale, scale), Normalization(), "rgb", 1, experiment or path.stem)
    write_model(path, network.state_dict(), None, info)
    return path


def option_file(tmp: Path, **changes) -> Path:
    """A test of tmp/data without a model."""
    data = options(tmp, **{"name": "compared", "network_g": None, **changes})
    for key in ("train", "logger"):
        data.pop(key)
    data["datasets"].pop("train")
    return write_options(tmp, data, "test.yml")


def compare(tmp: Path, *files: Path, flags: tuple[str, ...] = (), **changes) -> int:
    """srkit/test.py -m in this process."""
    from srkit.test import main

    named = ["-m", *map(str, files)] if files else []
    return int(main(["-opt", str(option_file(tmp, **changes)), *named, *flags]))
