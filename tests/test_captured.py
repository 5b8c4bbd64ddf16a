"""Iterations as CUDA graphs, on a stand-in that repeats work where CUDA would: what is recorded when, and that nothing changes by it."""

import copy
from dataclasses import replace

import pytest
import torch
from tiny import options, pictures, write_options
from torch import nn

from srkit import build
from srkit.assemble import build_parts, choose_kernels
from srkit.engine.captured import REHEARSALS, CapturedUpdate
from srkit.engine.distributed import Group
from srkit.engine.optim import OptimizerStep
from srkit.engine.recipes import Recipe, Turn, WeightedLoss
from srkit.engine.transfer import Batch
from srkit.errors import OptionError, RefusedError
from srkit.options import load_options
from srkit.tools.measuring import trial

CPU = torch.device("cpu")
GAN = {
    "model_type": "SRGANModel",
    "network_d": {"type": "VGGAdaptiveDiscriminator", "channels": [4, 4, 4, 4]},
    "train__optim_d": {"type": "Adam", "lr": 1e-3},
    "train__gan_opt": {"type": "GANLoss", "loss_weight": 0.1, "real_label_range": [0.8, 1.0]},
    "train__net_d_init_iters": 6,
}


class Again:
    """Does recorded work anew at each replay, into the tensors of the first replay, as a graph writes to its own memory."""

    def __init__(self):
        self.rehearsed = self.recorded = 0

    def rehearse(self, work):
        self.rehearsed += 1
        return work()

    def record(self, work):
        self.recorded += 1
        outcome = None

        def replay():
            nonlocal outcome
            losses, found_inf = work()
            if outcome is None:
                outcome = {n: v.clone() for n, v in losses.items()}, found_inf.clone()
            for name, value in losses.items():
                outcome[0][name].copy_(value)
            outcome[1].copy_(found_inf)
            return outcome

        return replay


def loaded(folder, **changes):
    pictures(folder / "data")
    return load_options(write_options(folder, options(folder, **changes)), mode="train")


def batch(value=0.0, size=4):
    return Batch(torch.full((1, 3, size, size), value), torch.full((1, 3, 2 * size, 2 * size), value), {}, ["a"])


def brightness(batches):
    return {"l": torch.stack([b.lq.mean() + b.gt.mean() for b in batches]).sum()}, torch.zeros(())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train__precision": "bf16", "train__accum_iter": 2, "train__grad_clip": {"max": 0.1}},
        GAN,
        {"train__losses": {"late": {"type": "MSELoss", "start_iter": 5, "stop_iter": 9}}},
    ],
)
def test_losses_weights_and_averages_are_those_without_graphs(tmp_path, changes):
    settings = loaded(tmp_path, **changes)
    ends = []
    for captured in (None, CapturedUpdate(Again())):
        torch.manual_seed(0)  # labels of real pictures are drawn
        with trial(settings) as (_, trainer):
            trainer.captured, logged = captured, []
            for _ in range(12):
                trainer.train_step()
                logged.append(trainer.meter.read(trainer.group)[0])
            states = {name: net.state_dict() for name, net in trainer.networks.items()}
            ends.append((logged, copy.deepcopy((states, trainer.ema.network.state_dict()))))
    assert ends[0][0] == ends[1][0]
    for ours, theirs in zip(*(torch.utils._pytree.tree_leaves(end[1]) for end in ends), strict=True):
        assert torch.equal(ours, theirs)


def test_the_first_three_of_a_kind_run_as_usual_and_each_kind_is_recorded_once():
    recorder = Again()
    captured = CapturedUpdate(recorder)
    for kind in ["d"] * 5 + ["dg"] * 6 + ["d"] * 2:
        captured.prepare(kind, [batch()], brightness)()
    assert (recorder.rehearsed, recorder.recorded) == (2 * REHEARSALS, 2)


