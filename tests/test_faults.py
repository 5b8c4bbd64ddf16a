"""Faults injected into whole trainings: kills, signals, disks, peers, memory, clocks. docs/reliability.md names each test's row."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import random
import re
import signal
import socket
import termios
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from forked import ended, logged, reached, train
from tiny import assert_same_end, end_state, equal, in_process, options, pictures

import srkit.data.loader
import srkit.train
from srkit.engine import faults
from srkit.engine.checkpoint import CheckpointStore, read_checkpoint
from srkit.engine.trainer import Trainer
from srkit.train_run import less_memory

ENDED = {"train__total_iter": 12, "logger__save_checkpoint_freq": 2, "val__val_freq": 4}


@pytest.fixture(scope="module", autouse=True)
def whole(tmp_path_factory):
    """The folder of an experiment that was never disturbed. Made in this process: forks then find everything imported."""
    folder = tmp_path_factory.mktemp("undisturbed")
    pictures(folder / "data")
    saved = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    assert in_process(folder, options(folder, name="whole", **ENDED)) == 0
    for number, handler in saved.items():
        signal.signal(number, handler)
    return folder / "experiments/whole"


@pytest.fixture
def inject(monkeypatch):
    """Sets SRKIT_FAULT for this process."""

    def setting(value: str) -> None:
        faults._passed.clear()
        monkeypatch.setenv("SRKIT_FAULT", value)

    return setting


def states(tiny) -> list[str]:
    return sorted(p.name for p in (tiny / "experiments/tiny/training_states").iterdir() if p.is_dir())


# Kills

PLACES = [
    "train.step:7", "train.update:7", "validation:6", "save.after_networks:3", "save.before_manifest:3", "save.before_rename:3",
    "save.after_rename:3", "save.before_prune:4", "save.in_prune:1", "save.before_export:3",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_training_killed_at_any_place_ends_as_one_never_stopped(tiny, whole, place):
    data = options(tiny, **ENDED)
    assert ended(train(tiny, data, env={"SRKIT_FAULT": place})) == 86
    found, notes = CheckpointStore(tiny / "experiments/tiny/training_states").newest_valid()
    assert notes == []
    assert found is not None
    assert ended(train(tiny, data, "--auto_resume")) == 0
    assert_same_end(whole, tiny / "experiments/tiny")
    assert not list((tiny / "experiments/tiny").rglob(".tmp-*"))


def test_a_kill_between_setting_the_old_checkpoint_aside_and_the_new_one_loses_neither(tiny, capsys):
    """The one moment without a checkpoint of that number: refused, never begun anew in silence."""
    assert in_process(tiny, options(tiny, train__total_iter=4)) == 0
    folder = tiny / "experiments/tiny/training_states"
    (folder / "iter_4").rename(folder / "iter_4.replaced")
    assert in_process(tiny, options(tiny), "--auto_resume") == 2
    assert "no checkpoint is whole (iter_4.replaced)" in capsys.readouterr().err
    (folder / "iter_4.replaced").rename(folder / "iter_4")
    assert in_process(tiny, options(tiny), "--auto_resume") == 0


# Damage


@pytest.mark.parametrize("name", ["networks.pt", "training.pt", "rng_rank0.pt", "manifest.json"])
def test_damage_to_any_file_costs_one_interval_and_changes_nothing(tiny, whole, capsys, name):
    data = options(tiny, **ENDED)
    assert in_process(tiny, data) == 0
    file = tiny / f"experiments/tiny/training_states/iter_12/{name}"
    content = bytearray(file.read_bytes())
    content[random.Random(name).randrange(len(content))] ^= 4
    file.write_bytes(content)
    assert in_process(tiny, data, "--auto_resume") == 0
    out = capsys.readouterr().out
    assert f"iter_12/{name}" in out
    assert "set aside as" in out
    assert "from iteration 10 " in out
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_checkpoint_that_cannot_be_read_is_set_aside_like_a_damaged_one(tmp_path, monkeypatch):
    """A disk that answers with an I/O error."""
    from test_engine_checkpoint import snapshot

    store = CheckpointStore(tmp_path)
    older, newer = store.save(snapshot(5)), store.save(snapshot(10))
    real = type(tmp_path).open

    def broken(path, *arguments, **named):
        if path == newer / "training.pt":
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **named)

    monkeypatch.setattr(type(tmp_path), "open", broken)
    found, notes = store.newest_valid()
    assert found == older
    assert "training.pt: cannot be read (Input/output error)" in notes[0]


# Disks


@pytest.mark.parametrize("kind", ["full", "quota", "readonly", "io"])
def test_a_save_that_the_disk_refuses_is_tried_again_and_changes_nothing(tiny, whole, inject, capsys, kind):
    inject(f"save.after_networks:3:{kind}")
    assert in_process(tiny, options(tiny, **ENDED)) == 0
    assert "iter_6 could not be written" in capsys.readouterr().out
    assert states(tiny) == ["iter_10", "iter_12", "iter_8"]
    assert_same_end(whole, tiny / "experiments/tiny")


@pytest.mark.parametrize(
    ("free", "code", "said"),
    [
        (1000, 2, r"0\.0 MB are free on that disk, the weights of one checkpoint take \S+ MB; make room"),
        (60_000, 0, r"WARNING.*this training will write about \S+ MB: 4 checkpoints of .*prune_weights"),
        (10**9, 0, r"^(?!.*are free)"),
    ],
)
def test_room_for_checkpoints_is_compared_before_the_first_iteration(tiny, monkeypatch, capsys, free, code, said):
    monkeypatch.setattr("srkit.engine.saving.free_disk_bytes", lambda path: free)
    assert in_process(tiny, options(tiny, train__total_iter=2)) == code
    out, err = capsys.readouterr()
    assert re.search(said, (out + err).replace("\n", " "))


def test_a_checkpoint_that_cannot_be_removed_stays_and_ends_nothing(tiny, whole, inject, capsys):
    inject("save.in_prune:1:io")
    assert in_process(tiny, options(tiny, **ENDED)) == 0
    assert "cannot be removed (Input/output error" in capsys.readouterr().out
    assert_same_end(whole, tiny / "experiments/tiny")


def test_weights_for_users_that_cannot_be_written_are_written_at_the_next_save(tiny, whole, inject):
    inject("save.before_export:2:full")
    assert in_process(tiny, options(tiny, **ENDED)) == 0
    assert (tiny / "experiments/tiny/models/net_g_6.pth").exists()
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_full_disk_takes_log_records_and_curves_but_not_the_training(tiny, monkeypatch, capsys):
    """/dev/full answers every write with "no space left"."""
    monkeypatch.setattr("srkit.train_run.timestamp", lambda: "now")
    folder = tiny / "experiments/tiny"
    folder.mkdir(parents=True)
    (folder / "records.jsonl").symlink_to("/dev/full")
    (folder / "train_now.log").symlink_to("/dev/full")
    (folder / "tb_logger").write_text("a file where the folder should be")
    monkeypatch.setattr(
        "srkit.engine.log.TrainingLog._cut_records", lambda log: None
    )  # it would read /dev/full for ever
    assert in_process(tiny, options(tiny, **ENDED, logger__use_tb_logger=True), "--auto_resume") == 0
    text = capsys.readouterr()
    for lost in ("records.jsonl", "train_now.log", "tb_logger"):
        said = [line for line in text.out.splitlines() if lost in line and "cannot be written" in line]
        assert len(said) == 1, lost
    assert "Traceback" not in text.err
    assert "Logging error" not in text.err
    assert "iter_12" in states(tiny)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_curves_that_stop_being_written_do_not_stop_the_training(tiny, monkeypatch, capsys):
    from tensorboard.summary.writer import record_writer

    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_writer.RecordWriter, "write", full)
    assert in_process(tiny, options(tiny, **ENDED, logger__use_tb_logger=True)) == 0
    out, err = capsys.readouterr()
    assert "training goes on without TensorBoard" in out or "last curves were not written" in out
    assert "Traceback" not in err


def test_validation_pictures_that_cannot_be_written_are_counted_and_the_training_goes_on(tiny, whole, capsys):
    (tiny / "experiments/tiny/visualization").mkdir(parents=True)
    (tiny / "experiments/tiny/visualization/val").write_text("a file where the folder should be")
    assert in_process(tiny, options(tiny, **ENDED, val__save_img=True), "--auto_resume") == 0
    assert capsys.readouterr().out.count("4 of 4 pictures of this validation are missing; training goes on") == 3
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_start_that_cannot_be_noted_down_trains_nothing(tiny, monkeypatch, capsys):
    def full() -> dict:
        raise OSError(errno.ENOSPC, "No space left on device", "environment.json")

    monkeypatch.setattr("srkit.engine.experiment.environment", full)
    assert in_process(tiny, options(tiny)) == 6
    assert "No space left on device" in capsys.readouterr().err
    assert states(tiny) == []


def test_records_that_a_full_disk_or_a_flipped_bit_spoilt_cost_their_own_lines_alone(tiny):
    data = options(tiny, **{**ENDED, "train__total_iter": 4})
    assert in_process(tiny, data) == 0
    records = tiny / "experiments/tiny/records.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(lines[0] + b'{"kind": "tr' + lines[1] + b"\xff\xfe\n[1]\nnull\n" + b"".join(lines[2:]))
    data["train"]["total_iter"] = 6
    assert in_process(tiny, data, "--auto_resume") == 0
    found = [json.loads(line) for line in records.read_text().splitlines()]
    assert [r["iteration"] for r in found if r["kind"] == "train"] == [1, 3, 4, 5, 6]


def without_streams() -> None:
    """What Python makes of `>&- 2>&-`."""
    import sys

    for descriptor in (0, 1, 2):
        os.close(descriptor)
    sys.stdin = sys.stdout = sys.stderr = None


def test_closed_streams_end_nothing_and_are_written_into_no_file(tiny, whole):
    data = options(tiny, **ENDED)
    assert ended(train(tiny, data, env={"SRKIT_FAULT": "train.step:7:term"}, first=without_streams)) == 143
    for file in (tiny / "experiments/tiny").rglob("*"):
        if file.is_file() and not file.name.startswith("train_"):
            assert b"finishing this iteration" not in file.read_bytes(), file
    assert ended(train(tiny, data, "--auto_resume", first=without_streams)) == 0
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_console_that_is_full_ends_nothing(tiny, whole):
    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    assert ended(train(tiny, options(tiny, **ENDED), first=full)) == 0
    assert_same_end(whole, tiny / "experiments/tiny")
    text = (tiny / "tiny.out").read_text()
    assert "Traceback" not in text


# Signals


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("train.step:7:term", 143), ("train.update:7:usr1", 75), ("validation:6:term", 143), ("validation:4:int", 130),
        ("save.before_manifest:3:usr1", 75), ("save.after_rename:3:int", 130), ("train.step:1:term", 143),
    ],
)  # fmt: skip
def test_a_signal_at_any_place_saves_ends_with_its_code_and_changes_nothing(tiny, whole, inject, place, code):
    data = options(tiny, **ENDED)
    inject(place)
    assert in_process(tiny, data) == code
    told = json.loads((tiny / "experiments/tiny/exit.json").read_text())
    assert told["code"] == code
    assert told["checkpoint"].endswith(f"iter_{told['iteration']}")
    inject("")
    assert in_process(tiny, data, "--auto_resume") == 0
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_second_ctrl_c_ends_at_once_and_loses_what_was_not_saved_alone(tiny, whole):
    data = options(tiny, **ENDED)
    child = train(tiny, data, env={"SRKIT_FAULT": "train.step:8:hang"})
    assert reached(child, tiny / "experiments/tiny", 7)
    time.sleep(0.3)
    os.kill(child, signal.SIGINT)
    time.sleep(0.3)
    began = time.monotonic()
    os.kill(child, signal.SIGINT)
    assert ended(child, 20) == 130
    assert time.monotonic() - began < 5
    assert ended(train(tiny, data, "--auto_resume")) == 0
    assert_same_end(whole, tiny / "experiments/tiny")


def test_a_signal_while_a_loader_worker_hangs_is_obeyed_before_a_scheduler_kills(tiny, whole, monkeypatch):
    """The iteration will not come to its end; the one before it is saved. A stopped worker answers torch nothing at all."""
    monkeypatch.setattr("srkit.engine.stopping._PATIENCE_S", 1.0)
    data = options(tiny, **{**ENDED, "train__total_iter": 10**6}, datasets__train__num_worker_per_gpu=1)
    child = train(tiny, data)
    assert reached(child, tiny / "experiments/tiny", 3)
    below = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    worker = max(int(pid) for pid in below if Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z")
    os.kill(worker, signal.SIGSTOP)
    time.sleep(0.5)
    os.kill(child, signal.SIGUSR1)
    try:
        assert ended(child, 30) == 75
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
    told = json.loads((tiny / "experiments/tiny/exit.json").read_text())
    assert told["checkpoint"].endswith(f"iter_{told['iteration']}")


def test_a_signal_while_a_worker_of_a_validation_hangs_is_obeyed_too(tiny, monkeypatch):
    def hanging() -> None:
        srkit.data.loader._EvalFetch.__call__ = lambda self, indices: time.sleep(100)

    monkeypatch.setattr("srkit.engine.stopping._PATIENCE_S", 1.0)
    data = options(tiny, **{**ENDED, "logger__save_checkpoint_freq": 100}, datasets__val__num_worker_per_gpu=1)
    child = train(tiny, data, first=hanging)
    assert reached(child, tiny / "experiments/tiny", 4)
    time.sleep(0.3)
    os.kill(child, signal.SIGTERM)
    assert ended(child, 30) == 143
    assert states(tiny) == ["iter_4"]


# Peers


def on_two(tiny, data, *flags, faulty: str = "") -> list[int]:
    """Two ranks over gloo; the second gets the fault."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    flags = (*flags, "--launcher", "pytorch")
    return [
        train(tiny, data, *flags, env={**shared, "RANK": str(rank), "SRKIT_FAULT": faulty if rank else ""})
        for rank in (0, 1)
    ]


