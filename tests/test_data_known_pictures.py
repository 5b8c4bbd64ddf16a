"""Pictures that are the same under two names are recognised by name and size, and warned about."""

from __future__ import annotations

import numpy as np
import pytest

from srkit.data import PairedImageDataset
from srkit.data.known_pictures import BSD100
from srkit.imaging.files import write_image

LANDSCAPE, PORTRAIT = (321, 481), (481, 321)


def warnings_of(folder, pictures: dict[str, tuple[int, int]], caplog, **options) -> str:
    for name, size in pictures.items():
        write_image(folder / name, np.full((*size, 3), 90, np.uint8))
    caplog.clear()
    PairedImageDataset(scale=(4, 4), dataroot_gt=str(folder), check="off", **options).check()
    return caplog.text


def test_the_list_has_the_hundred_pictures_of_the_benchmark():
    assert len(BSD100) == 100


def test_bsds500_val_is_recognised_as_bsd100(tmp_path, caplog):
    text = warnings_of(tmp_path, {"3096.jpg": LANDSCAPE, "101085.jpg": PORTRAIT, "100075.jpg": LANDSCAPE}, caplog)
    assert "2 pictures" in text
    assert "101085.jpg" in text
    assert "BSD100" in text
    assert "100075" not in text  # BSDS500 train


def test_copies_cut_to_a_multiple_of_the_scale_are_recognised(tmp_path, caplog):
    assert "BSD100" in warnings_of(tmp_path, {"3096.png": (312, 480)}, caplog)


def test_equal_numbers_of_another_size_are_other_pictures(tmp_path, caplog):
    assert warnings_of(tmp_path, {"3096.png": (100, 100), "302003.png": (480, 640)}, caplog) == ""


def test_the_photograph_of_set5_woman_is_recognised(tmp_path, caplog):
    assert "302003.jpg is the photograph of Set5's woman" in warnings_of(tmp_path, {"302003.jpg": PORTRAIT}, caplog)


@pytest.mark.parametrize(("t65", "found"), [((60, 80), True), ((60, 90), False), (None, False)])
def test_the_twins_of_t91_are_found_where_both_are_held(tmp_path, caplog, t65, found):
    pictures = {"t36.png": (60, 80)} | ({"t65.png": t65} if t65 else {})
    assert ("are one picture of T91" in warnings_of(tmp_path, pictures, caplog)) == found


def test_a_folder_below_the_root_does_not_hide_them(tmp_path, caplog):
    assert "BSD100" in warnings_of(tmp_path, {"images/val/3096.jpg": LANDSCAPE}, caplog, recursive=True)