def test_a_recorded_update_takes_its_numbers_from_the_batch_of_the_iteration():
    captured, seen = CapturedUpdate(Again()), []
    for value in range(8):
        given = [batch(float(value)), batch(1.0)]
        carry_out = captured.prepare("g", given, brightness)
        for tensor in (given[0].lq, given[0].gt):
            tensor.fill_(99.0)  # a graph does not know where this lies
        seen.append(carry_out()[0]["l"].item())
    assert seen == [2.0 * value + 2.0 for value in range(8)]


def test_means_of_losses_outlast_the_memory_of_the_graph(tmp_path):
    with trial(loaded(tmp_path, train__ema_decay=0)) as (_, trainer):
        trainer.captured = CapturedUpdate(Again())
        single = []
        for _ in range(8):
            trainer.train_step()
            single.append(trainer.meter.read(trainer.group)[0]["l_pix"])
    with trial(loaded(tmp_path, train__ema_decay=0)) as (_, trainer):
        trainer.captured = CapturedUpdate(Again())
        for _ in range(8):
            trainer.train_step()
        assert trainer.meter.read(trainer.group)[0]["l_pix"] == pytest.approx(sum(single) / 8, rel=1e-6)


def test_a_batch_of_another_size_is_refused_with_both_sizes():
    captured = CapturedUpdate(Again())
    captured.prepare("g", [batch()], brightness)()
    with pytest.raises(RefusedError, match=r"first had lq 1x3x4x4, gt 1x3x8x8, this one has lq 1x3x6x6.*gt_size"):
        captured.prepare("g", [batch(size=6)], brightness)


def test_what_cannot_be_recorded_leaves_a_whole_iteration_to_save(tmp_path):
    class Failing(Again):
        def record(self, work):
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    with trial(loaded(tmp_path)) as (_, trainer):
        trainer.captured = CapturedUpdate(Failing())
        for _ in range(REHEARSALS):
            trainer.train_step()
        with pytest.raises(RefusedError, match=r"RuntimeError: operation not permitted when stream is capturing\)"):
            trainer.train_step()
        assert trainer.iteration == REHEARSALS
        assert not trainer.in_update  # so that the emergency save takes place


def test_running_out_of_memory_while_recording_is_reported_as_that():
    class Small(Again):
        def record(self, work):
            raise torch.OutOfMemoryError("CUDA out of memory")

    captured = CapturedUpdate(Small())
    for _ in range(REHEARSALS):
        captured.prepare("g", [batch()], brightness)()
    with pytest.raises(torch.OutOfMemoryError):
        captured.prepare("g", [batch()], brightness)


def test_a_phase_is_the_turns_that_play_and_the_losses_that_count():
    recipe = Recipe({})
    recipe.turns = (Turn("d", "network_d", dict), Turn("g", "network_g", dict, every=2, start_iteration=4))
    recipe.weighted = (WeightedLoss(None), WeightedLoss(None, start=6, stop=8))
    phases = [recipe.phase_at(iteration) for iteration in range(10)]
    assert phases[0] == phases[3] == phases[4] == phases[8]  # d alone
    assert phases[5] == phases[9] != phases[0]  # d and g
    assert phases[6] not in (phases[0], phases[7])
    assert len(set(phases)) == 4


def rate_and_bound(captured, clip=None):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3)
    step = OptimizerStep("SGD", {"lr": 0.1, "momentum": 0.9}, network, lambda done: 0.1 / (1 + done), clip, captured)
    weights = []
    for done in range(4):
        for parameter in network.parameters():
            parameter.grad = torch.linspace(-3, 3, parameter.numel()).view_as(parameter)
        step.set_learning_rate(done)
        step.clip_gradients()
        step.step(torch.tensor(0.0))
        weights.append(network.weight.detach().clone())
    return step, weights


@pytest.mark.parametrize("clip", [None, ("value_over_lr", 0.05), ("norm", 1.0)])
def test_a_rate_that_lies_in_a_tensor_makes_the_same_steps(clip):
    for ours, theirs in zip(rate_and_bound(True, clip)[1], rate_and_bound(False, clip)[1]):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)  # 0.1 is another number in float32