def test_when_a_rank_is_killed_the_other_ends_with_its_code_and_both_go_on_as_if_nothing_had_been(tiny):
    data = options(tiny, name="whole", **ENDED)
    assert [ended(child) for child in on_two(tiny, data)] == [0, 0]
    data["name"] = "tiny"
    began = time.monotonic()
    assert [ended(child) for child in on_two(tiny, data, faulty="train.step:7")] == [8, 86]
    assert time.monotonic() - began < 60
    assert [ended(child) for child in on_two(tiny, data, "--auto_resume")] == [0, 0]
    assert_same_end(tiny / "experiments/whole", tiny / "experiments/tiny")


def test_when_a_rank_hangs_the_other_gives_it_up_after_the_timeout(tiny):
    main, hanging = on_two(tiny, options(tiny, **ENDED, dist_params__timeout_s=4), faulty="train.step:7:hang")
    try:
        assert ended(main, 60) == 8
    finally:
        os.kill(hanging, signal.SIGKILL)
        os.waitpid(hanging, 0)


# Memory and numbers


def test_out_of_memory_in_a_half_made_update_saves_no_half_update(tiny, whole, inject):
    inject("train.update:7:memory")
    data = options(tiny, **ENDED)
    assert in_process(tiny, data) == 5
    assert "iter_7" not in states(tiny)
    inject("")
    assert in_process(tiny, data, "--auto_resume") == 0
    assert_same_end(whole, tiny / "experiments/tiny")


