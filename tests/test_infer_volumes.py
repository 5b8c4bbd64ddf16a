"""`srkit-infer` on NIfTI volumes: the thick axis, the scanner's place, the file's units."""

from __future__ import annotations

import os
import re

import nibabel
import numpy as np
import pytest
from infer_made import OBLIQUE, infer, made_archs, model_file, nifti, picture, read_nifti, repeated, scan  # noqa: F401

from srkit.imaging.files import read_image, write_image
from srkit.imaging.geometry import scaled_affine
from srkit.imaging.intensity import intensity_range
from srkit.imaging.slices import enlarge, thicken


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths in these tests are relative to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def linear(here, scale=(1, 3, 1)):
    """A network that is linear interpolation: its residual begins at zero."""
    return model_file(here / "net.pth", "ResnetGenerator", scale, "", "percentiles", residual="linear", num_feat=4, num_block=1)  # fmt: skip


def varied(here, scale=(1, 3, 1)):
    """A network whose result differs with every turn of its input."""
    return model_file(here / "net.pth", "BoxNet", scale, "", "percentiles", num_in_ch=1)


def corners(shape, affine):
    ends = [(-0.5, n - 0.5) for n in shape]
    index = np.stack(np.meshgrid(*ends, indexing="ij"), -1).reshape(-1, 3)
    return index @ affine[:3, :3].T + affine[:3, 3]


def test_a_volume_is_enlarged_along_its_thick_axis_in_its_own_units(here):
    linear(here)
    volume = scan(10, 8, 9)
    nifti(here / "rat.01.nii.gz", volume)
    assert infer("-m", "net.pth", "-i", "rat.01.nii.gz", "-o", "out") == 0
    assert sorted(os.listdir("out")) == ["rat.01_sr.nii.gz", "rat.01_sr_preview.png"]
    made, _ = read_nifti(here / "out/rat.01_sr.nii.gz")
    assert np.abs(made - enlarge(volume, (1, 3, 1), 1)).max() < 1e-5 * np.ptp(volume)


def test_units_come_back_to_a_millionth_of_the_range(here):
    model_file(here / "net.pth", "RepeatingNet", (1, 3, 1), "", "zscore", num_in_ch=1)
    volume = scan(10, 8, 9)
    nifti(here / "a.nii", volume)
    infer("-m", "net.pth", "-i", "a.nii", "-o", "b.nii.gz")
    wanted = repeated(volume, 1, 3, 1)
    assert np.abs(read_nifti(here / "b.nii.gz")[0] - wanted).max() < 1e-6 * np.ptp(volume)


def test_a_scan_of_doubled_values_gives_a_doubled_result(here):
    varied(here)
    volume = scan(10, 8, 9)
    for factor in (1, 2):
        nifti(here / f"{factor}.nii.gz", volume * factor)
        infer("-m", "net.pth", "-i", f"{factor}.nii.gz", "-o", f"sr{factor}.nii.gz")
    one, two = (read_nifti(here / f"sr{factor}.nii.gz")[0] for factor in (1, 2))
    assert np.array_equal(two, 2 * one)


def test_black_and_white_are_worked_out_once(here, monkeypatch):
    from srkit.inference import upscaler

    calls = []
    monkeypatch.setattr(upscaler, "intensity_range", lambda *a: calls.append(a) or intensity_range(*a))
    linear(here)
    nifti(here / "a.nii.gz", scan(10, 8, 9))
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out") == 0
    assert len(calls) == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1)])
def test_a_scan_with_its_thick_axis_elsewhere_gives_the_same_result_in_its_order(here, order):
    varied(here)
    volume, spacing = scan(10, 6, 9), np.array([0.15, 0.45, 0.15])
    nifti(here / "a.nii.gz", volume)
    nifti(here / "b.nii.gz", volume.transpose(order), spacing[list(order)])
    infer("-m", "net.pth", "-i", "a.nii.gz", "b.nii.gz", "-o", "out")
    a, b = (read_nifti(here / f"out/{name}_sr.nii.gz")[0] for name in "ab")
    assert a.shape == (10, 18, 9)
    assert np.array_equal(b, a.transpose(order))


