"""What a test leaves behind: metrics.csv, metrics.json, table.md, table.tex. All made from the same rows."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from srkit.engine.checkpoint import write_atomically
from srkit.engine.evaluator import Row, SetResult
from srkit.engine.latex import table_tex
from srkit.engine.stored import COLUMNS
from srkit.engine.timing import TIMING_COLUMNS
from srkit.errors import StorageError
from srkit.metrics.summary import shown


def metrics_csv(results: Sequence[SetResult]) -> str:
    """Long form, one value a line; infinity is written `inf`. A picture without a known group is a group of its own."""
    return _lines([COLUMNS, *(_fields(result.name, row) for result in results for row in result.rows)])


def _fields(set_name: str, row: Row) -> tuple[str, ...]:
    return (set_name, row.image, row.group, row.method, row.metric, row.protocol, repr(row.value))


def _lines(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


class Journal:
    """Appends rows to metrics.csv while a test runs, so that a stopped one can go on. Raises StorageError.

    Args:
        known: Rows by set that stay.
    """

    def __init__(self, path: Path, known: Mapping[str, Sequence[Row]]) -> None:
        self.path = path
        kept = [_fields(name, row) for name, rows in known.items() for row in rows]
        write_atomically(path, _lines([COLUMNS, *kept]).encode())
        self._file = path.open("a", encoding="utf-8", newline="")

    def add(self, set_name: str, rows: Sequence[Row]) -> None:
        try:
            self._file.write(_lines(_fields(set_name, row) for row in rows))
            self._file.flush()
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written ({error.strerror})") from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def metrics_json(results: Sequence[SetResult], about: Mapping[str, Any]) -> str:
    """Summaries per set, method and metric, with protocols spelt out; `about` is copied in as it is."""
    sets = {
        result.name: {
            "images": result.images,
            "jpeg_gt": result.jpeg_gt,
            "baselines": list(result.baselines),
            "better": {m.name: m.better for m in result.metrics},
            "of_lq": [m.name for m in result.metrics if m.is_of_lq],
            "unavailable": {m.name: m.unavailable for m in result.metrics if m.unavailable},
            "protocols": {m.name: {**asdict(m.protocol), "hash": m.protocol.hash} for m in result.metrics},
            "timing": {method: asdict(timing) for method, timing in result.timings.items()},
            "methods": {
                method: {m.name: result.summary(method, m.name) for m in result.measured()}
                for method in result.methods()
            },
        }
        for result in results
    }
    return json.dumps({**about, "sets": sets}, indent=1, allow_nan=False) + "\n"


def table_md(results: Sequence[SetResult]) -> str:
    """Markdown tables: one a set, a line a method; of several sets also one a metric. A model below interpolation is marked."""
    blocks = []
    for result in results:
        if not result.rows:
            blocks.append(f"{result.name}: {result.images} pictures restored, {_why_unmeasured(result)}\n")
            continue
        names = [f"{m.name} ({m.protocol.name})" for m in result.metrics]
        lines = [
            "| set | images | method | " + " | ".join(names) + " |",
            "|---" * (3 + len(names)) + "|",
        ]
        for method in result.methods():
            values = [_format(result, method, m.name) for m in result.metrics]
            lines.append(f"| {set_label(result)} | {result.images} | {method} | " + " | ".join(values) + " |")
        blocks.append("\n".join(lines) + "\n")
    text = "\n".join([*blocks, *_across(results), *_spread(results), *_timing(results)])
    notes = [note for mark, note in _NOTES.items() if mark in text]
    return text + "".join(f"\n{note}\n" for note in [*notes, *_protocols(results)])


_NOTES = {
    "(!)": "(!) below the best interpolation",
    "(jpeg)": "(jpeg) gt are JPEG files: a network also learns their noise, and these figures are no measure of detail",
    "n/a": "n/a: the metric lacks a file or package here; the log says which",
}


def _protocols(results: Sequence[SetResult]) -> list[str]:
    """One line: every protocol with its hash, for a name alone may be of another version."""
    protocols = {m.protocol for r in results if r.rows for m in r.metrics}
    tags = {p.name if p.name.endswith(p.hash) else f"{p.name}#{p.hash}" for p in protocols}  # a custom name has it
    return [f"protocol: {', '.join(sorted(tags))}"] if tags else []


def set_label(result: SetResult) -> str:
    """Its name, marked where gt are JPEG files."""
    return f"{result.name} (jpeg)" if result.jpeg_gt else result.name


def _why_unmeasured(result: SetResult) -> str:
    missing = [m.name for m in result.metrics if m.unavailable]
    return f"n/a: {', '.join(missing)}" if missing else "no gt to measure against"


def _spread(results: Sequence[SetResult]) -> list[str]:
    """One table for all sets: how far the single values lie from the means."""
    lines = []
    for result in results:
        for metric in result.measured():
            for method in result.methods():
                row = result.summary(method, metric.name)
                if row["sd"] is None:
                    continue
                between = "" if row["ci95"] is None else " to ".join(map(shown, row["ci95"]))
                numbers = " | ".join(shown(row[key]) for key in ("mean", "sd", "median", "min", "max"))
                lines.append(
                    f"| {set_label(result)} | {metric.name} | {method} | {numbers} | {between} | {row['n_groups']} |"
                )
    if not lines:
        return []
    head = ["| set | metric | method | mean | sd | median | min | max | 95 % of the mean | groups |", "|---" * 10 + "|"]
    return ["\n".join([*head, *lines]) + "\n"]


def _timing(results: Sequence[SetResult]) -> list[str]:
    """One table for all sets, of the networks that were timed."""
    lines = [
        f"| {result.name} | {method} | " + " | ".join(text(asdict(timing)) for _, text in TIMING_COLUMNS) + " |"
        for result in results
        for method, timing in result.timings.items()
    ]
    if not lines:
        return []
    names = [name for name, _ in TIMING_COLUMNS]
    head = ["| set | model | " + " | ".join(names) + " |", "|---" * (2 + len(names)) + "|"]
    return ["\n".join([*head, *lines]) + "\n"]


def _across(results: Sequence[SetResult]) -> list[str]:
    """One table a metric with a column for each set, where all sets have the same metrics and methods."""
    measured = [r for r in results if r.rows]
    if len(measured) < 2 or any(
        (r.metrics, r.methods()) != (measured[0].metrics, measured[0].methods()) for r in measured
    ):
        return []
    tables = []
    for metric in measured[0].metrics:
        lines = [
            f"| {metric.name} | " + " | ".join(set_label(r) for r in measured) + " |",
            "|---" * (1 + len(measured)) + "|",
        ]
        for method in measured[0].methods():
            values = " | ".join(_format(r, method, metric.name) for r in measured)
            lines.append(f"| {method} | {values} |")
        tables.append("\n".join(lines) + "\n")
    return tables


def _format(result: SetResult, method: str, metric: str) -> str:
    named = next(m for m in result.metrics if m.name == metric)
    if named not in result.measured():
        return "n/a"
    mean = result.mean(method, metric)
    text = shown(mean) if math.isfinite(mean) else "inf"
    if math.isfinite(mean) and (identical := result.summary(method, metric)["n_identical"]):
        text += f" ({identical} identical left out)"
    bar = None if method in result.baselines else result.bar(named)
    if bar is not None and (mean < bar[1] if named.better == "higher" else mean > bar[1]):
        text += " (!)"
    return text


def write_results(folder: Path, results: Sequence[SetResult], about: Mapping[str, Any]) -> None:
    """Writes the four files. Raises StorageError."""
    write_atomically(folder / "metrics.csv", metrics_csv(results).encode())
    write_atomically(folder / "metrics.json", metrics_json(results, about).encode())
    write_atomically(folder / "table.md", table_md(results).encode())
    write_atomically(folder / "table.tex", table_tex(results).encode())
