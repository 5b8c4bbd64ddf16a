"""The loader: one order whatever the workers, ranks and resumes; and every fault named in seconds."""

from __future__ import annotations

import collections
import itertools
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from srkit.data.loader import eval_samples, train_batches
from srkit.data.order import SampleOrder, skip_limit
from srkit.data.sample import Sample
from srkit.errors import DataError, LoadingError


class Numbers:
    """Sample k is a picture full of k, beside it a random draw."""

    def __init__(self, length: int, *, bad: tuple[int, ...] = (), sleep_at: int = -1, broken: bool = False) -> None:
        self.length, self.bad, self.sleep_at, self.broken = length, bad, sleep_at, broken

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        if index in self.bad:
            raise DataError(f"folder/{index}.png: damaged")
        if index == self.sleep_at:
            time.sleep(3600)
        if self.broken:
            raise ZeroDivisionError("a bug in a user's dataset")
        draw = 0 if rng is None else int(rng.integers(2**16))
        lq = np.full((2, 3, 1), index, np.uint16)
        return Sample(
            {"lq": lq, "gt": np.full((4, 6, 1), draw, np.uint16)}, f"n{index}", {"lq": f"folder/{index}.png"}, 65535.0
        )


def first(count: int, dataset=None, **options) -> list[tuple[int, int]]:
    """(file, draw) of the first samples of `count` batches."""
    options = {"seed": 7, "batch_size": 4, **options}
    batches = itertools.islice(train_batches(dataset or Numbers(10), **options), count)
    return [(int(lq[0, 0, 0]), int(gt[0, 0, 0])) for b in batches for lq, gt in zip(b.images["lq"], b.images["gt"])]


def test_every_epoch_is_a_permutation_and_epochs_differ():
    order = SampleOrder(seed=0, length=50, shuffle=True)
    epochs = [[order(50 * e + k) for k in range(50)] for e in range(3)]
    for e, places in enumerate(epochs):
        assert {epoch for epoch, _ in places} == {e}
        assert sorted(position for _, position in places) == list(range(50))
    assert len({tuple(p for _, p in places) for places in epochs}) == 3


def test_order_is_the_one_numpy_gives_for_seed_and_epoch():
    order = SampleOrder(seed=5, length=8, shuffle=True)
    assert [order(8 + k)[1] for k in range(8)] == np.random.default_rng([5, 1]).permutation(8).tolist()


def test_without_shuffling_files_come_in_the_lists_order_and_batches_straddle_epochs():
    batches = list(itertools.islice(train_batches(Numbers(3), seed=0, batch_size=2, shuffle=False), 3))
    assert [b.names for b in batches] == [["n0", "n1"], ["n2", "n0"], ["n1", "n2"]]
    assert [b.epoch for b in batches] == [0, 0, 1]


def test_draws_differ_between_epochs_and_within_an_enlarged_epoch():
    seen = first(6, Numbers(4), enlarge_ratio=3)  # two enlarged epochs: every file six times
    assert sorted(index for index, _ in seen[:12]) == sorted([0, 1, 2, 3] * 3)
    assert len(set(seen)) == 24


def test_a_batch_larger_than_the_set_is_full():
    assert [len(b.names) for b in itertools.islice(train_batches(Numbers(3), seed=0, batch_size=8), 2)] == [8, 8]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_sequence(workers):
    assert first(8, num_workers=workers) == first(8)


@pytest.mark.parametrize("start", range(0, 24))
def test_resuming_at_any_position_continues_the_sequence(start):
    assert first(6, start_sample=start) == first(12)[start : start + 24]


def test_resuming_with_workers_continues_the_sequence():
    assert first(4, start_sample=13, num_workers=2) == first(8)[13:29]


def test_two_ranks_together_are_one_rank_with_a_double_batch():
    one = first(5, batch_size=4)
    ranks = [first(5, batch_size=2, rank=r, world_size=2) for r in range(2)]
    union = [s for k in range(5) for rank in ranks for s in rank[2 * k : 2 * k + 2]]
    assert union == one


def test_batches_keep_the_files_integers():
    batch = next(train_batches(Numbers(4), seed=0, batch_size=4))
    assert batch.images["lq"].dtype == torch.uint16
    assert batch.images["lq"].shape == (4, 2, 3, 1)
    assert batch.white == 65535.0
    assert batch.skipped == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_sample_stops_the_run_and_is_named(workers):
    with pytest.raises(LoadingError, match=r"^sample 3 cannot be read: folder/3.png: damaged$"):
        first(10, Numbers(10, bad=(3,)), num_workers=workers)


