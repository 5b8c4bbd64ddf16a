"""The experiment's folder: archive, lock, names, exit.json; durations and stop requests."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from srkit.engine.experiment import Experiment
from srkit.engine.stopping import StopRequest, parse_duration
from srkit.errors import ExitCode, InUseError, RefusedError


def test_an_existing_experiment_is_archived_not_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("night's work")
    archived = Experiment(tmp_path, "run").open(keep=False)
    assert archived.name.startswith("run_archived_")
    assert (archived / "precious.txt").read_text() == "night's work"
    assert not (tmp_path / "run" / "precious.txt").exists()


def test_two_archives_in_one_second_get_two_names(tmp_path):
    for _ in range(3):
        experiment = Experiment(tmp_path, "run")
        experiment.open(keep=False)
        experiment.close()
    assert len(list(tmp_path.glob("run_archived_*"))) == 2


def test_resuming_keeps_the_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious.txt").write_text("x")
    assert Experiment(tmp_path, "run").open(keep=True) is None
    assert (tmp_path / "run" / "precious.txt").exists()


HOLD = """
import os, sys, time; sys.path.insert(0, {root!r})
from pathlib import Path
from srkit.engine.experiment import Experiment
experiment = Experiment(Path({folder!r}), "run"); experiment.open(keep=True)
(experiment.folder / "precious.txt").write_text("x"); print(os.getpid(), flush=True)
{then}
"""


def hold(folder, then):
    code = HOLD.format(root=os.getcwd(), folder=str(folder), then=then)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_a_second_process_is_told_who_holds_the_experiment_and_nothing_is_moved(tmp_path):
    holder, pid = hold(tmp_path, "time.sleep(60)")
    with pytest.raises(InUseError, match=f"in use by process {pid} on "):
        Experiment(tmp_path, "run").open(keep=False)
    holder.kill()
    holder.wait()
    assert (tmp_path / "run" / "precious.txt").exists()


def test_a_dead_holder_frees_the_experiment_even_when_its_children_live_on(tmp_path):
    holder, _ = hold(tmp_path, "if os.fork() == 0: time.sleep(5)\nelse: os.kill(os.getpid(), 9)")
    assert holder.wait() == -signal.SIGKILL
    assert Experiment(tmp_path, "run").open(keep=True) is None


def test_a_place_that_cannot_be_written_is_refused_before_work(tmp_path):
    (tmp_path / "experiments").write_text("a file where a folder should be")
    with pytest.raises(RefusedError, match=r"cannot be written .*experiments_root"):
        Experiment(tmp_path / "experiments", "run").open(keep=False)


@pytest.mark.parametrize("hidden", ["training_states", "models"])
def test_a_folder_that_cannot_be_listed_is_refused_for_its_checkpoints_would_seem_not_to_be_there(
    tmp_path, monkeypatch, hidden
):
    """Permissions bind no superuser, whom tests may run as: the refusal is made up."""
    Experiment(tmp_path, "run").open(keep=True)
    real = Path.iterdir

    def listing(path):
        if path.name == hidden:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", listing)
    with pytest.raises(RefusedError, match=rf"run/{hidden}: cannot be written or read .Permission denied"):
        Experiment(tmp_path, "run").open(keep=True)


def test_exit_json_says_how_the_start_ended(tmp_path):
    experiment = Experiment(tmp_path, "run")
    experiment.open(keep=False)
    experiment.write_exit(ExitCode.STORAGE, "disk full", 12, None)
    content = json.loads((experiment.folder / "exit.json").read_text())
    assert content == {"code": 6, "meaning": "storage", "reason": "disk full", "iteration": 12, "checkpoint": None}


@pytest.mark.parametrize(
    ("text", "seconds"), [("540", 540), ("9m", 540), ("1h30m", 5400), ("2d", 172800), ("0.5h", 1800)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m9", "9 m", "nine", "-5", "5x", "0"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(RefusedError, match="not a duration"):
        parse_duration(text)


def test_a_time_limit_leaves_room_for_the_work_ahead():
    stop = StopRequest(limit_s=100, started=time.monotonic())
    assert not stop.is_requested(ahead_s=10)
    assert stop.is_requested(ahead_s=99)
    assert stop.code == ExitCode.TIME_LIMIT


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_signal_is_remembered_with_its_exit_code(number, code):
    before = {n: signal.getsignal(n) for n in StopRequest.SIGNALS}
    stop = StopRequest()
    stop.install()
    try:
        os.kill(os.getpid(), number)
        assert stop.is_requested()
        assert stop.code == code
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
