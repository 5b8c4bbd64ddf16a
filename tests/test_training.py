"""The real commands on tiny data: training, resume to the bit, stops, faults, tests; each in its own process where it matters."""

from __future__ import annotations

import gc
import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import (
    assert_same_end,
    command,
    end_state,
    equal,
    in_process,
    measured,
    on_two_ranks,
    options,
    pictures,
    run,
    write_options,
)

from srkit.data.pairs import PictureReader
from srkit.engine.model_file import read_model
from srkit.engine.trainer import Trainer
from srkit.imaging.files import read_image


def test_several_losses_are_weighted_and_logged_under_their_names(tiny):
    """LumaL1Loss has no constructor of its own."""
    extra = {"luma": {"type": "LumaL1Loss", "loss_weight": 0.5}}
    assert in_process(tiny, options(tiny, train__losses=extra, train__total_iter=1)) == 0
    lines = map(json.loads, (tiny / "experiments/tiny/records.jsonl").read_text().splitlines())
    record = next(line for line in lines if line["kind"] == "train")
    # No channel weighs more than 0.5042 in luma, so |luma error| is at most 3 x 0.5042 x the mean of the three; half of it:
    assert 0 < record["l_luma"] < 0.5 * 3 * 0.5042 * record["l_pix"]


def test_without_sets_to_validate_no_schedule_is_announced(tiny, capsys):
    assert in_process(tiny, options(tiny, datasets__val=None, train__total_iter=1)) == 0
    assert re.search(r"validation  none$", capsys.readouterr().out, re.MULTILINE)


def test_training_leaves_the_folder_users_of_the_family_expect(tiny):
    assert in_process(tiny, options(tiny, logger__use_tb_logger=True, val__save_img=True)) == 0
    folder = tiny / "experiments/tiny"
    expected = {
        "models/net_g_4.pth",
        "models/net_g_8.pth",
        "models/net_g_12.pth",
        "models/net_g_latest.pth",
        "models/net_g_best.pth",
    }
    assert expected <= {str(p.relative_to(folder)) for p in folder.rglob("*.pth")}
    assert {p.name for p in (folder / "training_states").iterdir()} == {"iter_4", "iter_8", "iter_12", "latest.json"}
    assert (folder / "visualization/val/p0/p0_12.png").exists()
    assert list((folder / "tb_logger").iterdir())
    assert json.loads((folder / "exit.json").read_text())["code"] == 0
    assert set(torch.load(folder / "models/net_g_12.pth", weights_only=True)) == {"params", "params_ema", "srkit"}
    log = next(folder.glob("train_*.log")).read_text()
    assert "[tiny..][epoch:  0, iter:       1, lr:(3.333e-04,)] [eta: " in log
    assert "Validation val (params_ema)\n\t # psnr: " in log
    assert "\tBest: " in log
    assert (folder / "options.yml").exists()
    assert (folder / "x.yml").exists()


def test_batch_norm_counts_the_steps_of_training_and_no_validation(tiny):
    network = {"type": "ResnetGenerator", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}
    data = options(tiny, network_g=network, train__total_iter=5, train__ema_decay=None, val__val_freq=2)
    assert in_process(tiny, data) == 0
    state = read_model(tiny / "experiments/tiny/models/net_g_latest.pth", "params").state
    counters = {int(value) for name, value in state.items() if name.endswith("num_batches_tracked")}
    assert counters == {5}


def test_the_saved_options_run_again_and_give_the_same_weights(tiny):
    in_process(tiny, options(tiny))
    first = tiny / "experiments/first"
    (tiny / "experiments/tiny").rename(first)
    from srkit.train import main

    assert main(["-opt", str(first / "options.yml")]) == 0
    assert_same_end(first, tiny / "experiments/tiny")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accum", [1, 2])