def test_the_network_sees_what_training_shows_it(here, monkeypatch):
    varied(here)
    from infer_made import BoxNet

    seen, forward = [], BoxNet.forward
    monkeypatch.setattr(BoxNet, "forward", lambda self, lq: seen.append(lq.clone()) or forward(self, lq))
    volume = scan(12, 10, 11)
    nifti(here / "a.nii.gz", volume)
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out")
    black, white = intensity_range(volume, "percentiles")
    assert np.abs(seen[-1][0, 0].numpy() - (volume - black) / (white - black)).max() < 1e-6


@pytest.mark.parametrize("affine", [OBLIQUE, OBLIQUE[:, [1, 2, 0, 3]], np.diag([-0.1, 0.1, 0.3, 1.0])])
def test_the_result_lies_at_the_same_place_in_the_scanner(here, affine):
    linear(here)
    shape = (10, 8, 9)
    nifti(here / "a.nii.gz", scan(*shape), affine=affine)
    thickest = int(np.argmax(np.linalg.norm(affine[:3, :3], axis=0)))
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out", "--axis", thickest)
    made, new = read_nifti(here / "out/a_sr.nii.gz")
    assert sorted(np.divide(made.shape, shape)) == [1, 1, 3]
    assert np.abs(corners(made.shape, new) - corners(shape, affine)).max() < 1e-3
    image = nibabel.load("out/a_sr.nii.gz")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(image.header.get_zooms(), np.divide(lengths, np.divide(made.shape, shape)), rtol=1e-5)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_sizes_that_are_no_multiple_of_anything_pass_whole_and_in_tiles(here):
    linear_net = model_file(here / "net.pth", "ResnetGenerator", (1, 3, 1), "", "percentiles", num_feat=8, num_block=1)
    volume = scan(97, 61, 113)[:, :30]
    nifti(here / "a.nii", volume)
    infer("-m", linear_net, "-i", "a.nii", "-o", "whole.nii", "--tile", "none", "--no_preview")
    infer("-m", linear_net, "-i", "a.nii", "-o", "tiles.nii", "--tile", "40,30,40", "--no_preview")
    whole, tiles = (read_nifti(here / f"{name}.nii")[0] for name in ("whole", "tiles"))
    assert whole.shape == (97, 90, 113)
    assert np.abs(whole - tiles).max() < 1e-4 * np.ptp(volume)
    assert not os.path.exists("whole_preview.png")


def test_a_scan_that_is_not_as_thick_as_the_factor_is_refused_naming_both_unless_its_axis_is_asked_for(here, capsys):
    linear(here)
    nifti(here / "a.nii.gz", scan(6, 7, 8), (0.15, 0.15, 0.15))
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out") == 2
    said = "voxels of 0.15 x 0.15 x 0.15 mm are 1 times as long along axis 1, this model is for 3 times"
    assert f"{said}; --axis 1 enlarges it all the same" in capsys.readouterr().err
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out", "--axis", "2") == 0
    assert read_nifti(here / "out/a_sr.nii.gz")[0].shape == (6, 7, 24)
    assert "are 1 times as long along axis 2, this model is for 3 times; the result's are 0.05 mm" in (
        capsys.readouterr().out
    )


def test_a_factor_that_fits_passes_without_a_word(here, capsys):
    linear(here)
    nifti(here / "a.nii.gz", scan(6, 7, 8), (0.15, 0.45, 0.16))
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out")
    assert "WARNING" not in capsys.readouterr().out


def test_a_model_for_all_axes_takes_no_axis(here, capsys):
    linear(here, (2, 2, 2))
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz") == 0
    assert read_nifti(here / "b.nii.gz")[0].shape == (12, 14, 16)
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "c.nii.gz", "--axis", "0") == 2
    assert "--axis 0: this model enlarges by (2, 2, 2)" in capsys.readouterr().err


def test_whole_numbers_with_a_slope_are_read_in_units_and_written_back_alike(here):
    model_file(here / "net.pth", "RepeatingNet", (1, 3, 1), "", "percentiles", num_in_ch=1)
    stored = picture(6, 5, 7, dtype=np.int16) // 2
    image = nibabel.Nifti1Image(stored, np.diag([0.1, 0.3, 0.1, 1]))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, "a.nii.gz")
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "f.nii.gz")
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "i.nii.gz", "--dtype", "input")
    units = repeated(stored * 0.5 + 10.0, 1, 3, 1)
    assert nibabel.load("f.nii.gz").get_data_dtype() == np.float32
    assert np.allclose(read_nifti(here / "f.nii.gz")[0], units, atol=0.01)
    assert nibabel.load("i.nii.gz").get_data_dtype() == np.int16
    assert np.array_equal(read_nifti(here / "i.nii.gz")[0], units)


