"""A small valid training and test file for the option tests, and that they are valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srkit.errors import OptionError
from srkit.options import Options, load_options

TRAIN = """\
name: small_x2
model_type: SRModel
scale: 2
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: data/gt
    dataroot_lq: data/lq
    gt_size: 96
    batch_size_per_gpu: 4
  val:
    name: set5
    type: PairedImageDataset
    dataroot_gt: data/set5
network_g:
  type: EDSR
  num_feat: 16
  upscale: 2
train:
  total_iter: 1000
  optim_g: {type: Adam, lr: !!float 1e-4}
  scheduler: {type: MultiStepLR, milestones: [400, 800], gamma: 0.5}
  pixel_opt: {type: L1Loss}
"""

TEST = """\
name: small_x2_test
model_type: SRModel
scale: 2
datasets:
  test_1: {name: set5, type: PairedImageDataset, dataroot_gt: data/set5}
path: {pretrain_network_g: net_g_latest.pth}
"""


def write(folder: Path, text: str, name: str = "options.yml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str = TRAIN, mode: Any = "train", **more: Any) -> Options:
    return load_options(write(folder, text), mode=mode, **more)


def refusal(folder: Path, text: str, mode: Any = "train", **more: Any) -> str:
    """The report about a file that must be refused."""
    with pytest.raises(OptionError) as caught:
        load(folder, text, mode, **more)
    return str(caught.value)


def changed(old: str, new: str, text: str = TRAIN) -> str:
    """The sample with one place changed."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


@pytest.mark.parametrize(("text", "mode"), [(TRAIN, "train"), (TEST, "test")])
def test_the_samples_load_without_a_warning(tmp_path, text, mode):
    assert load(tmp_path, text, mode).warnings == ()
