"""Edge metrics: counts by arithmetic, the protocol that makes maps, and the evaluator's rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data, feature
from torch import nn

from srkit.data.sample import Sample
from srkit.engine.distributed import Group
from srkit.engine.evaluator import EvalSet, Evaluator, NamedMetric, check_metrics
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Normalization
from srkit.errors import DataError
from srkit.imaging.colour import luma_full
from srkit.imaging.resize import imresize
from srkit.metrics import EdgeF1, EdgePrecision, EdgeRecall
from srkit.metrics.protocol import custom_protocol

METRICS = {"precision": EdgePrecision(), "recall": EdgeRecall(), "f1": EdgeF1()}
GT = data.coffee()[100:180, 100:196]


def maps(*rows: str) -> np.ndarray:
    return np.array([[[float(c)] for c in row] for row in rows])


def canny_of(image: np.ndarray) -> np.ndarray:
    """scikit-image's edges of an 8-bit picture, (H, W) bool."""
    return feature.canny(luma_full(image / 255.0)[..., 0], sigma=2.0)


def f1(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_values_of_a_small_map():
    """Four predicted, three of them right, six wanted: 3/4, 3/6, 2 * 3 / 10."""
    sr, gt = maps("1111", "0000", "0000"), maps("1110", "1110", "0000")
    values = {name: metric(sr, gt, 1.0) for name, metric in METRICS.items()}
    assert values == pytest.approx({"precision": 0.75, "recall": 0.5, "f1": 0.6})


def test_probabilities_above_a_half_are_edges():
    sr = np.array([[[0.51], [0.49], [0.5]]])
    assert EdgePrecision()(sr, maps("100"), 1.0) == 1
    assert EdgeRecall()(sr, maps("111"), 1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", METRICS.values())
def test_pictures_without_edges_on_one_side_or_both(metric):
    none, some = maps("000"), maps("010")
    assert metric(none, none, 1.0) == 1
    assert metric(some, none, 1.0) == 0
    assert metric(none, some, 1.0) == 0


def test_shapes_that_differ_are_refused():
    with pytest.raises(DataError, match="EdgeF1: sr"):
        EdgeF1()(maps("00"), maps("000"), 1.0)


def test_the_protocol_takes_canny_of_whole_pictures_and_then_the_border_off():
    prepared = custom_protocol(5, False, edges=True).prepare(GT, GT[:, ::-1].copy(), (2, 2), 255)
    np.testing.assert_array_equal(prepared.sr[..., 0], canny_of(GT)[5:-5, 5:-5])
    np.testing.assert_array_equal(prepared.gt[..., 0], canny_of(GT[:, ::-1])[5:-5, 5:-5])
    assert prepared.data_range == 1


def test_the_protocol_takes_a_map_of_a_colour_picture_as_it_is():
    sr = np.full((80, 96, 1), 51, np.uint8)
    prepared = custom_protocol(0, False, edges=True).prepare(sr, GT, (2, 2), 255)
    np.testing.assert_allclose(prepared.sr, 0.2)


def test_a_protocol_for_edges_is_another_column():
    assert custom_protocol(2, False, edges=True).hash != custom_protocol(2, False).hash
    assert custom_protocol(2, True, edges=True).hash == custom_protocol(2, False, edges=True).hash


class OnePicture:
    def __len__(self) -> int:
        return 1

    def sample(self, index: int, rng: object) -> Sample:
        return Sample({"lq": imresize(GT, (0.5, 0.5)), "gt": GT}, "cup", {}, 255.0)


class Known(nn.Module):
    """Answers with a map it was given."""

    def __init__(self, edges: np.ndarray) -> None:
        super().__init__()
        self.edges = torch.from_numpy(edges.astype(np.float32))

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        return self.edges[None, None]


def test_the_evaluator_measures_a_map_against_cannys_of_gt_and_interpolation_by_its_own_edges():
    group = Group(0, 1, torch.device("cpu"))
    named = tuple(NamedMetric(n, m, custom_protocol(0, False, edges=True), "higher") for n, m in METRICS.items())
    item = EvalSet("set", OnePicture(), named, (2, 2))
    check_metrics(item)
    wrong = canny_of(GT) & (np.arange(96) < 48)  # the left half of the edges, and nothing wrong
    restorer = Restorer(
        Known(wrong), normalization=Normalization(), scale=(2, 2), device=group.device, precision=Precision("fp32", group.device)
    )  # fmt: skip
    result = Evaluator([item], group).evaluate(item, restorer)
    assert result.mean("model", "precision") == 1
    assert result.mean("model", "recall") == pytest.approx(wrong.sum() / canny_of(GT).sum())
    enlarged = imresize(OnePicture().sample(0, None).images["lq"], 2)
    assert result.mean("bicubic-matlab", "f1") == pytest.approx(f1(canny_of(enlarged), canny_of(GT)))
    assert 0 < result.mean("bicubic-matlab", "f1") < 1
