"""One-channel networks on luma (`color: y`): trained, validated, tested, and refused where channels do not agree."""

import json
import re

import numpy as np
import pytest
from tiny import in_process, measured, options

from srkit.imaging.files import read_image

LUMA = {
    "network_g__num_in_ch": 1,
    "network_g__num_out_ch": 1,
    "datasets__train__color": "y",
    "datasets__val__color": "y",
    "val__metrics": None,
    "val__protocol": "natural-y-v1",
}


def test_a_luma_network_is_validated_and_tested_alike(tiny):
    assert in_process(tiny, options(tiny, **LUMA)) == 0
    lines = map(json.loads, (tiny / "experiments/tiny/records.jsonl").read_text().splitlines())
    validated = [line["psnr"] for line in lines if line["kind"] == "validation"][-1]
    # The model file says that it wants luma; the test's option file need not.
    assert measured(tiny, **{**LUMA, "datasets__val__color": None, "network_g": None}) == 0
    summary = json.loads((tiny / "results/tested/metrics.json").read_text())
    methods = summary["sets"]["val"]["methods"]
    assert methods["tested"]["psnr"]["mean"] == pytest.approx(validated, abs=1e-12)
    assert methods["nearest"]["psnr"]["mean"] == pytest.approx(
        np.mean([nearest_psnr(tiny, n) for n in range(4)]), abs=1e-9
    )


def nearest_psnr(tiny, number: int) -> float:
    """Luma of lq, pixels repeated, rounded to 8 bits, against luma of gt without two pixels of border."""
    lq, gt = (
        16 + read_image(tiny / f"data/{half}/p{number}.png") @ np.array([65.481, 128.553, 24.966]) / 255
        for half in ("lq", "gt")
    )
    sr = np.floor(lq + 0.5).repeat(2, 0).repeat(2, 1)
    return 10 * np.log10(255**2 / np.mean((sr - gt)[2:-2, 2:-2] ** 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"network_g__num_in_ch": 1, "network_g__num_out_ch": 1},
            r"does not take the training pictures, lq of 3 channel",
        ),
        ({"datasets__train__color": "y"}, r"makes 3x16x16 out of lq 1x8x8, and gt is 1x16x16"),
        ({**LUMA, "val__protocol": None, "val__metrics": {"psnr": {"type": "PSNR"}}}, r"val, metric psnr: .*color: y"),
        (
            {"datasets__train__mean": [0.4, 0.5], "datasets__train__std": [0.2, 0.2]},
            r"datasets.train.mean has 2 values, and the pictures 3",
        ),
    ],
)
def test_channels_that_do_not_agree_are_refused_before_anything_is_written(tiny, capsys, change, message):
    assert in_process(tiny, options(tiny, **change)) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tiny / "experiments").exists()
