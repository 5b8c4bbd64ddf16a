"""results/NAME/report.html: everything a test found on one page that needs no network and no other file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srkit.engine import paired
from srkit.engine.checkpoint import write_atomically
from srkit.engine.evaluator import is_better
from srkit.engine.log import logger
from srkit.engine.stored import StoredResults, read_results
from srkit.engine.timing import TIMING_COLUMNS
from srkit.errors import RefusedError
from srkit.metrics.summary import decimals, places, shown
from srkit.report import charts
from srkit.report.curves import training_curves
from srkit.report.looking import Look, looks
from srkit.report.needs import require
from srkit.report.pictures import ERROR_SPAN, Gallery
from srkit.report.trust import trust

MAX_BYTES = 15_000_000
_PICTURE_BYTES = 12_000_000


@dataclass(frozen=True)
class Cell:
    text: str
    style: str = ""


@dataclass(frozen=True)
class Table:
    """`left`: columns whose text begins at the left, the first aside."""

    head: Sequence[str]
    rows: list[list[Cell]]
    left: frozenset[int] = frozenset()


def write_report(folder: Path, experiment: Path | None = None) -> Path:
    """Writes folder/report.html, below 15 MB, and returns its path.

    Args:
        experiment: Folder of the training whose curves are drawn; default: the one the only model's file lies in.

    Raises: DataError for a folder without results or an experiment without records, RefusedError without the packages.
    What hinders pictures alone is said on the page.
    """
    require()
    results = read_results(folder)
    shown, reasons = _looks(results)
    for reason in reasons:
        logger.warning("report: no pictures: %s", reason)
    notes = [f"No pictures: {reason}" for reason in reasons]
    trusted, why_not = trust(results)
    notes += [why_not] if why_not else []
    experiment = experiment or _experiment(results)
    compared = paired.compare_within(results)
    content = {
        "title": f"Results of {results.about['name']}",
        "subtitle": _subtitle(results),
        "notes": notes,
        "values": _values(results),
        "value_notes": _value_notes(results),
        "paired": _paired(compared),
        "paired_groups": [
            (f"{c.set_name}, {c.metric}, {c.first} - {c.second}", paired.told_groups(c))
            for c in compared
            if c.result.p is None
        ],
        "spread": _spread(results),
        "looks": shown,
        "trust": trusted,
        "trust_table": _trust_table(trusted.rows) if trusted else None,
        "error_percent": f"{100 * ERROR_SPAN:.0f}",
        "timing": _timing(results),
        "training": training_curves(experiment) if experiment else [],
        "protocols": _protocols(results),
        "models": _models(results),
        "environment": _environment(results),
        "options": (folder / "options.yml").read_text() if (folder / "options.yml").is_file() else "",
    }
    contents = {
        "values": "Values", "paired": "Paired differences", "spread": "Spread", "looks": "Pictures", "trust": "Confidence",
        "timing": "Time and memory", "training": "Training", "protocols": "Protocol",
    }  # fmt: skip
    ids = {"looks": "pictures", "protocols": "protocol"}
    content["contents"] = [(ids.get(key, key), name) for key, name in contents.items() if content[key]]
    page = _render(content)
    if len(page) > MAX_BYTES:
        logger.warning("the page has %.1f MB; fewer sets in one test make it smaller", len(page) / 1e6)
    write_atomically(folder / "report.html", page)
    return folder / "report.html"


def _looks(results: StoredResults) -> tuple[list[Look], list[str]]:
    """The pictures to show, and why there are none, of a set or at all."""
    try:
        return looks(results, Gallery(results), _PICTURE_BYTES)
    except RefusedError as error:
        return [], [str(error)]


def _render(content: dict[str, Any]) -> bytes:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # panels keep their order
    return environment.get_template("page.html.j2").render(content).encode()


def _experiment(results: StoredResults) -> Path | None:
    """experiments/NAME of the only model, where its records still are."""
    models = list(results.about["models"].values())
    folder = Path(models[0]["model_file"]).parent.parent
    return folder if len(models) == 1 and (folder / "records.jsonl").is_file() else None


def _subtitle(results: StoredResults) -> str:
    about = results.about
    scale = "x".join(map(str, about["scale"]))
    sets = "; ".join(f"{name}, {told['images']} images" for name, told in about["sets"].items())
    return f"scale {scale}; {about['precision']} inference; {sets}; srkit {about['environment']['srkit']}"


def _columns(results: StoredResults) -> list[tuple[str, str]]:
    """Metric and protocol: one column each, so that two hashes never share one."""
    found = [(metric, results.protocol(name, metric)) for name in results.rows for metric in results.metrics(name)]
    return list(dict.fromkeys(found))


def _values(results: StoredResults) -> Table:
    columns = _columns(results)
    rows = []
    for name in results.rows:
        told = results.about["sets"][name]
        label = f"{name} (jpeg)" if told["jpeg_gt"] else name
        ranks = {metric: _places(results, name, metric) for metric in results.metrics(name)}
        for method in results.methods(name):
            row = [Cell(label), Cell(method), Cell(str(told["images"]))]
            for metric, protocol in columns:
                has = method in ranks.get(metric, ()) and results.protocol(name, metric) == protocol
                row.append(_mean(results, name, method, metric, ranks[metric][method]) if has else Cell("n/a"))
            rows.append(row)
    arrows = {metric: results.better(name, metric) for name in results.rows for metric in results.metrics(name)}
    head = ["set", "method", "images"]
    head += [f"{metric} {'↑' if arrows[metric] == 'higher' else '↓'} ({p.split('#')[0]})" for metric, p in columns]
    return Table(head, rows, frozenset({1}))


def _places(results: StoredResults, name: str, metric: str) -> dict[str, int]:
    methods = results.about["sets"][name]["methods"]
    means = {method: results.mean(name, method, metric) for method in methods if metric in methods[method]}
    return places(means, results.better(name, metric), decimals(means.values()))


def _mean(results: StoredResults, name: str, method: str, metric: str, place: int) -> Cell:
    value = results.mean(name, method, metric)
    text = shown(value) if math.isfinite(value) else "identical"
    bar = None if method in results.about["sets"][name]["baselines"] else results.bar(name, metric)
    if bar and is_better(results.mean(name, bar, metric), value, results.better(name, metric)):
        text += " (!)"
    return Cell(text, "best" if place == 0 else "second" if place == 1 else "")


def _value_notes(results: StoredResults) -> list[str]:
    notes = []
    for name, told in results.about["sets"].items():
        if told["jpeg_gt"]:
            notes.append(
                f"{name}: {told['jpeg_gt']} of {told['images']} gt are JPEG files; a network also learns their noise, and "
                "such figures are no measure of detail."
            )
        notes += [f"{name}, {metric}: n/a; {why}" for metric, why in told["unavailable"].items()]
        if name not in results.rows:
            notes.append(f"{name}: {told['images']} pictures restored, no gt to measure against.")
    return notes


def _paired(items: Sequence[paired.NamedComparison]) -> Table | None:
    rows = [[Cell(text) for text in paired.cells(item)] for item in items]
    return Table(paired.COLUMNS, rows, frozenset({1, 2, 3})) if rows else None


def _spread(results: StoredResults) -> list[str]:
    drawn = []
    for name in results.rows:
        methods, metrics = results.methods(name), results.metrics(name)
        colour = charts.colours(methods, results.models(name))
        values = {
            metric: {method: [r.value for r in results.values(name, method, metric).values()] for method in methods}
            for metric in metrics
        }
        drawn += [charts.distribution(f"{name}: {metric}", found, colour) for metric, found in values.items()]
        if len(metrics) > 1:
            across, up = ("psnr", "ssim") if {"psnr", "ssim"} <= set(metrics) else metrics[:2]
            both = {method: (values[across][method], values[up][method]) for method in methods}
            drawn.append(charts.scatter(f"{name}: {across}", up, both, colour))
    return drawn


def _trust_table(rows: Sequence[Sequence[str]]) -> Table:
    return Table(rows[0], [[Cell(text) for text in row] for row in rows[1:]], frozenset({1}))


def _timing(results: StoredResults) -> Table | None:
    rows = [
        [Cell(name), Cell(model), *(Cell(text(timing)) for _, text in TIMING_COLUMNS)]
        for name, told in results.about["sets"].items()
        for model, timing in told["timing"].items()
    ]
    return Table(["set", "model", *(name for name, _ in TIMING_COLUMNS)], rows, frozenset({1})) if rows else None


_PROTOCOL_FIELDS = (
    "name", "hash", "colour", "y_range", "rounding", "border", "data_range", "mask", "window", "aggregation",
)  # fmt: skip


def _protocols(results: StoredResults) -> Table:
    rows = []
    for name, told in results.about["sets"].items():
        for metric, protocol in told["protocols"].items():
            rows.append([Cell(name), Cell(metric), *(Cell(str(protocol[key])) for key in _PROTOCOL_FIELDS)])
    return Table(["set", "metric", *_PROTOCOL_FIELDS], rows, frozenset(range(1, 12)))


def _models(results: StoredResults) -> Table:
    keys = ("arch", "weights", "iteration", "model_sha256", "model_file")
    rows = [[Cell(name), *(Cell(str(told[key])) for key in keys)] for name, told in results.about["models"].items()]
    return Table(["model", *keys], rows, frozenset(range(1, 6)))


def _environment(results: StoredResults) -> Table:
    about = results.about
    told = {**about["environment"], "tile": about["tile"], "tile_overlap": about["tile_overlap"]}
    return Table(["", ""], [[Cell(key), Cell(str(value))] for key, value in told.items()], frozenset({1}))
