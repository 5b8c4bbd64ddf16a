"""`srkit benchmark`: stages that add up, a bare loop that trains alike, and a report of each kind."""

import json
import subprocess
import sys
import time

import pytest
import torch
from tiny import ROOT, options, pictures, write_options

from srkit import build
from srkit.engine.transfer import Batch
from srkit.errors import RefusedError
from srkit.options import load_options
from srkit.tools.__main__ import main
from srkit.tools.benchmarking import inferring
from srkit.tools.benchmarking.evaluating import measure_evaluation
from srkit.tools.benchmarking.loading import LoadingRow, verdict
from srkit.tools.benchmarking.stages import Spread, StageClock, Time, ratio, shares
from srkit.tools.benchmarking.training import BareLoop
from srkit.tools.measuring import trial

CPU = torch.device("cpu")


@pytest.fixture
def tiny(tmp_path):
    pictures(tmp_path / "data")
    return tmp_path


@pytest.fixture
def hand_clock(monkeypatch):
    """A clock that is set by hand; CPU time runs at half its pace."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] / 2)
    return now


def test_each_moment_counts_for_the_innermost_stage(hand_clock):
    clock = StageClock(CPU)
    with clock.iteration():
        hand_clock[0] += 1
        with clock.stage("data"):
            hand_clock[0] += 2
            with clock.stage("transfer"):
                hand_clock[0] += 4
            hand_clock[0] += 8
        hand_clock[0] += 16
    assert clock.read() == {"other": [(17, 8.5)], "data": [(10, 5)], "transfer": [(4, 2)]}


def test_stages_outside_an_iteration_do_not_count(hand_clock):
    clock = StageClock(CPU)
    with clock.stage("data"):
        hand_clock[0] += 1
    assert clock.read() == {}


def test_a_wrapped_method_is_a_stage_and_returns_what_it_did(hand_clock):
    class Worker:
        def work(self, seconds):
            hand_clock[0] += seconds
            return "done"

    clock, worker = StageClock(CPU), Worker()
    clock.around(worker, "work", "work")
    with clock.iteration():
        assert worker.work(3) == "done"
    assert clock.read()["work"] == [(3, 1.5)]


def test_spread_is_median_and_quartiles():
    assert Spread.of([5, 1, 2, 4, 3]) == Spread(3, 2, 4, 5)


def test_ratios_are_of_pairs_and_shares_of_medians():
    assert ratio([(2, 3), (8, 3)], [(1, 1), (2, 3)])["wall"].median == 3  # of 2 and 4, not 10 / 3
    times = {name: Time.of([(wall, 1)] * 3) for name, wall in (("a", 1), ("b", 3))}
    assert shares(times, "wall_s") == {"a": 0.25, "b": 0.75}


def test_the_fastest_form_is_named():
    rows = [LoadingRow("own", 0, 100, 1), LoadingRow("own", 2, 150, 1), LoadingRow("cache", 0, 600, 1)]
    assert verdict(rows) == "cache with 0 workers gives 600 samples/s, 4.0 times what the option file's own form gives"


def test_the_bare_loop_trains_as_the_trainer_does(tiny):
    changes = {"train__warmup_iter": -1, "train__scheduler": None, "train__ema_decay": 0}
    with trial(load_options(write_options(tiny, options(tiny, **changes)), mode="train")) as (parts, trainer):
        batch: Batch = next(trainer.batches)
        bare = BareLoop(parts, trainer)
        trainer.batches = (b for b in [batch] * 3)
        for _ in range(3):
            trainer.train_step()
            bare.iteration(batch)
        ours, theirs = (net.state_dict() for net in (trainer.networks["network_g"], bare.networks["network_g"]))
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def run_benchmark(tiny, kind, *words, **changes):
    path = write_options(tiny, options(tiny, **changes))
    assert main(["benchmark", kind, "-opt", str(path), "--out", str(tiny / "out"), *words]) == 0
    text = (tiny / f"out/{kind}.md").read_text()
    assert "In words: " in text
    return json.loads((tiny / f"out/{kind}.json").read_text()), text


def test_a_training_is_split_into_its_stages(tiny):
    found, text = run_benchmark(tiny, "train", "--seconds", "0.2", "--profile")
    names = ["data wait", "transfer", "forward", "losses", "backward", "step", "EMA", "log", "other"]
    assert list(found["stages"]) == names
    assert all(f"| {name} |" in text for name in names)
    assert sum(found["shares"]["cpu_s"].values()) == pytest.approx(1)
    # 3x3 convolutions of EDSR with 4 features, 1 block, x2, lq 8 x 8; no gradient of the input of the first
    channels = [(3, 4), (4, 4), (4, 4), (4, 4), (4, 16)]
    forward = sum(2 * 9 * i * o * 64 for i, o in channels) + 2 * 9 * 4 * 3 * 256
    assert found["flop_per_iteration"] == 2 * (3 * forward - 2 * 9 * 3 * 4 * 64)  # two samples
    assert (tiny / "out/trace.json").exists()
    assert not (tiny / "experiments").exists()


def test_loading_is_measured_in_every_form(tiny):
    found, _ = run_benchmark(tiny, "data", "--seconds", "0.05", "--workers", "0")
    forms = [row["form"] for row in found["rows"]]
    assert forms[0] == "as the option file says"
    assert {"PNG files", "JPEG files, quality 95", "decoded cache", "resident on the device"} <= set(forms)
    assert all(row["samples_per_s"] > 0 for row in found["rows"])


def test_an_evaluation_is_split_into_reading_network_metrics_and_writing(tiny):
    found, _ = run_benchmark(tiny, "eval")
    assert list(found["sets"]["val"]["stages"]) == ["read", "network", "metrics", "write"]
    assert found["sets"]["val"]["pictures"] == 3  # of four the first warms up
    assert not (tiny / "experiments").exists()


def test_without_a_set_to_evaluate_the_file_is_named(tiny):
    data = options(tiny, datasets__val=None, val=None)
    loaded = load_options(write_options(tiny, data), mode="train")
    with pytest.raises(
        RefusedError, match=r"x\.yml: nothing to evaluate; found datasets train, expected val or test_1"
    ):
        measure_evaluation(loaded, 3)


def test_inference_is_measured_by_tile_size(tiny):
    found, text = run_benchmark(tiny, "infer", "--size", "24", "--tiles", "0", "12", "--seconds", "0.01")
    whole, tiled = found["rows"]
    assert (whole["tiles"], whole["tile"], tiled["tile"]) == (1, 0, 12)
    assert tiled["tiles"] == 9  # tiles of 12 that keep 6 inside, 9 at the border: 24 = 9 + 6 + 9
    assert "| whole |" in text


@pytest.mark.parametrize(
    ("problem", "told"),
    [(torch.OutOfMemoryError("CUDA out of memory"), "out of memory"), (RuntimeError("no kernel\nat x"), "no kernel")],
)
def test_a_tile_size_that_fails_leaves_the_others(tiny, monkeypatch, problem, told):
    bare = inferring._bare

    def failing(run, calls):
        if len(calls) == 1:
            raise problem
        bare(run, calls)

    monkeypatch.setattr(inferring, "_bare", failing)
    found, text = run_benchmark(tiny, "infer", "--size", "24", "--tiles", "0", "12", "--seconds", "0.01")
    assert found["rows"][1]["tiles"] == 9
    assert f"| whole |  | {told} |" in text


def test_compiling_without_a_compiler_is_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(RefusedError, match=r"train\.compile: .* needs a C\+\+ compiler, found none .*compile: false"):
        build.require_compiler(CPU)


def test_compiling_needs_no_import_of_somebody_else():
    code = "import torch; from srkit.build import compiled; compiled(torch.nn.Conv2d(1, 1, 3), 'default')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("written", "read"), [(True, "default"), ("max-autotune", "max-autotune"), (False, False)])
def test_compile_takes_a_mode(tiny, written, read):
    loaded = load_options(write_options(tiny, options(tiny, train__compile=written)), mode="train")
    assert loaded.train.compile == read


def test_another_mode_is_refused(tiny, capsys):
    from srkit.train import main as train

    assert train(["-opt", str(write_options(tiny, options(tiny, train__compile="fast")))]) == 2
    assert "train.compile: found 'fast', expected true, false, default or max-autotune" in capsys.readouterr().err


def test_a_layout_holds_for_the_networks_of_one_measurement(tiny):
    from srkit.archs import EDSR
    from srkit.tools.benchmarking.training import _laid_out

    loaded = load_options(write_options(tiny, options(tiny)), mode="train")
    for wish, expected in ((False, False), (True, True), (None, True)):
        with _laid_out(loaded, wish), trial(loaded) as (_, trainer):
            kernel = trainer.networks["network_g"].conv_first.weight
            assert kernel.is_contiguous(memory_format=torch.channels_last) is expected
    assert EDSR.prefers_channels_last


def test_volumes_have_a_layout_too():
    network = torch.nn.Conv3d(3, 4, 3)
    network.prefers_channels_last = True
    weight = build.place(network, CPU).weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert not weight.is_contiguous()
