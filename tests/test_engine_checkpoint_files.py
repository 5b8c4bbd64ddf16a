"""Single files of weights: what the reader says of each kind of damage, and how one is replaced."""

from __future__ import annotations

import errno
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from test_engine_checkpoint import Evil

from srkit.engine.checkpoint import (
    _write,
    free_space,
    load_tensors,
    megabytes,
    require_whole,
    tensor_bytes,
    write_atomically,
)
from srkit.errors import StorageError, WeightsError


def refusal(call, *arguments):
    with pytest.raises(WeightsError) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_missing_weights_file_is_called_that(tmp_path):
    assert refusal(load_tensors, tmp_path / "x.pth") == f"{tmp_path / 'x.pth'}: no such file"


def test_a_folder_in_place_of_weights_is_called_that(tmp_path):
    assert refusal(load_tensors, tmp_path) == f"{tmp_path}: is a folder, expected a .pth file"


@pytest.mark.parametrize(
    "content", [b"hello", b"version https://git-lfs.github.com/spec/v1\n", b"PK\x05\x06" + b"\0" * 18]
)
def test_a_file_that_begins_as_no_weights_do_is_called_that(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    assert refusal(load_tensors, tmp_path / "x.pth").endswith("(it begins as none does)")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"\x80\x02", b"\x80"])
def test_a_file_that_begins_as_weights_and_breaks_off_is_damaged(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    said = refusal(load_tensors, tmp_path / "x.pth")
    assert said.startswith(f"{tmp_path / 'x.pth'}: damaged or not a PyTorch file (")
    assert "begins as none" not in said


@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_a_file_with_code_in_it_is_refused_for_that_reason(tmp_path, protocol):
    file = tmp_path / "evil.pth"
    if protocol is None:
        torch.save({"params": Evil(tmp_path / "sentinel")}, file)
    else:
        file.write_bytes(pickle.dumps({"params": Evil(tmp_path / "sentinel")}, protocol=protocol))
    assert "holds more than tensors and plain values, so loading it could run code; refused" in refusal(
        load_tensors, file
    )


@pytest.mark.parametrize(
    "words", ["Unsupported operand 7", "Weights only load failed: weights_only", "WeightsUnpickler error"]
)
def test_each_of_torchs_wordings_for_code_is_known(tmp_path, monkeypatch, words):
    file = tmp_path / "x.pth"
    torch.save({}, file)

    def refuse(*_, **__):
        raise RuntimeError(words)

    monkeypatch.setattr(torch, "load", refuse)
    assert "could run code" in refusal(load_tensors, file)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("first line\nsecond line"), "(first line)"),
        (EOFError(), "(EOFError)"),
        (RuntimeError("x" * 500), f"({'x' * 160})"),
    ],
)
def test_another_error_of_torch_is_quoted_by_its_first_words(tmp_path, monkeypatch, error, said):
    file = tmp_path / "x.pth"
    torch.save({}, file)

    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    assert refusal(load_tensors, file) == f"{file}: damaged or not a PyTorch file {said}"


def test_a_file_that_cannot_be_opened_keeps_the_systems_reason(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    file = tmp_path / "x.pth"
    file.write_bytes(b"hello")
    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(type(file), "open", refuse)
    assert "Permission denied" in refusal(load_tensors, file)


def test_weights_are_loaded_on_the_cpu_whatever_device_they_were_saved_on(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "load", lambda path, **options: asked.update(options))
    load_tensors(tmp_path)
    assert asked == {"map_location": "cpu", "weights_only": True}


def test_a_flipped_bit_in_an_archive_is_found_and_its_part_named(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(64)}, file)
    require_whole(file)
    with zipfile.ZipFile(file) as archive:
        part = next(p for p in archive.infolist() if p.filename.endswith("/data/0"))
    content = bytearray(file.read_bytes())
    start = content.index(bytes(256), part.header_offset)  # 64 float32 zeros
    content[start + 7] ^= 1
    file.write_bytes(content)
    assert refusal(require_whole, file) == (
        f"{file}: damaged: '{part.filename}' in it differs from its checksum; use another copy of the file"
    )


