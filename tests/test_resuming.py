"""Going on: which checkpoint is taken, what of it counts, and what is made good that an earlier end left undone."""

import json
import re

import torch
from tiny import end_state, equal, in_process, options


def states(tiny, name: str = "tiny") -> set[str]:
    return {p.name for p in (tiny / f"experiments/{name}/training_states").iterdir() if p.is_dir()}


def test_a_stopped_branch_goes_on_from_itself_not_from_where_it_branched(tiny, capsys):
    in_process(tiny, options(tiny, name="source", train__total_iter=4))
    branch = options(
        tiny, train__total_iter=8, path__resume_state=str(tiny / "experiments/source/training_states/iter_4")
    )
    assert in_process(tiny, branch) == 0
    branch["train"]["total_iter"] = 12
    assert in_process(tiny, branch, "--auto_resume") == 0
    assert re.search(r"from iteration 8 \(.*tiny.training_states.iter_8\)", capsys.readouterr().out)


def test_going_back_sets_the_later_checkpoints_aside(tiny):
    in_process(tiny, options(tiny))
    back = options(tiny, path__resume_state=str(tiny / "experiments/tiny/training_states/iter_4"), train__total_iter=6)
    assert in_process(tiny, back) == 0
    assert states(tiny) == {"iter_4", "iter_6", "iter_8.superseded", "iter_12.superseded"}


def test_weights_for_users_are_made_again_when_a_start_died_before_writing_them(tiny):
    in_process(tiny, options(tiny))
    models = tiny / "experiments/tiny/models"
    before = torch.load(models / "net_g_12.pth", weights_only=True)
    (models / "net_g_12.pth").unlink()
    (models / "net_g_8.pth").replace(models / "net_g_latest.pth")
    assert in_process(tiny, options(tiny), "--auto_resume") == 0
    for name in ("net_g_12.pth", "net_g_latest.pth"):
        assert equal(torch.load(models / name, weights_only=True)["params"], before["params"])


def test_a_changed_optimizer_option_takes_effect(tiny):
    in_process(tiny, options(tiny, train__total_iter=4))
    change = {"train__optim_g__betas": [0.5, 0.9], "train__optim_g__weight_decay": 0.1}
    assert in_process(tiny, options(tiny, train__total_iter=8, **change), "--auto_resume") == 0
    group = end_state(tiny / "experiments/tiny", 8)[1]["optimizers"]["network_g"]["param_groups"][0]
    assert tuple(group["betas"]) == (0.5, 0.9)
    assert group["weight_decay"] == 0.1


def test_another_optimizer_is_refused_by_name(tiny, capsys):
    in_process(tiny, options(tiny, train__total_iter=4))
    assert in_process(tiny, options(tiny, train__total_iter=8, train__optim_g__type="AdamW"), "--auto_resume") == 2
    assert "train.optim_g.type: 'Adam' in the checkpoint, 'AdamW' now" in capsys.readouterr().err


def test_a_new_start_forgets_how_the_last_one_ended(tiny):
    """A killed start writes no exit.json; a requeueing script must not read the one of the start before."""
    loss = tiny / "curious_loss.py"
    loss.write_text(
        "from pathlib import Path\nfrom torch import nn\nfrom srkit.registry import LOSSES\n\n\n"
        "@LOSSES.register()\nclass CuriousLoss(nn.Module):\n    def forward(self, sr, gt):\n"
        "        Path('seen').write_text(str(Path('experiments/tiny/exit.json').exists()))\n"
        "        return (sr - gt).abs().mean()\n"
    )
    data = options(tiny, imports=[str(loss)], train__pixel_opt={"type": "CuriousLoss"}, train__total_iter=4)
    assert in_process(tiny, data) == 0
    data["train"]["total_iter"] = 5
    assert in_process(tiny, data, "--auto_resume") == 0
    assert (tiny / "seen").read_text() == "False"
    assert json.loads((tiny / "experiments/tiny/exit.json").read_text())["iteration"] == 5


def test_an_error_in_validation_keeps_what_was_trained(tiny, capsys):
    metric = tiny / "late.py"
    metric.write_text(
        "from srkit.errors import DataError\nfrom srkit.registry import METRICS\n\n\n"
        "@METRICS.register()\nclass Late:\n    better = 'lower'\n\n    def __call__(self, sr, gt, data_range):\n"
        "        if (sr != gt).any():\n            raise DataError('too late')\n        return 0.0\n"
    )
    change = {"val__metrics": {"late": {"type": "Late"}}, "logger__save_checkpoint_freq": 100}
    assert in_process(tiny, options(tiny, imports=[str(metric)], **change)) == 2
    assert "iteration 6 was saved before giving up" in capsys.readouterr().out
    assert states(tiny) == {"iter_6"}


def test_moments_lie_in_memory_as_their_weights_do():
    """Fused optimizers walk through memory; a saved moment may come back in another layout."""
    from srkit.archs.edsr import EDSR
    from srkit.build import place
    from srkit.engine.optim import OptimizerStep

    network = place(EDSR(num_feat=8, num_block=1), torch.device("cpu"))
    step = OptimizerStep("Adam", {"lr": 1e-3}, network, lambda done: 1e-3, None)
    network(torch.rand(1, 3, 8, 8)).mean().backward()
    step.step(torch.zeros(()))
    saved = step.optimizer.state_dict()
    for state in saved["state"].values():
        state["exp_avg"] = state["exp_avg"].contiguous()
    step.load_state(saved)
    for parameter in step.parameters:
        assert step.optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()
