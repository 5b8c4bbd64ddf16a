"""What interpolation reaches on a few validation pictures: the figure that a training has to beat."""

from __future__ import annotations

from collections import defaultdict

from srkit import build
from srkit.data.checks import picks
from srkit.data.forms import form_of
from srkit.engine.evaluator import Evaluator
from srkit.metrics.summary import mean
from srkit.options import Options


def baseline_lines(options: Options, at_most: int) -> list[str]:
    """A line for each validation set: the best interpolation by each metric, over up to `at_most` of its pictures."""
    lines = []
    for item in build.build_eval_sets(options):
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        chosen = picks(len(item.dataset), at_most)
        for k in chosen:
            sample = item.dataset.sample(k, None)
            form = form_of(sample)
            for method in form.baselines:
                enlarged = form.enlarged(method, sample.images["lq"], item.scale)
                for row in Evaluator.measure(item, sample, method, enlarged):
                    values[row.metric, method].append(row.value)
        told = []
        for named in item.metrics:
            means = {m: mean(v) for (metric, m), v in values.items() if metric == named.name}
            if not means:  # the metric lacks a file here
                continue
            best = (max if named.better == "higher" else min)(means, key=lambda m: means[m])
            told.append(f"{named.name} {means[best]:.4g} ({best})")
        lines.append(
            f"{', '.join(told) or 'nothing to measure by'} on {len(chosen)} of {len(item.dataset)} of {item.name}"
        )
    return lines