def test_what_torch_says_for_want_of_memory_on_a_cpu_is_out_of_memory(tiny, monkeypatch, capsys):
    """A plain RuntimeError; asked for here is more than any machine has."""
    real = Trainer.train_step

    def greedy(trainer: Trainer) -> None:
        if trainer.iteration == 5:
            torch.empty(2**60, dtype=torch.uint8)
        real(trainer)

    monkeypatch.setattr(Trainer, "train_step", greedy)
    assert in_process(tiny, options(tiny)) == 5
    assert "out of memory at iteration 5; set datasets.train.batch_size_per_gpu to 1 (now 2)" in capsys.readouterr().err
    assert "iter_5" in states(tiny)


@pytest.mark.parametrize(
    ("batch", "gt_size", "scale", "advice"),
    [
        (8, 96, (2, 2), "batch_size_per_gpu to 4 (now 8) with train.accum_iter 4 (same batch in all)"),
        (3, 96, (2, 2), "batch_size_per_gpu to 1 (now 3) with train.accum_iter 6 (same batch in all)"),
        (1, 100, (4, 4), "gt_size to 48 (now 100)"),
        (1, (30, 32, 20), (1, 1, 3), "gt_size to [15, 16, 9]"),
        (1, None, (2, 2), "one whole picture: set datasets.train.gt_size"),
    ],
)
def test_advice_on_memory_names_what_is_half_as_large(batch, gt_size, scale, advice):
    trainer = SimpleNamespace(samples_per_iteration=batch * 2, accum_iter=2, group=SimpleNamespace(world_size=1))
    assert advice in less_memory(trainer, gt_size, scale)


