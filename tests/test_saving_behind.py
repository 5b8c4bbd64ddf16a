"""Checkpoints and validation pictures are written while training goes on; nothing is lost and nothing is torn by that."""

import threading

import pytest
import torch
from tiny import in_process, options, pictures, write_options
from torch.utils._python_dispatch import TorchDispatchMode

from srkit.engine.checkpoint import CheckpointStore, read_checkpoint
from srkit.engine.evaluator import _writer
from srkit.engine.saving import copied, take_snapshot
from srkit.errors import StorageError
from srkit.options import load_options
from srkit.tools.measuring import trial


@pytest.fixture
def trainer(tmp_path):
    pictures(tmp_path / "data")
    loaded = load_options(write_options(tmp_path, options(tmp_path, logger__save_checkpoint_freq=1000)), mode="train")
    with trial(loaded) as (_, made):
        yield made


@pytest.fixture
def slow_disk(monkeypatch):
    """An event without which no checkpoint gets written."""
    gate, save = threading.Event(), CheckpointStore.save

    def waiting(self, *arguments):
        gate.wait(20)
        return save(self, *arguments)

    monkeypatch.setattr(CheckpointStore, "save", waiting)
    yield gate
    gate.set()


def test_training_goes_on_while_a_checkpoint_is_written(trainer, slow_disk):
    trainer.train_step()
    trainer.saver.save(trainer, required=False)
    trainer.train_step()  # would never come if saving waited for the disk
    assert not trainer.saver.store.folders()
    slow_disk.set()
    trainer.saver.finish()
    assert [folder.name for folder in trainer.saver.store.folders()] == ["iter_1"]


def test_what_is_written_is_the_state_when_it_was_saved(trainer, slow_disk):
    trainer.train_step()
    expected = copied(take_snapshot(trainer, {}).training["optimizers"])
    weights = copied(take_snapshot(trainer, {}).networks)
    trainer.saver.save(trainer, required=False)
    for _ in range(3):
        trainer.train_step()
    slow_disk.set()
    trainer.saver.finish()
    found = read_checkpoint(trainer.saver.store.folders()[0])
    for key, tensor in weights["net_g"].items():
        assert torch.equal(found.networks["net_g"][key], tensor)
    for index, state in expected["network_g"]["state"].items():
        for key, tensor in state.items():
            assert torch.equal(found.training["optimizers"]["network_g"]["state"][index][key], tensor), key


def test_a_required_save_is_on_the_disk_when_it_returns(trainer):
    trainer.train_step()
    trainer.saver.save(trainer, required=True)
    assert trainer.saver.saved_at == 1
    assert (trainer.saver.models / "net_g_1.pth").exists()
    assert trainer.saver.store.newest_valid()[0].name == "iter_1"


def test_a_second_save_waits_for_the_first(trainer, slow_disk):
    trainer.train_step()
    trainer.saver.save(trainer, required=False)
    trainer.train_step()
    threading.Timer(0.2, slow_disk.set).start()
    trainer.saver.save(trainer, required=True)
    assert {folder.name for folder in trainer.saver.store.folders()} == {"iter_1", "iter_2"}


def test_a_disk_that_stays_full_ends_the_training_at_the_last_permitted_save(trainer, monkeypatch):
    def full(self, *arguments):
        raise StorageError("the disk is full")

    monkeypatch.setattr(CheckpointStore, "save", full)
    trainer.train_step()
    for _ in range(3):
        trainer.saver.save(trainer, required=False)
    with pytest.raises(StorageError, match=r"full\nmake room .* --auto_resume"):
        trainer.saver.finish()
    assert trainer.saver.saved_at == -1


def test_closing_waits_for_what_is_being_written(trainer, slow_disk):
    trainer.train_step()
    trainer.saver.save(trainer, required=False)
    threading.Timer(0.2, slow_disk.set).start()
    trainer.saver.close()
    assert trainer.saver.store.folders()


def test_pictures_of_validations_are_all_there_in_the_end(tmp_path):
    pictures(tmp_path / "data")
    assert in_process(tmp_path, options(tmp_path, val__save_img=True)) == 0
    written = {path.name for path in (tmp_path / "experiments/tiny/visualization").rglob("*.png")}
    assert written == {f"p{k}_{iteration}.png" for k in range(4) for iteration in (6, 12)}


def test_a_picture_that_cannot_be_written_is_an_error_of_the_validation():
    def full():
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"), _writer(behind=True) as writing:
        writing(full)


class _ReadBacks(TorchDispatchMode):
    """Counts the places where a value of the device is asked for by the host: `.item()`, `bool()`, `float()` of a tensor."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_between_log_lines_nothing_is_read_back_from_the_device(tmp_path):
    pictures(tmp_path / "data")
    quiet = {"logger__print_freq": 1000, "logger__save_checkpoint_freq": 1000, "val__val_freq": 1000}
    loaded = load_options(write_options(tmp_path, options(tmp_path, train__total_iter=1000, **quiet)), mode="train")
    with trial(loaded) as (_, trainer), _ReadBacks() as seen:
        for _ in range(3):
            trainer.train_step()
            trainer.log.step()
            trainer.between_iterations()
        assert seen.count == 0
        trainer.meter.skipped()  # what a log line asks for
        assert seen.count == 1
