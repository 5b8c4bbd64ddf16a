"""Claims about one GPU: CUDA graphs train as eager iterations do, the host never waits, and resuming is exact."""

import copy
import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once in a process, at the first matrix product

import pytest
import torch
from tiny import assert_same_end, options, pictures, run, write_options

from srkit.assemble import choose_kernels
from srkit.options import load_options
from srkit.tools.measuring import trial

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible"),
]

EDSR = {"network_g": {"type": "EDSR", "num_feat": 32, "num_block": 4}}
GAN = {
    **EDSR,
    "model_type": "ESRGANModel",
    "network_d": {"type": "VGGAdaptiveDiscriminator", "channels": [16, 16, 32, 32]},
    "train__optim_d": {"type": "Adam", "lr": 1e-3},
    "train__perceptual_opt": {"type": "PerceptualLoss", "weights": "random", "layer_weights": {"conv2_2": 1}},
    "train__gan_opt": {"type": "GANLoss", "loss_weight": 0.01, "real_label_range": [0.8, 1.0]},
    "train__net_d_init_iters": 10,
}
VOLUME_LOSSES = {"train__losses": {"edge": {"type": "EdgeLoss", "start_iter": 10}, "ssim": {"type": "SSIMLoss"}}}
SGD = {
    "train__optim_g": {"type": "SGD", "lr": 1e-3, "momentum": 0.9},
    "train__grad_clip": {"type": "value_over_lr", "max": 1e-3},
}


@pytest.fixture
def settings(tmp_path):
    pictures(tmp_path / "data", count=8, size=96)

    def made(**changes):
        given = {
            "num_gpu": "auto", "datasets__train__gt_size": 64, "datasets__train__batch_size_per_gpu": 4,
            "datasets__train__dataset_enlarge_ratio": 50, "datasets__train__pin_memory": True, "logger__print_freq": 1000,
            "train__total_iter": 1000, "logger__save_checkpoint_freq": 1000, "val": None, "datasets__val": None, **changes,
        }  # fmt: skip
        return load_options(write_options(tmp_path, options(tmp_path, **given)), mode="train")

    return made


@pytest.fixture(autouse=True)
def as_before():
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = False


def trained(settings, iterations):
    """Losses of each iteration, and weights, averages and optimizer states at the end."""
    torch.manual_seed(0)
    logged = []
    with trial(settings) as (_, trainer):
        for _ in range(iterations):
            trainer.train_step()
            logged.append(trainer.meter.read(trainer.group)[0])
        states = [net.state_dict() for net in trainer.networks.values()]
        steps = [step.optimizer.state_dict()["state"] for step in trainer.optimizers.values()]
        return logged, copy.deepcopy([states, steps, trainer.ema.network.state_dict()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "changes", [EDSR, GAN, {**EDSR, **VOLUME_LOSSES}, {**EDSR, **SGD}, {**GAN, "train__accum_iter": 2}]
)
def test_fifty_iterations_as_graphs_equal_eager_ones_to_the_bit(settings, changes, precision):
    wish = {**changes, "train__precision": precision, "train__deterministic": True}
    eager, graphs = (trained(settings(**wish, train__cuda_graph=on), 50) for on in (False, True))
    assert eager[0] == graphs[0]
    for ours, theirs in zip(*(torch.utils._pytree.tree_leaves(end[1]) for end in (eager, graphs)), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("form", [{}, {"train__cuda_graph": True}, {"train__compile": True}])
@pytest.mark.parametrize("changes", [EDSR, GAN, {**EDSR, **SGD}])
def test_the_host_waits_for_nothing_between_two_log_lines(settings, changes, form):
    normal = {"datasets__train__mean": [0.4, 0.4, 0.4], "datasets__train__std": [0.2, 0.2, 0.2]}
    with trial(settings(**changes, **form, **normal, train__precision="bf16", train__grad_clip={"max": 1.0})) as (
        _,
        trainer,
    ):
        for _ in range(20):
            trainer.train_step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(20):
                trainer.train_step()
                trainer.log.step()
                trainer.between_iterations()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert trainer.iteration == 40


def test_a_resident_set_waits_for_nothing_either(settings):
    with trial(settings(**EDSR, datasets__train__cache="device")) as (_, trainer):
        for _ in range(5):
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(10):
                trainer.train_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_skipped_update_in_a_graph_changes_no_weight(settings):
    with trial(settings(**EDSR, train__cuda_graph=True)) as (_, trainer):
        for _ in range(5):
            trainer.train_step()
        before = copy.deepcopy(trainer.networks["network_g"].state_dict())
        batch = next(trainer.batches)
        batch.lq.fill_(float("nan"))  # a gt of these would leave L1 a gradient of zeros
        trainer.batches = (b for b in [batch])
        trainer.train_step()
        assert trainer.meter.skipped() == 1
        for key, value in trainer.networks["network_g"].state_dict().items():
            assert torch.equal(value, before[key])


@pytest.mark.parametrize("form", [{}, {"train__compile": True}, {"train__cuda_graph": True}])
def test_a_killed_and_resumed_training_ends_as_an_undisturbed_one(tmp_path, form):
    pictures(tmp_path / "data", count=8, size=96)
    for kind in ("whole", "killed"):
        data = options(
            tmp_path, name=kind, num_gpu="auto", train__deterministic=True, train__precision="bf16",
            datasets__train__gt_size=64, train__total_iter=12, **{**GAN, "train__net_d_init_iters": 0}, **form,
        )  # fmt: skip
        path = write_options(tmp_path, data, f"{kind}.yml")
        if kind == "killed":
            assert run("-opt", path, cwd=tmp_path, env={"SRKIT_FAULT": "save.after_rename:2"})[0] == 86
        code, text = run("-opt", path, "--auto_resume", cwd=tmp_path)
        assert code == 0, text
    assert_same_end(tmp_path / "experiments/whole", tmp_path / "experiments/killed")


def test_the_fastest_kernels_are_looked_for_unless_a_run_is_deterministic(settings):
    for deterministic in (False, True):
        with trial(settings(**EDSR, train__deterministic=deterministic)) as (parts, _):
            choose_kernels(parts)
            assert torch.backends.cudnn.benchmark is not deterministic
            assert torch.are_deterministic_algorithms_enabled() is deterministic
