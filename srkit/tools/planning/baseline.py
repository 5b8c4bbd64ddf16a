"""What interpolation reaches on a few validation pictures: the figure that a training has to beat."""

from __future__ import annotations

from collections import defaultdict

from srkit import build
from srkit.data.checks import picks
from srkit.data.forms import PictureForm
from srkit.options import Options


def baseline_lines(options: Options, at_most: int) -> list[str]:
    """A line for each validation set: the best interpolation by each metric, over up to `at_most` of its pictures."""
    lines = []
    for item in build.build_eval_sets(options):
        values: dict[tuple[str, str], list[float]] = defaultdict(list)
        chosen = picks(len(item.dataset), at_most)
        for k in chosen:
            sample = item.dataset.sample(k, None)
            form = sample.form or PictureForm.of(sample)
            mask = sample.images["mask"][..., 0] > 0 if "mask" in sample.images else None
            for method in form.baselines:
                enlarged = form.enlarged(method, sample.images["lq"], item.scale)
                for named in item.metrics:
                    value = named(enlarged, sample.images["gt"], item.scale, form.data_range, mask)
                    values[named.name, method].append(value)
        told = []
        for named in item.metrics:
            means = {m: sum(v) / len(v) for (metric, m), v in values.items() if metric == named.name}
            best = (max if named.better == "higher" else min)(means, key=lambda m: means[m])
            told.append(f"{named.name} {means[best]:.4g} ({best})")
        lines.append(f"{', '.join(told)} on {len(chosen)} of {len(item.dataset)} of {item.name}")
    return lines
