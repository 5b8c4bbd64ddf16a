"""The part of a report that says how far to trust the pixels: calibration.json and its picture, where a test has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srkit.engine.confidence import coverage_table, read_calibration
from srkit.engine.stored import StoredResults
from srkit.imaging.files import read_image
from srkit.report.encode import data_uri

_PICTURE_BYTES = 1_000_000


@dataclass(frozen=True)
class Trust:
    """What `srkit calibrate` left in results/NAME.

    Attributes:
        rows: Texts, the head first.
        picture: A data: address; empty without calibration.png.
    """

    coverage: str
    proven: str
    region: str
    rows: list[tuple[str, ...]]
    picture: str


def trust(results: StoredResults) -> tuple[Trust | None, str]:
    """The part, and why there is none although a file lies there. Raises DataError for a file that is none."""
    path = results.folder / "calibration.json"
    if not path.is_file():
        return None, ""
    told = read_calibration(path)
    if told.model_sha256 not in {model["model_sha256"] for model in results.about["models"].values()}:
        return None, f"{path} is of another model ({told.model}) than these results; left out."
    drawn = path.with_suffix(".png")
    image = read_image(drawn) if drawn.is_file() else None
    picture = "" if image is None else data_uri(np.ascontiguousarray(image), _PICTURE_BYTES)
    return Trust(f"{told.coverage:g}", f"{told.proven:.3f}", told.region, coverage_table(told), picture), ""