def test_the_volume_of_a_series_and_the_true_spacing_are_chosen(here, capsys):
    linear(here)
    volumes = np.stack([scan(6, 5, 7, seed=k) for k in range(3)], axis=-1)
    nibabel.save(nibabel.Nifti1Image(volumes, np.diag([2.0, 2, 2, 1])), "a.nii.gz")
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "x.nii.gz") == 2
    capsys.readouterr()
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "x.nii.gz", "--volume", "2", "--spacing", "0.1,0.1,0.3") == 0
    assert "a.nii.gz: volume 2 of 0 to 2" in capsys.readouterr().out
    made, affine = read_nifti(here / "x.nii.gz")
    assert np.abs(made - enlarge(volumes[..., 2], (1, 1, 3), 1)).max() < 1e-4 * np.ptp(volumes)
    assert np.allclose(np.diag(affine)[:3], 0.1)


def test_a_target_spacing_resamples_the_result_over_the_same_space(here):
    linear(here)
    shape, spacing = (20, 8, 18), (0.2, 0.6, 0.2)
    volume = scan(*shape)
    nifti(here / "a.nii.gz", volume, spacing)
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz", "--target_spacing", "0.1")
    made, affine = read_nifti(here / "b.nii.gz")
    assert made.shape == (40, 48, 36)
    assert np.allclose(np.diag(affine)[:3], 0.1)
    assert np.abs(corners(made.shape, affine) - corners(shape, np.diag([*spacing, 1]))).max() < 1e-3
    # Blocks of the finer grid average to about what was there: no shift.
    back = thicken(made.astype(np.float32), (2, 6, 2))
    assert np.corrcoef(back.ravel(), volume.ravel())[0, 1] > 0.95


def test_the_preview_shows_lq_sr_gt_and_the_difference(here):
    linear(here)
    truth = scan(12, 24, 12)
    nifti(here / "gt.nii.gz", truth, (0.15, 0.15, 0.15), np.diag([0.15, 0.15, 0.15, 1]))
    lq = thicken(truth, (1, 3, 1))
    low = np.diag([0.15, 0.45, 0.15, 1])
    low[1, 3] = 0.15  # its first slice covers the truth's first three
    nifti(here / "a.nii.gz", lq, affine=low)
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "two", "--overwrite") == 0
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "four", "--gt", "gt.nii.gz") == 0
    two, four = (read_image(f"{folder}/a_sr_preview.png") for folder in ("two", "four"))
    panel = (two.shape[1] - 4) // 2
    assert four.shape[1] == 4 * panel + 3 * 4
    assert np.array_equal(four[22:, :panel], two[22:, :panel])
    difference = four[22:, -panel:].astype(int)
    assert np.ptp(difference, axis=-1).max() > 50  # blue and red


def test_a_truth_whose_far_end_no_whole_slice_covers_is_cut_and_that_is_said(here, capsys):
    linear(here)
    affine = np.diag([0.15, 0.15, 0.15, 1])
    nifti(here / "gt.nii.gz", scan(12, 26, 12), affine=affine)
    nifti(here / "a.nii.gz", thicken(scan(12, 26, 12)[:, :24], (1, 3, 1)), affine=scaled_affine(affine, (1, 1 / 3, 1)))
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out", "--gt", "gt.nii.gz") == 0
    assert (
        "gt.nii.gz: --gt of (12, 26, 12) is cut at the far end to the result's (12, 24, 12)" in capsys.readouterr().out
    )
    assert os.path.exists("out/a_sr_preview.png")


def test_a_truth_elsewhere_is_refused_with_what_helps(here, capsys):
    linear(here)
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    nifti(here / "gt.nii.gz", scan(6, 21, 8), affine=np.diag([0.15, 0.15, 0.15, 1]) + np.eye(4, k=3) * 3)
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out", "--gt", "gt.nii.gz") == 2
    assert "lies on another grid than the result of (6, 21, 8); --register gt.nii.gz" in capsys.readouterr().err
    assert os.listdir("out") == []


