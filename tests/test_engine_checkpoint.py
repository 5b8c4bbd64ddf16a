"""Checkpoints: whole or not there, damage found and named, hostile files refused."""

import errno
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from srkit.engine.checkpoint import (
    CheckpointStore,
    Snapshot,
    find_damage,
    load_tensors,
    read_checkpoint,
    write_atomically,
)
from srkit.engine.seeding import random_states, restore_random_states
from srkit.errors import StorageError, WeightsError


def snapshot(iteration=5):
    networks = {"net_g": {"w": torch.full((40,), float(iteration))}}
    return Snapshot(
        iteration, networks, {"best": {"val": {"psnr": [1.0, 5]}}}, [random_states()], {"identity": {"scale": [2]}}
    )


def test_a_checkpoint_reads_back_as_written(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(7))
    back = read_checkpoint(folder)
    assert folder.name == "iter_7"
    assert back.iteration == 7
    assert torch.equal(back.networks["net_g"]["w"], torch.full((40,), 7.0))
    assert back.training == {"best": {"val": {"psnr": [1.0, 5]}}}
    assert back.meta == {"identity": {"scale": [2]}}


def test_random_states_survive_saving(tmp_path):
    states = CheckpointStore(tmp_path).save(snapshot())
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())
    restore_random_states(read_checkpoint(states).random[0])
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == drawn


@pytest.mark.parametrize("most", [100, 9_000, 200_000, 400_200, 401_000])
def test_a_disk_that_fills_up_at_any_place_is_named_and_not_torchs_archive(tmp_path, most):
    """RLIMIT_FSIZE stands for a full disk. Large tensors pass the buffer by; torch then complains of a position."""
    store = CheckpointStore(tmp_path)
    older, large = store.save(snapshot(5)), snapshot(10)
    large.networks["net_g"] |= {f"w{n}": torch.zeros(50_000) for n in range(2)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"iter_10 could not be written .File too large"):
            store.save(large)
        with pytest.raises(StorageError, match=r"a\.pth: cannot be written .File too large"):
            write_atomically(tmp_path / "a.pth", large.networks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert store.newest_valid() == (older, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["iter_5", "latest.json"]


@pytest.mark.parametrize("name", ["networks.pt", "training.pt", "rng_rank0.pt", "manifest.json"])
@pytest.mark.parametrize("length", [0, 1, 0.5, -1])
def test_a_truncated_file_is_found_set_aside_and_the_previous_checkpoint_used(tmp_path, name, length):
    store = CheckpointStore(tmp_path)
    older = store.save(snapshot(5))
    file = store.save(snapshot(10)) / name
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * length) if 0 < length < 1 else length])
    found, notes = store.newest_valid()
    assert found == older
    assert name in notes[0]
    assert (tmp_path / "iter_10.corrupt").is_dir()


def test_every_flipped_bit_is_found(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot())
    files = sorted(folder.iterdir())
    draw = random.Random(0)
    missed = []
    for _ in range(200):
        file = draw.choice(files)
        data = bytearray(file.read_bytes())
        at = draw.randrange(len(data))
        data[at] ^= 1 << draw.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(data)
        if find_damage(folder) is None:
            missed.append((file.name, at))
        file.write_bytes(whole)
    assert missed == []


def test_files_of_two_iterations_cannot_be_mixed(tmp_path):
    store = CheckpointStore(tmp_path)
    a, b = store.save(snapshot(1)), store.save(snapshot(2))
    shutil.copy(a / "networks.pt", b / "networks.pt")
    assert "networks.pt" in find_damage(b)
    shutil.copytree(a, tmp_path / "iter_3")
    assert "iteration 1" in find_damage(tmp_path / "iter_3")


def test_old_checkpoints_go_but_the_best_and_the_multiples_stay(tmp_path):
    store = CheckpointStore(tmp_path, keep_last=2, keep_every=10)
    for iteration in range(5, 45, 5):
        store.save(snapshot(iteration), best_iteration=15)
    assert [f.name for f in store.folders()] == ["iter_40", "iter_35", "iter_30", "iter_20", "iter_15", "iter_10"]


def test_saving_an_iteration_again_keeps_the_old_one_aside(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(5))
    store.save(snapshot(5))
    assert find_damage(tmp_path / "iter_5") is None
    assert (tmp_path / "iter_5.replaced").is_dir()


STAGES = ["save.after_networks", "save.before_manifest", "save.before_rename", "save.after_rename", "save.before_prune"]
SAVE_TWICE = """
import sys; sys.path.insert(0, {tests!r})
from test_engine_checkpoint import snapshot
from srkit.engine.checkpoint import CheckpointStore
from pathlib import Path
store = CheckpointStore(Path({folder!r}), keep_last=1)
store.save(snapshot(5)); store.save(snapshot(10))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_at_any_stage_of_a_save_leaves_a_valid_checkpoint(tmp_path, stage):
    code = SAVE_TWICE.format(tests=os.path.dirname(__file__), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "SRKIT_FAULT": f"{stage}:2"})
    assert done.returncode == 86
    store = CheckpointStore(tmp_path)
    found, notes = store.newest_valid()
    assert notes == []
    assert found.name == ("iter_10" if stage in ("save.after_rename", "save.before_prune") else "iter_5")
    store.remove_strays()
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_full_disk_leaves_older_checkpoints_whole_and_says_so(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(5))

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"iter_10.*No space left.*MB free.*untouched"):
        store.save(snapshot(10))
    monkeypatch.undo()
    assert store.newest_valid()[0].name == "iter_5"
    assert not list(tmp_path.glob(".tmp-*"))


def test_writing_fsyncs_files_then_folder_before_and_after_the_rename(tmp_path, monkeypatch):
    order = []
    real_fsync, real_rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os, "fsync", lambda d: (order.append(os.path.basename(os.readlink(f"/proc/self/fd/{d}"))), real_fsync(d))
    )
    monkeypatch.setattr(type(tmp_path), "rename", lambda a, b: (order.append("rename"), real_rename(a, b))[1])
    CheckpointStore(tmp_path).save(snapshot(5))
    at = order.index("rename")
    assert order[at - 2 : at + 2] == ["manifest.json", order[at - 1], "rename", tmp_path.name]
    assert order[at - 1].startswith(".tmp-iter_5")
    assert order[:3] == ["networks.pt", "training.pt", "rng_rank0.pt"]


class Evil:
    def __init__(self, sentinel):
        self.sentinel = sentinel

    def __reduce__(self):
        return (os.system, (f"touch {self.sentinel}",))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path, how):
    sentinel, file = tmp_path / "sentinel", tmp_path / "evil.pth"
    if how == "torch":
        torch.save({"params": Evil(sentinel)}, file)
    else:
        file.write_bytes(pickle.dumps({"params": Evil(sentinel)}))
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        load_tensors(file)
    assert not sentinel.exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 cut"])
def test_a_damaged_weights_file_is_named(tmp_path, content):
    file = tmp_path / "net_g.pth"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=r"net_g\.pth"):
        load_tensors(file)


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda d: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    with pytest.raises(StorageError, match="I/O error"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_the_manifest_is_readable_json_with_sizes_and_hashes(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"]["networks.pt"]["size"] == (folder / "networks.pt").stat().st_size
    assert len(manifest["files"]["networks.pt"]["sha256"]) == 64
