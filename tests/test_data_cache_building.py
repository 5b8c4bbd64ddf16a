"""Building the decoded cache: goes on after a kill, needs no locks, and never mixes the work of two computers."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from srkit.data import PairedImageDataset, cache_file
from srkit.data.cache import CachedSource
from srkit.data.cache_file import GrowingFile
from srkit.data.folders import Folders
from srkit.imaging.files import write_image

COUNT = 12


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(COUNT):
        write_image(tmp_path / f"gt/p{k:02d}.png", rng.integers(0, 256, (9, 10 + k, 3), dtype=np.uint8))
    return tmp_path


def source(root: Path, cache: str) -> CachedSource:
    return CachedSource(Folders().open("gt", str(root / "gt"))[0], root / cache)


def files(cached: CachedSource) -> dict[str, bytes]:
    """What a cache consists of."""
    return {p.name: p.read_bytes() for p in cached.folder.iterdir() if p.name != ".lock"}


def in_process(work, *given) -> int:
    """`work` in a process of its own; returns its exit code, -9 where it was killed."""
    process = multiprocessing.get_context("fork").Process(target=work, args=given)
    process.start()
    process.join(60)
    return process.exitcode


def build_until_killed(cached: CachedSource, pictures: int, note_s: float = 0.0) -> None:
    cache_file._NOTE_S = note_s
    plain, done = GrowingFile.append, []

    def append(self, *given):
        if len(done) == pictures:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(None)
        return plain(self, *given)

    GrowingFile.append = append
    cached.build()


def decoded_by(cached: CachedSource, monkeypatch) -> list[str]:
    """Names that building decodes."""
    read, names = cached.inner.read, []
    monkeypatch.setattr(cached.inner, "read", lambda k: names.append(cached.names[k]) or read(k))
    cached.build()
    return sorted(names)


def test_a_build_that_was_killed_goes_on_and_gives_the_identical_cache(pictures, monkeypatch):
    source(pictures, "whole").build()
    assert in_process(build_until_killed, source(pictures, "killed"), 5) == -signal.SIGKILL
    assert in_process(build_until_killed, source(pictures, "killed"), 4) == -signal.SIGKILL
    assert not list(pictures.rglob("killed/*/index.json"))
    again = source(pictures, "killed")
    assert decoded_by(again, monkeypatch) == [f"p{k:02d}.png" for k in range(9, COUNT)]
    assert files(again) == files(source(pictures, "whole"))


def test_what_was_written_and_not_noted_is_decoded_again(pictures, monkeypatch):
    source(pictures, "whole").build()
    assert in_process(build_until_killed, source(pictures, "killed"), 5, 1e9) == -signal.SIGKILL
    again = source(pictures, "killed")
    assert len(decoded_by(again, monkeypatch)) == COUNT
    assert files(again) == files(source(pictures, "whole"))


@pytest.mark.parametrize("damage", ["line cut", "data cut", "no journal", "foreign journal"])
def test_a_damaged_left_over_never_gives_wrong_pixels(pictures, damage):
    assert in_process(build_until_killed, source(pictures, "cache"), 6) == -signal.SIGKILL
    journal = next(pictures.rglob("cache/*/*.journal"))
    if damage == "line cut":
        os.truncate(journal, journal.stat().st_size - 7)
    elif damage == "data cut":
        os.truncate(journal.with_suffix(".tmp"), 700)
    elif damage == "no journal":
        journal.unlink()
    else:
        journal.write_text('["p00.png", "a", "b", 1, 2, 3, 4, 5]\n')
    cached = source(pictures, "cache")
    cached.build()
    for k in range(COUNT):
        assert cached.holds(k)
        np.testing.assert_array_equal(cached.read(k), cached.inner.read(k))


def test_a_picture_that_changed_after_the_kill_is_decoded_again(pictures, monkeypatch):
    assert in_process(build_until_killed, source(pictures, "cache"), 6) == -signal.SIGKILL
    write_image(pictures / "gt/p02.png", np.full((9, 30, 3), 7, np.uint8))
    cached = source(pictures, "cache")
    assert decoded_by(cached, monkeypatch) == ["p02.png", *(f"p{k:02d}.png" for k in range(6, COUNT))]
    np.testing.assert_array_equal(cached.read(2), np.full((9, 30, 3), 7, np.uint8))


def test_an_addition_to_a_cache_goes_on_too_without_decoding_what_it_held(pictures, monkeypatch):
    source(pictures, "cache").build()
    for k in range(COUNT):  # more than the few that are tried before anything is written
        write_image(pictures / f"gt/q{k:02d}.png", np.full((9, 10, 3), k, np.uint8))
    assert in_process(build_until_killed, source(pictures, "cache"), COUNT + 3) == -signal.SIGKILL
    cached = source(pictures, "cache")
    assert decoded_by(cached, monkeypatch) == [f"q{k:02d}.png" for k in range(3, COUNT)]
    np.testing.assert_array_equal(cached.read(3), cached.inner.read(3))


def test_an_interrupted_build_loses_nothing_that_was_decoded(pictures, monkeypatch):
    cached = source(pictures, "cache")
    plain = GrowingFile.append

    def append(self, name, *given):
        if name == "p08.png":
            raise KeyboardInterrupt
        return plain(self, name, *given)

    with monkeypatch.context() as patch:
        patch.setattr(GrowingFile, "append", append)
        with pytest.raises(KeyboardInterrupt):
            cached.build()
    assert len(decoded_by(source(pictures, "cache"), monkeypatch)) == COUNT - 8


def test_a_full_disk_leaves_no_part_of_a_cache(pictures, monkeypatch):
    def append(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(GrowingFile, "append", append)
    with pytest.raises(OSError, match="No space"):
        source(pictures, "cache").build()
    assert files(source(pictures, "cache")) == {}


# Locks


def refuse_locks(folder: Path, reason: int = errno.ENOLCK) -> None:
    """As a network file system without a lock service answers, for all files below `folder`."""
    import fcntl

    plain = fcntl.flock

    def flock(file, operation):
        if Path(file.name).is_relative_to(folder):
            raise OSError(reason, os.strerror(reason))
        plain(file, operation)

    fcntl.flock = flock


def build_on(computer: str, root: Path, results, reason: int = errno.ENOLCK) -> None:
    """On a computer whose folder for temporary files is its own, over a file system without locks."""
    refuse_locks(root / "cache", reason)
    socket.gethostname = lambda: computer
    tempfile.tempdir = str(root / computer)
    (root / computer).mkdir(exist_ok=True)
    cached = source(root, "cache")
    read, names = cached.inner.read, []

    def slow(k):
        names.append(k)
        time.sleep(0.05)
        return read(k)

    cached.inner.read = slow
    cached.build()
    pixels = [cached.holds(k) and cached.read(k).tobytes() for k in range(len(cached.names))]
    results.put((len(names), pixels))


def together(root: Path, computers: list[str], reason: int = errno.ENOLCK) -> tuple[list[int], list[list[bytes]]]:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    builders = [context.Process(target=build_on, args=(name, root, results, reason)) for name in computers]
    for builder in builders:
        builder.start()
    found = [results.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join(30)
    return [count for count, _ in found], [pixels for _, pixels in found]


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_two_computers_without_locks_build_beside_each_other(pictures, reason):
    _, pixels = together(pictures, ["node1", "node2"], reason)
    plain = source(pictures, "cache").inner
    assert pixels == [[plain.read(k).tobytes() for k in range(COUNT)]] * 2
    left = sorted(p.suffix for p in source(pictures, "cache").folder.iterdir() if p.name != ".lock")
    assert left == [".json", ".raw"]


def test_processes_of_one_computer_build_once_without_locks_too(pictures):
    counts, pixels = together(pictures, ["node1", "node1", "node1"])
    assert sorted(counts) == [0, 0, COUNT]
    assert pixels[0] == pixels[1] == pixels[2]


def test_the_later_of_two_computers_leaves_the_earlier_ones_file_in_place(pictures):
    first = source(pictures, "cache")
    first.build()
    before = {p: p.stat().st_ino for p in first.folder.glob("*.*")}
    late = source(pictures, "cache")
    late.folder.mkdir(exist_ok=True)
    nothing = np.full_like(first._rows, -1)
    late._write(nothing, None, np.zeros(COUNT, bool), False)  # as if it had looked before the other was ready
    assert {p: p.stat().st_ino for p in first.folder.glob("*.*")} == before


def build_until_killed_on(computer: str, cached: CachedSource, pictures: int) -> None:
    socket.gethostname = lambda: computer
    build_until_killed(cached, pictures)


def test_what_another_computer_began_is_copied_and_its_file_left_alone(pictures, monkeypatch):
    assert in_process(build_until_killed_on, "node1", source(pictures, "cache"), 5) == -signal.SIGKILL
    before = {name: data for name, data in files(source(pictures, "cache")).items() if "node1" in name}
    assert len(before) == 2
    cached = source(pictures, "cache")
    assert decoded_by(cached, monkeypatch) == [f"p{k:02d}.png" for k in range(5, COUNT)]
    np.testing.assert_array_equal(cached.read(0), cached.inner.read(0))
    assert before.items() <= files(cached).items()
    for path in cached.folder.glob("*node1*"):
        os.utime(path, (time.time() - 90_000,) * 2)  # a day and an hour ago
    source(pictures, "cache").build()
    assert not list(cached.folder.glob("*node1*"))


def test_a_part_of_a_cache_counts_as_room_that_is_already_taken(pictures):
    assert in_process(build_until_killed, source(pictures, "cache"), 6) == -signal.SIGKILL
    data = next(pictures.rglob("cache/*/*.tmp")).stat().st_size
    assert source(pictures, "cache").nbytes >= data > 0


def test_a_training_set_goes_on_by_itself(pictures):
    def open_data():
        return PairedImageDataset(
            scale=(2, 2), dataroot_gt=str(pictures / "gt"), gt_size=8, cache_dir=str(pictures / "cache")
        )

    def killed():
        build_until_killed(open_data(), 5)  # .build is .prepare there

    PairedImageDataset.build = lambda self: self.prepare(progress=False)
    try:
        assert in_process(killed) == -signal.SIGKILL
    finally:
        del PairedImageDataset.build
    data = open_data()
    data.prepare(progress=False)
    plain = PairedImageDataset(scale=(2, 2), dataroot_gt=str(pictures / "gt"), gt_size=8, cache="none")
    for k in range(COUNT):
        a, b = (d.sample(k, np.random.default_rng(k)).images for d in (data, plain))
        np.testing.assert_array_equal(a["lq"], b["lq"])
    assert {json.loads(p.read_text())["format"] for p in pictures.rglob("index.json")} == {1}


def test_a_file_that_another_process_was_done_with_just_now_has_no_size(pictures, monkeypatch):
    cached = source(pictures, "cache")
    cached.build()
    held = sum(path.stat().st_size for path in cached.folder.glob("data-*.raw"))
    plain = Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [*plain(self, pattern), self / "data-gone-0.tmp"])
    assert cached.nbytes == held > 0


def test_what_another_computer_replaced_while_it_was_wanted_is_decoded(pictures, monkeypatch):
    source(pictures, "cache").build()
    changed = pictures / "gt/p00.png"
    write_image(changed, np.zeros((9, 10, 3), np.uint8))
    os.utime(changed, (1, 1))
    cached = source(pictures, "cache")
    rows, path = cached._load()
    monkeypatch.setattr(cached, "_load", lambda: (rows, path.with_name("data-gone.raw")))
    assert set(decoded_by(cached, monkeypatch)) == set(cached.names)
