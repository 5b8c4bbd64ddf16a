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
from tiny import options, pictures

cv2.setNumThreads(1)

JUDGE = '''
import torch
from torch import Tensor, nn
from srkit.registry import ARCHS

@ARCHS.register()
class TinyJudge(nn.Module):
    """Two convolutions, perhaps with batch norm."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.last = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))
'''


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


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """The file of a discriminator; one for all tests of a process, because a class can be registered once."""
    file = tmp_path_factory.mktemp("parts") / "tiny_judge.py"
    file.write_text(JUDGE)
    return file


@pytest.fixture
def gan(tiny, judge):
    """Options of a tiny adversarial training, whose judge lies in a file of its own."""

    def changed(**changes) -> dict:
        given = {
            "model_type": "ESRGANModel",
            "imports": [str(judge)],
            "network_d": {"type": "TinyJudge"},
            "train__optim_d": {"type": "Adam", "lr": 1e-3},
            "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
            **changes,
        }
        return options(tiny, **given)

    return changed
