"""`srkit compare-runs A B`: two trainings side by side: what was set otherwise, where their curves part, what they reached."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import srkit.metrics  # noqa: F401 - fills the registry
from srkit.errors import RefusedError
from srkit.options.problems import Place, shown
from srkit.options.reader import read_file
from srkit.registry import METRICS
from srkit.tools.chart import Curve

_MISSING = object()
_EQUAL = 1e-6  # relative; sums in another order differ by less
_SMOOTH = 20  # a curve's points are averaged over this part of them before two are told apart
_NAMES = "AB"


@dataclass(frozen=True)
class Run:
    """What an experiment's folder says.

    Attributes:
        options: Value and line of each resolved option by place, of its last start.
        losses: Curves by name.
        metrics: Curves by set and metric.
        iteration_s: Mean seconds per iteration; None when nothing was logged.
    """

    folder: Path
    options: Mapping[Place, tuple[Any, int]]
    better: Mapping[str, str]
    losses: Mapping[str, Curve]
    metrics: Mapping[tuple[str, str], Curve]
    iteration_s: float | None
    environment: Mapping[str, Any]
    end: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", type=Path, help="folder of an experiment")
    parser.add_argument("b", type=Path, help="another")
    parser.add_argument("--out", type=Path, help="picture of all curves, .png")


def run(flags: argparse.Namespace) -> None:
    runs = [read_run(flags.a), read_run(flags.b)]
    print(report(*runs))
    if flags.out is not None:
        from srkit.imaging.files import write_image

        write_image(flags.out, curves_of(*runs))
        print(f"\ncurves in {flags.out}")


def read_run(folder: Path) -> Run:
    """Raises RefusedError for a folder that no training wrote."""
    if not folder.is_dir():
        raise RefusedError(f"{folder}: no such folder; give the folder of an experiment, such as experiments/NAME")
    newest = _newest(folder, "options", ".yml")
    if newest is None:
        raise RefusedError(
            f"{folder}: holds no options.yml; give the folder of an experiment, such as experiments/NAME"
        )
    document = read_file(newest)
    losses: dict[str, dict[int, float]] = {}
    metrics: dict[tuple[str, str], dict[int, float]] = {}
    seconds: list[float] = []
    for record in _records(folder / "records.jsonl"):
        iteration = record["iteration"]
        values = {k: v for k, v in record.items() if isinstance(v, (int, float)) and k != "iteration"}
        if record["kind"] == "train":
            seconds.append(values["iteration_s"])
            for name in (k for k in values if k.startswith("l_")):
                losses.setdefault(name, {})[iteration] = values[name]
        else:
            for name, value in values.items():
                metrics.setdefault((record["set"], name), {})[iteration] = value
    environment = _newest(folder, "environment", ".json")
    end = folder / "exit.json"
    return Run(
        folder=folder,
        options={place: (value, document.lines.get(place, 0)) for place, value in leaves(document.data)},
        better=directions(document.data),
        losses=losses,
        metrics=metrics,
        iteration_s=sum(seconds) / len(seconds) if seconds else None,
        environment=json.loads(environment.read_text()) if environment else {},
        end=_end(json.loads(end.read_text())) if end.exists() else "still running, or killed",
    )


def leaves(value: Any, place: Place = ()) -> list[tuple[Place, Any]]:
    """Values that are no sections, by place; lists of plain values are one value."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*place, key))]
    return [(place, value)]


def directions(data: Mapping[str, Any]) -> dict[str, str]:
    """ "higher" or "lower" by metric; a protocol's are higher but for nrmse."""
    found = {"nrmse": "lower", "nrmse_mask": "lower"}
    for name, item in ((data.get("val") or {}).get("metrics") or {}).items():
        kind = item.get("type", "")
        known = getattr(METRICS.get(kind), "better", "higher") if kind in METRICS else "higher"
        found[name] = str(item.get("better") or known)
    return found


