"""Published low-resolution pictures, bit for bit: which set was made with which border."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from srkit.imaging.files import read_image
from srkit.imaging.resize import imresize, mod_crop


def differing(gt_path, lq_path, scale, border):
    lq = read_image(lq_path)
    small = imresize(mod_crop(read_image(gt_path), scale), Fraction(1, scale), border=border)
    return small.shape != lq.shape or np.count_nonzero(small != lq)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("name", "count"), [("Set5", 5), ("Set14", 14)])
def test_selfexsr_copies_are_made_with_repeated_borders(test_data, name, count, scale):
    folder = test_data / "benchmark" / name / f"X{scale}"
    pictures = sorted((folder / "HR").iterdir())
    assert len(pictures) == count
    assert [p.name for p in pictures if differing(p, folder / "LR" / p.name, scale, "replicate")] == []


@pytest.mark.parametrize(("scale", "border"), [(2, "symmetric"), (3, "symmetric"), (4, "symmetric"), (8, "replicate")])
def test_pan_copies_are_made_with_mirrored_borders_but_for_x8(test_data, scale, border):
    folder = test_data / "benchmark" / "Set5_matlab"
    pairs = [(p, folder / "LR_bicubic" / f"X{scale}" / f"{p.stem}x{scale}.png") for p in (folder / "HR").iterdir()]
    assert len(pairs) == 5
    assert [gt.name for gt, lq in pairs if differing(gt, lq, scale, border)] == []