NAN_BY_DATA = '''
from torch import nn
from srkit.registry import LOSSES


@LOSSES.register()
class NanByData(nn.Module):
    """L1 that is NaN for one batch in four, whichever process asks."""

    def forward(self, sr, gt):
        bad = int(gt.double().sum().item() * 1000) % 4 == 0
        return (sr - gt).abs().mean() * (float("nan") if bad else 1.0)
'''


def test_skipped_updates_are_the_same_after_a_kill(tiny):
    (tiny / "nan_by_data.py").write_text(NAN_BY_DATA)
    change = {"imports": [str(tiny / "nan_by_data.py")], "train__pixel_opt": {"type": "NanByData"}, **ENDED}
    assert ended(train(tiny, options(tiny, name="whole", **change))) == 0
    data = options(tiny, **change)
    assert ended(train(tiny, data, env={"SRKIT_FAULT": "train.step:8"})) == 86
    assert ended(train(tiny, data, "--auto_resume")) == 0
    assert_same_end(tiny / "experiments/whole", tiny / "experiments/tiny")
    skipped = [r["skipped"] for r in end_state(tiny / "experiments/tiny", 12)[3] if r["kind"] == "train"]
    assert 0 < skipped[-1] < 12


def test_a_loss_that_is_not_finite_is_no_update_though_its_gradient_is_finite(tiny):
    file = tiny / "finite_gradient.py"
    file.write_text(NAN_BY_DATA.replace("class NanByData", "class NanBesideData").replace(
        '* (float("nan") if bad else 1.0)', '+ (float("nan") if bad else 0.0)').replace("% 4 == 0", ">= 0"))  # fmt: skip
    change = {"imports": [str(file)], "train__pixel_opt": {"type": "NanBesideData"}, "train__total_iter": 200}
    assert in_process(tiny, options(tiny, **change)) == 3
    told = [json.loads(line) for line in (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()]
    assert [r["skipped"] for r in told if r["kind"] == "train"] == list(range(1, 20))


def test_a_loss_that_is_nan_for_ever_ends_with_its_code_and_saves_no_such_weights(tiny):
    (tiny / "nan_by_data.py").write_text(NAN_BY_DATA.replace("% 4 == 0", ">= 0"))
    change = {
        "imports": [str(tiny / "nan_by_data.py")],
        "train__pixel_opt": {"type": "NanByData"},
        "train__max_nonfinite": 5,
    }
    assert ended(train(tiny, options(tiny, **{**ENDED, **change}))) == 3
    for folder in CheckpointStore(tiny / "experiments/tiny/training_states").folders():
        for state in read_checkpoint(folder).networks.values():
            assert all(tensor.isfinite().all() for tensor in state.values())


# Clocks


def test_a_clock_that_jumps_mixes_nothing_up(tiny, whole, monkeypatch):
    """Two starts in one second, time that runs backwards, and an old checkpoint with the newest date."""
    draw = random.Random(0)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(0, 4e9))
    monkeypatch.setattr(time, "strftime", lambda *a: "20200101_000000")
    data = options(tiny, **ENDED)
    for _ in range(3):
        assert in_process(tiny, {**data, "train": {**data["train"], "total_iter": 6}}) == 0
    assert len(list((tiny / "experiments").glob("tiny_archived_20200101_000000*"))) == 2
    os.utime(tiny / "experiments/tiny/training_states/iter_4", (4e9, 4e9))
    assert in_process(tiny, data, "--auto_resume") == 0
    assert equal(end_state(whole, 12)[0], end_state(tiny / "experiments/tiny", 12)[0])


