"""Seconds per picture of an evaluation, split into reading, the network, the metrics and writing the result."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from srkit.data.forms import PictureForm
from srkit.engine.evaluator import EvalSet, Evaluator
from srkit.engine.restorer import Restorer
from srkit.errors import RefusedError
from srkit.options import Options
from srkit.tools.benchmarking.stages import StageClock, Time, shares
from srkit.tools.benchmarking.trained import restorer_and_sets
from srkit.tools.measuring import peak, reset_peak

STAGES = ("read", "network", "metrics", "write")
_CURES = {
    "read": "num_worker_per_gpu in the set's section reads beside the rest; a faster disk or whole PNG instead of "
    "made lq helps too",
    "network": "val.precision: bf16, val.tile or a faster device is what helps",
    "metrics": "fewer metrics in val.metrics is what helps, for they take longer than the network",
    "write": "val.save_img: false in runs whose pictures nobody looks at is what helps",
}


def measure_evaluation(options: Options, pictures: int) -> dict[str, Any]:
    """Per set: seconds per picture and stage, of up to `pictures` pictures; the first is not counted where there are others.

    Raises: RefusedError when the option file has no set to evaluate.
    """
    restorer, sets = restorer_and_sets(options)
    if not sets:
        raise RefusedError(
            f"{options.source}: nothing to evaluate; found datasets {', '.join(options.datasets)}, expected val or test_1"
        )
    reset_peak(restorer.device)
    found = {item.name: _of_set(item, restorer, pictures) for item in sets}
    total: dict[str, float] = dict.fromkeys(STAGES, 0.0)
    for told in found.values():
        for name in STAGES:
            total[name] += told["stages"][name].wall_s.median * told["pictures"]
    longest = max(total, key=lambda name: total[name])
    part = total[longest] / max(sum(total.values()), 1e-12)
    return {
        "sets": found,
        "peak_memory_bytes": peak(restorer.device),
        "precision": restorer.precision.name,
        "verdict": f"most of the time goes into: {longest} ({part:.0%}); {_CURES[longest]}",
    }


def _of_set(item: EvalSet, restorer: Restorer, pictures: int) -> dict[str, Any]:
    clock = StageClock(
        restorer.device, on_host=STAGES
    )  # a restored picture is on the host: nothing is left to wait for
    run = restorer.at_scale(item.scale)
    count = min(len(item.dataset), pictures)
    megapixels = 0.0
    with tempfile.TemporaryDirectory(prefix="srkit-benchmark-") as folder:
        for index in range(count):
            with clock.iteration():
                with clock.stage("read"):
                    sample = item.dataset.sample(index, None)
                form = sample.form or PictureForm.of(sample)
                with clock.stage("network"):
                    sr = run(sample.images["lq"], sample.white, sample.black)
                with clock.stage("metrics"):
                    list(Evaluator.measure(item, sample, "model", form.values(sr)))
                with clock.stage("write"):
                    form.write(Path(folder) / sample.name, sr, sample, item.scale)
            megapixels += sr[..., 0].size / 1e6
    table = clock.read()
    counted = slice(1, None) if count > 1 else slice(None)
    stages = {name: table[name][counted] for name in STAGES}
    times = {name: Time.of(pairs) for name, pairs in stages.items()}
    whole = [(sum(p[0] for p in parts), sum(p[1] for p in parts)) for parts in zip(*stages.values(), strict=True)]
    return {
        "pictures": len(whole),
        "megapixels_per_picture": megapixels / count,
        "stages": times,
        "picture": Time.of(whole),
        "shares": shares(times, "wall_s"),
    }
