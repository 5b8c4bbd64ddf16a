"""Training equals BasicSR 1.4.2's own SRModel, recorded by scripts/parity_basicsr.py, where both mean the same."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import parity_recipe as recipe
import pytest
import torch

from srkit.archs.edsr import EDSR
from srkit.engine.schedules import cosine_restart, multi_step, with_warmup
from srkit.losses.pixel import L1Loss

GOLDEN = json.loads(recipe.GOLDEN.read_text())["runs"]

# Measured drift, over 100 updates of every run: on the recording machine losses 3e-8, weights 2e-8 (srkit adds a scaled
# residual with one rounding, BasicSR with two; with two here as well, all are equal to the last bit). With AVX2 kernels
# or without oneDNN: losses 5e-8, weights 6e-6, averages 5e-7, because Adam divides a gradient by its own size, so that
# rounding in a tiny gradient becomes a visible step. The bounds are 10 to 20 times that. For comparison, rates that lag
# one iteration move the losses by 2e-3, the weights by 3e-4 and the averages by 1.5e-5.
BOUNDS = {"loss": 1e-6, "params": 6e-5, "params_ema": 5e-6}


def schedule(run: dict, lr: float, warmup_iter: int) -> Callable[[int], float]:
    options = dict(run["scheduler"])
    make = {"CosineAnnealingRestartLR": cosine_restart, "MultiStepLR": multi_step}[options.pop("type")]
    return with_warmup(make(lr, **options), lr, warmup_iter)


def rates(run: str, lr: float = recipe.LR, warmup_iter: int | None = None) -> list[float]:
    options = recipe.RUNS[run]
    lr_at = schedule(options, lr, options["warmup_iter"] if warmup_iter is None else warmup_iter)
    return [lr_at(done) for done in range(recipe.ITERATIONS)]


def train(lrs: list[float]) -> dict:
    """A bare loop over srkit's parts and torch's Adam."""
    net = EDSR(**recipe.NETWORK)
    net.load_state_dict({name: torch.from_numpy(value) for name, value in recipe.first_weights().items()})
    average = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer, loss_of, losses = torch.optim.Adam(net.parameters(), lr=recipe.LR, betas=recipe.BETAS), L1Loss(), []
    for iteration, lr in enumerate(lrs, start=1):
        optimizer.param_groups[0]["lr"] = lr
        lq, gt = (torch.from_numpy(half) for half in recipe.batch(iteration))
        optimizer.zero_grad()
        loss = loss_of(net(lq), gt)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        for name, value in net.state_dict().items():
            average[name].mul_(recipe.EMA_DECAY).add_(value, alpha=1 - recipe.EMA_DECAY)
    params = {name: value.numpy() for name, value in net.state_dict().items()}
    averages = {name: value.numpy() for name, value in average.items()}
    return {"loss": losses, "params": recipe.summary(params), "params_ema": recipe.summary(averages)}


def assert_same_training(ours: dict, theirs: dict) -> None:
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=0, atol=BOUNDS["loss"])
    for kind in ("params", "params_ema"):
        assert ours[kind].keys() == theirs[kind].keys()
        for name, numbers in theirs[kind].items():
            np.testing.assert_allclose(ours[kind][name], numbers, rtol=0, atol=BOUNDS[kind], err_msg=name)


def basicsr_warmup(run: str) -> tuple[float, int]:
    """The rate and warm-up that repeat a BasicSR run with warm-up and MultiStepLR."""
    w = recipe.RUNS[run]["warmup_iter"]
    return recipe.LR * (w - 1) / w, w - 1


# 100 updates on one thread take about 1.5 s; fewer would not pass the second period or the second milestone.
@pytest.mark.parametrize("run", ["cosine_warmup", "multistep"])
def test_training_equals_basicsr(run):
    np.testing.assert_allclose(rates(run), GOLDEN[run]["lr"], rtol=1e-12)
    assert_same_training(train(rates(run)), GOLDEN[run])


def test_training_equals_basicsr_after_warmup_with_the_rate_it_really_used():
    lrs = rates("multistep_warmup", *basicsr_warmup("multistep_warmup"))
    np.testing.assert_allclose(lrs, GOLDEN["multistep_warmup"]["lr"], rtol=1e-12)
    assert_same_training(train(lrs), GOLDEN["multistep_warmup"])


def test_after_warmup_our_multistep_reaches_the_base_rate_and_basicsr_s_stays_a_step_below():
    w = recipe.RUNS["multistep_warmup"]["warmup_iter"]
    ours, theirs = rates("multistep_warmup"), GOLDEN["multistep_warmup"]["lr"]
    np.testing.assert_allclose(ours[: w - 1], theirs[: w - 1], rtol=1e-12)
    np.testing.assert_allclose(np.array(theirs[w - 1 :]) / ours[w - 1 :], (w - 1) / w, rtol=1e-12)
    assert ours[w - 1] == recipe.LR


def test_a_milestone_within_the_warmup_counts_here_and_is_lost_in_basicsr():
    w, gamma = 10, 0.5
    ours, theirs = rates("milestone_in_warmup"), GOLDEN["milestone_in_warmup"]["lr"]
    assert ours[w - 1] == pytest.approx(recipe.LR * gamma)
    assert theirs[w - 1] == pytest.approx(recipe.LR * (w - 1) / w)
