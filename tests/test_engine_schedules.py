"""Learning-rate schedules against the paper's formula, torch, and figures from the specification."""

import pytest
import torch

from srkit.engine.schedules import constant, cosine_restart, multi_step, with_warmup


@pytest.mark.parametrize(("done", "expected"), [(0, 1e-4), (125_000, 5.005e-5), (250_000, 1e-7), (250_001, 5.005e-5)])
def test_cosine_restart_gives_the_published_values(done, expected):
    lr = cosine_restart(1e-4, [250_000] * 4, [1, 0.5, 0.5, 0.5], 1e-7)
    assert lr(done) == pytest.approx(expected, rel=1e-6)


def test_cosine_stays_at_its_end_past_the_last_period():
    lr = cosine_restart(1e-3, [10, 10], [1, 1], 1e-6)
    assert lr(25) == lr(20) == pytest.approx(1e-6)


def test_multi_step_equals_torch():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    reference = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5, 9], gamma=0.5)
    ours = multi_step(0.1, [3, 5, 5, 9], gamma=0.5)
    for done in range(12):
        assert ours(done) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_a_restart_sets_the_rate_back_and_later_milestones_decay_it_again():
    lr = multi_step(1.0, [2, 6], gamma=0.1, restarts=[4], restart_weights=[0.5])
    assert [lr(n) for n in (0, 2, 4, 6)] == pytest.approx([1.0, 0.1, 0.5, 0.05])


def test_warm_up_is_linear_from_zero_and_then_hands_over():
    lr = with_warmup(constant(1.0), 1.0, 4)
    assert [lr(n) for n in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert with_warmup(constant(1.0), 1.0, -1)(0) == 1.0
