"""Results as they lie on disk: what a report, a paired comparison and a resumed test begin with."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srkit.engine.evaluator import Row
from srkit.errors import DataError

COLUMNS = ("set", "image", "group", "model", "metric", "protocol", "value")


@dataclass(frozen=True)
class StoredResults:
    """A folder results/NAME.

    Attributes:
        rows: By set, in the order of metrics.csv.
        about: metrics.json as it is; without "sets" while the test has not ended.
    """

    folder: Path
    rows: dict[str, list[Row]]
    about: dict[str, Any]

    def methods(self, set_name: str) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows[set_name]))

    def models(self, set_name: str) -> list[str]:
        """The methods that are networks."""
        return [m for m in self.methods(set_name) if m in self.about.get("models", {})]

    def metrics(self, set_name: str) -> list[str]:
        return list(dict.fromkeys(row.metric for row in self.rows[set_name]))

    def images(self, set_name: str) -> list[str]:
        """Names in the order of the dataset."""
        return list(dict.fromkeys(row.image for row in self.rows[set_name]))

    def values(self, set_name: str, method: str, metric: str) -> dict[str, Row]:
        """Rows by picture."""
        return {r.image: r for r in self.rows[set_name] if r.method == method and r.metric == metric}

    def protocol(self, set_name: str, metric: str) -> str:
        """name#hash. Raises DataError when one column holds two."""
        found = sorted({r.protocol for r in self.rows[set_name] if r.metric == metric})
        if len(found) != 1:
            raise DataError(f"{self.folder}: {set_name}, {metric} was measured under {' and '.join(found)}; test again")
        return found[0]

    def mean(self, set_name: str, method: str, metric: str) -> float:
        """Infinite when every picture is identical to its gt."""
        found = self.about["sets"][set_name]["methods"][method][metric]["mean"]
        return math.inf if found is None else float(found)

    def bar(self, set_name: str, metric: str) -> str | None:
        """As `SetResult.bar`: the interpolation that a network has to beat."""
        told = self.about["sets"][set_name]
        found = [m for m in told["baselines"] if metric in told["methods"].get(m, {})]
        if not found or metric in told.get("of_lq", ()):
            return None
        choose = max if self.better(set_name, metric) == "higher" else min
        return choose(found, key=lambda method: self.mean(set_name, method, metric))

    def better(self, set_name: str, metric: str) -> str:
        """ "higher" or "lower"."""
        return str(self.about["sets"][set_name]["better"][metric])


def read_results(folder: Path) -> StoredResults:
    """The results of a finished test. Raises DataError for a folder that holds none."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected results/NAME, which srkit/test.py writes")
    rows, about = read_parts(folder)
    if "sets" not in about or not (folder / "metrics.csv").is_file():
        raise DataError(
            f"{folder}: no finished test; expected metrics.csv and metrics.json, which srkit/test.py writes "
            "(an interrupted test goes on with --resume)"
        )
    if not rows:
        raise DataError(f"{folder}: metrics.csv holds no values; sets without gt can be looked at, not compared")
    return StoredResults(folder, rows, about)


def read_parts(folder: Path) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Rows by set and metrics.json, as far as they were written; a line that was cut short is left out."""
    rows: dict[str, list[Row]] = {}
    try:
        table = folder / "metrics.csv"
        whole = table.read_text(encoding="utf-8") if table.is_file() else ""
        reader = csv.DictReader(io.StringIO(whole[: whole.rfind("\n") + 1]))
        if whole and tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{table}: found columns {reader.fieldnames}, expected {', '.join(COLUMNS)}")
        for line in reader:
            value = float(line["value"])
            row = Row(line["image"], line["model"], line["metric"], line["protocol"], value, line["group"])
            rows.setdefault(line["set"], []).append(row)
        record = folder / "metrics.json"
        about = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder}: metrics.csv or metrics.json cannot be read ({error}); test again") from error
    return rows, about
