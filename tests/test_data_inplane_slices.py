"""Patches of a scan's own slices: which rows they average, which way they lie, and which scans are taken."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from srkit.data import SelfSupervisedSlices
from srkit.data.loader import train_batches
from srkit.data.slice_cuts import SliceCuts
from srkit.errors import DataError, RefusedError
from srkit.imaging.geometry import permuted_affine
from srkit.imaging.volumes import write_volume

SPACING = (0.2, 0.2, 0.8)
STEPS = (10_000, 100, 1)  # value of a voxel of `numbered`: what its index along each axis adds


def numbered(*shape: int) -> np.ndarray:
    """Every voxel says where it is."""
    return sum(step * n for step, n in zip(STEPS, np.indices(shape))).astype(np.float32) + 1


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 300, shape).astype(np.float32)


def save(path: Path, x: np.ndarray, spacing=SPACING) -> Path:
    write_volume(path, x, np.diag([*spacing, 1.0]))
    return path


def dataset(root: Path, **options) -> SelfSupervisedSlices:
    given = {"scale": (1, 1, 4), "dataroot_gt": str(root), "gt_size": 16, "use_flip": False, "cache": "none"}
    return SelfSupervisedSlices(**(given | options))


def patches(data: SelfSupervisedSlices, count: int = 24) -> list[dict[str, np.ndarray]]:
    samples = [data.sample(k % len(data), np.random.default_rng([3, k])) for k in range(count)]
    return [{role: image[..., 0] for role, image in sample.images.items()} for sample in samples]


def bits(data: SelfSupervisedSlices) -> list[bytes]:
    return [p["lq"].tobytes() + p["gt"].tobytes() for p in patches(data)]


@pytest.fixture
def scan(tmp_path) -> Path:
    return save(tmp_path / "scans/rat.01.nii.gz", noise(40, 32, 6))


# What samples hold


@pytest.mark.parametrize("flip", [False, True])
def test_a_row_of_lq_is_the_mean_of_its_rows_of_gt(scan, flip):
    for patch in patches(dataset(scan, use_flip=flip)):
        lq, gt = patch["lq"], patch["gt"]
        assert (lq.shape, gt.shape) == ((4, 16), (16, 16))
        assert lq.dtype == gt.dtype == np.float32
        np.testing.assert_allclose(lq, gt.reshape(4, 4, 16).mean(axis=1), atol=1e-5)


@pytest.mark.parametrize(
    "said",
    [
        {"slice_thickness_mm": 0.4, "slice_gap_mm": 0.4},
        {"slice_thickness_mm": 0.4},
        {"slice_gap_mm": 0.4},
    ],
)
def test_slices_half_as_thick_as_their_distance_see_the_two_middle_rows_of_four(scan, said):
    for patch in patches(dataset(scan, **said)):
        np.testing.assert_allclose(patch["lq"], patch["gt"].reshape(4, 4, 16)[:, 1:3].mean(axis=1), atol=1e-5)


def test_a_gap_of_a_fifth_weighs_the_outer_rows_three_fifths(scan):
    """A box of 3.2 rows about the middle of four holds two of them and 0.6 of either other."""
    weights = np.array([0.6, 1, 1, 0.6]) / 3.2
    for patch in patches(dataset(scan, slice_gap_mm=0.16)):
        np.testing.assert_allclose(patch["lq"], weights @ patch["gt"].reshape(4, 4, 16), atol=1e-5)


@pytest.mark.parametrize("row", [0, 3, 16, 29, 48])
def test_rows_beyond_the_patch_take_part_where_the_profile_reaches_them(row):
    """Against the Gaussian of half maximum at 1.5 rows of distance 3, on the whole plane."""
    plane = noise(64, 20).astype(np.float64)
    cuts = SliceCuts(factor=3, gt_size=15, profile="gaussian", foreground_prob=0, use_flip=False)
    found = cuts.cut(plane, (row, 2), 1.0)
    np.testing.assert_array_equal(found["gt"], plane[row : row + 15, 2:17])
    sigma = 3 / math.sqrt(8 * math.log(2))
    blocks = np.arange(row % 3, 62, 3)[: (64 - row % 3) // 3]  # all that fit the plane at this phase
    known = plane[row % 3 : row % 3 + 3 * len(blocks)]
    distance = np.arange(len(known)) - (3 * np.arange(len(blocks))[:, None] + 1)
    weights = np.where(np.abs(distance) <= 4 * sigma, np.exp(-(distance**2) / (2 * sigma**2)), 0)
    thick = weights / weights.sum(axis=1, keepdims=True) @ known
    np.testing.assert_allclose(found["lq"], thick[row // 3 : row // 3 + 5, 2:17], rtol=1e-6)


def test_patches_lie_in_single_slices_and_both_directions_are_degraded(tmp_path):
    data = dataset(save(tmp_path / "x.nii", numbered(40, 32, 6)), foreground_prob=0.0)
    directions = set()
    for patch, sample in zip(patches(data, 40), [data.sample(0, np.random.default_rng([3, k])) for k in range(40)]):
        black, white = data.cache.get(0).facts.lq_range
        values = sample.images["gt"][..., 0].astype(np.float64) * (white - black) + black
        down, right = np.rint(values[1, 0] - values[0, 0]), np.rint(values[0, 1] - values[0, 0])
        np.testing.assert_allclose(values, values[0, 0] + down * np.arange(16)[:, None] + right * np.arange(16), atol=1)
        directions.add((down, right))
        assert patch["lq"].shape == (4, 16)
    assert directions == {(10_000, 100), (100, 10_000)}


def test_patches_reach_every_place_of_every_slice(tmp_path):
    data = dataset(
        save(tmp_path / "x.nii", noise(6, 5, 3), (0.2, 0.2, 0.4)), scale=(1, 1, 2), gt_size=4, foreground_prob=0
    )
    found = {p["gt"].tobytes() for p in patches(data, 600)}
    assert len(found) == 2 * (3 * 2 * 3)  # rows, columns, slices; each seen from both directions


def test_mirroring_leaves_a_patch_or_turns_it_over(scan):
    kinds = set()
    for plain, turned in zip(patches(dataset(scan), 40), patches(dataset(scan, use_flip=True), 40)):
        views = {"as is": (1, 1), "rows": (-1, 1), "columns": (1, -1), "both": (-1, -1)}
        found = [n for n, (a, b) in views.items() if np.array_equal(plain["gt"][::a, ::b], turned["gt"])]
        assert len(found) == 1
        kinds.update(found)
    assert len(kinds) == 4


def test_the_thick_axis_may_lie_anywhere(tmp_path):
    x = noise(24, 20, 6)
    last = dataset(save(tmp_path / "k.nii", x), foreground_prob=0.0)
    affine = np.diag([*SPACING, 1.0])
    for name, axes in (("first", (2, 0, 1)), ("middle", (0, 2, 1))):
        write_volume(tmp_path / f"{name}.nii", x.transpose(axes), permuted_affine(affine, axes))
        assert bits(dataset(tmp_path / f"{name}.nii", foreground_prob=0.0)) == bits(last)


def test_a_scan_of_doubled_values_gives_the_same_patches(tmp_path):
    one = dataset(save(tmp_path / "one.nii", noise(24, 20, 6)))
    two = dataset(save(tmp_path / "two.nii", 2 * noise(24, 20, 6)))
    for a, b in zip(patches(one), patches(two)):
        np.testing.assert_allclose(a["gt"], b["gt"], atol=1e-5)
        np.testing.assert_allclose(a["lq"], b["lq"], atol=1e-5)


def test_black_and_white_are_percentiles_of_the_scan(scan):
    x = noise(40, 32, 6).astype(np.float64)
    black, white = np.percentile(x, [0.5, 99.5])
    values = np.concatenate([p["gt"].ravel() for p in patches(dataset(scan))]) * (white - black) + black
    assert np.isin(np.rint(values * 100), np.rint(x * 100)).mean() > 0.99


def test_foreground_prob_is_the_share_of_patches_about_the_body(tmp_path):
    x = np.zeros((60, 60, 6), np.float32)
    x[28:32, 40:44, 4] = noise(4, 4)
    save(tmp_path / "x.nii", x)
    seen = {
        p: np.mean([(a["gt"][7:10, 7:10] > -0.1).any() for a in patches(dataset(tmp_path, foreground_prob=p), 100)])
        for p in (0, 1)
    }
    assert seen[1] == 1
    assert seen[0] < 0.1


# The same everywhere


def test_workers_draw_the_same_batches(scan, tmp_path):
    data = dataset(scan, cache="disk", cache_dir=str(tmp_path / "cache"))
    data.prepare(progress=False)
    found = []
    for workers in (0, 2):
        batches = train_batches(data, seed=5, batch_size=3, enlarge_ratio=4, num_workers=workers)
        found.append([next(batches).images["lq"].numpy().tobytes() for _ in range(3)])
        batches.close()
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


def test_cached_and_decoded_scans_give_the_same_patches(scan, tmp_path):
    held, kept = dataset(scan), dataset(scan, cache="disk", cache_dir=str(tmp_path / "cache"))
    kept.prepare(progress=False)
    (file,) = (tmp_path / "cache/volumes").glob("*.volume")
    voxels = 40 * 32 * 6
    assert file.stat().st_size < 1.3 * (4 + 1 + 4) * voxels  # scan, mask and indices of the body: no second scan as lq
    assert bits(held) == bits(kept)


def test_one_scan_and_the_folder_it_lies_in_are_the_same_data(scan):
    assert bits(dataset(scan)) == bits(dataset(scan.parent))
    assert dataset(scan).fingerprint() == dataset(scan.parent).fingerprint()
    assert dataset(scan).sample(0, np.random.default_rng(0)).name == "rat.01"


def test_a_cache_that_cannot_be_written_is_memory_unless_it_was_asked_for(scan, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    data = dataset(scan, cache="auto", cache_dir=str(tmp_path / "file"))
    data.prepare(progress=False)
    assert "no cache on disk" in caplog.text
    assert bits(data) == bits(dataset(scan))
    with pytest.raises(RefusedError, match="choose another cache_dir"):
        dataset(scan, cache="disk", cache_dir=str(tmp_path / "file")).prepare(progress=False)


@pytest.mark.parametrize(
    "change", [{"slice_gap_mm": 0.1}, {"profile": "gaussian"}, {"normalization": "zscore"}, {"thick_axis": 2}]
)
def test_the_fingerprint_knows_how_lq_is_made(scan, change):
    assert dataset(scan).fingerprint() == dataset(scan).fingerprint()
    assert dataset(scan).fingerprint() != dataset(scan, **change).fingerprint()


def test_the_log_says_how_thick_slices_are_and_that_nothing_validates(scan):
    text = dataset(scan, slice_gap_mm=0.2).describe()
    assert "slices along axis 2 75% of their distance thick" in text
    assert "no truth to validate on" in text


# Scans and options that are not taken


@pytest.mark.parametrize(
    ("spacing", "options", "text"),
    [
        ((0.2, 0.2, 0.2), {}, r"spacing of 0.2 x 0.2 x 0.2 mm has no thick axis; .*give spacing_mm or thick_axis"),
        ((0.2, 0.2, 0.6), {}, r"are 3 times as far apart .*, but scale is 4; set scale to 3"),
        ((0.2, 0.2, 0.9), {}, r"are 4.5 times as far apart"),
        ((0.2, 0.25, 0.9), {}, r"voxels of 0.2 x 0.25 mm, which is not the same both ways"),
        (SPACING, {"thick_axis": 0}, r"voxels of 0.2 x 0.8 mm"),
        (SPACING, {"slice_thickness_mm": 0.5, "slice_gap_mm": 0.1}, r"0.8 mm apart, but .*0.5 and slice_gap_mm 0.1 make 0.6"),
        (SPACING, {"slice_gap_mm": 0.8}, r"slices of 0 mm that are 0.8 mm apart"),
        (SPACING, {"slice_thickness_mm": 8.0}, r"slices of 8 mm that are 0.8 mm apart"),
        (SPACING, {"gt_size": 36}, r"slices of 40 x 32 voxels are smaller than gt_size 36"),
    ],
)  # fmt: skip
def test_a_scan_that_does_not_fit_is_refused_by_name(tmp_path, spacing, options, text):
    save(tmp_path / "scan.nii", noise(40, 32, 6), spacing)
    with pytest.raises(DataError, match=rf"1 scans do not fit the options: .*scan.nii: .*{text}"):
        dataset(tmp_path, **options).check()


@pytest.mark.parametrize("spacing", [(0.2, 0.2, 0.85), (0.2, 0.215, 0.8)])
def test_a_tenth_more_or_less_is_no_matter(tmp_path, spacing):
    dataset(save(tmp_path / "scan.nii", noise(40, 32, 6), spacing)).check()


def test_spacings_may_be_ignored_and_corrected(tmp_path):
    save(tmp_path / "scan.nii", noise(40, 32, 6), (0.2, 0.3, 2.0))
    dataset(tmp_path, ignore_spacing=True).check()
    dataset(tmp_path, spacing_mm=SPACING).check()
    assert bits(dataset(tmp_path, ignore_spacing=True)) == bits(dataset(tmp_path, spacing_mm=SPACING))


def test_every_unfit_scan_is_named_at_once(tmp_path):
    save(tmp_path / "a.nii", noise(40, 32, 6), (0.2, 0.2, 0.2))
    save(tmp_path / "b.nii", noise(10, 32, 6))
    save(tmp_path / "c.nii", noise(40, 32, 6))
    (tmp_path / "d.nii").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        dataset(tmp_path).check()
    assert "1 volumes cannot be used: " in str(caught.value)
    assert "2 scans do not fit the options: " in str(caught.value)
    assert all(f"{name}.nii" in str(caught.value) for name in "abd")
    assert "c.nii" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale": (1, 1, 1)}, r"scale: found \[1, 1, 1\], expected three numbers, above 1 for the thick axis alone"),
        ({"scale": (4, 1)}, r"scale: found \[4, 1\]"),
        ({"scale": (2, 1, 4)}, r"scale: found \[2, 1, 4\]"),
        ({"gt_size": 18}, r"gt_size: 18 is not a multiple of scale 4; 16 and 20 are"),
        ({"foreground_prob": 1.5}, r"foreground_prob must lie in 0 to 1, got 1.5"),
        ({"meta_info_file": "list.txt"}, r"choose from a folder; found with one scan, .*drop them"),
    ],
)
def test_options_that_cannot_be_are_refused(scan, options, text):
    with pytest.raises(RefusedError, match=text):
        dataset(scan, **options)


def test_it_is_not_evaluated_on(scan):
    with pytest.raises(RefusedError, match=r"no truth across them.*evaluate on isotropic volumes with VolumeDataset"):
        dataset(scan).sample(0, None)


def test_a_missing_scan_is_named(tmp_path):
    with pytest.raises(DataError, match=r"away.nii.*no such file"):
        dataset(tmp_path / "away.nii").check()
