"""Paired comparisons of stored results: a model against another, and against the best interpolation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from srkit.engine.evaluator import Row
from srkit.engine.stored import StoredResults
from srkit.errors import DataError
from srkit.metrics.paired import Comparison, compare
from srkit.metrics.summary import shown


@dataclass(frozen=True)
class NamedComparison:
    """Of which set and metric, and whom against whom; `protocol` is name#hash."""

    set_name: str
    metric: str
    protocol: str
    better: str
    first: str
    second: str
    result: Comparison


def compare_within(results: StoredResults) -> list[NamedComparison]:
    """Every model against the best interpolation, and every model against those before it; not one whose values are all
    infinite, from which nothing has a finite distance."""
    found = []
    for name in results.rows:
        models = results.models(name)
        for metric in results.metrics(name):
            for index, model in enumerate(models):
                bar = results.bar(name, metric)
                for other in [*([bar] if bar else []), *models[:index]]:
                    if all(math.isfinite(results.mean(name, method, metric)) for method in (model, other)):
                        found.append(_one(results, results, name, metric, model, other))
    return found


def compare_between(first: StoredResults, second: StoredResults) -> list[NamedComparison]:
    """Every model of `first` against every model of `second`, on the sets and metrics that both have.

    Raises: DataError when they have none in common, or measured other pictures or by other protocols.
    """
    found = [
        _one(first, second, name, metric, a, b)
        for name in first.rows
        if name in second.rows
        for metric in first.metrics(name)
        if metric in second.metrics(name)
        for a in first.models(name)
        for b in second.models(name)
    ]
    if not found:
        raise DataError(
            f"{first.folder} has sets {', '.join(first.rows)}, {second.folder} has {', '.join(second.rows)}; "
            "expected a set and metric that both have"
        )
    return found


def _one(
    ours: StoredResults, theirs: StoredResults, name: str, metric: str, first: str, second: str
) -> NamedComparison:
    protocols = [results.protocol(name, metric) for results in (ours, theirs)]
    if protocols[0] != protocols[1]:
        raise DataError(
            f"{name}, {metric}: {ours.folder} measured by {protocols[0]}, {theirs.folder} by {protocols[1]}; "
            "test both with the same val section"
        )
    measures = [results.about.get("measures", {}).get(metric) for results in (ours, theirs)]
    if measures[0] != measures[1] and None not in measures:
        raise DataError(
            f"{name}, {metric}: {ours.folder} measured {measures[0]}, {theirs.folder} {measures[1]}; "
            "test both with the same val section"
        )
    rows: list[dict[str, Row]] = [ours.values(name, first, metric), theirs.values(name, second, metric)]
    mine, other = ({image: row.value for image, row in part.items()} for part in rows)
    better = ours.better(name, metric)
    try:
        result = compare(
            mine,
            other,
            {image: row.group for image, row in rows[0].items()},
            "lower" if better == "lower" else "higher",
        )
    except DataError as error:
        raise DataError(f"{name}, {metric}, {first} against {second}: {error}") from None
    labels = (first, second) if first != second else (f"{ours.folder}: {first}", f"{theirs.folder}: {second}")
    return NamedComparison(name, metric, protocols[0], better, *labels, result)


COLUMNS = ("set", "metric", "first", "second", "first - second", "95 %", "p", "effect", "better in", "images")


def cells(item: NamedComparison) -> tuple[str, ...]:
    """The texts of one line, by COLUMNS."""
    result = item.result
    return (
        item.set_name,
        item.metric,
        item.first,
        item.second,
        shown(result.mean, "+"),
        "" if result.ci95 is None else " to ".join(shown(value, "+") for value in result.ci95),
        "" if result.p is None else f"{result.p:.3g}",
        "" if result.effect is None else f"{result.effect:+.2f}",
        f"{result.better} of {len(result.groups)}",
        str(result.n_images),
    )


def told_groups(item: NamedComparison) -> str:
    """The groups' own differences."""
    return ", ".join(f"{group} {shown(value, '+')}" for group, value in item.result.groups.items())


def table(items: Sequence[NamedComparison]) -> str:
    """Markdown, with the groups' own differences where they are too few for an interval."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(cells(item)) + " |" for item in items]
    notes = []
    for item in items:
        result = item.result
        where = f"{item.set_name}, {item.metric}, {item.first} - {item.second}"
        if result.p is None:
            told = told_groups(item)
            notes.append(f"{where}: {len(result.groups)} groups are too few for an interval or a test: {told}")
        if result.n_identical:
            notes.append(f"{where}: {result.n_identical} pictures with an infinite value in one of the two left out")
    tests = sorted({item.result.test for item in items if item.result.p is not None})
    notes += [f"{t}; 95 %: bootstrap over groups; effect: rank-biserial, above 0 is better" for t in tests]
    notes += sorted({f"{item.metric}: {item.protocol}, {item.better} is better" for item in items})
    return "\n".join([*lines, "", *notes]) + "\n"
