"""Records how BasicSR 1.4.2 itself trains the small EDSR of tests/parity_recipe.py (needs an environment with basicsr).

    python scripts/parity_basicsr.py        # writes tests/golden/basicsr_edsr.json

BasicSR's own SRModel does the work, in the order of its train loop: update_learning_rate, feed_data,
optimize_parameters; on CPU, one thread, float32. With a current torchvision, basicsr/data/degradations.py must import
rgb_to_grayscale from torchvision.transforms.functional; nothing else needs a change.

What the recorded rates show (c is the iteration attempted, counted from 1, w is warmup_iter):
- c < w runs at base / w * c; from c = w on the scheduler is asked, at c - 1 updates done.
- CosineAnnealingRestartLR computes the rate from the base rate, so nothing remains of the warm-up; the end of a period
  belongs to it.
- MultiStepLR is MultiStepRestartLR, which changes the rate it finds. What it finds after a warm-up is the rate of
  iteration w - 1, so the rate stays at base * (w - 1) / w, times gamma per milestone, until a restart.
- For the same reason a milestone that falls into the warm-up is lost.
srkit's rate is a function of c alone and reaches the base rate. To repeat a BasicSR run with warm-up and MultiStepLR
exactly, give lr * (w - 1) / w and warmup_iter: w - 1.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import basicsr
import numpy as np
import torch
from basicsr.models import build_model

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import parity_recipe as recipe


def options(run: dict[str, Any], weights: Path) -> dict[str, Any]:
    """A BasicSR option tree, as its reader would hand it to build_model."""
    return {
        "name": "parity",
        "model_type": "SRModel",
        "scale": recipe.SCALE,
        "num_gpu": 0,
        "dist": False,
        "is_train": True,
        "network_g": {"type": "EDSR", **recipe.NETWORK},
        "path": {"pretrain_network_g": str(weights), "strict_load_g": True},
        "train": {
            "ema_decay": recipe.EMA_DECAY,
            "optim_g": {"type": "Adam", "lr": recipe.LR, "weight_decay": 0, "betas": list(recipe.BETAS)},
            "scheduler": dict(run["scheduler"]),
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
    }


def record(run: dict[str, Any], weights: Path) -> dict[str, Any]:
    """Loss and rate of every iteration, and what the weights and their average became."""
    model = build_model(options(run, weights))
    losses, rates = [], []
    for iteration in range(1, recipe.ITERATIONS + 1):
        model.update_learning_rate(iteration, warmup_iter=run["warmup_iter"])
        rates.append(model.get_current_learning_rate()[0])
        lq, gt = recipe.batch(iteration)
        model.feed_data({"lq": torch.from_numpy(lq), "gt": torch.from_numpy(gt)})
        model.optimize_parameters(iteration)
        losses.append(model.get_current_log()["l_pix"])
    return {
        "loss": losses,
        "lr": rates,
        "params": recipe.summary(_arrays(model.net_g)),
        "params_ema": recipe.summary(_arrays(model.net_g_ema)),
    }


def _arrays(net: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in net.state_dict().items()}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "first.pth"
        state = {name: torch.from_numpy(value) for name, value in recipe.first_weights().items()}
        torch.save({"params": state, "params_ema": state}, weights)
        runs = {name: record(run, weights) for name, run in recipe.RUNS.items()}
    made_with = {"basicsr": basicsr.__version__, "torch": torch.__version__, "numpy": np.__version__, "device": "cpu"}
    recipe.GOLDEN.parent.mkdir(exist_ok=True)
    recipe.GOLDEN.write_text(json.dumps({"made_with": made_with, "runs": runs}, separators=(",", ":")) + "\n")
    print(f"wrote {recipe.GOLDEN}")


if __name__ == "__main__":
    main()
