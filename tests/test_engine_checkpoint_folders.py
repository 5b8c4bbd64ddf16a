"""Which checkpoint folders a store keeps, sets aside, removes and believes, and what it says about each."""

from __future__ import annotations

import errno
import json
import logging
import os

import pytest
import torch
from test_engine_checkpoint import snapshot

from srkit.engine.checkpoint import CheckpointStore, Snapshot, _seal, find_damage, read_checkpoint
from srkit.errors import StorageError, WeightsError

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def resealed(folder, **changes):
    """The folder with other words in its manifest, sealed as srkit seals."""
    file = folder / "manifest.json"
    manifest = {**json.loads(file.read_text()), **changes}
    manifest.pop("sha256")
    file.write_bytes(_seal(manifest))
    return folder


def test_three_checkpoints_are_kept_unless_told_otherwise(tmp_path):
    store = CheckpointStore(tmp_path)
    for iteration in (8, 9, 10, 11):
        store.save(snapshot(iteration))
    assert [f.name for f in store.folders()] == ["iter_11", "iter_10", "iter_9"]
    assert names(tmp_path) == ["iter_10", "iter_11", "iter_9", "latest.json"]
    assert json.loads((tmp_path / "latest.json").read_text()) == {"checkpoint": "iter_11"}


def test_only_folders_named_after_an_iteration_are_checkpoints(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save(snapshot(5))
    (tmp_path / "iter_6").write_text("a file")
    for name in ("iter_7.corrupt", "iter_x", "iter_8.superseded"):
        (tmp_path / name).mkdir()
    assert [f.name for f in store.folders()] == ["iter_5"]


def test_the_folder_of_checkpoints_is_made_with_those_above_it(tmp_path):
    assert find_damage(CheckpointStore(tmp_path / "a" / "b").save(snapshot(1))) is None


def test_what_an_unfinished_save_left_is_not_in_the_next_checkpoint(tmp_path):
    part = tmp_path / f".tmp-iter_5-{os.getpid()}"
    part.mkdir()
    (part / "junk").write_text("of a save that failed")
    assert names(CheckpointStore(tmp_path).save(snapshot(5))) == [
        "manifest.json",
        "networks.pt",
        "rng_rank0.pt",
        "training.pt",
    ]


def test_folders_set_aside_for_one_reason_get_numbers(tmp_path):
    store = CheckpointStore(tmp_path)
    for _ in range(4):
        store.save(snapshot(5))
    assert names(tmp_path) == ["iter_5", "iter_5.replaced", "iter_5.replaced-1", "iter_5.replaced-2", "latest.json"]


def test_later_checkpoints_than_the_one_gone_on_from_are_set_aside(tmp_path):
    store = CheckpointStore(tmp_path)
    for iteration in (5, 10, 15):
        store.save(snapshot(iteration))
    store.set_aside_after(tmp_path / "iter_10")
    assert names(tmp_path) == ["iter_10", "iter_15.superseded", "iter_5", "latest.json"]


def test_going_on_from_a_checkpoint_of_another_experiment_sets_nothing_aside(tmp_path):
    store = CheckpointStore(tmp_path / "mine")
    store.save(snapshot(5))
    store.set_aside_after(tmp_path / "other" / "iter_5")
    assert [f.name for f in store.folders()] == ["iter_5"]


def test_strays_go_whatever_they_are_and_links_are_not_followed(tmp_path):
    store = CheckpointStore(tmp_path / "states")
    kept = store.save(snapshot(5))
    (tmp_path / "states" / ".tmp-iter_6-1").mkdir()
    (tmp_path / "states" / ".tmp-iter_6-1" / "networks.pt").write_text("half")
    (tmp_path / "states" / ".tmp-latest.json-1").write_text("half")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "states" / ".tmp-link").symlink_to(tmp_path / "elsewhere")
    store.remove_strays()
    assert names(kept.parent) == ["iter_5", "latest.json"]
    assert (tmp_path / "elsewhere").is_dir()


def test_a_link_to_a_checkpoint_elsewhere_is_never_pruned(tmp_path):
    elsewhere = CheckpointStore(tmp_path / "elsewhere").save(snapshot(1))
    store = CheckpointStore(tmp_path / "states", keep_last=1)
    store.folder.mkdir()
    (store.folder / "iter_1").symlink_to(elsewhere)
    store.save(snapshot(2))
    store.save(snapshot(3))
    assert [f.name for f in store.folders()] == ["iter_3", "iter_1"]
    assert find_damage(elsewhere) is None


@pytest.mark.parametrize("name", ["iter_3", "iter_2", "iter_1"])
def test_a_folder_that_cannot_be_pruned_is_named_and_the_others_still_go(tmp_path, monkeypatch, caplog, name):
    store = CheckpointStore(tmp_path, keep_last=3)
    for iteration in (1, 2, 3):
        store.save(snapshot(iteration))
    store.keep_last = 1
    real = type(tmp_path).rename

    def stubborn(path, target):
        if path.name == name:
            raise OSError(errno.EACCES, "Permission denied")
        return real(path, target)

    monkeypatch.setattr(type(tmp_path), "rename", stubborn)
    with caplog.at_level(logging.WARNING, "srkit"):
        store.save(snapshot(4))
    assert [f.name for f in store.folders()] == ["iter_4", name]
    assert caplog.messages == [f"{tmp_path / name}: cannot be removed (Permission denied); it stays there"]


