"""`srkit compare-runs`: what it says of two trainings, in words and as a picture."""

import json

import numpy as np
from tiny import in_process, options

from srkit.imaging.files import read_image
from srkit.tools.__main__ import main
from srkit.tools.chart import Panel, chart
from srkit.tools.compare_runs import directions, leaves, parting


def record(folder, records, yaml="name: x\n", **exit_json):
    folder.mkdir(parents=True)
    (folder / "options.yml").write_text(yaml)
    (folder / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    if exit_json:
        (folder / "exit.json").write_text(json.dumps(exit_json))
    return folder


def trained(iteration, loss, iteration_s=0.5):
    return {"kind": "train", "iteration": iteration, "l_pix": loss, "iteration_s": iteration_s, "lr": {"g": 1e-3}}


def validated(iteration, **values):
    return {"kind": "validation", "iteration": iteration, "set": "val", "weights": "params", **values}


def test_two_trainings_by_the_real_command_differ_in_what_was_set_otherwise_and_in_nothing_else(tiny, capsys):
    assert in_process(tiny, options(tiny, name="a", train__total_iter=4)) == 0
    assert in_process(tiny, options(tiny, name="b", train__total_iter=4, train__optim_g__lr=5e-3)) == 0
    capsys.readouterr()
    assert main(["compare-runs", "experiments/a", "experiments/b", "--out", "curves.png"]) == 0
    out = capsys.readouterr().out
    section = out[out.index("options that differ") : out.index("environments")].strip().splitlines()[1:]
    assert [line.split(":")[0].strip() for line in section] == ["name", "train.optim_g.lr"]
    saved = (tiny / "experiments/b/options.yml").read_text().splitlines()
    line = next(k for k, text in enumerate(saved, 1) if text.strip() == "lr: 0.005")
    assert f"train.optim_g.lr: A 0.001 (line {saved_line(tiny)}), B 0.005 (line {line})" in out
    assert "A  experiments/a: finished, iteration 4" in out
    assert read_image(tiny / "curves.png").std() > 0


def saved_line(tiny):
    lines = (tiny / "experiments/a/options.yml").read_text().splitlines()
    return next(k for k, text in enumerate(lines, 1) if text.strip() == "lr: 0.001")


def test_best_and_last_are_told_with_their_iterations_and_the_better_run_is_named(tmp_path, capsys):
    yaml = "val: {metrics: {psnr: {type: PSNR}, mse: {type: MSE}}}\n"
    a = record(tmp_path / "a", [validated(10, psnr=30.0, mse=0.2), validated(20, psnr=29.0, mse=0.3)], yaml)
    b = record(tmp_path / "b", [validated(10, psnr=28.0, mse=0.4), validated(20, psnr=31.5, mse=0.1)], yaml)
    assert main(["compare-runs", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert "val psnr: A best 30.0000 at 10, last 29.0000 at 20; B best 31.5000 at 20" in out
    assert "B is better by 1.5000" in out
    assert "val mse: A best 0.2000 at 10, last 0.3000 at 20; B best 0.1000 at 20" in out
    assert "B is better by 0.1000" in out  # lower is better


def test_curves_are_equal_up_to_where_they_part_and_the_lower_one_is_named():
    a = {10: 1.0, 20: 0.8, 30: 0.6, 40: 0.5}
    b = {10: 1.0, 20: 0.8, 30: 0.7, 40: 0.3}
    assert parting(a, b) == "equal up to 20, B is the lower one from 40 on; at 40 A 0.5, B 0.3"


def test_equal_curves_are_equal_and_curves_without_a_common_point_are_said_to_be():
    assert parting({10: 1.0, 20: 0.5}, {10: 1.0, 20: 0.5}) == "equal at all 2 common points, to 20"
    assert parting({10: 1.0}, {15: 1.0}) == "logged at different iterations"


def test_curves_that_differ_from_the_first_point_have_no_common_part():
    assert parting({10: 1.0, 20: 0.5}, {10: 2.0, 20: 0.7}) == (
        "differ from 10 on, A is the lower one from 10 on; at 20 A 0.5, B 0.7"
    )


def test_of_several_starts_the_last_ones_options_count(tmp_path, capsys):
    a, b = record(tmp_path / "a", [], "train: {lr: 1}\n"), record(tmp_path / "b", [], "train: {lr: 1}\n")
    for number in (2, 10):
        (b / f"options_{number}.yml").write_text(f"train: {{lr: {number}}}\n")
    assert main(["compare-runs", str(a), str(b)]) == 0
    assert "train.lr: A 1 (line 1), B 10 (line 1)" in capsys.readouterr().out


def test_a_run_that_was_killed_and_a_half_written_line_are_no_obstacle(tmp_path, capsys):
    a = record(tmp_path / "a", [trained(10, 0.5)], code=0, reason="finished", iteration=10)
    b = record(tmp_path / "b", [trained(10, 0.25)])
    with (b / "records.jsonl").open("a") as file:
        file.write('{"kind": "train", "iter')
    assert main(["compare-runs", str(a), str(b)]) == 0
    out = capsys.readouterr().out
    assert f"A  {a}: finished, iteration 10, 0.5 s an iteration" in out
    assert f"B  {b}: still running, or killed" in out


def test_a_folder_that_no_training_wrote_is_refused(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert main(["compare-runs", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "holds no options.yml" in capsys.readouterr().err


def test_sections_have_leaves_and_lists_are_one_value():
    assert leaves({"a": {"b": 1, "c": [1, 2]}, "d": {}}) == [(("a", "b"), 1), (("a", "c"), [1, 2]), (("d",), {})]


def test_the_direction_of_a_metric_is_its_classes_unless_the_file_says_otherwise():
    data = {
        "val": {"metrics": {"m": {"type": "MSE"}, "p": {"type": "PSNR"}, "x": {"type": "Unknown", "better": "lower"}}}
    }
    found = directions(data)
    assert (found["m"], found["p"], found["x"]) == ("lower", "higher", "lower")


def test_a_falling_curve_is_drawn_from_the_upper_left_to_the_lower_right():
    image = chart([Panel("l", {"A": {0: 1.0, 100: 0.01}}, is_log=True)])
    blue = np.argwhere((image == (31, 119, 180)).all(axis=2))
    blue = blue[blue[:, 0] > 30]  # without the legend
    left, right = blue[blue[:, 1].argmin()], blue[blue[:, 1].argmax()]
    assert left[0] < 60 < 200 < right[0]


def test_a_panel_of_a_loss_without_values_above_0_can_still_be_drawn():
    assert chart([Panel("l", {"A": {1: 0.0}, "B": {}}, is_log=True)]).shape[2] == 3
