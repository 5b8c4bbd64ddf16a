"""Work on a plan in worker processes, results in the plan's order; a dead or hanging worker is named, never waited for.

Built on torch's DataLoader for its shared memory and pinning. Two of its habits are changed: its SIGCHLD handler
raises in whatever the main thread is doing, and with a timeout it notices a death only when that is over.
"""

from __future__ import annotations

import atexit
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from srkit.errors import LoadingError, SrkitError

R = TypeVar("R")
_POLL_S = 2.0
_PREFETCH = 4
_END_S = 5.0  # a killed worker is gone within milliseconds, but a loaded machine takes its time
_SINCE, _SAMPLE = 0, 1
_my_row: np.ndarray | None = None  # this worker's line on the board; None in any other process


def note_sample(index: int) -> None:
    """Tell the parent which sample this worker is about to read, for its message should the worker hang."""
    if _my_row is not None:
        _my_row[_SAMPLE] = index


@dataclass
class _Failure:
    """A foreseen error met in a worker, as text; others travel as torch sends them, with their traceback."""

    text: str


class _Work:
    """A torch dataset whose items are whole tasks.

    `board` (workers, 2) is shared memory: when the task at hand began (0: idle), and the sample being read.
    """

    def __init__(self, fetch: Callable[[Any], Any], workers: int) -> None:
        self.fetch = fetch
        self.board = torch.zeros((workers, 2), dtype=torch.float64).share_memory_()

    def __getitems__(self, task: Any) -> Any:
        assert _my_row is not None
        _my_row[_SINCE] = time.monotonic()
        try:
            return self.fetch(task)
        except SrkitError as error:
            return _Failure(str(error))
        finally:
            _my_row[_SINCE] = 0.0


def _start_worker(worker_id: int) -> None:
    global _my_row
    import cv2

    cv2.setNumThreads(0)  # the workers are the parallelism; threads inside them only fight
    torch.set_num_threads(1)
    # Requests to stop are the parent's to answer: it saves, then ends the workers (which also end when it dies).
    for request in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(request, signal.SIG_IGN)
    _my_row = get_worker_info().dataset.board[worker_id].numpy()  # type: ignore[union-attr]


def _same(result: R) -> R:
    return result