def test_resumed_training_equals_uninterrupted_training(tiny, workers, accum):
    changes = {"datasets__train__num_worker_per_gpu": workers, "train__accum_iter": accum}
    assert in_process(tiny, options(tiny, name="whole", **changes)) == 0
    # Stopped by a lower total, which then is raised: a change that is allowed and logged.
    assert in_process(tiny, options(tiny, name="parts", train__total_iter=5, **changes)) == 0
    assert in_process(tiny, options(tiny, name="parts", **changes), "--auto_resume") == 0
    whole, parts = end_state(tiny / "experiments/whole", 12), end_state(tiny / "experiments/parts", 12)
    assert equal(whole[0], parts[0])
    assert equal(whole[1]["optimizers"], parts[1]["optimizers"])
    losses = [[r["l_pix"] for r in records if r["kind"] == "train"] for records in (whole[3], parts[3])]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 12


def test_a_kill_at_any_moment_is_resumed_to_the_bit(tiny):
    data = options(tiny, name="whole", train__total_iter=60, train__scheduler__milestones=[40], val__val_freq=20)
    assert in_process(tiny, data) == 0
    data["name"] = "killed"
    path = write_options(tiny, data, "killed.yml")
    draw = np.random.default_rng(0)
    kills = 0
    for _ in range(20):
        process = command("-opt", path, "--auto_resume", cwd=tiny)
        deadline = time.monotonic() + 60
        records = tiny / "experiments/killed/records.jsonl"
        before = records.stat().st_mtime_ns if records.exists() else 0
        while process.poll() is None and time.monotonic() < deadline:
            if records.exists() and records.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.3))
        if process.poll() is None and kills < 3:
            process.send_signal(signal.SIGKILL)
            kills += 1
        out, _ = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, out
    assert kills == 3
    assert_same_end(tiny / "experiments/whole", tiny / "experiments/killed", 60)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 75)])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(tiny, number, code):
    path = write_options(
        tiny, options(tiny, train__total_iter=100000, val__val_freq=50000, logger__save_checkpoint_freq=50000)
    )
    process = command("-opt", path, cwd=tiny)
    records = tiny / "experiments/tiny/records.jsonl"
    while process.poll() is None and not records.exists():
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    assert "--auto_resume to go on" in out
    ended = json.loads((tiny / "experiments/tiny/exit.json").read_text())
    assert ended["code"] == code
    assert Path(ended["checkpoint"]).name == f"iter_{ended['iteration']}"


def test_a_time_limit_saves_and_exits_with_its_own_code(tiny):
    path = write_options(
        tiny, options(tiny, train__total_iter=10**7, val__val_freq=10**7, logger__save_checkpoint_freq=10**7)
    )
    began = time.monotonic()
    code, out = run("-opt", path, "--time_limit", "14s", cwd=tiny)
    assert code == 76, out
    assert time.monotonic() - began < 20
    assert list((tiny / "experiments/tiny/training_states").glob("iter_*"))


def test_a_finished_training_is_skipped_with_auto_resume_and_archived_without(tiny):
    in_process(tiny, options(tiny))
    before = (tiny / "experiments/tiny/models/net_g_12.pth").stat().st_mtime_ns
    assert in_process(tiny, options(tiny), "--auto_resume") == 0
    assert (tiny / "experiments/tiny/models/net_g_12.pth").stat().st_mtime_ns == before
    assert in_process(tiny, options(tiny)) == 0
    assert len(list((tiny / "experiments").glob("tiny_archived_*"))) == 1


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_used(tiny, capsys):
    in_process(tiny, options(tiny, name="whole"))
    in_process(tiny, options(tiny))
    broken = tiny / "experiments/tiny/training_states/iter_12/networks.pt"
    broken.write_bytes(broken.read_bytes()[:-5])
    assert in_process(tiny, options(tiny), "--auto_resume") == 0
    assert "iter_12/networks.pt" in capsys.readouterr().out
    assert (tiny / "experiments/tiny/training_states/iter_12.corrupt").is_dir()
    assert_same_end(tiny / "experiments/whole", tiny / "experiments/tiny")


