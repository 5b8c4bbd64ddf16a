"""NIQE: known distributions, order of degraded pictures, saved models, the tool, what is refused."""

import argparse

import cv2
import numpy as np
import pytest
from scipy.special import gamma

from srkit.errors import DataError, OptionError, RefusedError
from srkit.imaging.files import write_image
from srkit.metrics import NIQE
from srkit.metrics.niqe import NiqeModel, _asymmetric_gaussian, fit, niqe
from srkit.tools.fit_niqe import fit_niqe


def textured(seed, side=192):
    """A made picture of edges and texture at several sizes, 0 to 255."""
    draw = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cell in (2, 4, 8, 16, 32):
        noise = draw.normal(size=(side // cell + 1,) * 2)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * cell**0.7
    return np.clip(128 + 22 * total, 0, 255).round()


@pytest.fixture(scope="module")
def model():
    return fit([textured(seed) for seed in range(12)], patch_px=48)


def test_the_shape_of_gaussian_and_laplacian_numbers_is_2_and_1():
    draw = np.random.default_rng(0)
    alpha, left, right = _asymmetric_gaussian(draw.normal(size=200_000))
    assert alpha == pytest.approx(2, abs=0.05)
    assert left == pytest.approx(np.sqrt(gamma(1 / 2) / gamma(3 / 2)), rel=0.02)
    assert right == pytest.approx(left, rel=0.02)
    assert _asymmetric_gaussian(draw.laplace(size=200_000))[0] == pytest.approx(1, abs=0.03)


def test_each_side_has_its_own_width():
    values = np.abs(np.random.default_rng(0).normal(size=100_000))
    values[::2] *= -3
    _, left, right = _asymmetric_gaussian(values)
    assert left / right == pytest.approx(3, rel=0.02)


def test_degraded_pictures_score_worse_and_more_so_the_more_they_are(model):
    for seed in range(20, 24):
        good = textured(seed)
        blurred = [niqe(cv2.GaussianBlur(good, (0, 0), sigma), model) for sigma in (1.0, 2.5)]
        noisy = niqe(good + np.random.default_rng(seed).normal(0, 25, good.shape), model)
        blocky = niqe(cv2.imdecode(cv2.imencode(".jpg", good, [1, 5])[1], 0).astype(float), model)
        clean = niqe(good, model)
        assert clean < blurred[0] < blurred[1]
        assert clean < noisy
        assert clean < blocky


def test_a_saved_model_gives_the_same_value(model, tmp_path):
    model.save(tmp_path / "m.npz")
    picture = textured(30)
    assert niqe(picture, NiqeModel.load(tmp_path / "m.npz")) == niqe(picture, model)
    assert NIQE(str(tmp_path / "m.npz"))(picture[..., None], picture[..., None], 255) == niqe(picture, model)


def test_gt_plays_no_part_and_bit_depths_agree(model, tmp_path):
    model.save(tmp_path / "m.npz")
    metric = NIQE(str(tmp_path / "m.npz"))
    picture = textured(31)[..., None]
    assert metric(picture, picture * 0, 255) == metric(picture, picture, 255)
    assert metric(picture * 257, picture, 65535) == pytest.approx(metric(picture, picture, 255), rel=1e-6)


def test_pictures_smaller_than_a_patch_and_flat_ones_are_refused(model):
    for bad in (textured(0, 32), np.full((96, 96), 7.0)):
        with pytest.raises(DataError, match="needs a patch of 48 pixels"):
            niqe(bad, model)


def test_too_few_patches_are_refused():
    with pytest.raises(DataError, match="too few, expected more than 36"):
        fit([textured(0)], patch_px=96)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(RefusedError, match="fit-niqe FOLDER"):
        NIQE(str(tmp_path / "none.npz"))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(RefusedError, match="no model of"):
        NIQE(str(tmp_path / "text.npz"))


def test_the_tool_fits_a_folder_and_overwrites_nothing(tmp_path):
    for seed in range(10):
        write_image(tmp_path / f"in/{seed}.png", textured(seed)[..., None].astype(np.uint8))
    out = tmp_path / "models/m.npz"
    made = fit_niqe(tmp_path / "in", out, patch_px=48, sharpness=0.5)
    assert (made.pictures, made.patch_px) == (10, 48)
    assert NiqeModel.load(out).patches == made.patches
    with pytest.raises(RefusedError, match="exists"):
        fit_niqe(tmp_path / "in", out)
    with pytest.raises(RefusedError, match="even number"):
        fit_niqe(tmp_path / "in", tmp_path / "other.npz", patch_px=33)


def test_basicsrs_name_is_refused_with_the_way_to_an_own_model(tmp_path):
    from tiny import options, write_options

    from srkit.options import load_options

    data = options(tmp_path, val__metrics={"niqe": {"type": "calculate_niqe", "crop_border": 4}})
    with pytest.raises(OptionError, match=r"srkit fit-niqe FOLDER -o model\.npz"):
        load_options(write_options(tmp_path, data), mode="train")


def test_the_tool_has_arguments():
    from srkit.tools.fit_niqe import add_arguments

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert parser.parse_args(["folder", "-o", "m.npz"]).patch == 96