def test_a_captured_rate_is_filled_anew_in_place_and_known_on_the_host():
    step, _ = rate_and_bound(True)
    rate = step.optimizer.param_groups[0]["lr"]
    step.set_learning_rate(9)
    assert step.optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.01)
    assert step.lr == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train__precision": "fp16"}, r"train\.precision: found 'fp16' with train\.cuda_graph, expected fp32 or bf16"),
        (
            {"train__optim_g": {"type": "RMSprop", "lr": 1e-3}},
            r"train\.optim_g\.type: found 'RMSprop'.*Adam, AdamW or SGD",
        ),
        ({"datasets__train__gt_size_max": 32}, r"datasets\.train\.gt_size_max: found 32.*one size; remove it"),
        ({"datasets__train__gt_size": None}, r"datasets\.train\.gt_size: missing.*crops of one size"),
        (
            {"datasets__train__scales": [2, 4], "datasets__train__dataroot_lq": "lq/x{scale}"},
            r"datasets\.train\.scales: found \[2, 4\].*one scale",
        ),
        ({"train__losses": {"edge": {"type": "EdgeLoss", "method": "canny"}}}, r"train\.losses\.edge\.method.*sobel"),
        ({**GAN, "model_type": "EdgeAdversarial"}, r"train\.cuda_graph: found true, but Canny's edges"),
    ],
)
def test_what_a_graph_cannot_hold_is_refused_with_its_place(tmp_path, changes, told):
    with pytest.raises(OptionError, match=told):
        loaded(tmp_path, train__cuda_graph=True, **changes)


def test_a_machine_without_cuda_is_told_what_to_set(tmp_path):
    settings = loaded(tmp_path, train__cuda_graph=True)
    with pytest.raises(RefusedError, match=r"needs a CUDA device, found cpu.*set train\.cuda_graph: false"):
        build_parts(settings, Group(0, 1, CPU))


@pytest.mark.parametrize(
    ("group", "precision", "told"),
    [
        (Group(0, 2, torch.device("cuda")), "fp32", r"for one process, found 2"),
        (Group(0, 1, torch.device("cuda")), "fp16", r"found fp16, as use_amp chose"),
    ],
)
def test_several_processes_and_a_scaler_are_refused(group, precision, told):
    with pytest.raises(RefusedError, match=told):
        build.require_cuda_graphs({}, group, precision)


def test_a_network_that_finds_edges_is_refused():
    finder = nn.Sequential(nn.Conv2d(3, 3, 3))
    finder[0].finds_edges = True
    with pytest.raises(RefusedError, match=r"cannot hold network_g: Sequential finds edges"):
        build.require_cuda_graphs({"network_g": finder}, Group(0, 1, torch.device("cuda")), "bf16")


@pytest.mark.parametrize(
    ("changes", "tries"),
    [({}, True), ({"train__deterministic": True}, False), ({"datasets__train__gt_size_max": 32}, False)],
)
def test_kernels_are_tried_out_for_crops_of_one_size_alone(tmp_path, monkeypatch, changes, tries):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda wish: None)
    choose_kernels(build_parts(loaded(tmp_path, **changes), Group(0, 1, CPU)))
    assert torch.backends.cudnn.benchmark is tries


def test_validation_tries_out_no_kernels(tmp_path, monkeypatch):
    with trial(loaded(tmp_path)) as (_, trainer):
        torch.backends.cudnn.benchmark = True
        seen = []
        monkeypatch.setattr(
            type(trainer.validation), "_evaluate", lambda *_: seen.append(torch.backends.cudnn.benchmark)
        )
        monkeypatch.setattr(type(trainer.validation), "_report", lambda *_: None)
        try:
            trainer.validation.run(1)
            assert (seen, torch.backends.cudnn.benchmark) == ([False], True)
        finally:
            torch.backends.cudnn.benchmark = False


def test_normalised_values_are_those_of_numbers_from_the_host():
    normalization = build.Normalization((0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (normalization.mean, normalization.std))
    assert torch.equal(normalization.apply(x), (x - mean) / std)
    assert torch.equal(normalization.invert(replace(normalization).apply(x)), ((x - mean) / std) * std + mean)
