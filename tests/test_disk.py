"""The disk of paths that do not exist yet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from srkit.disk import free_disk_bytes, nearest_existing
from srkit.errors import DataError
from srkit.imaging.files import image_size, read_image
from srkit.imaging.volumes import read_volume


def test_of_a_path_that_is_not_there_the_nearest_folder_above_counts(tmp_path):
    assert nearest_existing(tmp_path / "a" / "b" / "c.pth") == tmp_path


def test_a_file_in_the_way_is_what_is_found(tmp_path):
    (tmp_path / "a").write_text("")
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path / "a"


def test_a_relative_path_is_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert nearest_existing(Path("new/cache")) == tmp_path


def test_free_space_is_that_of_the_disk_of_the_folder_above(tmp_path, monkeypatch):
    asked = []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: asked.append(path) or usage)
    assert free_disk_bytes(tmp_path / "a" / "b") == usage.free
    assert asked == [tmp_path]


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz"])
def test_a_pipe_among_pictures_or_volumes_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    readers = [read_volume] if "nii" in name else [read_image, image_size]
    for read in readers:
        with pytest.raises(DataError, match=rf"{name}: cannot be read .a pipe, a socket or a device"):
            read(tmp_path / name)
