"""How much memory is free where control groups limit it: made folders in place of /sys/fs/cgroup."""

from __future__ import annotations

import math
from pathlib import Path

from srkit.engine.memory import group_bytes


def made_group(folder: Path, version: int, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    for name, text in zip(names, (limit, str(used))):
        (folder / name).write_text(f"{text}\n")
    key = "total_inactive_file" if version == 1 else "inactive_file"
    (folder / "memory.stat").write_text(f"active_file 7\n{key} {inactive}\n")


def test_pages_of_files_that_nobody_reads_count_as_free(tmp_path):
    made_group(tmp_path, 2, "1000", 900, 600)
    assert group_bytes("0::/\n", tmp_path) == 1000 - 900 + 600


def test_the_first_version_of_control_groups_is_obeyed(tmp_path):
    made_group(tmp_path / "memory", 1, "1000", 900, 50)
    assert group_bytes("5:cpu,cpuacct:/\n4:memory:/\n0::/\n", tmp_path) == 1000 - 900 + 50


def test_a_batch_job_is_limited_by_the_narrowest_group_above_it(tmp_path):
    made_group(tmp_path / "slurm", 2, "1000", 900, 0)
    made_group(tmp_path / "slurm" / "job", 2, "500", 100, 0)
    made_group(tmp_path / "slurm" / "job" / "step", 2, "max", 100, 0)
    assert group_bytes("0::/slurm/job/step\n", tmp_path) == 100


def test_in_a_container_that_shows_the_hosts_group_the_topmost_folder_counts(tmp_path):
    made_group(tmp_path / "memory", 1, "1000", 900, 0)
    assert group_bytes("4:memory:/docker/0123\n", tmp_path) == 100


def test_without_a_limit_nothing_is_taken_away(tmp_path):
    made_group(tmp_path, 2, "max", 900, 0)
    assert group_bytes("0::/\n", tmp_path) == group_bytes("3:cpuset:/\n", tmp_path) == math.inf