# Long runs


@pytest.mark.parametrize(("is_async", "lost"), [(False, [2]), (True, [3, 4])])
def test_a_kill_in_a_save_costs_one_interval_and_with_async_save_what_was_trained_meanwhile(tiny, is_async, lost):
    def slow_disk() -> None:
        save = CheckpointStore.save
        CheckpointStore.save = lambda *given: (time.sleep(0.3 if given[1].iteration == 4 else 0), save(*given))

    data = options(tiny, train__total_iter=12, logger__save_checkpoint_freq=2, logger__async_save=is_async)
    assert ended(train(tiny, data, env={"SRKIT_FAULT": "save.before_rename:2"}, first=slow_disk)) == 86
    found, _ = CheckpointStore(tiny / "experiments/tiny/training_states").newest_valid()
    assert found.name == "iter_2"
    assert logged(tiny / "experiments/tiny") - 2 in lost


def test_a_requeue_signal_before_the_training_began_ends_with_its_code(tiny):
    def hurried() -> None:
        srkit.train.load_all = lambda *given, **more: os.kill(os.getpid(), signal.SIGUSR1)

    assert ended(train(tiny, options(tiny), first=hurried)) == 75
    assert "stopped: by SIGUSR1 before the training began" in (tiny / "tiny.out").read_text()