def test_an_archive_without_its_end_is_damaged(tmp_path):
    file = tmp_path / "x.pth"
    torch.save({"w": torch.zeros(64)}, file)
    file.write_bytes(file.read_bytes()[:-30])
    assert refusal(require_whole, file) == f"{file}: damaged (File is not a zip file)"


def test_what_has_no_checksums_is_left_to_the_loader(tmp_path):
    torch.save({"w": torch.zeros(4)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    require_whole(tmp_path / "old.pth")
    require_whole(tmp_path / "missing.pth")
    require_whole(tmp_path)


def test_an_atomic_write_makes_folders_and_leaves_nothing_else(tmp_path):
    write_atomically(tmp_path / "a" / "b" / "x.pth", {"w": torch.ones(3)})
    write_atomically(tmp_path / "a" / "b" / "x.pth", {"w": torch.zeros(3)})
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["x.pth"]
    assert torch.equal(load_tensors(tmp_path / "a" / "b" / "x.pth")["w"], torch.zeros(3))


def test_an_atomic_write_forces_the_file_then_its_folder_to_the_disk(tmp_path, monkeypatch):
    order = []
    real_fsync, real_replace = os.fsync, type(tmp_path).replace
    monkeypatch.setattr(os, "fsync", lambda d: (order.append(os.readlink(f"/proc/self/fd/{d}")), real_fsync(d))[1])
    monkeypatch.setattr(type(tmp_path), "replace", lambda a, b: (order.append("replace"), real_replace(a, b))[1])
    write_atomically(tmp_path / "x.json", b"{}")
    assert order == [str(tmp_path / f".tmp-x.json-{os.getpid()}"), "replace", str(tmp_path)]


def test_the_content_has_left_pythons_buffer_before_it_is_forced_to_the_disk(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda d: sizes.append(os.fstat(d).st_size))
    write_atomically(tmp_path / "x.json", b"12345")
    assert sizes[0] == 5


def test_writing_leaves_no_descriptor_open(tmp_path):
    write_atomically(tmp_path / "x.json", b"{}")
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        write_atomically(tmp_path / "x.json", b"{}")
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    ("error", "said"), [(OSError(errno.EIO, "Input/output error"), "Input/output error"), (OSError("odd"), "odd")]
)
def test_an_atomic_write_that_fails_says_why_in_the_systems_words(tmp_path, monkeypatch, error, said):
    def broken(descriptor):
        raise error

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(StorageError) as caught:
        write_atomically(tmp_path / "x.json", b"{}")
    assert str(caught.value).startswith(f"{tmp_path / 'x.json'}: cannot be written ({said}); ")


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"x\.json: cannot be written \(.*; [\d,]+ MB free on that disk"):
        write_atomically(tmp_path / "file" / "x.json", b"{}")


def test_bytes_that_a_full_disk_refuses_are_an_error(tmp_path):
    with pytest.raises(OSError, match="No space left on device"):
        _write(Path("/dev/full"), b"x" * 2**20)


def test_what_torch_cannot_save_is_no_fault_of_the_disk(tmp_path, monkeypatch):
    def broken(*given):
        raise RuntimeError("odd")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="odd"):
        write_atomically(tmp_path / "x.pth", {"weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("count", "told"),
    [(1500 * 2**20, "1,500 MB"), (10 * 2**20, "10 MB"), (9.75 * 2**20, "9.8 MB"), (2**18, "0.2 MB"), (2**20, "1.0 MB")],
)
def test_megabytes_have_a_decimal_below_ten(count, told):
    assert megabytes(count) == told


def test_tensors_are_counted_wherever_they_lie():
    held = {"a": [torch.zeros(3), (torch.zeros(2, dtype=torch.int64),)], "b": 5, "c": "text"}
    assert tensor_bytes(held) == 3 * 4 + 2 * 8


def test_what_is_needed_stands_beside_what_is_free_from_a_megabyte_on(tmp_path, monkeypatch):
    monkeypatch.setattr("srkit.engine.checkpoint.free_disk_bytes", lambda path: 2**30)
    assert free_space(tmp_path, 2**20 - 1) == free_space(tmp_path) == "1,024 MB free on that disk"
    assert free_space(tmp_path, 2**20) == "1,024 MB free on that disk, about 1.0 MB needed"
