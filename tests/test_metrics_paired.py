"""Paired comparison: textbook numbers, groups, what is too few, and the command."""

import itertools
import json

import numpy as np
import pytest
from compared import compare as run_test
from compared import model

from srkit.errors import DataError
from srkit.metrics.paired import compare, rank_biserial
from srkit.tools.paired import run as paired


def values(*numbers):
    return {f"p{n}": float(v) for n, v in enumerate(numbers)}


def alone(names):
    return {name: name for name in names}


def test_six_gains_without_a_loss_have_the_smallest_exact_p():
    first, second = values(1, 2.1, 3.3, 4.6, 6, 7.5), values(0, 1, 2, 3, 4, 5)
    result = compare(first, second, alone(first), "higher")
    assert result.p == pytest.approx(2 / 2**6)  # two of the 64 sign patterns are this extreme
    assert "exact" in result.test
    assert result.effect == 1.0
    assert (result.better, result.worse) == (6, 0)


def test_p_is_the_share_of_sign_patterns_at_least_as_extreme():
    differences = np.array([0.5, -1.0, 2.0, 3.5, -0.2, 4.0, 5.5])
    ranks = np.argsort(np.argsort(np.abs(differences))) + 1
    seen = abs((ranks * np.sign(differences)).sum())
    patterns = [abs((ranks * np.array(s)).sum()) for s in itertools.product((-1, 1), repeat=7)]
    first = values(*differences)
    result = compare(first, values(*np.zeros(7)), alone(first), "higher")
    assert result.p == pytest.approx(np.mean([p >= seen for p in patterns]))


def test_the_effect_is_the_difference_of_the_shares_of_ranks():
    assert rank_biserial(np.array([1.0, -2.0, 3.0, 0.0])) == pytest.approx((1 + 3 - 2) / 6)


def test_a_metric_where_lower_is_better_turns_the_effect_but_not_the_difference():
    first, second = values(0, 0, 0, 0, 0, 0), values(1, 2, 3, 4, 5, 6)
    result = compare(first, second, alone(first), "lower")
    assert result.mean == pytest.approx(-3.5)
    assert result.effect == 1.0
    assert result.better == 6


def test_differences_are_averaged_within_groups_before_anything_else():
    first, second = values(1, 3, 10), values(0, 0, 0)
    result = compare(first, second, {"p0": "a", "p1": "a", "p2": "b"}, "higher")
    assert result.groups == {"a": 2.0, "b": 10.0}
    assert result.mean == 6.0
    assert result.n_images == 3


def test_five_groups_get_values_but_no_interval_and_no_p():
    first = values(1, 2, 3, 4, 5)
    result = compare(first, values(0, 0, 0, 0, 0), alone(first), "higher")
    assert (result.ci95, result.p, result.effect) == (None, None, None)
    assert list(result.groups.values()) == [1, 2, 3, 4, 5]


def test_a_constant_difference_has_an_interval_without_width():
    first = values(*[3.0] * 8)
    result = compare(first, values(*[2.5] * 8), alone(first), "higher")
    assert result.ci95 == [0.5, 0.5]


def test_ties_are_said_to_be_approximated():
    first = values(*[1.0] * 8)
    assert "approximation" in compare(first, values(*[0.0] * 8), alone(first), "higher").test


def test_equal_methods_have_p_1_and_no_effect():
    first = values(*range(7))
    result = compare(first, dict(first), alone(first), "higher")
    assert (result.p, result.effect, result.mean) == (1.0, 0.0, 0.0)


def test_pictures_identical_in_both_are_equal_and_in_one_are_left_out():
    first, second = values(np.inf, np.inf, 3), values(np.inf, 2, 1)
    result = compare(first, second, alone(first), "higher")
    assert result.groups == {"p0": 0.0, "p2": 2.0}
    assert result.n_identical == 1


def test_different_pictures_are_refused():
    with pytest.raises(DataError, match=r"2 are in one only.*first: p1"):
        compare({"p0": 1.0, "p1": 1.0}, {"p0": 1.0, "p2": 1.0}, {}, "higher")


class Flags:
    def __init__(self, results, other=None):
        self.results, self.other = results, other


def test_a_test_of_two_models_compares_each_with_interpolation_and_with_each_other(tiny, capsys):
    assert run_test(tiny, model(tiny / "a.pth", 0), model(tiny / "b.pth", 1)) == 0
    capsys.readouterr()
    paired(Flags(tiny / "results/compared"))
    out = capsys.readouterr().out
    told = json.loads((tiny / "results/compared/metrics.json").read_text())["sets"]["val"]["methods"]
    gain = told["b"]["psnr"]["mean"] - told["a"]["psnr"]["mean"]
    assert f"| val | psnr | b | a | {gain:+.4f} |" in out
    assert "| a | bicubic-matlab |" in out
    assert "4 groups are too few" in out


def test_two_folders_are_compared_and_must_hold_the_same_pictures_under_the_same_protocol(tiny, capsys):
    for n, name in enumerate("ab"):
        assert run_test(tiny, model(tiny / f"{name}.pth", n), name=name) == 0
    capsys.readouterr()
    paired(Flags(tiny / "results/a", tiny / "results/b"))
    assert "| val | psnr | a | b |" in capsys.readouterr().out
    border = {"psnr": {"type": "calculate_psnr", "crop_border": 4}}
    assert run_test(tiny, tiny / "b.pth", name="c", val__metrics=border) == 0
    with pytest.raises(DataError, match=r"measured by custom:.*test both with the same val section"):
        paired(Flags(tiny / "results/a", tiny / "results/c"))
    for half in ("gt", "lq"):
        (tiny / f"data/{half}/p3.png").unlink()
    assert run_test(tiny, tiny / "b.pth", name="d") == 0
    with pytest.raises(DataError, match=r"different pictures: 1 are in one only \(first: p3\)"):
        paired(Flags(tiny / "results/a", tiny / "results/d"))


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        paired(Flags(tmp_path / "nothing"))
    with pytest.raises(DataError, match="no finished test"):
        paired(Flags(tmp_path))
