"""One update: the guard against non-finite gradients, averaging, precision, loss sums."""

import copy

import pytest
import torch
from torch import nn

from srkit.engine.distributed import Group
from srkit.engine.ema import EMA
from srkit.engine.meters import LossMeter
from srkit.engine.optim import OptimizerStep, guarded_step
from srkit.engine.precision import Precision, choose_precision
from srkit.engine.schedules import constant

CPU = torch.device("cpu")


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


def make(kind="Adam", clip=None, **settings):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3))
    return network, OptimizerStep(kind, {"lr": 1e-2, **settings}, network, constant(1e-2), clip)


def update(network, step, precision, factor=1.0):
    with precision.autocast():
        out = network(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    precision.backward(out.float().square().mean() * factor, step.parameters)
    return guarded_step([step], precision)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "RMSprop", "Adamax", "ASGD", "Rprop"])
def test_a_non_finite_gradient_changes_neither_weights_nor_moments_nor_average(kind):
    network, step = make(kind)
    precision, ema = Precision("fp32", CPU), EMA(network, 0.9)
    ema.update(update(network, step, precision))
    network.eval()  # the running statistics of batch norm are the forward's business
    before = copy.deepcopy((network.state_dict(), step.optimizer.state_dict()["state"], ema.network.state_dict()))
    found_inf = update(network, step, precision, factor=float("nan"))
    ema.update(found_inf)
    after = (network.state_dict(), step.optimizer.state_dict()["state"], ema.network.state_dict())
    assert found_inf.item() == 1
    assert all(equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD"])
def test_fused_optimizers_take_the_verdict_on_the_device(kind):
    assert not make(kind)[1].reads_back
    assert make("RMSprop")[1].reads_back


def test_momentum_begins_at_zero_also_when_the_first_step_was_skipped():
    network, step = make("SGD", momentum=0.9)
    twin = copy.deepcopy(network)
    update(network, step, Precision("fp32", CPU), factor=float("nan"))
    plain = torch.optim.SGD(twin.parameters(), lr=1e-2, momentum=0.9)
    for _ in range(3):
        update(network, step, Precision("fp32", CPU))
        twin(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        plain.step()
        plain.zero_grad()
    for ours, theirs in zip(network.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_a_guarded_step_equals_the_plain_optimizer():
    network, step = make()
    twin = copy.deepcopy(network)
    plain = torch.optim.Adam(twin.parameters(), lr=1e-2)
    for _ in range(3):
        update(network, step, Precision("fp32", CPU))
        twin(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))).square().mean().backward()
        plain.step()
        plain.zero_grad()
    for ours, theirs in zip(network.parameters(), twin.parameters()):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_clipping_by_norm_leaves_a_gradient_of_that_norm():
    network, step = make(clip=("norm", 0.5))
    (sum(p.sum() for p in network.parameters()) * 100).backward()
    norm = step.clip_gradients()
    count = sum(p.numel() for p in network.parameters())
    assert norm.item() == pytest.approx(100 * count**0.5, rel=1e-5)
    assert torch.nn.utils.get_total_norm(step.gradients()).item() == pytest.approx(0.5, rel=1e-4)


def test_adjustable_clipping_bounds_gradients_by_the_limit_over_the_rate():
    network = nn.Conv2d(3, 4, 3)
    step = OptimizerStep("SGD", {"lr": 0.1}, network, lambda done: 0.1 if done < 5 else 0.01, ("value_over_lr", 0.01))
    for done, bound in ((0, 0.1), (5, 1.0)):  # 0.01 / 0.1 and 0.01 / 0.01
        for parameter in network.parameters():
            parameter.grad = torch.linspace(-3, 3, parameter.numel()).view_as(parameter)
        step.set_learning_rate(done)
        step.clip_gradients()
        assert max(float(p.grad.abs().max()) for p in network.parameters()) == pytest.approx(bound)


def test_clipping_by_value_bounds_every_element():
    network, step = make(clip=("value", 0.1))
    (sum(p.sum() for p in network.parameters()) * 3).backward()
    step.clip_gradients()
    assert all((g.abs() <= 0.1).all() for g in step.gradients())


def test_ema_is_the_textbook_average_of_parameters_and_batch_norm_statistics():
    network, _ = make()
    ema = EMA(network, 0.75)
    start = copy.deepcopy(network.state_dict())
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.add_(1)
    ema.update(torch.tensor(0.0))
    for name, value in ema.network.state_dict().items():
        expected = start[name] * 0.75 + (start[name] + 1) * 0.25 if value.is_floating_point() else start[name] + 1
        torch.testing.assert_close(value, expected)


def test_an_overflow_in_fp16_skips_the_step_and_halves_the_scale():
    network, step = make()
    precision = Precision("fp16", CPU)
    scale = precision.scaler.get_scale()
    assert update(network, step, precision).item() == 0
    before = copy.deepcopy(network.state_dict()["0.weight"])
    assert update(network, step, precision, factor=1e38).item() == 1
    assert precision.scaler.get_scale() == scale / 2
    assert torch.equal(network.state_dict()["0.weight"], before)


def test_the_scaler_resumes_where_it_was():
    precision, network_step = Precision("fp16", CPU), make()
    update(*network_step, precision, factor=1e38)
    other = Precision("fp16", CPU)
    other.load_state_dict(precision.state_dict())
    assert other.scaler.get_scale() == precision.scaler.get_scale()


def test_an_explicit_precision_beats_use_amp_and_its_absence_means_fp32():
    assert choose_precision("fp16", False, CPU) == ("fp16", None)
    assert choose_precision(None, False, CPU) == ("fp32", None)
    name, note = choose_precision(None, True, CPU)
    assert name == "bf16" or (name == "fp32" and "use_amp" in note)


def test_the_log_says_where_fp32_is_rounded_to_tf32(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert Precision("fp32", gpu).told == "fp32, convolutions in TF32"
    assert (Precision("bf16", gpu).told, Precision("fp32", CPU).told) == ("bf16", "fp32")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert Precision("fp32", gpu).told == "fp32"


def test_bf16_autocast_keeps_weights_in_fp32():
    network, step = make()
    update(network, step, Precision("bf16", CPU))
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_meter_leaves_skipped_iterations_out_of_the_mean_and_counts_their_streak():
    meter = LossMeter(CPU)
    for value, bad in ((1.0, 0.0), (float("nan"), 1.0), (float("inf"), 1.0), (3.0, 0.0)):
        meter.end_of_iteration({"l_pix": torch.tensor(value)}, torch.tensor(bad))
    means, _, _ = meter.read(Group(0, 1, CPU))
    assert means == {"l_pix": 2.0}
    assert (meter.skipped(), meter.worst_streak(), meter.worst_streak()) == (2, 2, 0)


def test_a_restored_meter_goes_on_where_it_was():
    meter, other = LossMeter(CPU), LossMeter(CPU)
    meter.end_of_iteration({"l_pix": torch.tensor(2.0)}, torch.tensor(0.0))
    other.load_state_dict(meter.state_dict())
    other.end_of_iteration({"l_pix": torch.tensor(4.0)}, torch.tensor(0.0))
    assert other.read(Group(0, 1, CPU))[0] == {"l_pix": 3.0}