def test_when_no_checkpoint_is_whole_nothing_starts_from_zero_in_silence(tiny, capsys):
    in_process(tiny, options(tiny))
    for manifest in (tiny / "experiments/tiny/training_states").glob("*/manifest.json"):
        manifest.write_text("{}")
    assert in_process(tiny, options(tiny), "--auto_resume") == 2
    assert "no checkpoint is whole" in capsys.readouterr().err
    assert in_process(tiny, options(tiny), "--auto_resume") == 2  # and again: set aside is not forgotten
    assert in_process(tiny, options(tiny), "--restart") == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"network_g__num_feat": 6}, r"network_g\.num_feat: 4 in the checkpoint, 6 now"),
        ({"manual_seed": 4}, r"manual_seed: 3 in the checkpoint, 4 now"),
        (
            {"datasets__train__mean": [0.5], "datasets__train__std": [0.5]},
            r"mean: \[0\.0\] in the checkpoint, \[0\.5\] now",
        ),
    ],
)
def test_resuming_as_another_run_is_refused_by_name(tiny, capsys, change, said):
    in_process(tiny, options(tiny, train__total_iter=4))
    assert in_process(tiny, options(tiny, **change), "--auto_resume") == 2
    assert re.search(said, capsys.readouterr().err)


def test_resuming_on_other_files_is_refused_unless_accepted(tiny, capsys):
    in_process(tiny, options(tiny, train__total_iter=4))
    pictures(tiny / "data", count=5, seed=1)
    assert in_process(tiny, options(tiny), "--auto_resume") == 2
    assert "--accept_data_change" in capsys.readouterr().err
    assert in_process(tiny, options(tiny), "--auto_resume", "--accept_data_change") == 0


def test_a_changed_rate_is_allowed_and_logged(tiny, capsys):
    in_process(tiny, options(tiny, train__total_iter=4))
    assert in_process(tiny, options(tiny, train__optim_g__lr=5e-4), "--auto_resume") == 0
    assert "train.optim_g.lr: 0.001 in the checkpoint, 0.0005 now" in capsys.readouterr().out


