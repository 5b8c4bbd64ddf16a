"""Trainings in forks of this process, which has everything imported: one can be killed in one second instead of ten. No tests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from tiny import write_options
from tqdm import tqdm

from srkit.train import main

tqdm.set_lock(
    threading.RLock()
)  # its own is shared by all forks, and one that is killed while it holds it blocks the others


def train(
    folder: Path,
    data: dict,
    *flags: str,
    env: Mapping[str, str] | None = None,
    first: Callable[[], None] = lambda: None,
) -> int:
    """Starts `train.py` on these options in a fork; its process id. Output goes to NAME.out, `first` runs before anything."""
    path = write_options(folder, data, f"{data['name']}.yml")
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        out = os.open(folder / f"{data['name']}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(env or {})
        first()
        code = int(main(["-opt", str(path), *flags]))
    finally:
        os._exit(code)


def ended(child: int, within_s: float = 120) -> int:
    """Exit code of a fork, minus the number of the signal that ended it; one that takes too long is killed."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"process {child} hung for {within_s:g} s")


def logged(experiment: Path) -> int:
    """Iterations whose losses stand in the records."""
    records = experiment / "records.jsonl"
    return records.read_text().count('"kind": "train"') if records.exists() else 0


def reached(child: int, experiment: Path, iteration: int, within_s: float = 120) -> bool:
    """Waits until a fork has logged an iteration. False when it ended before that."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and logged(experiment) < iteration:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return False
        time.sleep(0.002)
    return True
