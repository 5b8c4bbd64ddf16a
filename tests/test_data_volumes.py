"""Volumes: which files belong together, what is made of them once, and what training and evaluation are handed."""

from __future__ import annotations

import gzip
import itertools
import multiprocessing
import os
import pickle
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from srkit.data import VolumeDataset
from srkit.data import volume_pairs as volume_pairs_module
from srkit.data import volumes as volumes_module
from srkit.data.loader import train_batches
from srkit.errors import DataError, RefusedError
from srkit.imaging.geometry import respaced_affine, scaled_affine
from srkit.imaging.volumes import write_volume

OBLIQUE = np.array([[0.0, -0.2, 0.02, 5.0], [0.15, 0.0, 0.0, -3.0], [0.0, 0.02, 0.2, 1.0], [0.0, 0.0, 0.0, 1.0]])


def brain(*shape: int, seed: int = 0) -> np.ndarray:
    """Noise of 100 to 300 in a box, exact zeros in a shell round it."""
    rng = np.random.default_rng(seed)
    x = np.zeros(shape, np.float32)
    inside = tuple(slice(n // 6, n - n // 6) for n in shape)
    x[inside] = rng.uniform(100, 300, x[inside].shape)
    return x


def save(path: Path, x: np.ndarray, affine: np.ndarray = OBLIQUE) -> np.ndarray:
    write_volume(path, x, affine)
    return x


def dataset(root: Path, **options) -> VolumeDataset:
    given = {"scale": (1, 1, 4), "dataroot_gt": str(root / "gt"), "cache_dir": str(root / "cache")}
    return VolumeDataset(**(given | options))


def patches(data: VolumeDataset, count: int = 24) -> list:
    return [data.sample(k % len(data), np.random.default_rng([5, k])) for k in range(count)]


def bits(data: VolumeDataset) -> list[bytes]:
    return [s.images["lq"].tobytes() + s.images["gt"].tobytes() for s in patches(data)]


def block_means(x: np.ndarray, scale) -> np.ndarray:
    (i, j, k), (a, b, c) = x.shape, scale
    return x.astype(np.float64).reshape(i // a, a, j // b, b, k // c, c).mean(axis=(1, 3, 5))


@pytest.fixture
def three(tmp_path):
    for k in range(3):
        save(tmp_path / f"gt/rat.0{k}.nii.gz", brain(20, 24, 26, seed=k))
    return tmp_path


# What samples hold


def test_lq_of_a_patch_is_the_block_means_of_its_gt(three):
    data = dataset(three, gt_size=[8, 12, 16], scale=(2, 1, 4), flip_axes=[0, 1, 2])
    for sample in patches(data):
        lq, gt = sample.images["lq"], sample.images["gt"]
        assert lq.shape == (4, 12, 4, 1)
        assert gt.shape == (8, 12, 16, 1)
        assert lq.dtype == gt.dtype == np.float32
        assert (sample.black, sample.white) == (0, 1)
        np.testing.assert_allclose(lq[..., 0], block_means(gt[..., 0], (2, 1, 4)), atol=1e-5)


def test_patches_differ_and_are_mirrored_along_named_axes_only(three):
    plain, turned = dataset(three, gt_size=8), dataset(three, gt_size=8, flip_axes=[1])
    kinds = set()
    for a, b in zip(patches(plain), patches(turned)):
        one, other = a.images["gt"], b.images["gt"]
        kinds.add(np.array_equal(one, other))
        assert np.array_equal(one, other) or np.array_equal(one[:, ::-1], other)
    assert kinds == {True, False}
    assert len(set(bits(plain))) > 20


def test_an_evaluated_volume_is_whole_and_in_its_own_units(three):
    gt = brain(20, 24, 26)[..., :24]
    sample = dataset(three, gt_size=8, flip_axes=[0], gamma_prob=1.0).sample(0, None)
    np.testing.assert_allclose(sample.images["gt"][..., 0], gt)
    np.testing.assert_allclose(sample.images["lq"][..., 0], block_means(gt, (1, 1, 4)), rtol=1e-6)
    np.testing.assert_array_equal(sample.images["mask"][..., 0], gt > 0)
    assert sample.images["mask"].dtype == np.uint8
    assert sample.name == "rat.00"


def test_black_and_white_are_percentiles_of_lq_alone(three):
    sample = dataset(three).sample(0, None)
    lq = sample.images["lq"].astype(np.float64)
    expected = np.percentile(lq[lq != 0], [0.5, 99.5])
    assert (sample.black, sample.white) == pytest.approx(tuple(expected), rel=1e-6)


def test_training_and_evaluation_share_one_normalisation_for_both_halves(three):
    data = dataset(three, gt_size=[20, 24, 24])
    whole, patch = data.sample(1, None), data.sample(1, np.random.default_rng(0))
    for role in ("lq", "gt"):
        unit = (whole.images[role].astype(np.float64) - whole.black) / (whole.white - whole.black)
        np.testing.assert_allclose(patch.images[role], unit, atol=1e-5)


def test_a_scan_of_doubled_values_gives_the_same_patches(tmp_path):
    save(tmp_path / "a/gt/x.nii", brain(20, 20, 20))
    save(tmp_path / "b/gt/x.nii", 2 * brain(20, 20, 20))
    one, two = (dataset(tmp_path / name, gt_size=8) for name in "ab")
    for a, b in zip(patches(one), patches(two)):
        np.testing.assert_allclose(a.images["lq"], b.images["lq"], atol=1e-5)
        np.testing.assert_allclose(a.images["gt"], b.images["gt"], atol=1e-5)


@pytest.mark.parametrize(("generation", "order", "clip"), [("easysr_g1", 1, np.inf), ("easysr_g2", 3, 2.58)])
def test_the_presets_repeat_easysr_s_numbers(tmp_path, generation, order, clip):
    gt = save(tmp_path / "gt/x.nii", brain(16, 18, 16))
    data = dataset(tmp_path, scale=(1, 3, 1), profile=f"zoom{order}", normalization=generation, gt_size=[16, 18, 16])
    lq = ndimage.zoom(gt, (1, 1 / 3, 1), order=order)
    whole, patch = data.sample(0, None), data.sample(0, np.random.default_rng(0))
    for role, x in (("lq", lq), ("gt", gt)):
        z = ((x - x.mean(dtype=float)) / x.std(dtype=float)).clip(-clip, clip)
        expected = (z - z.min()) / (z.max() - z.min())
        np.testing.assert_allclose(whole.images[role][..., 0], expected * 255, atol=1e-2)
        np.testing.assert_allclose(patch.images[role][..., 0], expected, atol=1e-4)
    assert (whole.black, whole.white, whole.form.data_range) == (0, 255, 255)


def test_the_form_says_where_the_restored_grid_lies_and_its_range(three):
    save(three / "gt/z.nii", 3 * brain(20, 24, 26))
    sample = dataset(three).sample(0, None)
    np.testing.assert_allclose(sample.form.affine, OBLIQUE, atol=1e-6)
    assert sample.form.header.shape == (20, 24, 26)
    assert (sample.form.black, sample.form.white) == (sample.black, sample.white)
    highest = max(3 * brain(20, 24, 26).max(), *(brain(20, 24, 26, seed=k).max() for k in range(3)))
    assert sample.form.data_range == pytest.approx(highest, rel=1e-6)  # the set's, and its lowest is 0


def test_odd_sizes_train_by_patches_and_are_evaluated_cut_at_the_far_end(tmp_path, caplog):
    caplog.set_level("INFO", logger="srkit")
    gt = save(tmp_path / "gt/odd.nii", brain(97, 113, 61))
    data = dataset(tmp_path, scale=(2, 1, 4), gt_size=[24, 25, 24])
    data.check()
    assert "odd.nii (97, 113, 61) to (96, 113, 60)" in caplog.text
    assert data.sample(0, np.random.default_rng(0)).images["lq"].shape == (12, 25, 6, 1)
    whole = data.sample(0, None)
    assert whole.images["lq"].shape == (48, 113, 15, 1)
    np.testing.assert_allclose(whole.images["gt"][..., 0], gt[:96, :, :60])


@pytest.mark.parametrize(("share", "low", "high"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.2), (0.5, 0.4, 0.75)])
def test_foreground_prob_is_the_share_of_patches_centred_on_the_mask(tmp_path, share, low, high):
    mask = np.zeros((40, 40, 40), np.float32)
    mask[18:22, 10:14, 28:32] = 1
    save(tmp_path / "masks/x.nii.gz", mask)
    save(tmp_path / "gt/x.nii", 50 + 50 * mask)
    options = {"mask_root": str(tmp_path / "masks"), "normalization": "zscore"}
    data = dataset(tmp_path, scale=(1, 1, 2), gt_size=8, foreground_prob=share, **options)
    bright = [s.images["gt"][4, 4, 4:6].max() > 1 for s in patches(data, 100)]
    assert low <= np.mean(bright) <= high


def test_patches_reach_every_corner_of_the_volume(tmp_path):
    gt = save(tmp_path / "gt/x.nii", np.random.default_rng(0).uniform(1, 2, (5, 5, 12)).astype(np.float32))
    data = dataset(tmp_path, gt_size=4, foreground_prob=0.0)
    found = {s.images["gt"].tobytes() for s in patches(data, 200)}
    assert len(found) == 2 * 2 * 3
    assert gt.shape == (5, 5, 12)


def test_groups_come_from_the_name_or_a_table(tmp_path):
    for name in ("ratA_1", "ratA_2", "ratB_1"):
        save(tmp_path / f"gt/{name}.nii.gz", brain(8, 8, 8))
    data = dataset(tmp_path, group_pattern="^([^_]+)_")
    assert [data.sample(k, None).group for k in range(3)] == ["ratA", "ratA", "ratB"]
    (tmp_path / "animals.csv").write_text("name,key\nratA_1.nii.gz,a\nratA_2,a\nratB_1.nii,b\n")
    data = dataset(tmp_path, group_file=str(tmp_path / "animals.csv"))
    assert [data.sample(k, None).group for k in range(3)] == ["a", "a", "b"]
    (tmp_path / "animals.csv").write_text("name,key\nratA_1,a\n")
    with pytest.raises(DataError, match=r"2 volumes have no group by .*animals.csv: ratA_2, ratB_1"):
        dataset(tmp_path, group_file=str(tmp_path / "animals.csv"))


# Augmentation


MARKED = {"scale": (1, 2, 4), "gt_size": 40, "foreground_prob": 0.0}
CHANGES = {
    "none": {},
    "flips": {"flip_axes": [0, 1, 2]},
    "affine": {"affine_prob": 1.0},
    "elastic": {"elastic_prob": 1.0},
    "gamma": {"gamma_prob": 1.0},
    "bias": {"bias_prob": 1.0},
    "all": {"flip_axes": [0, 1, 2], "affine_prob": 1.0, "elastic_prob": 1.0, "gamma_prob": 1.0, "bias_prob": 1.0},
}


def marked(path: Path) -> None:
    grid = np.indices((48, 48, 48)).astype(np.float64)
    squared = sum((g - at) ** 2 for g, at in zip(grid, (21, 27, 22)))
    save(path, (1000 * np.exp(-squared / (2 * 3.0**2))).astype(np.float32), np.diag([0.1, 0.1, 0.1, 1]))


def place_of(unit: np.ndarray) -> np.ndarray:
    """Centre of what rises above the background."""
    return np.array(ndimage.center_of_mass((unit - unit.min())[..., 0].astype(np.float64)))


@pytest.mark.parametrize("profile", ["box", "gaussian"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_marker_lies_at_one_place_in_lq_and_gt_under_every_change(tmp_path, change, profile):
    marked(tmp_path / "gt/x.nii")
    data = dataset(tmp_path, **MARKED, profile=profile, **CHANGES[change])
    places = []
    for sample in patches(data, 8):
        gt, lq = place_of(sample.images["gt"]), place_of(sample.images["lq"])
        np.testing.assert_allclose((lq + 0.5) * (1, 2, 4) - 0.5, gt, atol=0.1)
        places.append(gt)
    assert np.ptp(places, axis=0).min() > 1  # the marker does move


def test_batches_are_the_same_with_worker_processes_and_aligned(tmp_path):
    marked(tmp_path / "gt/x.nii")
    data = dataset(tmp_path, **MARKED, **CHANGES["all"])
    data.prepare(progress=False)
    options = {"seed": 1, "batch_size": 2, "enlarge_ratio": 50}
    alone = list(itertools.islice(train_batches(data, **options), 3))
    with_workers = train_batches(data, num_workers=2, **options)
    for mine, theirs in zip(alone, with_workers):
        for role in ("lq", "gt"):
            np.testing.assert_array_equal(mine.images[role], theirs.images[role])
        for lq, gt in zip(theirs.images["lq"].numpy(), theirs.images["gt"].numpy()):
            np.testing.assert_allclose((place_of(lq) + 0.5) * (1, 2, 4) - 0.5, place_of(gt), atol=0.1)
    with_workers.close()


@pytest.mark.parametrize(("profile", "thickness"), [("box", 1.0), ("box", 1.4), ("gaussian", 1.0)])
def test_lq_of_a_patch_warped_by_nothing_is_the_cached_one(tmp_path, profile, thickness):
    save(tmp_path / "gt/x.nii", brain(20, 48, 48))  # its shell of zeros is wider than any slice
    made = {"gt_size": [8, 8, 8], "profile": profile, "thickness": thickness, "scale": (1, 2, 2)}
    still = {"affine_prob": 1.0, "rotation_deg": 0.0, "translation": 0.0, "scaling": (1.0, 1.0)}
    for a, b in zip(patches(dataset(tmp_path, **made)), patches(dataset(tmp_path, **made, **still))):
        np.testing.assert_allclose(a.images["gt"], b.images["gt"], atol=1e-5)
        np.testing.assert_allclose(a.images["lq"], b.images["lq"], atol=1e-5)


def test_a_warped_patch_makes_its_own_lq(three):
    data = dataset(three, gt_size=12, affine_prob=1.0, elastic_prob=1.0, scale=(1, 1, 4))
    for sample in patches(data, 6):
        lq, gt = sample.images["lq"][..., 0], sample.images["gt"][..., 0]
        np.testing.assert_allclose(lq, block_means(gt, (1, 1, 4)), atol=1e-5)


def test_gamma_and_bias_change_both_halves_alike(tmp_path):
    gt = np.random.default_rng(0).uniform(1, 2, (4, 4, 64)).repeat(4, axis=2)[..., :64].astype(np.float32)
    save(tmp_path / "gt/x.nii", gt)  # constant within slices, so that powers and means commute
    plain, curved = dataset(tmp_path, gt_size=4), dataset(tmp_path, gt_size=4, gamma_prob=1.0)
    for a, b in zip(patches(plain), patches(curved)):
        assert np.abs(a.images["gt"] - b.images["gt"]).max() > 1e-3
        np.testing.assert_allclose(b.images["lq"].repeat(4, axis=2), b.images["gt"], atol=1e-4)
    shaded = dataset(tmp_path, gt_size=[4, 4, 16], bias_prob=1.0, normalization="zscore")
    black, white = (lambda s: (s.black, s.white))(shaded.sample(0, None))
    for sample in patches(shaded, 6):
        raw = {role: x[..., 0].astype(np.float64) * (white - black) + black for role, x in sample.images.items()}
        np.testing.assert_allclose(raw["lq"], block_means(raw["gt"], (1, 1, 4)), rtol=0.01)


def test_the_log_says_what_is_augmented(three):
    assert "augmentation off" in dataset(three).describe()
    text = dataset(three, flip_axes=[1], elastic_prob=0.25).describe()
    assert "augmentation flips of axes 1, elastic 0.25" in text


# Made once


def test_samples_are_the_same_from_disk_and_from_memory(three):
    options = {"gt_size": 8, "affine_prob": 0.5, "flip_axes": [0]}
    on_disk, in_memory = dataset(three, **options), dataset(three, **options, cache="none")
    on_disk.prepare(progress=False)
    assert len(list((three / "cache/volumes").iterdir())) == 3
    assert bits(on_disk) == bits(in_memory)
    again = dataset(three, **options)
    assert bits(again) == bits(on_disk)


@pytest.mark.parametrize("cache", ["auto", "none"])
def test_no_sample_decodes_or_resamples_a_volume(three, monkeypatch, cache):
    data = dataset(three, gt_size=8, affine_prob=0.5, cache=cache)
    data.prepare(progress=False)
    made: list = []

    def refuse(*arguments, **options):
        raise AssertionError("a whole volume was read")

    monkeypatch.setattr(volume_pairs_module, "read_volume", refuse)
    thicken = volume_pairs_module.thicken
    monkeypatch.setattr(volume_pairs_module, "thicken", lambda x, *a, **k: made.append(x.size) or thicken(x, *a, **k))
    patches(data)
    assert made
    assert max(made) == 8**3
    if cache == "auto":
        patches(dataset(three, gt_size=8, cache=cache))  # another start


def test_only_changed_files_are_made_again(three, monkeypatch):
    dataset(three, gt_size=8).prepare(progress=False)
    save(three / "gt/rat.01.nii.gz", brain(20, 24, 26, seed=7))
    read, decoded = volume_pairs_module.read_volume, []
    monkeypatch.setattr(
        volume_pairs_module, "read_volume", lambda path, **options: decoded.append(path.name) or read(path, **options)
    )
    data = dataset(three, gt_size=8)
    data.prepare(progress=False)
    assert decoded == ["rat.01.nii.gz"]
    assert bits(data) == bits(dataset(three, gt_size=8, cache="none"))
    assert len(list((three / "cache/volumes").iterdir())) == 3


@pytest.mark.parametrize(
    "other", [{"scale": (1, 1, 2)}, {"thickness": 0.5}, {"normalization": "zscore"}, {"profile": "zoom1"}]
)
def test_other_settings_have_files_of_their_own(three, other):
    dataset(three, gt_size=8).prepare(progress=False)
    options = {"gt_size": 8, **other}
    assert bits(dataset(three, **options)) == bits(dataset(three, **options, cache="none"))


@pytest.mark.parametrize("damage", ["cut", "short", "empty", "foreign", "gone"])
def test_a_damaged_cache_file_is_made_anew(three, damage):
    before = dataset(three, gt_size=8)
    before.prepare(progress=False)
    for path in (three / "cache/volumes").iterdir():
        whole = path.read_bytes()
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(
                {"cut": whole[:-64], "short": whole[:2000], "empty": b"", "foreign": b"{}\n" + whole}[damage]
            )
    assert bits(dataset(three, gt_size=8)) == bits(dataset(three, gt_size=8, cache="none"))


def _bits_of(root: Path, results) -> None:
    data = dataset(root, gt_size=8)
    data.prepare(progress=False)
    results.put(bits(data))


def test_runs_that_start_together_do_not_disturb_each_other(three):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    runs = [context.Process(target=_bits_of, args=(three, results)) for _ in range(3)]
    for run in runs:
        run.start()
    found = [results.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(30)
    assert found == [bits(dataset(three, gt_size=8, cache="none"))] * 3
    assert sorted(p.suffix for p in (three / "cache/volumes").iterdir()) == [".volume"] * 3


def test_what_a_killed_run_left_is_removed_after_a_day(three):
    folder = three / "cache/volumes"
    folder.mkdir(parents=True)
    for name, age in (("old.tmp", 100_000), ("young.tmp", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (os.stat(folder).st_mtime - age,) * 2)
    dataset(three, gt_size=8).prepare(progress=False)
    assert [p.name for p in folder.glob("*.tmp")] == ["young.tmp"]


def test_a_folder_that_cannot_be_written_is_said_once_and_memory_serves(three, caplog):
    (three / "cache").write_text("in the way")
    data = dataset(three, gt_size=8)
    data.prepare(progress=False)
    assert "cannot be written" in caplog.text
    assert "cache in memory" in data.describe()
    assert bits(data) == bits(dataset(three, gt_size=8, cache="none"))
    with pytest.raises(RefusedError, match="cannot be written"):
        dataset(three, gt_size=8, cache="disk").prepare(progress=False)


def test_auto_writes_for_patches_only_and_not_on_a_full_disk(three, monkeypatch):
    assert "cache off" in dataset(three).describe()
    assert str(three / "cache") in dataset(three, cache="disk").describe()
    assert str(three / "cache") in dataset(three, gt_size=8).describe()
    monkeypatch.setattr("srkit.data.volumes._BYTES_PER_VOXEL", 10**12)
    assert "more than half of the" in dataset(three, gt_size=8).describe()


def test_pickling_carries_no_voxels_of_mapped_files(three):
    data = dataset(three, gt_size=8)
    expected = bits(data)
    packed = pickle.dumps(data)
    assert len(packed) < 10_000
    assert bits(pickle.loads(packed)) == expected


# Names and checks


def test_partners_share_the_stem_whether_packed_or_not(tmp_path):
    gt = brain(16, 16, 16)
    for name, other in (("rat.01", "rat.01"), ("rat.02", "rat.02")):
        save(tmp_path / f"gt/{name}.nii.gz", gt)
        save(tmp_path / f"lq/{other}_thick.nii", np.float32(2) * block_means(gt, (1, 1, 4)).astype(np.float32),
             scaled_affine(OBLIQUE, (1, 1, 0.25)))  # fmt: skip
    data = dataset(tmp_path, dataroot_lq=str(tmp_path / "lq"), filename_tmpl="{}_thick")
    data.check()
    sample = data.sample(1, None)
    assert [Path(sample.paths[role]).name for role in ("lq", "gt")] == ["rat.02_thick.nii", "rat.02.nii.gz"]
    np.testing.assert_allclose(sample.images["lq"][..., 0], 2 * block_means(gt, (1, 1, 4)), rtol=1e-6)
    assert sample.name == "rat.02"
    assert sample.form.header.path.name == "rat.02_thick.nii"
    np.testing.assert_allclose(sample.form.affine, OBLIQUE, atol=1e-6)


def acquired(root: Path, moved_mm: float = 0.0, axes: tuple[int, ...] = (0, 1, 2), extra: int = 0) -> VolumeDataset:
    gt = save(root / "gt/x.nii", brain(16, 16, 16 + extra))
    affine = scaled_affine(np.diag([0.1, 0.1, 0.1, 1.0]), (1, 1, 0.25))[:, [*axes, 3]]
    affine[:3, 3] += (0, 0, moved_mm)
    save(root / "gt/x.nii", gt, np.diag([0.1, 0.1, 0.1, 1.0]))
    save(root / "lq/x.nii", block_means(gt[..., :16], (1, 1, 4)).astype(np.float32), affine)
    return dataset(root, dataroot_lq=str(root / "lq"), gt_size=8)


@pytest.mark.parametrize("moved_mm", [0.0, 0.19, -0.19])
def test_acquired_lq_may_lie_half_a_voxel_off(tmp_path, moved_mm):
    data = acquired(tmp_path, moved_mm)
    data.check()
    # A restored volume lies where lq lies, as at inference, and not where gt does.
    np.testing.assert_allclose(data.sample(0, None).form.affine[:3, 3], (0, 0, moved_mm), atol=1e-6)


def test_acquired_lq_elsewhere_in_the_scanner_is_refused_naming_both(tmp_path):
    with pytest.raises(DataError, match=r"x.nii and .*x.nii do not cover the same place .* up to 0.21 mm"):
        acquired(tmp_path, 0.21).check()


def test_acquired_lq_that_is_turned_is_refused(tmp_path):
    with pytest.raises(DataError, match="do not cover the same place"):
        acquired(tmp_path, axes=(1, 0, 2)).check()


def test_acquired_gt_may_exceed_lq_by_less_than_a_block(tmp_path):
    data = acquired(tmp_path, extra=3)
    data.check()
    assert data.sample(0, None).images["gt"].shape == (16, 16, 16, 1)
    with pytest.raises(
        DataError, match=r"gt.x.nii is \(16, 16, 20\), expected \(16, 16, 16\): scale \(1, 1, 4\) times"
    ):
        acquired(tmp_path, extra=4).check()


def test_acquired_lq_alone_decides_black_and_white(tmp_path):
    data = acquired(tmp_path)
    before = data.sample(0, None)
    save(tmp_path / "gt/x.nii", 5 * brain(16, 16, 16), np.diag([0.1, 0.1, 0.1, 1.0]))
    after = dataset(tmp_path, dataroot_lq=str(tmp_path / "lq")).sample(0, None)
    assert (after.black, after.white) == (before.black, before.white)
    assert after.images["gt"].max() == pytest.approx(5 * before.images["gt"].max())


def ramp(shape, affine: np.ndarray) -> np.ndarray:
    """1000 + 20 x + 30 y - 10 z at every voxel's place in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return (1000 + (index @ affine[:3, :3].T + affine[:3, 3]) @ [20, 30, -10]).astype(np.float32)


def coarse_grid(gt_affine: np.ndarray, spacing: float, degrees: float) -> np.ndarray:
    """Voxels `spacing` times as long along axis 1, turned about axis 2, that begin before gt does."""
    turn = np.radians(degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = gt_affine[:3, :3] @ rotation @ np.diag([1, spacing, 1])
    affine[:3, 3] = gt_affine[:3, 3] - affine[:3, :3] @ [4, 3, 2]
    return affine


def test_acquired_lq_of_another_grid_is_brought_onto_gts(tmp_path):
    gt_affine, lq_affine = OBLIQUE, coarse_grid(OBLIQUE, 2.6, 3.0)
    save(tmp_path / "gt/a.nii.gz", ramp((18, 21, 16), gt_affine), gt_affine)
    save(tmp_path / "lq/a.nii.gz", ramp((30, 16, 22), lq_affine), lq_affine)
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "cache": "none"}
    data = VolumeDataset(scale=(1, 3, 1), resample_lq=True, **roots)
    data.check()
    sample = data.sample(0, None)
    # A spline of degree three gives a plane back, so lq holds the ramp at the middles of gt's blocks.
    expected = ramp((18, 7, 16), scaled_affine(gt_affine, (1, 1 / 3, 1)))
    np.testing.assert_allclose(sample.images["lq"][..., 0], expected, atol=0.05)
    assert sample.images["gt"].shape == (18, 21, 16, 1)
    np.testing.assert_allclose(sample.form.affine, gt_affine, atol=1e-6)
    with pytest.raises(DataError, match=r"expected \(30, 48, 22\)"):
        VolumeDataset(scale=(1, 3, 1), **roots).check()


def test_a_wrong_header_of_gt_is_corrected_without_touching_lq_that_is_resampled(tmp_path):
    gt_affine, lq_affine = np.diag([0.2, 0.2, 0.2, 1.0]), np.diag([0.2, 0.2, 0.5, 1.0])
    lq_affine[:3, 3] = (-1.0, -1.0, -2.5)
    told = respaced_affine(gt_affine, (20, 20, 21), (2.0, 2.0, 2.0))
    save(tmp_path / "gt/a.nii.gz", ramp((20, 20, 21), gt_affine), told)
    save(tmp_path / "lq/a.nii.gz", ramp((30, 30, 20), lq_affine), lq_affine)
    data = dataset(
        tmp_path, scale=(1, 1, 3), dataroot_lq=str(tmp_path / "lq"), resample_lq=True, spacing_mm=(0.2, 0.2, 0.2)
    )
    expected = ramp((20, 20, 7), scaled_affine(gt_affine, (1, 1, 1 / 3)))
    np.testing.assert_allclose(data.sample(0, None).images["lq"][..., 0], expected, atol=0.05)


def test_acquired_lq_that_cannot_be_resampled_is_refused(tmp_path):
    save(tmp_path / "gt/a.nii.gz", ramp((18, 21, 16), OBLIQUE), OBLIQUE)
    roots = {"dataroot_gt": str(tmp_path / "gt"), "dataroot_lq": str(tmp_path / "lq"), "cache": "none"}
    short = coarse_grid(OBLIQUE, 2.6, 0)
    save(tmp_path / "lq/a.nii.gz", ramp((22, 9, 20), short), short)  # 3 + 21 / 2.6 voxels would do
    with pytest.raises(DataError, match="voxels of lq beyond"):
        VolumeDataset(scale=(1, 3, 1), resample_lq=True, **roots).check()
    fine = coarse_grid(OBLIQUE, 1.2, 0)
    save(tmp_path / "lq/a.nii.gz", ramp((30, 40, 30), fine), fine)
    with pytest.raises(DataError, match="too far from"):
        VolumeDataset(scale=(1, 3, 1), resample_lq=True, **roots).check()
    with pytest.raises(RefusedError, match="resample_lq is for acquired lq"):
        VolumeDataset(scale=(1, 3, 1), resample_lq=True, dataroot_gt=str(tmp_path / "gt"))


def test_equal_names_in_two_folders_do_not_collide(tmp_path):
    for folder in ("m1", "m2"):
        save(tmp_path / f"gt/{folder}/scan.nii.gz", brain(8, 8, 8, seed=int(folder[1])))
    data = dataset(tmp_path, recursive=True, group_pattern="^(m\\d)/")
    samples = [data.sample(k, None) for k in range(2)]
    assert [s.name for s in samples] == ["m1__scan", "m2__scan"]
    assert [s.group for s in samples] == ["m1", "m2"]
    assert not np.array_equal(samples[0].images["gt"], samples[1].images["gt"])


def test_a_list_file_picks_and_repeats_volumes(three):
    (three / "list.txt").write_text("rat.02.nii.gz\nrat.00.nii.gz\nrat.02.nii.gz\n")
    data = dataset(three, meta_info_file=str(three / "list.txt"))
    assert [data.sample(k, None).name for k in range(3)] == ["rat.02", "rat.00", "rat.02"]
    (three / "list.txt").write_text("rat.02.nii.gz\nmouse.nii.gz\n")
    with pytest.raises(DataError, match=r"1 of 2 names in .*list.txt are not in .*mouse"):
        dataset(three, meta_info_file=str(three / "list.txt"))


@pytest.mark.parametrize("cache", ["none", "disk"])
def test_a_volume_that_a_list_repeats_is_made_once(three, monkeypatch, cache):
    made = []
    make = volume_pairs_module.VolumePairs.make
    monkeypatch.setattr(volume_pairs_module.VolumePairs, "make", lambda self, k: made.append(k) or make(self, k))
    (three / "list.txt").write_text("rat.02.nii.gz\nrat.00.nii.gz\nrat.02.nii.gz\n")
    data = dataset(three, meta_info_file=str(three / "list.txt"), gt_size=8, cache=cache)
    data.prepare(progress=False)
    assert sorted(made) == [0, 1]
    assert data.cache.get(0) is data.cache.get(2)
    (three / "gt/rat.02.nii.gz").write_bytes(b"broken")
    again = dataset(three, meta_info_file=str(three / "list.txt"), gt_size=8, cache=cache)
    assert sorted(again.cache.build(range(3))) == [0, 2]  # every place that names it


def test_everything_wrong_with_the_files_is_said_at_once(three):
    nan = brain(20, 24, 26)
    nan[3, 4, 5] = np.nan
    nibabel.save(nibabel.Nifti1Image(nan, OBLIQUE), three / "gt/nan.nii")
    save(three / "gt/small.nii", brain(20, 24, 7))
    packed = (three / "gt/rat.01.nii.gz").read_bytes()
    (three / "gt/rat.01.nii.gz").write_bytes(packed[: len(packed) // 2])
    save(three / "gt/twice.nii", brain(20, 24, 26))
    save(three / "gt/twice.nii.gz", brain(20, 24, 26))
    with pytest.raises(DataError) as caught:
        dataset(three, gt_size=8).check()
    text = str(caught.value)
    assert "3 problems" in text
    assert "twice.nii.gz are one volume by name" in text
    assert "2 volumes cannot be used" in text
    assert "nan.nii: NaN or infinite values" in text
    assert "rat.01.nii.gz: cannot be unpacked" in text
    assert "1 volumes are smaller than gt_size (8, 8, 8)" in text
    assert "small.nii (20, 24, 7)" in text


def test_a_missing_or_misplaced_mask_is_named(three):
    for k in (0, 1):
        save(three / f"masks/rat.0{k}.nii", (brain(20, 24, 26) > 0).astype(np.float32))
    with pytest.raises(DataError, match=r"1 volumes have no mask in .*masks: rat.02"):
        dataset(three, mask_root=str(three / "masks"))
    save(three / "masks/rat.02.nii", (brain(20, 24, 25) > 0).astype(np.float32))
    with pytest.raises(DataError, match=r"rat.02.nii.gz is \(20, 24, 26\), expected \(20, 24, 25\)"):
        dataset(three, mask_root=str(three / "masks")).check()


def test_the_given_mask_is_what_evaluation_gets(three):
    mask = np.zeros((20, 24, 26), np.float32)
    mask[4:9, 5:7, 3:] = 2
    for k in range(3):
        save(three / f"masks/rat.0{k}.nii", mask)
    sample = dataset(three, mask_root=str(three / "masks")).sample(2, None)
    np.testing.assert_array_equal(sample.images["mask"][..., 0], mask[..., :24] > 0)


def test_a_mask_may_be_all_body_but_not_empty(three):
    (three / "masks").mkdir()
    for k in range(3):
        nibabel.save(nibabel.Nifti1Image(np.ones((20, 24, 26), np.uint8), OBLIQUE), three / f"masks/rat.0{k}.nii")
    data = dataset(three, mask_root=str(three / "masks"))
    data.check()
    assert data.sample(0, None).images["mask"].all()
    nibabel.save(nibabel.Nifti1Image(np.zeros((20, 24, 26), np.uint8), OBLIQUE), three / "masks/rat.01.nii")
    with pytest.raises(DataError, match=r"masks/rat.01.nii: no voxel of it belongs to the body"):
        dataset(three, mask_root=str(three / "masks")).check()


def test_the_space_asked_for_is_what_a_volume_takes_at_most(tmp_path):
    save(tmp_path / "gt/x.nii", 1 + brain(12, 12, 12))
    pair = dataset(tmp_path, scale=(1, 1, 1), foreground_threshold=0.0, cache="none").cache.get(0)
    assert sum(array.nbytes for array in pair.arrays.values()) <= volumes_module._BYTES_PER_VOXEL * pair.gt.size
    assert sum(array.itemsize for array in pair.arrays.values()) == volumes_module._BYTES_PER_VOXEL


def test_unusable_volumes_are_skipped_when_asked(three, caplog):
    (three / "gt/rat.01.nii.gz").write_bytes(gzip.compress(b"no volume"))
    with pytest.raises(DataError, match=r"1 volumes cannot be used: .*rat.01"):
        dataset(three, gt_size=8).check()
    data = dataset(three, gt_size=8, on_error="skip")
    data.check()
    assert "will be skipped" in caplog.text
    with pytest.raises(DataError, match=r"rat.01"):
        data.sample(1, np.random.default_rng(0))
    assert data.sample(2, None).form.data_range > 0


def test_check_off_looks_at_names_only(three):
    (three / "gt/rat.01.nii.gz").write_bytes(b"")
    dataset(three, gt_size=8, check="off").check()


def test_headers_that_lie_are_overridden_and_a_series_needs_a_choice(tmp_path):
    series = np.stack([brain(8, 8, 8, seed=k) for k in range(2)], axis=-1)
    (tmp_path / "gt").mkdir()
    nibabel.save(nibabel.Nifti1Image(series, np.diag([2.0, 2.0, 2.0, 1.0])), tmp_path / "gt/x.nii")
    with pytest.raises(DataError, match=r"is 4D .* choose one with volume: 0 to 1"):
        dataset(tmp_path).check()
    sample = dataset(tmp_path, volume=1, spacing_mm=(0.2, 0.2, 0.2)).sample(0, None)
    np.testing.assert_allclose(sample.images["gt"][..., 0], brain(8, 8, 8, seed=1))
    assert sample.form.header.spacing_mm == pytest.approx((0.2, 0.2, 0.2))


def test_nan_is_repaired_only_when_asked(tmp_path):
    x = brain(8, 8, 8)
    x[4, 4, 4] = np.nan
    (tmp_path / "gt").mkdir()
    nibabel.save(nibabel.Nifti1Image(x, OBLIQUE), tmp_path / "gt/x.nii")
    with pytest.raises(DataError, match="repair_nan: true"):
        dataset(tmp_path).sample(0, None)
    assert dataset(tmp_path, repair_nan=True).sample(0, None).images["gt"][4, 4, 4] == 0


def test_the_fingerprint_follows_names_sizes_and_recipe_but_not_times(three):
    before = dataset(three).fingerprint()
    os.utime(three / "gt/rat.00.nii.gz", (1, 1))
    assert dataset(three, gt_size=8, flip_axes=[0]).fingerprint() == before
    assert dataset(three, thickness=0.8).fingerprint() != before
    assert dataset(three, normalization="zscore").fingerprint() != before
    save(three / "gt/rat.00.nii.gz", brain(20, 24, 30))
    assert dataset(three).fingerprint() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (4, 4)}, "scale of volumes is three whole numbers"),
        ({"scale": (1, 0, 1)}, "scale of volumes is three whole numbers"),
        ({"gt_size": 10}, "gt_size: 10 is not a multiple of scale 4; 8 and 12 are"),
        ({"gt_size": [8, 8]}, "gt_size: found \\[8, 8\\], expected one number or 3"),
        ({"foreground_prob": 1.5}, "foreground_prob must lie in 0 to 1"),
        ({"thickness": 3.0}, "thickness: found 3.0, expected above 0 and at most 2"),
        ({"profile": "zoom3", "thickness": 0.8}, "thickness is of slices; found 0.8 with profile zoom3"),
        ({"profile": "zoom3", "affine_prob": 0.5}, "found profile zoom3: set both to 0"),
        ({"dataroot_lq": "lq", "elastic_prob": 0.5}, "found dataroot_lq, whose volumes were acquired"),
        ({"dataroot_lq": "lq", "profile": "gaussian"}, "profile and thickness say how lq is made"),
        ({"filename_tmpl": "{}_x"}, "filename_tmpl: found '{}_x' without dataroot_lq"),
        ({"meta_info_file": "a.txt", "recursive": True}, "recursive searches folders; found with meta_info_file"),
        ({"group_pattern": "rat"}, "has 0 groups, expected one"),
        ({"group_pattern": "("}, "is no regular expression"),
        ({"group_pattern": "(r)", "group_file": "a.csv"}, "both say which animal"),
        ({"flip_axes": [3]}, "flip_axes: found"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(three, options, message, monkeypatch):
    monkeypatch.chdir(three)
    with pytest.raises(RefusedError, match=message):
        dataset(three, **options)


def test_an_empty_folder_says_what_was_expected(tmp_path):
    (tmp_path / "gt").mkdir()
    with pytest.raises(DataError, match=r"dataroot_gt: no volumes \(.nii, .nii.gz\) in"):
        dataset(tmp_path)


# Real scans


def test_mice_train_by_patches_and_are_evaluated_whole(test_data, tmp_path):
    root = test_data / "mri/mouse_T2_150um/val"
    data = dataset(tmp_path, dataroot_gt=str(root), gt_size=[32, 32, 32], affine_prob=0.5, group_pattern="_tp3_(\\d+)_")
    data.check()
    units = [s.images["gt"] for s in patches(data, 12)]
    assert 0.2 < np.mean([u.mean() for u in units]) < 0.8
    whole = data.sample(0, None)
    assert whole.images["gt"].shape == (112, 128, 80, 1)
    assert whole.images["lq"].shape == (112, 128, 20, 1)
    assert 0.1 < whole.images["mask"].mean() < 0.2  # the set's description: 83 to 87 % are background
    assert whole.group == "14"


def test_a_scan_with_slope_a_plain_one_and_an_oblique_one_are_all_read(test_data, tmp_path):
    for folder, scale in (("human", (1, 1, 3)), ("other", (1, 4, 1))):
        data = dataset(tmp_path, dataroot_gt=str(test_data / "mri" / folder), scale=scale)
        data.check()
        for k in range(len(data)):
            sample = data.sample(k, None)
            lq, gt = sample.images["lq"], sample.images["gt"]
            assert gt.shape[:3] == tuple(n * s for n, s in zip(lq.shape, scale))
            assert lq.mean(dtype=np.float64) == pytest.approx(gt.mean(dtype=np.float64), rel=1e-5)


def test_every_unusable_volume_is_refused_with_its_own_reason(tmp_path):
    for number in range(5):
        (tmp_path / f"gt/{number}.nii").parent.mkdir(exist_ok=True)
        (tmp_path / f"gt/{number}.nii").write_bytes(b"no scan" * number)
    with pytest.raises(DataError, match=r"5 volumes cannot be used:(\n +\S+/\d\.nii: .+){5}"):
        VolumeDataset(scale=(1, 3, 1), dataroot_gt=str(tmp_path / "gt")).check()