def test_broken_volumes_are_named_and_the_others_done(here, capsys):
    linear(here)
    good = nifti(here / "in/a.nii.gz", scan(6, 7, 8))
    (here / "in/cut.nii.gz").write_bytes(good.read_bytes()[:-300])
    hole = scan(6, 7, 8)
    hole[1, 2, 3] = np.nan
    nifti(here / "in/hole.nii.gz", hole)
    nifti(here / "in/flat.nii.gz", np.full((6, 7, 8), 3, np.float32))
    write_image(here / "in/x.png", picture(4, 4, 3))
    assert infer("-m", "net.pth", "-i", "in", "-o", "out") == 9
    said = capsys.readouterr()
    assert sorted(os.listdir("out")) == ["a_sr.nii.gz", "a_sr_preview.png"]
    assert "x.png" in said.out
    assert re.search(r"cut\.nii\.gz: (cannot be unpacked|is cut short).*\n.*flat\.nii\.gz: every voxel is 3.*\n.*hole\.nii\.gz: NaN", said.err)  # fmt: skip
    assert infer("-m", "net.pth", "-i", "in/hole.nii.gz", "-o", "out", "--repair_nan") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-i p.png -o out", r"'\.png' is no suffix of what this model enlarges: volumes \(\.nii, \.nii\.gz\)"),
        ("-i two -o out", r"two/a\.nii and two/a\.nii\.gz would both become out/a_sr\.nii\.gz"),
        ("-i a.nii.gz -o b.png", r"-o b\.png: no suffix of volumes"),
        ("-i a.nii.gz -o out --dtype complex64", r"--dtype: found 'complex64', expected input, uint8"),
        ("-i a.nii.gz -o out --format png", r"--format: for pictures, which this model does not enlarge"),
        ("-i a.nii.gz -o out --gt nowhere.nii", r"nowhere\.nii: no such file"),
        ("-i a.nii.gz -o out --gt a.nii.gz --no_preview", r"--gt a\.nii\.gz: shows in the preview"),
        ("-i a.nii.gz two/a.nii -o out --gt a.nii.gz --suffix x", r"--gt a\.nii\.gz: belongs to one volume|would both become"),
        ("-i a.nii.gz -o out --target_spacing 0.0001", r"a\.nii\.gz: --target_spacing 0\.0001 makes .* voxels, more than"),
        ("-i a.nii.gz -o out --register p.png", r"p\.png: not a NIfTI file"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_with_one_message(here, capsys, words, message):
    linear(here)
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    nifti(here / "two/a.nii.gz", scan(6, 7, 8))
    nifti(here / "two/a.nii", scan(6, 7, 8))
    write_image(here / "p.png", picture(4, 4, 3))
    assert infer("-m", "net.pth", *words.split(" ")) == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert not os.path.exists("out") or os.listdir("out") == []


def test_a_file_without_a_word_on_intensities_is_read_by_percentiles_or_as_told(here, capsys):
    model_file(here / "net.pth", "RepeatingNet", (1, 3, 1), "", "", num_in_ch=1)
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz")
    assert "does not say how intensities were normalised: by percentiles" in capsys.readouterr().out
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "c.nii.gz", "--intensity", "easysr_g2")
    # easysr's second generation cuts at 2.58 standard deviations around the mean of all voxels.
    volume = scan(6, 7, 8)
    cut = np.clip(volume, volume.mean() - 2.58 * volume.std(), volume.mean() + 2.58 * volume.std())
    assert np.allclose(read_nifti(here / "c.nii.gz")[0], repeated(cut, 1, 3, 1), rtol=1e-4)


def test_the_ensemble_of_a_volume_sees_it_from_eight_sides(here, monkeypatch):
    varied(here)
    from infer_made import BoxNet

    seen, forward = [], BoxNet.forward
    monkeypatch.setattr(BoxNet, "forward", lambda self, lq: seen.append(lq) or forward(self, lq))
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz", "--ensemble", "--tile", "none")
    assert len(seen) == 8
    assert len({tuple(x.flatten().tolist()) for x in seen}) == 8