def test_skipping_takes_the_next_readable_file_counts_it_and_is_the_same_with_workers():
    data = Numbers(10, bad=(3, 4))
    batches = list(itertools.islice(train_batches(data, seed=0, batch_size=5, shuffle=False, on_error="skip"), 2))
    assert [int(x[0, 0, 0]) for x in batches[0].images["lq"]] == [0, 1, 2, 5, 5]
    assert [b.skipped for b in batches] == [2, 0]
    draws = [int(x[0, 0, 0]) for x in batches[0].images["gt"]]
    assert draws[3] != draws[4]
    assert first(6, data, on_error="skip") == first(6, data, on_error="skip", num_workers=2)


def test_too_many_unreadable_samples_stop_the_run():
    with pytest.raises(LoadingError, match="11 of 40 samples are unreadable"):
        first(10, Numbers(40, bad=tuple(range(0, 22, 2))), on_error="skip")
    assert [skip_limit(n) for n in (40, 1000, 5000)] == [10, 10, 50]


def test_pictures_of_unequal_size_are_refused_by_name():
    class Uneven(Numbers):
        def sample(self, index, rng):
            return Sample({"lq": np.zeros((2 + index, 3, 1), np.uint8)}, f"n{index}", {}, 255.0)

    with pytest.raises(LoadingError, match=r"'n0' \(lq \(2, 3, 1\).*'n1' \(lq \(3, 3, 1\).*set gt_size"):
        first(1, Uneven(4), shuffle=False)


def test_a_bug_in_a_dataset_is_not_disguised():
    with pytest.raises(ZeroDivisionError, match="a bug in a user's dataset"):
        first(1, Numbers(4, broken=True), num_workers=1)


def test_a_killed_worker_is_named_within_seconds():
    batches = train_batches(Numbers(10), seed=0, batch_size=2, num_workers=2)
    next(batches)
    victim = multiprocessing.active_children()[0].pid
    os.kill(victim, signal.SIGKILL)
    start = time.monotonic()
    with pytest.raises(LoadingError, match=rf"worker died: \d \(pid {victim}"):
        collections.deque(itertools.islice(batches, 10_000), maxlen=0)  # keeps none: each holds open files
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()


def test_a_hanging_worker_is_named_after_the_timeout():  # takes the timeout: 1 s
    start = time.monotonic()
    with pytest.raises(LoadingError, match=r"worker \d \(pid \d+\) hangs: busy for \d+ s, at sample 5"):
        first(10, Numbers(10, sleep_at=5), num_workers=2, timeout_s=1.0)
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()


def test_a_dead_worker_raises_in_next_and_nowhere_else():
    before = signal.getsignal(signal.SIGCHLD)
    batches = train_batches(Numbers(10), seed=0, batch_size=2, num_workers=1)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == before
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    time.sleep(0.2)  # torch's own handler would raise here
    batches.close()


def test_workers_leave_requests_to_stop_to_the_parent():
    batches = train_batches(Numbers(10), seed=0, batch_size=2, num_workers=1)
    next(batches)
    for request in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        os.kill(multiprocessing.active_children()[0].pid, request)
    for _ in range(20):
        next(batches)
    batches.close()
    assert not multiprocessing.active_children()


def test_a_program_that_ends_with_an_open_loader_leaves_no_worker_and_does_not_hang():  # imports torch anew: 2 s
    import subprocess
    import sys

    code = (
        "import sys, itertools; sys.path.insert(0, 'tests')\n"
        "from test_data_loader import Numbers, train_batches\n"
        "import builtins, multiprocessing\n"
        "builtins.held = b = train_batches(Numbers(10), seed=0, batch_size=2, num_workers=1)\n"
        "next(b); print(multiprocessing.active_children()[0].pid)\n"
    )  # held by builtins: alive until the interpreter is gone
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert not os.path.exists(f"/proc/{int(done.stdout)}")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_reads_each_picture_once_in_order_without_augmentation(workers):
    samples = list(eval_samples(Numbers(9), [4, 2, 7], num_workers=workers))
    assert [s.name for s in samples] == ["n4", "n2", "n7"]
    assert all((s.images["gt"] == 0).all() for s in samples)
    assert list(eval_samples(Numbers(3), [], num_workers=workers)) == []


def test_evaluation_names_an_unreadable_file():
    with pytest.raises(LoadingError, match=r"folder/2\.png"):
        list(eval_samples(Numbers(5, bad=(2,)), range(5), num_workers=1))