def test_validation_and_test_give_the_same_psnr_for_the_same_weights(tiny, capsys):
    in_process(tiny, options(tiny))
    records = [json.loads(line) for line in (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()]
    validated = [r["psnr"] for r in records if r["kind"] == "validation"][-1]
    assert measured(tiny) == 0
    summary = json.loads((tiny / "results/tested/metrics.json").read_text())
    assert summary["weights"] == "params_ema"
    assert summary["sets"]["val"]["methods"]["tested"]["psnr"]["mean"] == pytest.approx(validated, abs=1e-12)
    assert set(summary["sets"]["val"]["methods"]) == {"nearest", "bicubic-matlab", "tested"}
    assert "bicubic-matlab" in capsys.readouterr().out


def test_results_of_an_earlier_test_are_kept_under_another_name(tiny):
    in_process(tiny, options(tiny))
    for _ in range(2):
        assert measured(tiny, val__save_img=True) == 0
    first, second = sorted((tiny / "results").iterdir(), key=lambda folder: len(folder.name), reverse=True)
    assert re.fullmatch(r"tested_archived_\d{8}_\d{6}", first.name)
    assert second.name == "tested"
    pictures = [sorted(p.name for p in (f / "visualization/val").iterdir()) for f in (first, second)]
    assert pictures[0] == pictures[1] == [f"p{n}.png" for n in range(4)]


def test_normalised_training_is_undone_on_output(tiny):
    """H18: mean/std in training only; the PSNR of the validation equals that of the saved pictures."""
    change = {"datasets__train__mean": [0.4, 0.5, 0.6], "datasets__train__std": [0.2, 0.3, 0.25], "val__save_img": True}
    in_process(tiny, options(tiny, **change))
    values = []
    for index in range(4):
        sr = read_image(tiny / f"experiments/tiny/visualization/val/p{index}/p{index}_12.png").astype(float)
        gt = read_image(tiny / f"data/gt/p{index}.png").astype(float)
        values.append(10 * np.log10(255**2 / np.mean((sr - gt)[2:-2, 2:-2] ** 2)))
    records = [json.loads(line) for line in (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()]
    assert [r["psnr"] for r in records if r["kind"] == "validation"][-1] == pytest.approx(np.mean(values), abs=1e-9)


def test_accumulating_two_halves_equals_one_batch(tiny):
    in_process(tiny, options(tiny, name="one", datasets__train__batch_size_per_gpu=4, train__total_iter=3))
    in_process(
        tiny, options(tiny, name="two", datasets__train__batch_size_per_gpu=2, train__accum_iter=2, train__total_iter=3)
    )
    one, two = (end_state(tiny / f"experiments/{n}", 3) for n in ("one", "two"))
    for key, value in one[0]["net_g"].items():
        torch.testing.assert_close(two[0]["net_g"][key], value, rtol=1e-5, atol=1e-7)
    assert [r["l_pix"] for r in one[3] if r["kind"] == "train"] == pytest.approx(
        [r["l_pix"] for r in two[3] if r["kind"] == "train"], rel=1e-6
    )


def test_debug_is_a_short_verbose_trial(tiny):
    assert (
        in_process(
            tiny,
            options(tiny, val__val_freq=5000, logger__save_checkpoint_freq=5000, logger__print_freq=100),
            "--debug",
        )
        == 0
    )
    folder = tiny / "experiments/debug_tiny"
    assert (folder / "training_states/iter_8").is_dir()
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    assert sum(r["kind"] == "train" for r in records) == 12
    assert [r["iteration"] for r in records if r["kind"] == "validation"] == [8, 12]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_fp32(tiny, precision):
    """H15: 20-step loss curves within 2 percent."""
    change = {"train__total_iter": 20, "network_g__num_feat": 16, "network_g__num_block": 2}
    in_process(tiny, options(tiny, name="full", **change))
    in_process(tiny, options(tiny, name="half", train__precision=precision, **change))
    full, half = (
        [r["l_pix"] for r in end_state(tiny / f"experiments/{n}", 20)[3] if r["kind"] == "train"]
        for n in ("full", "half")
    )
    assert half == pytest.approx(full, rel=0.02)
    assert half != full


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_training_follows_the_plain_one_and_is_saved_as_it(tiny):
    in_process(tiny, options(tiny, name="plain"))
    in_process(tiny, options(tiny, name="compiled", train__compile=True))
    plain, compiled = (end_state(tiny / f"experiments/{n}", 12) for n in ("plain", "compiled"))
    assert compiled[0]["net_g"].keys() == plain[0]["net_g"].keys()  # no prefix of torch.compile's wrapper
    losses = [[r["l_pix"] for r in end[3] if r["kind"] == "train"] for end in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_validation_set_without_gt_is_restored_and_not_measured(tiny):
    lone = {"name": "lone", "type": "SingleImageDataset", "dataroot_lq": str(tiny / "data/lq")}
    assert in_process(tiny, options(tiny, datasets__val=lone, val__save_img=True, train__total_iter=6)) == 0
    assert (tiny / "experiments/tiny/visualization/lone/p0/p0_6.png").exists()


@pytest.mark.parametrize("mode", [None, "cpu", "cuda"])
def test_prefetching_changes_nothing(tiny, mode):
    in_process(tiny, options(tiny, name="plain", train__total_iter=4))
    in_process(tiny, options(tiny, name="ahead", train__total_iter=4, datasets__train__prefetch_mode=mode))
    assert equal(end_state(tiny / "experiments/plain", 4)[0], end_state(tiny / "experiments/ahead", 4)[0])


def test_two_ranks_train_as_one_with_twice_the_batch(tiny):
    """Plain DDP over gloo: same samples, averaged gradients, one writer."""
    in_process(tiny, options(tiny, name="one", datasets__train__batch_size_per_gpu=4, train__total_iter=6))
    path = write_options(tiny, options(tiny, name="two", train__total_iter=6), "two.yml")
    done = on_two_ranks("-opt", path, cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (end_state(tiny / f"experiments/{n}", 6) for n in ("one", "two"))
    for key, value in one[0]["net_g_ema"].items():
        torch.testing.assert_close(two[0]["net_g_ema"][key], value, rtol=1e-5, atol=1e-7)
    values = [[r["psnr"] for r in end[3] if r["kind"] == "validation"] for end in (one, two)]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert (tiny / "experiments/two/training_states/iter_6/rng_rank1.pt").exists()


def test_validation_reads_every_held_out_picture_once_and_none_that_is_trained_on(tiny, monkeypatch):
    pictures(tiny / "held_out", count=5, seed=9)
    seen = []
    real = PictureReader.sample

    def watched(reader, index, rng, variant=0):
        if rng is None:
            seen.append(reader.gt.label(index))
        return real(reader, index, rng, variant)

    monkeypatch.setattr(PictureReader, "sample", watched)
    change = {
        "datasets__val__dataroot_gt": str(tiny / "held_out/gt"),
        "datasets__val__dataroot_lq": str(tiny / "held_out/lq"),
    }
    assert in_process(tiny, options(tiny, **change)) == 0
    assert set(seen[:-10]) <= {seen[-5]}  # the first one is looked at before training, for its channels
    assert (
        sorted(seen[-10:-5]) == sorted(seen[-5:]) == [str(tiny / f"held_out/gt/p{k}.png") for k in range(5)]
    )  # at iterations 6 and 12


def test_the_best_weights_are_the_best_on_held_out_pictures(tiny):
    """A rate that ruins the network makes the first validation the best, whatever the training loss says."""
    change = {"train__optim_g__lr": 0.3, "train__scheduler": None, "train__warmup_iter": -1, "train__total_iter": 18}
    assert in_process(tiny, options(tiny, **change, val__val_freq=3, logger__save_checkpoint_freq=3)) == 0
    state = torch.load(tiny / "experiments/tiny/models/net_g_best.pth", weights_only=True)
    log = (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()
    curve = {r["iteration"]: r["psnr"] for r in map(json.loads, log) if r["kind"] == "validation"}
    best = max(curve, key=curve.get)
    assert len(curve) == 6
    assert best != 18
    kept = torch.load(tiny / f"experiments/tiny/models/net_g_{best}.pth", weights_only=True)
    assert equal(state["params_ema"], kept["params_ema"])


def test_training_needs_no_network_no_git_and_no_account(tiny, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError(f"tried {arguments}")

    monkeypatch.setattr("socket.socket.connect", forbidden)
    monkeypatch.setattr("subprocess.Popen.__init__", forbidden)
    assert in_process(tiny, options(tiny)) == 0


def test_nothing_of_an_iteration_stays_in_memory(tiny, monkeypatch):
    counts = {}
    between = Trainer.between_iterations

    def counting(trainer):
        if trainer.iteration in (15, 30, 55):
            gc.collect()
            counts[trainer.iteration] = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
        between(trainer)

    monkeypatch.setattr(Trainer, "between_iterations", counting)
    # Without async_save, for a checkpoint that is being written is a copy of all tensors.
    data = options(tiny, train__total_iter=60, val__val_freq=1000, logger__async_save=False)
    assert in_process(tiny, data) == 0
    assert counts[15] == counts[30] == counts[55] > 0


def test_pruned_weights_go_with_their_checkpoint_and_no_other_file_does(tiny):
    same = {
        "logger__prune_weights": True,
        "logger__keep_last": 2,
        "logger__save_checkpoint_freq": 2,
        "val__val_freq": 4,
    }
    assert in_process(tiny, options(tiny, train__total_iter=6, **same)) == 0
    models = tiny / "experiments/tiny/models"
    for name in ("net_g_2_mine.pth", "net_g_2.pth.bak", "net_d_2.pth"):
        (models / name).write_bytes(b"mine")
    assert in_process(tiny, options(tiny, train__total_iter=12, **same), "--auto_resume") == 0
    of_checkpoints = {
        f"net_g_{f.name.removeprefix('iter_')}.pth" for f in (models.parent / "training_states").iterdir() if f.is_dir()
    }
    assert {"net_g_10.pth", "net_g_12.pth"} <= of_checkpoints
    mine = {"net_g_2_mine.pth", "net_g_2.pth.bak", "net_d_2.pth"}
    assert {f.name for f in models.iterdir()} == of_checkpoints | mine | {"net_g_latest.pth", "net_g_best.pth"}