def smooth_scan(*shape):
    """A lopsided head: several blobs, so that every movement shows."""
    grid = np.stack(np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij"))
    volume = np.zeros(shape)
    for centre, width, height in (
        ((0.5, 0.5, 0.5), 0.25, 900),
        ((0.35, 0.4, 0.6), 0.08, 700),
        ((0.6, 0.65, 0.4), 0.06, 500),
    ):
        volume += height * np.exp(-((grid - np.array(centre)[:, None, None, None]) ** 2).sum(0) / (2 * width**2))
    return volume.astype(np.float32)


def test_register_lays_the_result_on_the_reference_and_its_grid(here):
    pytest.importorskip("SimpleITK")
    linear(here)
    truth = smooth_scan(32, 36, 30)
    grid = np.diag([0.2, 0.2, 0.2, 1.0])
    nifti(here / "ref.nii.gz", truth, affine=grid)
    lq = thicken(truth, (1, 3, 1))
    angle = np.deg2rad(6)  # the animal lay otherwise: turned about the third axis and moved
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = (1.5, -0.9, 0.6)
    low = np.diag([0.2, 0.6, 0.2, 1.0])
    low[1, 3] = 0.2
    nifti(here / "a.nii.gz", lq, affine=turn @ low)
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "b.nii.gz", "--register", "ref.nii.gz", "--gt", "ref.nii.gz")
    made, affine = read_nifti(here / "b.nii.gz")
    assert made.shape == truth.shape
    assert np.allclose(affine, grid)
    inside = (slice(6, -6),) * 3
    unmoved = enlarge(lq, (1, 3, 1), 1)  # the result, had the animal lain like the reference
    apart = np.abs(made - unmoved)[inside]
    for axis in range(3):
        one_voxel = np.abs(np.roll(unmoved, 1, axis) - unmoved)[inside]
        assert apart.mean() < one_voxel.mean() / 5


def test_bias_correction_takes_out_a_slow_change_of_brightness(here):
    pytest.importorskip("SimpleITK")
    model_file(here / "net.pth", "RepeatingNet", (1, 3, 1), "", "percentiles", num_in_ch=1)
    volume = scan(40, 16, 40)
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape), indexing="ij")
    nifti(here / "a.nii.gz", (volume * np.exp(0.4 * i - 0.3 * k + 0.2 * j * i)).astype(np.float32), affine=OBLIQUE)
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "raw.nii.gz", "--axis", 2)
    infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "even.nii.gz", "--axis", 2, "--bias_correct")
    ball = repeated(volume > 2000, 1, 1, 3)
    raw, even = (read_nifti(here / f"{name}.nii.gz")[0][ball] for name in ("raw", "even"))
    assert even.std() / even.mean() < 0.5 * raw.std() / raw.mean()


def test_a_missing_package_is_named(here, monkeypatch, capsys):
    import sys

    linear(here)
    nifti(here / "a.nii.gz", scan(6, 7, 8))
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out", "--bias_correct") == 2
    assert "--bias_correct needs the package SimpleITK; pip install SimpleITK" in capsys.readouterr().err
    assert infer("-m", "net.pth", "-i", "a.nii.gz", "-o", "out") == 0


def test_a_mouse_thickened_is_put_back_where_it_was(here, test_data):
    mouse = sorted((test_data / "mri/mouse_T2_150um/test").glob("*.nii.gz"))[0]
    truth, affine = read_nifti(mouse)
    lq = thicken(truth.astype(np.float32), (1, 1, 4))
    low = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 1.5], [0, 0, 0, 1]])
    nifti(here / "mouse.nii.gz", lq, affine=low)
    linear(here, (1, 4, 1))
    assert infer("-m", "net.pth", "-i", "mouse.nii.gz", "-o", "b.nii.gz", "--gt", mouse) == 0
    made, new = read_nifti(here / "b.nii.gz")
    assert np.allclose(new, affine, atol=1e-4)
    before, there, behind = (((np.roll(made, shift, axis=2) - truth) ** 2).mean() for shift in (-1, 0, 1))
    # The lowest point of the parabola through them is where the result fits best, in voxels.
    assert abs((before - behind) / (before - 2 * there + behind) / 2) < 0.02
