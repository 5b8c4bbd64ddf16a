"""Patches out of slides: where they are cut, how lq is made, what decides them, and what the check finds."""

from __future__ import annotations

import csv
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
from slide_files import WITHOUT, foreign_slide, noise, stained, write_slide
from tiny import in_process, measured, options

from srkit.data import SlideDataset
from srkit.data.loader import eval_samples, train_batches
from srkit.errors import DataError, RefusedError
from srkit.imaging.resize import imresize, mod_crop
from srkit.imaging.slides import open_slide

pytest.importorskip("openslide", reason=WITHOUT)

COLOURS = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two slides of 256 x 512 pixels at 2 um, tissue in the left half of each."""
    root = tmp_path_factory.mktemp("slides")
    for k, name in enumerate(("a", "b")):
        write_slide(root / f"{name}.tif", stained(256, 512, k), mpp=2.0)
    return root


def dataset(folder, **options) -> SlideDataset:
    return SlideDataset(
        **({"scale": (2, 2), "dataroot_gt": str(folder), "gt_size": 32, "patches_per_slide": 20} | options)
    )


def drawn(data: SlideDataset, count: int = 60):
    return [data.sample(k % len(data), np.random.default_rng([0, k])) for k in range(count)]


def corner_of(sample) -> tuple[int, int]:
    """(x, y) in level-0 pixels, from the label."""
    x, y = sample.paths["gt"].rpartition("(")[2].rstrip(")").split(",")
    return int(x), int(y)


def test_gt_is_the_slide_at_the_place_named_and_lq_the_whole_slides_reduction_there(folder):
    data = dataset(folder)
    wholes = {name: stained(256, 512, k) for k, name in enumerate(("a", "b"))}
    reduced = {name: imresize(whole, Fraction(1, 2)) for name, whole in wholes.items()}
    for sample in drawn(data):
        x, y = corner_of(sample)
        np.testing.assert_array_equal(sample.images["gt"], wholes[sample.group][y : y + 32, x : x + 32])
        lq = reduced[sample.group][y // 2 : y // 2 + 16, x // 2 : x // 2 + 16]
        np.testing.assert_array_equal(sample.images["lq"], lq)
        assert sample.white == 255


def test_at_another_size_of_pixels_gt_is_the_reduced_slide(tmp_path):
    picture = stained(247, 503)  # no multiple of anything
    write_slide(tmp_path / "a.tif", picture, mpp=2.0)
    gt = imresize(picture, Fraction(2, 3))
    lq = imresize(mod_crop(gt, 3), Fraction(1, 3))
    data = dataset(tmp_path, mpp=3.0, gt_size=[24, 36], scale=(3, 3), tissue_fraction=0)
    corners = set()
    for sample in drawn(data, 80):
        x, y = (round(n * 2 / 9) for n in corner_of(sample))  # in lq pixels: 4.5 level-0 pixels each
        corners.add((x, y))
        np.testing.assert_array_equal(sample.images["gt"], gt[3 * y : 3 * y + 24, 3 * x : 3 * x + 36])
        np.testing.assert_array_equal(sample.images["lq"], lq[y : y + 8, x : x + 12])
    assert len(corners) > 60
    assert {min(x for x, _ in corners), min(y for _, y in corners)} == {0}  # borders are reached
    assert max(y for _, y in corners) == 165 // 3 - 8


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_patches_hold_the_tissue_asked_for(folder, fraction):
    found = [
        sample.images["gt"].std(axis=-1).mean(axis=0) > 5
        for sample in drawn(dataset(folder, tissue_fraction=fraction), 200)
    ]
    shares = [columns.mean() for columns in found]
    # Places are looked at every 8 pixels and cells are 4 wide: an eighth of the patch either way, and half a cell.
    assert min(shares) >= fraction - 0.2
    assert min(shares) < 1 or fraction == 1
    assert max(corner_of(s)[0] for s in drawn(dataset(folder, tissue_fraction=0), 100)) > 400


def test_tissue_is_drawn_from_everywhere(folder):
    corners = np.array([corner_of(sample) for sample in drawn(dataset(folder, tissue_fraction=1), 300)])
    counts, _, _ = np.histogram2d(*corners.T, bins=(2, 2), range=((0, 224), (0, 224)))
    assert counts.min() > 45  # of 75 on average, sd 7.5
    assert len(np.unique(corners, axis=0)) > 250
    assert [len(np.unique(axis // 2 % 4)) for axis in corners.T] == [4, 4]  # also between the places looked at


def test_evaluated_patches_are_fixed_and_of_their_own_slide_whatever_else_is_in_the_set(folder, tmp_path):
    both = dataset(folder)
    write_slide(tmp_path / "b.tif", stained(256, 512, 1), mpp=2.0)
    alone = dataset(tmp_path, use_hflip=True, use_rot=True, **COLOURS)
    for k in range(20):
        a, b = both.sample(2 * k + 1, None), alone.sample(k, None)
        assert (a.name, a.group) == (b.name, b.group) == (f"b_{k:04d}", "b")
        for role in ("lq", "gt"):
            np.testing.assert_array_equal(a.images[role], b.images[role])
    assert len({both.sample(k, None).name for k in range(40)}) == 40
    assert len({corner_of(alone.sample(k, None)) for k in range(20)}) == 20


def test_lq_and_gt_are_turned_alike_in_all_eight_ways(folder):
    plain, turned = dataset(folder), dataset(folder, use_hflip=True, use_rot=True)
    ways = set()
    for before, after in zip(drawn(plain), drawn(turned)):
        for way in range(8):
            images = {
                role: np.rot90(np.flip(image, 1) if way > 3 else image, way) for role, image in before.images.items()
            }
            if np.array_equal(images["gt"], after.images["gt"]):
                np.testing.assert_array_equal(images["lq"], after.images["lq"])
                ways.add(way)
    assert len(ways) == 8


def test_colours_change_alike_and_leave_places_and_turns_as_they_were(folder):
    options = {"use_hflip": True, "use_rot": True}
    plain, bright = dataset(folder, **options), dataset(folder, **options, brightness=0.2, color_change_prob=1.0)
    for before, after in zip(drawn(plain, 20), drawn(bright, 20)):
        assert before.paths == after.paths
        factors = [after.images[role].astype(float) / before.images[role] for role in ("lq", "gt")]
        dark = [before.images[role] < 200 for role in ("lq", "gt")]  # what a factor of 1.2 does not clip
        assert np.median(factors[0][dark[0]]) == pytest.approx(np.median(factors[1][dark[1]]), abs=0.01)


def test_batches_are_the_same_with_workers_and_after_a_resume(folder):
    data = dataset(folder, use_hflip=True, use_rot=True, **COLOURS)
    settings = {"seed": 7, "batch_size": 5}
    alone = list(islice(train_batches(data, **settings), 10))
    apart = list(islice(train_batches(data, **settings, num_workers=2), 10))
    resumed = list(
        islice(train_batches(dataset(folder, use_hflip=True, use_rot=True, **COLOURS), **settings, start_sample=30), 4)
    )
    for a, b in [*zip(alone, apart), *zip(alone[6:], resumed)]:
        assert a.names == b.names
        for role in ("lq", "gt"):
            assert (a.images[role] == b.images[role]).all()
    assert alone[8].epoch == 1  # 40 samples an epoch


def test_evaluation_is_the_same_with_workers(folder):
    data = dataset(folder)
    for a, b in zip(eval_samples(data, range(40)), eval_samples(data, range(40), num_workers=2)):
        assert (a.name, a.group) == (b.name, b.group)
        np.testing.assert_array_equal(a.images["gt"], b.images["gt"])


def test_a_network_trains_and_is_measured_on_slides_in_groups(folder, tiny):
    section = {"type": "SlideDataset", "dataroot_gt": str(folder), "gt_size": 32, "patches_per_slide": 3, "mpp": 2.0}
    train = {**section, "use_hflip": True, "batch_size_per_gpu": 2, "num_worker_per_gpu": 2}
    val = {**section, "name": "val"}
    assert in_process(tiny, options(tiny, datasets__train=train, datasets__val=val)) == 0
    assert measured(tiny, datasets__val=val) == 0
    with (tiny / "results/tested/metrics.csv").open(newline="") as file:
        rows = [(row["image"], row["group"]) for row in csv.DictReader(file) if row["model"] == "nearest"]
    assert rows == [(f"{slide}_{patch:04d}", slide) for patch in range(3) for slide in "ab"]


def test_a_list_names_the_slides_of_one_side_of_a_split(folder, tmp_path):
    (tmp_path / "val.txt").write_text("b.tif\n")
    data = dataset(folder, meta_info_file=str(tmp_path / "val.txt"))
    assert {data.sample(k, None).group for k in range(len(data))} == {"b"}
    assert len(data) == 20


def test_names_keep_their_folders_where_stems_are_not_unique(tmp_path):
    for sub in ("p1", "p2"):
        (tmp_path / sub).mkdir()
        write_slide(tmp_path / sub / "s.tif", stained(256, 512), mpp=2.0)
    data = dataset(tmp_path, recursive=True)
    assert [data.sample(k, None).name for k in range(2)] == ["p1__s_0000", "p2__s_0000"]


def test_check_names_every_bad_slide_at_once(tmp_path):
    good = write_slide(tmp_path / "good.tif", stained(256, 512), mpp=2.0).read_bytes()
    (tmp_path / "cut.tif").write_bytes(good[:50_000])
    (tmp_path / "empty.svs").write_bytes(b"")
    write_slide(tmp_path / "glass.tif", np.full((256, 512, 3), 245, np.uint8), mpp=2.0)
    write_slide(tmp_path / "no_mpp.tif", stained(256, 512), mpp=None)
    with pytest.raises(DataError) as caught:
        dataset(tmp_path, mpp=2.0).check()
    text = str(caught.value)
    assert "1 slides are empty (0 bytes)" in text
    assert "3 slides cannot be used" in text
    assert "cut.tif: not a slide that OpenSlide reads" in text
    assert "glass.tif has no patch of 32x32 with 50% of tissue, the most is 0%" in text
    assert "no_mpp.tif does not say its microns per pixel; give them (slide_mpp)" in text


def test_slides_that_cannot_give_a_patch_are_refused(tmp_path):
    write_slide(tmp_path / "a.tif", stained(256, 512), mpp=2.0)
    with pytest.raises(DataError, match="has 512x256 pixels, less than a patch of 260x260"):
        dataset(tmp_path, gt_size=260).check()
    with pytest.raises(DataError, match=r"2 microns per pixel, coarser than the 0\.5 asked for"):
        dataset(tmp_path, mpp=0.5).check()


def test_slide_mpp_is_for_slides_that_do_not_say_it(tmp_path):
    write_slide(tmp_path / "silent.tif", stained(256, 512), mpp=None)
    write_slide(tmp_path / "told.tif", stained(256, 512), mpp=2.0)
    data = dataset(tmp_path, mpp=4.0, slide_mpp=1.0)
    data.check()
    assert [data.places(k).view.downsample for k in range(2)] == [4, 2]


def test_full_check_finds_damage_anywhere(tmp_path):
    path = write_slide(tmp_path / "a.tif", stained(256, 512), mpp=2.0, compression="jpeg")
    data = bytearray(path.read_bytes())
    places = [k for k in range(len(data)) if data[k : k + 3] == b"\xff\xd8\xff"]
    data[places[7] : places[7] + 300] = bytes(300)  # the last of the first row: glass, which no patch is cut from
    path.write_bytes(data)
    dataset(tmp_path, tissue_fraction=1).check()
    with pytest.raises(DataError, match=r"a.tif: .* cannot be decoded"):
        dataset(tmp_path, check="full", tissue_fraction=1).check()


def test_check_off_looks_for_missing_and_empty_files_only(tmp_path):
    (tmp_path / "a.svs").write_text("no slide")
    (tmp_path / "b.svs").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        dataset(tmp_path, check="off").check()
    assert "b.svs" in str(caught.value)
    assert "a.svs" not in str(caught.value)
    (tmp_path / "list.txt").write_text("a.svs\ngone.svs\n")
    with pytest.raises(DataError, match=r"1 slides are missing: .*gone.svs"):
        dataset(tmp_path, check="off", meta_info_file=str(tmp_path / "list.txt")).check()


def test_names_that_stand_twice_are_found_with_all_else(tmp_path):
    write_slide(tmp_path / "a.tif", stained(256, 512), mpp=2.0)
    (tmp_path / "b.tif").write_bytes(b"")
    (tmp_path / "list.txt").write_text("a.tif\nb.tif\na.tif\n")
    with pytest.raises(DataError, match=r"1 names stand twice in .*: a.tif(.|\n)*empty \(0 bytes\)"):
        dataset(tmp_path, meta_info_file=str(tmp_path / "list.txt"))


def test_under_skip_a_bad_slide_is_replaced_by_the_next(tmp_path, caplog):
    write_slide(tmp_path / "b.tif", stained(256, 512), mpp=2.0)
    (tmp_path / "a.tif").write_text("no slide")
    data = dataset(tmp_path, on_error="skip", patches_per_slide=5)
    data.check()
    assert "a.tif" in caplog.text
    batches = list(islice(train_batches(data, seed=0, batch_size=4, on_error="skip"), 3))
    assert {name[0] for batch in batches for name in batch.names} == {"b"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gt_size": 33}, "33 is not a multiple of scale 2"),
        ({"tissue_fraction": 1.5}, "tissue_fraction must lie in 0 to 1, got 1.5"),
        ({"mpp": 0.0}, "mpp: found 0.0"),
        ({"patches_per_slide": 0}, "patches_per_slide: found 0"),
        ({"recursive": True, "meta_info_file": "x.txt"}, "drop one"),
        ({"scale": (2, 2, 2)}, "for height and width"),
    ],
)
def test_options_that_mean_nothing_are_refused(folder, options, message):
    with pytest.raises(RefusedError, match=message):
        dataset(folder, **options)


def test_a_folder_without_slides_says_so(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"dataroot_gt: no slides \(.svs, .*\) in '.*' itself"):
        dataset(tmp_path)


def test_fingerprint_follows_names_sizes_and_the_cutting(tmp_path):
    path = write_slide(tmp_path / "a.tif", stained(256, 512), mpp=2.0)
    before = dataset(tmp_path).fingerprint()
    raw = path.read_bytes()
    path.write_bytes(raw)
    assert dataset(tmp_path).fingerprint() == before
    for change in ({"mpp": 4.0}, {"slide_mpp": 2.0}, {"tissue_fraction": 0.1}, {"patches_per_slide": 7}):
        assert dataset(tmp_path, **change).fingerprint() != before
    path.write_bytes(raw + b"x")
    assert dataset(tmp_path).fingerprint() != before


def test_describe_says_how_slides_are_read(folder):
    line = dataset(folder, mpp=4.0, gt_size=[16, 32]).describe()
    assert line.startswith("SlideDataset: 2 slides, 20 patches of 32x16 of each; first ")
    assert "a.tif, level 1, 4 um/pixel, " in line
    assert "level 0 times 2/3, 3 um/pixel" in dataset(folder, mpp=3.0).describe()


def test_a_slide_by_another_program_gives_its_own_pixels(tmp_path):
    picture = noise(256, 256)
    foreign_slide(tmp_path / "a.tif", [picture], mpp=2.0)
    for sample in drawn(dataset(tmp_path), 5):
        x, y = corner_of(sample)
        np.testing.assert_array_equal(sample.images["gt"], picture[y : y + 32, x : x + 32])


def test_real_slides_give_tissue_at_one_size_of_pixels(test_data):
    data = dataset(test_data / "histology/wsi", mpp=0.5, slide_mpp=0.25, gt_size=128, scale=(4, 4), patches_per_slide=4)
    data.check()
    assert len(data) == 12
    for k in range(12):
        sample = data.sample(k, None)
        assert sample.images["lq"].shape == (32, 32, 3)
        x, y = corner_of(sample)
        red, green, _ = sample.images["gt"].reshape(-1, 3).mean(axis=0)
        assert red > green + 10  # eosin and haematoxylin, not glass
        level0 = open_slide(sample.paths["gt"].partition(" at ")[0]).view()
        assert x + 128 <= level0.width
        assert y + 128 <= level0.height
