"""What a test leaves behind: console table, metrics.csv, metrics.json, table.md. All made from the same rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srkit.engine.checkpoint import write_atomically
from srkit.engine.evaluator import SetResult


def metrics_csv(results: Sequence[SetResult]) -> str:
    """Long form, one value a line; infinity is written `inf`. A picture without a known group is a group of its own."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["set", "image", "group", "model", "metric", "protocol", "value"])
    for result in results:
        for row in result.rows:
            writer.writerow([result.name, row.image, row.group, row.method, row.metric, row.protocol, repr(row.value)])
    return out.getvalue()


def metrics_json(results: Sequence[SetResult], about: Mapping[str, Any]) -> str:
    """Summaries per set, method and metric, with protocols spelt out; `about` is copied in as it is."""
    sets = {
        result.name: {
            "images": result.images,
            "protocols": {m.name: {**asdict(m.protocol), "hash": m.protocol.hash} for m in result.metrics},
            "methods": {
                method: {m.name: result.summary(method, m.name) for m in result.metrics} for method in result.methods()
            },
        }
        for result in results
    }
    return json.dumps({**about, "sets": sets}, indent=1, allow_nan=False) + "\n"


def table_md(results: Sequence[SetResult], model: str = "model") -> str:
    """Markdown tables: one a set, a line a method; of several sets also one a metric. A model below interpolation is marked."""
    blocks = []
    for result in results:
        if not result.rows:
            blocks.append(f"{result.name}: {result.images} pictures restored, no gt to measure against\n")
            continue
        names = [f"{m.name} ({m.protocol.name})" for m in result.metrics]
        lines = [
            "| set | images | method | " + " | ".join(names) + " |",
            "|---" * (3 + len(names)) + "|",
        ]
        for method in result.methods():
            values = [_format(result, method, m.name, model) for m in result.metrics]
            lines.append(f"| {result.name} | {result.images} | {method} | " + " | ".join(values) + " |")
        blocks.append("\n".join(lines) + "\n")
    text = "\n".join([*blocks, *_across(results, model), *_spread(results)])
    return text + "\n(!) below the best interpolation\n" if "(!)" in text else text


def _spread(results: Sequence[SetResult]) -> list[str]:
    """One table for all sets: how far the single values lie from the means."""
    lines = []
    for result in results:
        for metric in result.metrics if result.rows else ():
            for method in result.methods():
                row = result.summary(method, metric.name)
                if row["sd"] is None:
                    continue
                between = "" if row["ci95"] is None else "{:.4f} to {:.4f}".format(*row["ci95"])
                numbers = " | ".join(f"{row[key]:.4f}" for key in ("mean", "sd", "median", "min", "max"))
                lines.append(
                    f"| {result.name} | {metric.name} | {method} | {numbers} | {between} | {row['n_groups']} |"
                )
    if not lines:
        return []
    head = ["| set | metric | method | mean | sd | median | min | max | 95 % of the mean | groups |", "|---" * 10 + "|"]
    return ["\n".join([*head, *lines]) + "\n"]


def _across(results: Sequence[SetResult], model: str) -> list[str]:
    """One table a metric with a column for each set, where all sets have the same metrics and methods."""
    measured = [r for r in results if r.rows]
    if len(measured) < 2 or any(
        (r.metrics, r.methods()) != (measured[0].metrics, measured[0].methods()) for r in measured
    ):
        return []
    tables = []
    for metric in measured[0].metrics:
        lines = [
            f"| {metric.name} | " + " | ".join(r.name for r in measured) + " |",
            "|---" * (1 + len(measured)) + "|",
        ]
        for method in measured[0].methods():
            values = " | ".join(_format(r, method, metric.name, model) for r in measured)
            lines.append(f"| {method} | {values} |")
        tables.append("\n".join(lines) + "\n")
    return tables


def _format(result: SetResult, method: str, metric: str, model: str) -> str:
    mean = result.mean(method, metric)
    text = f"{mean:.4f}" if math.isfinite(mean) else "inf"
    if math.isfinite(mean) and (identical := result.summary(method, metric)["n_identical"]):
        text += f" ({identical} identical left out)"
    named = next(m for m in result.metrics if m.name == metric)
    bar = result.bar(named) if method == model else None
    if bar is not None and (mean < bar[1] if named.better == "higher" else mean > bar[1]):
        text += " (!)"
    return text


def write_results(folder: Path, results: Sequence[SetResult], about: Mapping[str, Any], model: str = "model") -> None:
    """Writes the three files. Raises StorageError."""
    write_atomically(folder / "metrics.csv", metrics_csv(results).encode())
    write_atomically(folder / "metrics.json", metrics_json(results, about).encode())
    write_atomically(folder / "table.md", table_md(results, model).encode())
