"""The audit: nuclei counted where their number is known, matched one to one, and the command that tells what was invented."""

import csv
import json

import numpy as np
import pytest

from srkit.errors import DataError
from srkit.imaging.files import read_image, write_image
from srkit.metrics.nuclei import find_nuclei, same_nuclei
from srkit.tools.__main__ import main
from srkit.tools.audit import Count

DIAMETER = 16
EOSIN, HAEMATOXYLIN = (236, 170, 205), (90, 60, 140)


def field(places, size: int = 160, diameter: float = DIAMETER) -> np.ndarray:
    """Discs of the nuclear colour on that of the rest, with a soft edge and a little seeded texture."""
    rows, columns = np.mgrid[:size, :size]
    image = np.empty((size, size, 3))
    image[:] = EOSIN
    for row, column in places:
        away = np.hypot(rows - row, columns - column)
        share = np.clip(diameter / 2 - away + 0.5, 0, 1)[..., None]
        image = image * (1 - share) + np.array(HAEMATOXYLIN) * share
    texture = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(np.rint(image + texture), 0, 255).astype(np.uint8)


GRID = [(row, column) for row in range(24, 150, 28) for column in range(24, 150, 28)]


def test_a_field_of_25_nuclei_has_25_at_their_places():
    found = find_nuclei(field(GRID), diameter_px=DIAMETER).centres
    assert len(found) == len(GRID) == 25
    pairs = same_nuclei(found, np.array(GRID, float), 1.0)
    assert len(pairs) == 25


def test_touching_nuclei_are_two():
    pairs = [(40, 40), (40, 55), (110, 40), (110, 55)]
    assert len(find_nuclei(field(pairs), diameter_px=DIAMETER).centres) == 4


def test_specks_are_no_nuclei():
    specks = np.minimum(field(GRID), field([(10, 10), (150, 10)], diameter=5))
    assert len(find_nuclei(specks, diameter_px=DIAMETER).centres) == 25


def test_nuclei_at_the_border_count():
    assert len(find_nuclei(field([(1, 80), (80, 80), (158, 80)]), diameter_px=DIAMETER).centres) == 3


def test_the_threshold_of_gt_holds_for_a_paler_picture():
    """A picture that lost its contrast has fewer nuclei by gt's threshold; by a threshold of its own it would hide that."""
    image = field(GRID)
    truth = find_nuclei(image, diameter_px=DIAMETER)
    pale = np.rint(np.array(EOSIN) + 0.2 * (image.astype(float) - EOSIN)).clip(0, 255).astype(np.uint8)
    assert len(find_nuclei(pale, diameter_px=DIAMETER, threshold=truth.threshold).centres) == 0
    assert len(find_nuclei(pale, diameter_px=DIAMETER).centres) == 25


def test_a_picture_of_16_bit_has_the_same_nuclei():
    image = field(GRID)
    deep = image.astype(np.uint16) * 257
    found = [find_nuclei(i, diameter_px=DIAMETER, data_range=r).centres for i, r in ((image, 255.0), (deep, 65535.0))]
    assert np.array_equal(*found)


def test_one_nucleus_is_the_partner_of_one():
    pairs = same_nuclei(np.array([[0.0, 0.0], [0.0, 2.0]]), np.array([[0.0, 1.0]]), 3.0)
    assert len(pairs) == 1


def test_as_many_as_can_be_are_paired_even_where_the_nearest_would_take_anothers_place():
    # b is nearest to both; taking it for the first leaves the second alone.
    first, second = np.array([[0.0, 0.0], [0.0, 3.0]]), np.array([[0.0, 1.6], [0.0, -2.5]])
    assert sorted(map(tuple, same_nuclei(first, second, 3.0))) == [(0, 1), (1, 0)]


def test_nothing_beyond_the_radius_is_the_same():
    assert len(same_nuclei(np.array([[0.0, 0.0]]), np.array([[0.0, 3.1]]), 3.0)) == 0
    assert len(same_nuclei(np.empty((0, 2)), np.array([[0.0, 0.0]]), 3.0)) == 0


def test_precision_recall_and_f1_by_hand():
    count = Count(both=6, invented=2, lost=4)
    assert (count.precision, count.recall, count.f1) == (0.75, 0.6, pytest.approx(2 / 3))
    assert Count(0, 0, 0).f1 is None


@pytest.mark.parametrize(
    ("image", "message"),
    [(np.zeros((9, 9, 1), np.uint8), "RGB"), (np.zeros((99, 99, 3), np.uint8), "no pixel differs")],
)
def test_pictures_without_colour_or_content_are_refused(image, message):
    with pytest.raises(DataError, match=message):
        find_nuclei(image, diameter_px=DIAMETER)


# The command.


