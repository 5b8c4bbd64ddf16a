"""The tools that prepare data: LMDB folders, lists, splits by group, and the checks of splits and pairs."""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import options, write_options

from srkit.data import PairedImageDataset
from srkit.data.pairing import meta_info_names
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.imaging.shift import pair_shift
from srkit.imaging.volumes import read_volume, write_volume
from srkit.tools.__main__ import TOOLS, main
from srkit.tools.split import part_groups

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


def srkit(*words: object) -> int:
    return int(main([str(word) for word in words]))


def noise(height: int = 12, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """Smooth random picture."""
    return imresize(noise(height // 8, width // 8, seed), 8)


@pytest.fixture
def three(tmp_path):
    """Pictures of three kinds in two folders: 8 bit, 16 bit, JPEG."""
    write_image(tmp_path / "in/a.png", noise(seed=1))
    write_image(tmp_path / "in/s/b.png", noise(20, 30, 2).astype(np.uint16) * 257)
    write_image(tmp_path / "in/s/c.jpg", scene(3))
    return tmp_path


def test_every_door_in_scripts_opens_a_tool(tmp_path):
    doors = [path for path in SCRIPTS.glob("*.py") if "sys.exit(main([" in path.read_text()]
    assert len(doors) >= 7
    for path in doors:
        assert re.search(r'main\(\["([a-z-]+)"', path.read_text())[1] in TOOLS
    found = subprocess.run(
        [sys.executable, SCRIPTS / "make_meta_info.py", "nowhere", "x"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 2
    assert "folder 'nowhere' does not exist" in found.stderr


# LMDB


def test_an_lmdb_holds_the_files_bytes_and_srkit_reads_the_same_pictures(three):
    lmdb = pytest.importorskip("lmdb")
    assert srkit("lmdb", three / "in", three / "out.lmdb", "--recursive") == 0
    names = ["a.png", "s/b.png", "s/c.jpg"]
    with lmdb.open(str(three / "out.lmdb"), readonly=True) as environment, environment.begin() as transaction:
        for name in names:
            assert transaction.get(name.rpartition(".")[0].encode()) == (three / "in" / name).read_bytes()
    files = PairedImageDataset(scale=(2, 2), dataroot_gt=str(three / "in"), recursive=True)
    stored = PairedImageDataset(scale=(2, 2), dataroot_gt=str(three / "out.lmdb"), io_backend="lmdb")
    for k in range(3):
        np.testing.assert_array_equal(stored.sample(k, None).images["gt"], files.sample(k, None).images["gt"])


def test_meta_info_has_basicsr_lines(three):
    pytest.importorskip("lmdb")
    srkit("lmdb", three / "in", three / "out.lmdb", "--recursive")
    lines = (three / "out.lmdb/meta_info.txt").read_text().splitlines()
    assert lines == ["a.png (12,16,3) 1", "s/b.png (20,30,3) 1", "s/c.png (96,128,3) 1"]
    # BasicSR takes what stands before the first dot as the key, and decodes the value by OpenCV
    assert [line.split(".")[0] for line in lines] == ["a", "s/b", "s/c"]


def test_the_database_has_room_for_many_small_and_for_large_files(tmp_path):
    pytest.importorskip("lmdb")
    for k in range(300):
        write_image(tmp_path / f"in/{k:03d}.png", np.full((1, 1, 1), k % 256, np.uint8))
    write_image(tmp_path / "in/large.png", noise(900, 900))  # 2.4 MB, which does not compress
    assert srkit("lmdb", tmp_path / "in", tmp_path / "out.lmdb") == 0


def test_an_unreadable_picture_is_named_and_no_database_is_left(three, capsys):
    pytest.importorskip("lmdb")
    (three / "in/bad.png").write_bytes((three / "in/a.png").read_bytes()[:60])
    assert srkit("lmdb", three / "in", three / "out.lmdb", "--recursive") == 2
    assert "1 of 4 files are unreadable" in (message := capsys.readouterr().err)
    assert "bad.png" in message
    assert sorted(p.name for p in three.iterdir()) == ["in"]


def test_a_name_that_basicsr_would_not_open_is_refused(three, capsys):
    assert srkit("lmdb", three / "in", three / "out") == 2
    assert "name it" in capsys.readouterr().err


def test_names_with_dots_are_said_to_be_lost_on_basicsr(tmp_path, capsys):
    pytest.importorskip("lmdb")
    write_image(tmp_path / "in/TS1.ab_x0.png", noise())
    assert srkit("lmdb", tmp_path / "in", tmp_path / "o.lmdb") == 0
    assert "1 names hold a dot (first: TS1.ab_x0.png)" in capsys.readouterr().out


# Lists


def test_meta_lists_names_and_sizes_and_is_read_as_meta_info_file(three):
    assert srkit("meta", three / "in", three / "list.txt", "--recursive") == 0
    assert (three / "list.txt").read_text() == "a.png (12,16,3)\ns/b.png (20,30,3)\ns/c.jpg (96,128,3)\n"
    assert meta_info_names(str(three / "list.txt")) == ["a.png", "s/b.png", "s/c.jpg"]


def test_meta_filters_by_size_whichever_way_a_picture_stands(tmp_path, capsys):
    for name, size in {"wide": (10, 20), "high": (20, 10), "low": (9, 30), "short": (15, 19)}.items():
        write_image(tmp_path / f"in/{name}.png", noise(*size))
    assert srkit("meta", tmp_path / "in", tmp_path / "l.txt", "--min_size", 10, 20) == 0
    assert meta_info_names(str(tmp_path / "l.txt")) == ["high.png", "wide.png"]
    assert "2 of 4 pictures" in capsys.readouterr().out


def test_meta_names_what_it_cannot_read_and_overwrites_nothing(three, capsys):
    (three / "in/bad.png").write_bytes(b"")
    assert srkit("meta", three / "in", three / "list.txt") == 2
    assert "1 files are unreadable" in capsys.readouterr().err
    (three / "in/bad.png").unlink()
    (three / "list.txt").write_text("mine\n")
    assert srkit("meta", three / "in", three / "list.txt") == 2
    assert "list.txt exists" in capsys.readouterr().err
    assert (three / "list.txt").read_text() == "mine\n"


# Splits


@pytest.fixture
def slides(tmp_path):
    """Ten slides of one to four tiles."""
    for slide in range(10):
        for tile in range(1 + slide % 4):
            write_image(tmp_path / f"in/slide{slide}_x{tile}.png", noise(seed=slide * 10 + tile))
    return tmp_path


KEY = "^([^_]+)_"


def listed(folder, part: str) -> list[str]:
    return (folder / f"{part}.txt").read_text().splitlines()


def test_no_group_stands_in_two_parts_and_every_picture_in_one(slides):
    assert srkit("split", slides / "in", slides / "out", "--key", KEY) == 0
    names = {part: listed(slides / "out", part) for part in ("train", "val", "test")}
    groups = {part: {name.split("_")[0] for name in names[part]} for part in names}
    assert [len(groups[part]) for part in names] == [8, 1, 1]
    assert len(set.union(*groups.values())) == 10
    assert sorted(name for part in names.values() for name in part) == sorted(p.name for p in (slides / "in").iterdir())


def test_folds_test_every_group_once_and_train_on_the_others(slides):
    assert srkit("split", slides / "in", slides / "out", "--key", KEY, "--folds", 4) == 0
    everyone = {f"slide{k}" for k in range(10)}
    tested: list[str] = []
    for fold in range(1, 5):
        inside, outside = (
            {name.split("_")[0] for name in listed(slides / "out", f"fold{fold}_{part}")} for part in ("test", "train")
        )
        assert inside | outside == everyone
        assert not inside & outside
        assert len(inside) in (2, 3)
        tested += inside
    assert sorted(tested) == sorted(everyone)


@pytest.fixture
def brains(tmp_path):
    """Two scans of each of four animals."""
    for animal in range(4):
        for scan in range(2):
            values = np.random.default_rng(animal * 2 + scan).random((6, 7, 8)).astype(np.float32)
            write_volume(tmp_path / f"in/rat{animal}_{scan}.nii.gz", values, np.eye(4), like=None)
    return tmp_path


def test_volumes_are_split_by_animal_and_the_split_is_verified(brains, capsys):
    assert srkit("split", brains / "in", brains / "out", "--key", KEY, "--parts", "train=0.5", "val=0.5") == 0
    train, val = (listed(brains / "out", part) for part in ("train", "val"))
    assert len(train) == len(val) == 4
    assert not {name.split("_")[0] for name in train} & {name.split("_")[0] for name in val}
    lists = [brains / f"out/{part}.txt" for part in ("train", "val")]
    assert srkit("check-split", *lists, "--root", brains / "in", "--key", KEY) == 0
    lists[1].write_text("\n".join([*val, train[0]]))
    assert srkit("check-split", *lists, "--root", brains / "in", "--key", KEY) == 9
    out = capsys.readouterr().out
    assert f"group {train[0].split('_')[0]} stands in" in out
    assert "equal files" in out


def test_slides_are_listed_by_their_own_suffixes(tmp_path):
    for name in ("a1.svs", "a2.svs", "b1.ndpi", "c1.tif"):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"x")
    assert srkit("split", tmp_path / "in", tmp_path / "out", "--key", "^(.)", "--folds", 3) == 0
    names = sorted(name for k in (1, 2, 3) for name in listed(tmp_path / "out", f"fold{k}_test"))
    assert names == ["a1.svs", "a2.svs", "b1.ndpi", "c1.tif"]


def test_a_scan_packed_anew_is_still_the_same_scan(brains, capsys):
    values, header = read_volume(brains / "in/rat0_0.nii.gz")
    write_volume(brains / "other/copy.nii", values, header.affine, like=header)
    assert srkit("check-split", brains / "in", brains / "other") == 9
    assert "equal files" in capsys.readouterr().out


def test_the_order_is_that_of_the_hash_of_seed_and_key(slides):
    keys = [f"slide{k}" for k in range(10)]
    ordered = sorted(keys, key=lambda key: hashlib.sha256(f"5\0{key}".encode()).hexdigest())
    expected = {key: "a" if k < 5 else "b" for k, key in enumerate(ordered)}
    assert part_groups(reversed(keys), {"a": 0.5, "b": 0.5}, 5) == expected
    assert part_groups(keys, {"a": 0.5, "b": 0.5}, 6) != expected


@pytest.mark.parametrize("order", [("train", "val", "test"), ("test", "val", "train")])
def test_every_part_gets_a_group(order):
    shares = {"train": 0.9, "val": 0.05, "test": 0.05}
    for count in range(3, 30):
        parts = part_groups([str(k) for k in range(count)], {part: shares[part] for part in order}, 0)
        assert set(parts.values()) == {"train", "val", "test"}
        assert abs(sum(part == "train" for part in parts.values()) - 0.9 * count) <= 2


def test_the_table_names_keys_parts_and_seed_and_is_itself_a_table_of_keys(slides, capsys):
    srkit("split", slides / "in", slides / "out", "--key", KEY, "--seed", 7)
    rows = list(csv.DictReader((slides / "out/split.csv").open()))
    assert rows[0].keys() == {"name", "key", "part", "seed"}
    assert {row["key"] for row in rows} == {f"slide{k}" for k in range(10)}
    assert {row["seed"] for row in rows} == {"7"}
    assert all(row["name"] in listed(slides / "out", row["part"]) for row in rows)
    table = slides / "out/split.csv"
    assert srkit("split", slides / "in", slides / "again", "--table", table, "--seed", 7) == 0
    assert listed(slides / "again", "train") == listed(slides / "out", "train")


def test_the_lists_are_read_as_meta_info_file(slides):
    srkit("split", slides / "in", slides / "out", "--key", KEY)
    data = PairedImageDataset(
        scale=(2, 2), dataroot_gt=str(slides / "in"), meta_info_file=str(slides / "out/train.txt")
    )
    assert len(data) == len(listed(slides / "out", "train"))


def test_a_table_may_leave_out_suffixes(slides):
    rows = [f"{p.stem},{p.stem[:6]}" for p in (slides / "in").iterdir()]
    (slides / "t.csv").write_text("name,key\n" + "\n".join(rows))
    assert srkit("split", slides / "in", slides / "out", "--table", slides / "t.csv") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--key", "^slide[0-4]_x(0)"], "pictures have no group by --key"),
        (["--key", "slide"], "has 0 groups, expected one"),
        (["--key", "("], "is no regular expression"),
        (["--key", "^(slide)"], "1 groups (slide) cannot make 3 parts"),
        (["--key", KEY, "--parts", "a=0.5", "b=0.4"], "the shares sum to 0.9, expected 1"),
        (["--key", KEY, "--parts", "a=1", "b"], "found 'b', expected different names with shares"),
        (["--table", "gone.csv"], "gone.csv cannot be read"),
        (["--key", KEY, "--folds", 1], "--folds: found 1, expected 2 or more"),
        (["--key", KEY, "--folds", 11], "10 groups"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_and_leaves_nothing(slides, capsys, words, message):
    assert srkit("split", slides / "in", slides / "out", *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in slides.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,slide\na,b\n", "expected columns name and key"),
        ("name,key\na,b\na,c\n", "gives 'a' two keys, 'b' and 'c'"),
    ],
)
def test_a_table_of_another_form_is_refused(slides, capsys, text, message):
    (slides / "t.csv").write_text(text)
    assert srkit("split", slides / "in", slides / "out", "--table", slides / "t.csv") == 2
    assert message in capsys.readouterr().err


def test_a_clean_split_has_no_findings(slides, capsys):
    srkit("split", slides / "in", slides / "out", "--key", KEY)
    lists = [slides / f"out/{part}.txt" for part in ("train", "val", "test")]
    assert srkit("check-split", *lists, "--root", slides / "in", "--table", slides / "out/split.csv") == 0
    assert "no picture, near copy or given group on two sides" in capsys.readouterr().out


def test_a_group_in_two_parts_is_found(slides, capsys):
    for name in ("slide0_x9.png", "slide1_x9.png"):
        write_image(slides / "val" / name, noise(seed=int(name[5]) + 500))
    assert srkit("check-split", slides / "in", slides / "val", "--key", KEY) == 9
    out = capsys.readouterr().out
    assert f"group slide0 stands in {slides}/in and {slides}/val" in out
    assert "2 findings" in out


def test_equal_files_are_found_under_any_name_also_in_one_part(slides, capsys):
    raw = (slides / "in/slide3_x2.png").read_bytes()
    (slides / "val").mkdir()
    for name in ("other.png", "twin.png"):
        (slides / "val" / name).write_bytes(raw)
    assert srkit("check-split", slides / "in", slides / "val") == 9
    out = capsys.readouterr().out
    assert f"equal files: {slides}/in/slide3_x2.png = {slides}/val/other.png = {slides}/val/twin.png" in out
    assert "1 findings" in out  # not once more as near copies


def test_a_copy_in_another_size_format_and_brightness_is_found(tmp_path, capsys):
    for k in range(5):
        write_image(tmp_path / f"train/{k}.png", scene(k))
        write_image(tmp_path / f"val/{k}.png", scene(k + 10))
    write_image(tmp_path / "val/copy.jpg", (imresize(scene(2), Fraction(3, 4)) * 0.8).astype(np.uint8))
    assert srkit("check-split", tmp_path / "train", tmp_path / "val") == 9
    out = capsys.readouterr().out
    assert f"near copies: {tmp_path}/train/2.png and {tmp_path}/val/copy.jpg" in out
    assert "1 findings" in out


def test_flat_pictures_are_no_copies_of_each_other(tmp_path):
    for part, level in (("train", 10), ("val", 200)):
        flat = np.full((40, 40, 3), level, np.uint8)
        write_image(tmp_path / f"{part}/a.png", flat)
        flat[0, 0] += 1  # all that its thumbnail has, and it is equal in both
        write_image(tmp_path / f"{part}/b.png", flat)
    assert srkit("check-split", tmp_path / "train", tmp_path / "val") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["in"], "compares two or more different parts"),
        (["in", "in"], "compares two or more different parts"),
        (["in", "list.txt"], "--root says in which folder"),
    ],
)
def test_check_split_says_what_it_needs(slides, capsys, words, message):
    (slides / "list.txt").write_text("slide0_x0.png\n")
    assert srkit("check-split", *(slides / word for word in words)) == 2
    assert message in capsys.readouterr().err


# Shifted pairs


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_halves_that_lie_on_each_other_have_no_shift(scale):
    gt = scene(0, 144, 192)
    for lq in (
        imresize(gt, Fraction(1, scale)),
        cv2.resize(gt, (192 // scale, 144 // scale), interpolation=cv2.INTER_AREA),
    ):
        shift = pair_shift(lq, gt, (scale, scale))
        assert shift is not None
        assert max(abs(shift.down), abs(shift.right)) < 0.02
        assert shift.correlation > 0.99


@pytest.mark.parametrize("scale", [2, 4])
def test_dropping_pixels_shifts_lq_by_half_a_step(scale):
    gt = scene(1, 144, 192)
    shift = pair_shift(gt[::scale, ::scale], gt, (scale, scale))
    assert shift is not None
    assert shift[:2] == pytest.approx([(scale - 1) / 2] * 2, abs=0.1)


def test_a_shift_is_measured_with_its_direction():
    large = scene(2, 160, 208)
    gt, moved = large[8:-8, 8:-8], large[7:-9, 10:-6]  # content one pixel down, two to the left
    shift = pair_shift(imresize(moved, Fraction(1, 2)), gt, (2, 2))
    assert shift is not None
    assert shift[:2] == pytest.approx([1, -2], abs=0.03)


def test_a_flat_or_tiny_picture_tells_nothing():
    flat = np.full((96, 96, 3), 80, np.uint8)
    assert pair_shift(flat[::2, ::2], flat, (2, 2)) is None
    assert pair_shift(noise(8, 8), noise(16, 16), (2, 2)) is None


@pytest.fixture
def shifted(tmp_path):
    for k in range(3):
        gt = scene(k)
        write_image(tmp_path / f"gt/{k}.png", gt)
        write_image(tmp_path / f"good/{k}x4.png", imresize(gt, Fraction(1, 4)))
        write_image(tmp_path / f"bad/{k}x4.png", np.ascontiguousarray(gt[::4, ::4]))
    return tmp_path


def test_check_pairs_passes_good_pairs_and_names_shifted_ones(shifted, capsys):
    template = ["--scale", 4, "--filename_tmpl", "{}x4"]
    assert srkit("check-pairs", shifted / "gt", shifted / "good", *template) == 0
    assert "lq lies +0.00 gt pixels down, +0.00 right (median); 0 findings" in capsys.readouterr().out
    assert srkit("check-pairs", shifted / "gt", shifted / "bad", *template) == 9
    out = capsys.readouterr().out
    assert out.count("px down") == 3
    assert "3 findings" in out


def test_pictures_of_different_things_and_sizes_are_named(shifted, capsys):
    write_image(shifted / "good/1x4.png", imresize(scene(40), Fraction(1, 4)))
    write_image(shifted / "good/2x4.png", noise(24, 31))
    assert srkit("check-pairs", shifted / "gt", shifted / "good", "--scale", 4, "--filename_tmpl", "{}x4") == 9
    out = capsys.readouterr().out
    assert "1x4.png hardly shows what" in out
    assert "2.png of (96, 128) is not (4, 4) times" in out


def test_check_pairs_refuses_folders_that_do_not_pair(shifted, capsys):
    assert srkit("check-pairs", shifted / "gt", shifted / "good", "--scale", 4) == 2
    assert "have no partner" in capsys.readouterr().err


def test_srkit_check_warns_of_shifted_pairs(shifted, capsys):
    common = {"type": "PairedImageDataset", "filename_tmpl": "{}x4", "dataroot_gt": str(shifted / "gt")}
    good, bad = (common | {"dataroot_lq": str(shifted / half)} for half in ("good", "bad"))
    train = bad | {"gt_size": 32, "batch_size_per_gpu": 1, "cache": "none"}
    changes = {"scale": 4, "datasets__train": train, "datasets__val": good | {"name": "val"}}
    path = write_options(shifted, options(shifted, **changes))
    assert srkit("check", path) == 0
    out = capsys.readouterr().out
    assert re.search(r"warning: train: 3 of 3 pairs looked at, 3 measured: lq lies \+1.\d+ gt pixels down", out)
    assert "warning: val" not in out


def test_the_pictures_are_only_read(shifted):
    before = {p: p.read_bytes() for p in shifted.rglob("*.png")}
    srkit("check-pairs", shifted / "gt", shifted / "good", "--scale", 4, "--filename_tmpl", "{}x4")
    srkit("check-split", shifted / "gt", shifted / "good")
    assert {p: p.read_bytes() for p in shifted.rglob("*") if p.is_file()} == before
    assert read_image(shifted / "gt/0.png").shape == (96, 128, 3)