def report(a: Run, b: Run) -> str:
    """All that differs, as text."""
    blocks = [
        [f"{name}  {run.folder}: {run.end}{_pace(run)}" for name, run in zip(_NAMES, (a, b))],
        _section("options that differ", option_lines(a, b)),
        _section("environments differ in", environment_lines(a, b)),
        _section("metrics", metric_lines(a, b)),
        _section("losses", loss_lines(a, b)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks)


def option_lines(a: Run, b: Run) -> list[str]:
    lines = []
    for place in dict.fromkeys((*a.options, *b.options)):
        values = [run.options.get(place, (_MISSING, 0)) for run in (a, b)]
        if values[0][0] != values[1][0]:
            told = [
                f"{name} {'nothing' if v is _MISSING else v}" + (f" (line {line})" if line else "")
                for name, (v, line) in zip(_NAMES, values)
            ]
            lines.append(f"{shown(place)}: {', '.join(told)}")
    return lines


def environment_lines(a: Run, b: Run) -> list[str]:
    keys = dict.fromkeys((*a.environment, *b.environment))
    return [
        f"{key}: A {a.environment.get(key)}, B {b.environment.get(key)}"
        for key in keys
        if a.environment.get(key) != b.environment.get(key)
    ]


def metric_lines(a: Run, b: Run) -> list[str]:
    lines = []
    for key in dict.fromkeys((*a.metrics, *b.metrics)):
        better = max if a.better.get(key[1], b.better.get(key[1], "higher")) == "higher" else min
        told, bests = [], []
        for name, run in zip(_NAMES, (a, b)):
            curve = run.metrics.get(key)
            if not curve:
                told.append(f"{name} not measured")
                continue
            best = better(curve, key=lambda k: curve[k])
            bests.append(curve[best])
            told.append(f"{name} best {curve[best]:.4f} at {best:,}, last {curve[max(curve)]:.4f} at {max(curve):,}")
        verdict = ""
        if len(bests) == 2 and bests[0] != bests[1]:
            winner = _NAMES[bests.index(better(bests))]
            verdict = f"; {winner} is better by {abs(bests[0] - bests[1]):.4f}"
        lines.append(f"{' '.join(key)}: {'; '.join(told)}{verdict}")
    return lines


def loss_lines(a: Run, b: Run) -> list[str]:
    lines = [f"{name}: {parting(a.losses[name], b.losses[name])}" for name in a.losses if name in b.losses]
    for name, run, other in (("A", a, b), ("B", b, a)):
        lines += [f"{loss}: only {name} has it" for loss in run.losses if loss not in other.losses]
    return lines


def parting(a: Curve, b: Curve) -> str:
    """Up to where two curves are equal, and from where on one of them stays lower."""
    common = sorted(a.keys() & b.keys())
    if not common:
        return "logged at different iterations"
    first = next((k for k in common if abs(a[k] - b[k]) > _EQUAL * max(abs(a[k]), abs(b[k]))), None)
    if first is None:
        return f"equal at all {len(common)} common points, to {common[-1]:,}"
    before = [k for k in common if k < first]
    start = f"equal up to {before[-1]:,}, " if before else f"differ from {first:,} on, "
    lower = _smoothed([a[k] - b[k] for k in common])
    side = lower[-1] < 0
    since = len(lower)
    while since and (lower[since - 1] < 0) == side:
        since -= 1
    end = f"at {common[-1]:,} A {a[common[-1]]:.4g}, B {b[common[-1]]:.4g}"
    return f"{start}{'A' if side else 'B'} is the lower one from {common[since]:,} on; {end}"


def _smoothed(values: Sequence[float]) -> list[float]:
    half = len(values) // _SMOOTH // 2
    windows = (values[max(0, k - half) : k + half + 1] for k in range(len(values)))
    return [sum(window) / len(window) for window in windows]


def curves_of(a: Run, b: Run) -> Any:
    """(H, W, 3) uint8: a panel for each loss and metric. Raises RefusedError when neither run has logged any."""
    from srkit.tools.chart import Panel, chart

    losses = list(dict.fromkeys((*a.losses, *b.losses)))
    metrics = list(dict.fromkeys((*a.metrics, *b.metrics)))
    panels = [Panel(k, _both(a.losses.get(k), b.losses.get(k)), is_log=True) for k in losses]
    panels += [Panel(" ".join(k), _both(a.metrics.get(k), b.metrics.get(k))) for k in metrics]
    if not panels:
        raise RefusedError(f"{a.folder} and {b.folder} have logged nothing yet")
    return chart(panels)


def _both(a: Curve | None, b: Curve | None) -> dict[str, Curve]:
    return {"A": a or {}, "B": b or {}}


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  {line}" for line in lines)] if lines else [f"{title}: none"]


def _pace(run: Run) -> str:
    return "" if run.iteration_s is None else f", {run.iteration_s:.3g} s an iteration"


def _end(exit_json: Mapping[str, Any]) -> str:
    iteration = exit_json.get("iteration")
    return (
        f"{exit_json.get('reason')}, iteration {iteration:,}" if iteration is not None else str(exit_json.get("reason"))
    )


def _newest(folder: Path, stem: str, suffix: str) -> Path | None:
    """stem.yml, or the stem_N.yml of the last of several starts."""
    numbered = {
        int(path.stem.rpartition("_")[2]): path
        for path in folder.glob(f"{stem}_*{suffix}")
        if path.stem.removeprefix(f"{stem}_").isdigit()
    }
    plain = folder / f"{stem}{suffix}"
    return numbered[max(numbered)] if numbered else plain if plain.exists() else None


def _records(path: Path) -> list[dict[str, Any]]:
    """A line that a running training has half written ends them."""
    records: list[dict[str, Any]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