def test_a_checkpoint_to_be_pruned_is_renamed_before_its_files_go(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(snapshot(5))
    removed = []
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: removed.append(path.name))
    store.save(snapshot(10))
    assert removed == [f".tmp-iter_5-pruned-{os.getpid()}"]


def test_files_that_cannot_be_removed_while_pruning_do_not_spoil_the_save(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep_last=1)
    store.save(snapshot(5))
    real = os.rmdir

    def broken(path, **options):
        if "pruned" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, **options)

    monkeypatch.setattr(os, "rmdir", broken)
    assert store.save(snapshot(10)).name == "iter_10"
    assert store.newest_valid()[0].name == "iter_10"


@pytest.mark.parametrize(("error", "said"), [(FULL, "No space left on device"), (OSError("odd"), "odd")])
def test_a_save_that_fails_says_why_in_the_systems_words(tmp_path, monkeypatch, error, said):
    def broken(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", broken)
    monkeypatch.setattr("srkit.engine.checkpoint.free_disk_bytes", lambda path: 1500 * 2**20)
    with pytest.raises(StorageError) as caught:
        CheckpointStore(tmp_path).save(snapshot(5))
    assert str(caught.value) == (
        f"checkpoint {tmp_path / 'iter_5'} could not be written ({said}); 1,500 MB free on that disk; older checkpoints are "
        "untouched"
    )


def test_the_note_about_a_damaged_checkpoint_names_its_new_place(tmp_path):
    store = CheckpointStore(tmp_path)
    (store.save(snapshot(5)) / "networks.pt").unlink()
    found, notes = store.newest_valid()
    assert found is None
    assert notes == [
        f"{tmp_path / 'iter_5' / 'networks.pt'}: cannot be read (No such file or directory); "
        f"the checkpoint was set aside as {tmp_path / 'iter_5.corrupt'}"
    ]


def test_the_whole_checkpoint_under_a_damaged_one_is_used_and_no_older_one_is_touched(tmp_path):
    store = CheckpointStore(tmp_path)
    for iteration in (5, 10, 15):
        store.save(snapshot(iteration))
    for name in ("iter_5", "iter_15"):
        (tmp_path / name / "training.pt").write_bytes(b"")
    found, notes = store.newest_valid()
    assert (found.name, len(notes)) == ("iter_10", 1)
    assert names(tmp_path) == ["iter_10", "iter_15.corrupt", "iter_5", "latest.json"]


def test_a_checkpoint_of_another_format_is_refused_with_both_numbers(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    assert json.loads((folder / "manifest.json").read_text())["format"] == 1
    assert find_damage(resealed(folder, format=2)) == f"{folder / 'manifest.json'}: format 2, this srkit reads 1"


@pytest.mark.parametrize("missing", ["networks.pt", "training.pt", "rng_rank0.pt"])
def test_a_sealed_manifest_without_a_file_of_every_checkpoint_is_refused(tmp_path, missing):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files.pop(missing)
    problem = find_damage(resealed(folder, files=files))
    assert problem.endswith(f"does not list the files of a checkpoint, found {', '.join(files)}")


def test_a_sealed_manifest_of_no_files_says_none(tmp_path):
    assert find_damage(resealed(CheckpointStore(tmp_path).save(snapshot(5)), files={})).endswith("found none")


def test_a_file_of_another_length_is_named_with_both_lengths(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    file = folder / "training.pt"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes() + b"!")
    assert find_damage(folder) == f"{file}: {size + 1} bytes, {size} were written"


def test_a_file_of_the_same_length_and_other_content_is_named(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    file = folder / "training.pt"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert find_damage(folder) == f"{file}: content differs from its checksum"


def test_a_changed_word_in_the_manifest_breaks_its_seal(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"scale": [\n   2', '"scale": [\n   3'))
    assert find_damage(folder) == f"{file}: missing or unreadable (content differs from its checksum)"


def test_a_damaged_checkpoint_is_not_read(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    (folder / "training.pt").unlink()
    with pytest.raises(WeightsError, match=r"training\.pt: cannot be read \(No such file or directory\)"):
        read_checkpoint(folder)


def test_a_checkpoint_that_was_set_aside_is_read_under_its_new_name(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    assert read_checkpoint(folder.rename(tmp_path / "iter_5.superseded")).iteration == 5


def test_random_states_of_several_processes_come_back_in_their_order(tmp_path):
    states = [{"rank": torch.tensor(rank)} for rank in range(11)]
    folder = CheckpointStore(tmp_path).save(Snapshot(3, {}, {}, states))
    assert [s["rank"].item() for s in read_checkpoint(folder).random] == list(range(11))
    assert read_checkpoint(folder).meta == {}