def test_a_closed_terminal_saves_and_ends_with_its_code(tiny):
    ours, theirs = os.openpty()

    def in_terminal() -> None:
        os.close(ours)
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        for stream in (0, 1, 2):
            os.dup2(theirs, stream)

    child = train(
        tiny, options(tiny, train__total_iter=100_000, logger__save_checkpoint_freq=50_000), first=in_terminal
    )
    os.close(theirs)
    assert reached(child, tiny / "experiments/tiny", 7)
    os.close(ours)
    assert ended(child) == 129
    told = json.loads((tiny / "experiments/tiny/exit.json").read_text())
    assert told["code"] == 129
    assert told["iteration"] >= 7
    assert states(tiny) == [f"iter_{told['iteration']}"]


def test_under_nohup_a_closed_terminal_ends_nothing(tiny, whole):
    def in_nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        between = Trainer.between_iterations
        Trainer.between_iterations = lambda self: (os.kill(os.getpid(), signal.SIGHUP), between(self))

    assert ended(train(tiny, options(tiny, **ENDED), first=in_nohup)) == 0
    assert_same_end(whole, tiny / "experiments/tiny")


def held_over_starts(tiny) -> list:
    """What the process holds after each of eight starts, the next going on from the last."""
    from usage import usage

    held = []
    data = options(
        tiny, val__val_freq=20, logger__save_checkpoint_freq=10, logger__print_freq=100, train__scheduler=None
    )
    for total in range(40, 321, 40):
        data["train"]["total_iter"] = total
        assert in_process(tiny, data, "--auto_resume") == 0
        time.sleep(0.2)  # the system counts a thread for some moments after it was joined
        held.append(usage())
    return held


def test_descriptors_threads_and_memory_stay_flat_over_stops_and_starts(tiny):
    """The short share of scripts/soak_long.py, in a new process: other tests leave files and threads that end whenever."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        held = process.submit(held_over_starts, tiny).result(timeout=120)
    assert {u.files for u in held[2:]} == {held[2].files}
    assert max(u.threads for u in held[2:]) <= held[2].threads
    assert held[-1].resident_mib - held[2].resident_mib < 20
    assert len(states(tiny)) <= 5
