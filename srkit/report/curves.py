"""Training curves from an experiment's records.jsonl."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from srkit.errors import DataError
from srkit.report import charts

_NOT_LOSSES = ("kind", "iteration", "epoch", "lr", "skipped", "iteration_s", "data_s", "set", "weights")


def training_curves(experiment: Path) -> list[str]:
    """SVGs: losses, learning rates, and a chart for each metric with a line for each set. DataError without records."""
    path = experiment / "records.jsonl"
    if not path.is_file():
        raise DataError(f"{path}: no such file; --experiment names a folder experiments/NAME that a training wrote")
    losses: dict[str, list[tuple[int, float]]] = defaultdict(list)
    rates: dict[str, list[tuple[int, float]]] = defaultdict(list)
    metrics: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break  # a line that was being written when the machine stopped
        values = {k: v for k, v in record.items() if k not in _NOT_LOSSES and isinstance(v, (int, float))}
        if record["kind"] == "train":
            for name, value in values.items():
                losses[name].append((record["iteration"], value))
            for name, value in record["lr"].items():
                rates[name].append((record["iteration"], value))
        else:
            for name, value in values.items():
                metrics[name][record["set"]].append((record["iteration"], value))
    drawn = []
    if losses:
        is_positive = all(value > 0 for points in losses.values() for _, value in points)
        drawn.append(charts.curves("losses", losses, log=is_positive))
    drawn += [charts.curves(f"validation: {name}", sets) for name, sets in metrics.items()]
    if rates:
        drawn.append(charts.curves("learning rate", rates))
    return drawn
