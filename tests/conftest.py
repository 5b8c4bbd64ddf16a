"""What every test shares: one thread per library, and the folders of data that are not in the repository."""

from __future__ import annotations

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; its pool follows this variable
os.environ.setdefault("MKL_NUM_THREADS", "1")

from pathlib import Path

import cv2
import pytest
import torch
from tiny import pictures

cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of real pictures, from SRKIT_TEST_DATA."""
    folder = os.environ.get("SRKIT_TEST_DATA")
    if not folder:
        pytest.skip("SRKIT_TEST_DATA is not set: it names the folder of real test pictures")
    if not Path(folder).is_dir():
        pytest.skip(f"SRKIT_TEST_DATA names {folder}, which is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def acceptance(test_data: Path) -> Path:
    """Folder of reference figures, beside the test data."""
    folder = test_data.parent / "acceptance"
    if not folder.is_dir():
        pytest.skip(f"no reference figures in {folder}")
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A working folder with four tiny pairs in data/; signal handlers and threads are put back afterwards."""
    pictures(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    saved = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    for number, handler in saved.items():
        signal.signal(number, handler)