@contextmanager
def _own_child_handler() -> Iterator[None]:
    """Keeps torch's SIGCHLD handler from staying; `_Crew.next` notices deaths."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


def in_workers(
    fetch: Callable[[Any], R],
    plan: Iterable[Any],
    *,
    num_workers: int,
    timeout_s: float,
    pin_memory: bool = False,
    may_wait: Callable[[], bool] = lambda: True,
) -> Iterator[R]:
    """`fetch` of each task of `plan`, in order.

    Args:
        fetch: Runs in the workers (0: in the caller); SrkitErrors it raises arrive as LoadingError.
        plan: Tasks; may be endless.
        timeout_s: Silence after which a worker is taken to hang.
        pin_memory: Results that have `pin_memory()` come from page-locked memory; with workers only.
        may_wait: Asked every few seconds while a worker is silent; False gives it up before `timeout_s`.

    Raises: LoadingError naming the failed sample, the dead worker or the hanging one.
    """
    if num_workers < 1:
        for task in plan:
            yield fetch(task)
        return
    work = _Work(fetch, num_workers)
    loader: DataLoader[Any] = DataLoader(
        work,  # type: ignore[arg-type]
        batch_sampler=plan,
        num_workers=num_workers,
        collate_fn=_same,
        pin_memory=pin_memory,
        timeout=min(_POLL_S, timeout_s),
        worker_init_fn=_start_worker,
        prefetch_factor=_PREFETCH,
        generator=torch.Generator(),  # else starting workers would draw from the global state that networks draw from
    )
    with _own_child_handler():
        crew = _Crew(iter(loader), work.board.numpy())
    # Should the program end with this generator open, nobody else would end workers that ignore SIGTERM.
    atexit.register(crew.kill)
    watch = threading.Thread(target=crew.watch, args=(timeout_s, may_wait), daemon=True)
    watch.start()
    try:
        while (result := crew.next(timeout_s, may_wait)) is not None:
            if isinstance(result, _Failure):
                raise LoadingError(result.text)
            yield result
    finally:
        crew.close(timeout_s)
        watch.join()
        atexit.unregister(crew.kill)


class _Crew:
    """The workers of one DataLoader iterator, with what the board says of them."""

    def __init__(self, results: Any, board: np.ndarray) -> None:
        # Two private names of torch's iterator are used: its processes, and the shutdown its __del__ runs, which
        # cannot be left to __del__ because a traceback may hold the iterator for long.
        self.results, self.board, self.processes = results, board, list(results._workers)
        self.waiting_since = math.inf
        self.ended_after_s: float | None = None
        self._is_closed = threading.Event()

    def watch(self, timeout_s: float, may_wait: Callable[[], bool]) -> None:
        """Runs in a thread: ends workers that stand so still that even `next` hangs.

        torch fetches what a worker announced from the worker itself, without a timeout, and one that was stopped as a whole, or
        keeps Python's lock, never answers.
        """
        while not self._is_closed.wait(_POLL_S):
            waited = time.monotonic() - self.waiting_since - 2 * _POLL_S  # `next` itself has the first say
            if waited >= timeout_s or (waited >= 0 and not may_wait()):
                self.ended_after_s = waited + 2 * _POLL_S
                for process in self.processes:
                    process.kill()
                return

    def next(self, timeout_s: float, may_wait: Callable[[], bool]) -> Any:
        """The next result, None at the end. LoadingError when a worker died or hangs."""
        start = self.waiting_since = time.monotonic()
        while True:
            try:
                result = next(self.results, None)
                self.waiting_since = math.inf
                return result
            except (RuntimeError, OSError, EOFError) as error:
                if self.ended_after_s is not None:
                    raise LoadingError(self._describe_still()) from None
                timed_out = "DataLoader timed out" in str(error)
                if not timed_out:
                    self._await_end()
                dead = [k for k, process in enumerate(self.processes) if not process.is_alive()]
                if dead:
                    raise LoadingError(self._describe_dead(dead)) from None
                if not timed_out:
                    raise
                waited = time.monotonic() - start
                if waited >= timeout_s or not may_wait():
                    raise LoadingError(self._end_hanging(min(waited, timeout_s))) from None

    def _await_end(self) -> None:
        """Give a worker time to end: its connections break first, then its sentinel, and only then is it dead."""
        ended = wait([process.sentinel for process in self.processes], timeout=_END_S)
        for process in self.processes:
            if process.sentinel in ended:
                process.join(_END_S)

    def _describe_dead(self, dead: list[int]) -> str:
        workers = ", ".join(
            f"{k} (pid {self.processes[k].pid}, exit code {self.processes[k].exitcode}, last at sample "
            f"{int(self.board[k, _SAMPLE])})"
            for k in dead
        )
        return (
            f"loader worker died: {workers}; exit code -9 is often the system's, for want of memory: "
            "lower num_worker_per_gpu"
        )

    def _describe_still(self) -> str:
        workers = ", ".join(
            f"{k} (pid {process.pid}, last at sample {int(self.board[k, _SAMPLE])})"
            for k, process in enumerate(self.processes)
        )
        return (
            f"a loader worker hangs: no answer for {self.ended_after_s:.0f} s from one of {workers}; all of them were ended. "
            "Was it stopped (SIGSTOP), or is the machine swapping?"
        )

    def _end_hanging(self, timeout_s: float) -> str:
        now = time.monotonic()
        busy = sorted((since, k) for k, since in enumerate(self.board[:, _SINCE]) if since)
        if not busy:
            return f"loader workers gave nothing for {timeout_s:.0f} s, and none of them is busy"
        for since, k in busy:
            if now - since >= timeout_s:
                self.processes[k].kill()  # inside the dataset, so it holds none of the loader's locks
        since, k = busy[0]
        return (
            f"loader worker {k} (pid {self.processes[k].pid}) hangs: busy for {now - since:.0f} s, "
            f"at sample {int(self.board[k, _SAMPLE])}; given up after {timeout_s:.0f} s"
        )

    def close(self, timeout_s: float) -> None:
        """Let the workers finish what they hold, for some seconds; then end them."""
        # Ending them may hang as `next` may: the watch is to lose its patience in seconds, not after `timeout_s`.
        self.waiting_since = time.monotonic() - timeout_s + _END_S
        self.results._shutdown_workers()
        self.kill()
        self._is_closed.set()

    def kill(self) -> None:
        """End every worker that still lives."""
        for process in self.processes:
            process.kill()
            process.join()