@pytest.fixture
def here(tmp_path, monkeypatch):
    """gt of 25 nuclei each; the first sr lacks two and has one of its own, the second is gt."""
    monkeypatch.chdir(tmp_path)
    for name in ("a_1", "b_1"):
        write_image(tmp_path / "gt" / f"{name}.png", field(GRID))
    write_image(tmp_path / "sr/a_1_sr.png", field([*GRID[2:], (38, 66)]))
    write_image(tmp_path / "sr/b_1_sr.png", field(GRID))
    return tmp_path


def audit(*words) -> int:
    return int(main(["audit", "-i", "sr", "-gt", "gt", *words]))


BASE = ["--bicubic", "2", "--diameter_px", str(DIAMETER), "-o", "out"]


def test_the_audit_counts_what_was_invented_and_lost(here, capsys):
    assert audit(*BASE, "--key", "^([ab])_") == 0
    told = json.loads((here / "out/nuclei.json").read_text())
    keys = ("both", "invented", "lost")
    assert [told["pictures"]["a_1"]["sr"][k] for k in keys] == [23, 1, 2]
    assert [told["pictures"]["b_1"]["sr"][k] for k in keys] == [25, 0, 0]
    assert [told["all"]["sr"][k] for k in keys] == [48, 1, 2]
    assert [told["all"]["gt + noise"][k] for k in keys] == [50, 0, 0]
    assert told["groups"]["a"] == told["pictures"]["a_1"]
    with (here / "out/nuclei.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["group"], r["method"]) for r in rows[:3]] == [
        ("a_1", "a", "sr"), ("a_1", "a", "bicubic"), ("a_1", "a", "gt + noise"),
    ]  # fmt: skip
    assert "| 2 | sr | 48 | 1 | 2 | 0.9796 | 0.9600 | 0.9697 |" in (here / "out/table.md").read_text()
    assert (here / "out/table.md").read_text() in capsys.readouterr().out


def test_the_overlay_rings_the_invented_in_yellow_and_the_lost_in_cyan(here):
    audit(*BASE)
    overlay = read_image(here / "out/overlays/a_1.jpg").astype(int)
    top, side = overlay.shape[0] - 160, 160 + 4
    ring = round(DIAMETER * 0.75)
    invented = overlay[top + 38 - ring, side + 66]
    lost = overlay[top + 24 - ring, side + 24]
    assert min(invented[0], invented[1]) - invented[2] > 80
    assert min(lost[1], lost[2]) - lost[0] > 80


def test_bicubic_is_made_of_the_lq_that_is_named(here):
    from fractions import Fraction

    from srkit.imaging.resize import imresize

    for name in ("a_1", "b_1"):
        write_image(here / f"lq/{name}.png", imresize(field(GRID), Fraction(1, 2)))
    assert audit("-lq", "lq", *BASE[2:]) == 0
    first = json.loads((here / "out/nuclei.json").read_text())["all"]
    assert audit(*BASE[:-1], "again") == 0
    assert json.loads((here / "again/nuclei.json").read_text())["all"] == first


def test_microns_and_pixels_say_the_same(here):
    assert audit("--bicubic", "2", "--mpp", "0.5", "-o", "out") == 0
    assert json.loads((here / "out/nuclei.json").read_text())["diameter_px"] == 16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bicubic", "1", *BASE[2:]], "--bicubic: found 1"),
        (["--bicubic", "2", "--mpp", "2", "-o", "out"], "4.0 pixels across, expected 6 or more"),
        (["--bicubic", "2", "--mpp", "-1", "-o", "out"], "--mpp: found -1"),
        ([*BASE, "--diameter_um", "8"], "--diameter_um: needs --mpp"),
        ([*BASE, "--filename_tmpl", "{}"], "audit -i"),
        (["-lq", "nowhere", *BASE[2:]], "-lq nowhere: no such folder"),
        ([*BASE[:-1], "gt"], "gt exists"),
        ([*BASE, "--key", "^(x)_"], "2 of 2 pictures have no group"),
    ],
)
def test_what_cannot_be_audited_is_refused_and_leaves_nothing(here, capsys, words, message):
    assert audit(*words) == 2
    assert message in capsys.readouterr().err
    assert not (here / "out").exists()


def test_sr_of_another_size_is_refused(here, capsys):
    write_image(here / "sr/b_1_sr.png", field(GRID)[:100])
    assert audit(*BASE) == 2
    assert "expected equal sizes" in capsys.readouterr().err


def test_grey_pictures_are_refused(here, capsys):
    for place in ("gt/b_1.png", "sr/b_1_sr.png"):
        write_image(here / place, field(GRID)[..., :1])
    assert audit(*BASE) == 2
    assert "stains need RGB pictures" in capsys.readouterr().err
