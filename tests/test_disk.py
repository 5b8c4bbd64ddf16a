"""The disk of paths that do not exist yet."""

from __future__ import annotations

import shutil
from pathlib import Path

from srkit.disk import free_disk_bytes, nearest_existing


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
