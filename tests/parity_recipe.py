"""What the BasicSR parity run is made of: network, first weights, batches, schedules. NumPy alone, so both sides can read it.

Everything random comes from `np.random.default_rng([SEED, stream, ...])`, every value is exact in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden" / "basicsr_edsr.json"
SEED = 20260801
ITERATIONS, BATCH, LQ_SIZE, SCALE = 100, 4, 16, 2
NETWORK = {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 16, "num_block": 4, "upscale": SCALE, "res_scale": 0.1}
LR, BETAS, EMA_DECAY = 2e-4, (0.9, 0.99), 0.999
RUNS = {
    "cosine_warmup": {
        "warmup_iter": 10,
        "scheduler": {
            "type": "CosineAnnealingRestartLR",
            "periods": [60, 40],
            "restart_weights": [1.0, 0.5],
            "eta_min": 1e-6,
        },
    },
    "multistep": {"warmup_iter": -1, "scheduler": {"type": "MultiStepLR", "milestones": [40, 70], "gamma": 0.5}},
    "multistep_warmup": {"warmup_iter": 10, "scheduler": {"type": "MultiStepLR", "milestones": [40, 70], "gamma": 0.5}},
    "milestone_in_warmup": {
        "warmup_iter": 10,
        "scheduler": {"type": "MultiStepLR", "milestones": [5, 40], "gamma": 0.5},
    },
}


def first_weights() -> dict[str, np.ndarray]:
    """EDSR's state dict: every tensor uniform in +-1/sqrt(fan_in), drawn in the order of the keys."""
    feat = NETWORK["num_feat"]
    body = [(f"body.{n}.conv{k}", feat, feat) for n in range(NETWORK["num_block"]) for k in (1, 2)]
    layers = [("conv_first", 3, feat), *body, ("conv_after_body", feat, feat), ("upsample.0", feat, SCALE**2 * feat)]
    rng = np.random.default_rng([SEED, 0])
    state: dict[str, np.ndarray] = {}
    for name, in_ch, out_ch in [*layers, ("conv_last", feat, 3)]:
        bound = 1 / np.sqrt(in_ch * 9)
        state[f"{name}.weight"] = rng.uniform(-bound, bound, (out_ch, in_ch, 3, 3)).astype(np.float32)
        state[f"{name}.bias"] = rng.uniform(-bound, bound, (out_ch,)).astype(np.float32)
    return state


def batch(iteration: int) -> tuple[np.ndarray, np.ndarray]:
    """lq (4, 3, 16, 16) and gt (4, 3, 32, 32), float32 in [0, 1], for iteration 1, 2, ...

    gt: blocks of 8 x 8 pixels with fine noise, in 255ths. lq: the average of 2 x 2 pixels of gt.
    """
    rng = np.random.default_rng([SEED, 1, iteration])
    gt_size = LQ_SIZE * SCALE
    blocks = rng.integers(0, 200, (BATCH, 3, gt_size // 8, gt_size // 8)).repeat(8, axis=2).repeat(8, axis=3)
    gt = blocks + rng.integers(0, 56, blocks.shape)
    lq = gt.reshape(BATCH, 3, LQ_SIZE, SCALE, LQ_SIZE, SCALE).sum(axis=(3, 5))
    return (lq / 1020).astype(np.float32), (gt / 255).astype(np.float32)


def summary(state: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Per tensor: L2 norm, then its first four values."""
    return {
        name: [float(np.linalg.norm(value.astype(np.float64))), *(float(v) for v in value.ravel()[:4])]
        for name, value in state.items()
    }
