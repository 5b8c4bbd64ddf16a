"""Which files become pairs, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srkit.data import MicroscopyPairedDataset, PairedImageDataset, SingleImageDataset
from srkit.data.names import NameList, need_folders, output_name, tile_key
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image


def grey(path: Path, height: int = 4, width: int = 4) -> None:
    write_image(path, np.full((height, width, 3), 128, np.uint8))


def folders(root: Path, gt: list[str], lq: list[str]) -> dict:
    for name in gt:
        grey(root / "gt" / name)
    for name in lq:
        grey(root / "lq" / name, 2, 2)
    return {"scale": (2, 2), "dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq")}


def test_partners_share_the_stem_whatever_the_suffix_and_the_order(tmp_path):
    data = PairedImageDataset(**folders(tmp_path, ["b.png", "a.png"], ["a.bmp", "b.jpg"]))
    assert [data.sample(k, None).paths["lq"].rsplit("/")[-1] for k in range(2)] == ["a.bmp", "b.jpg"]
    assert data.sample(0, None).name == "a"


def test_groups_of_pictures_come_from_the_name_or_a_table(tmp_path):
    names = ["s1_0.png", "s1_1.png", "s2_0.png"]
    data = PairedImageDataset(**folders(tmp_path, names, names), group_pattern="^([^_]+)_")
    assert [data.sample(k, None).group for k in range(3)] == ["s1", "s1", "s2"]
    (tmp_path / "slides.csv").write_text("name,key\ns1_0.png,a\ns1_1,a\ns2_0,b\n")
    data = PairedImageDataset(scale=(2, 2), dataroot_gt=str(tmp_path / "gt"), group_file=str(tmp_path / "slides.csv"))
    assert [data.sample(k, None).group for k in range(3)] == ["a", "a", "b"]
    given = {"scale": (2, 2), "dataroot_gt": str(tmp_path / "gt")}
    with pytest.raises(DataError, match=r"2 pictures have no group by \^\(s2\): s1_0, s1_1"):
        PairedImageDataset(**given, group_pattern="^(s2)")
    with pytest.raises(RefusedError, match="both say which slide a file is of"):
        PairedImageDataset(**given, group_pattern="^(s)", group_file="a.csv")


def test_filename_tmpl_names_the_partner(tmp_path):
    data = PairedImageDataset(**folders(tmp_path, ["a.png"], ["ax2.png"]), filename_tmpl="{}x2")
    assert data.sample(0, None).paths["lq"].endswith("ax2.png")
    assert data.sample(0, None).name == "a"


@pytest.mark.parametrize("template", ["x2", "{}{}", "../{}"])
def test_a_template_without_exactly_one_place_is_refused(tmp_path, template):
    with pytest.raises(RefusedError, match="filename_tmpl"):
        PairedImageDataset(**folders(tmp_path, ["a.png"], ["a.png"]), filename_tmpl=template)


def test_missing_partners_come_with_count_first_names_and_the_template_that_helps(tmp_path):
    names = [f"p{k}" for k in range(5)]
    given = folders(tmp_path, [f"{n}.png" for n in names], [f"{n}x2.png" for n in names])
    with pytest.raises(DataError) as caught:
        PairedImageDataset(**given)
    assert "5 of 5 files in" in str(caught.value)
    assert "p0.png, p1.png, p2.png and 2 more" in str(caught.value)
    assert "with filename_tmpl '{}x2' it would be p0x2" in str(caught.value)


def test_a_stray_lq_picture_is_named(tmp_path):
    with pytest.raises(DataError, match=r"1 of 2 files in .*lq have no partner in .*gt \(first: stray.png\)"):
        PairedImageDataset(**folders(tmp_path, ["a.png"], ["a.png", "stray.png"]))


def test_pairing_problems_and_size_problems_are_reported_together(tmp_path):
    given = folders(tmp_path, ["a.png", "b.png", "c.png"], ["a.png", "c.png"])
    grey(tmp_path / "lq/c.png", 3, 3)
    (tmp_path / "gt/a.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as caught:
        PairedImageDataset(**given)
    text = str(caught.value)
    assert "3 problems" in text
    assert "first: b.png" in text
    assert "c.png is 4x4, expected 6x6" in text
    assert "a.png: not a PNG" in text


def test_a_key_met_twice_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"differ only by suffix \(a.bmp = a.png\)"):
        PairedImageDataset(**folders(tmp_path, ["a.png", "a.bmp"], ["a.png"]))


def test_other_files_are_passed_over(tmp_path):
    given = folders(tmp_path, ["a.png"], ["a.png"])
    for name in ("Thumbs.db", "._a.png", "notes.txt"):
        (tmp_path / "lq" / name).write_bytes(b"x")
    assert len(PairedImageDataset(**given)) == 1


def test_a_missing_folder_is_answered_with_the_nearest_name(tmp_path):
    given = folders(tmp_path, ["a.png"], ["a.png"])
    (tmp_path / "high").mkdir()
    with pytest.raises(DataError, match=r"dataroot_gt: folder .*hihg' does not exist; did you mean '.*/high'"):
        PairedImageDataset(**{**given, "dataroot_gt": str(tmp_path / "hihg")})


def test_an_empty_folder_says_what_it_holds(tmp_path):
    (tmp_path / "gt" / "inner").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no pictures .* directly in .*; it holds inner/"):
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(tmp_path / "gt"))


def test_meta_info_picks_and_orders_and_leaves_other_files_alone(tmp_path):
    given = folders(tmp_path, ["a.png", "b b.png", "c.png"], ["a.png", "b b.png", "d.png"])
    (tmp_path / "meta.txt").write_text("b b.png (4,4,3)\na.png (4,4,3) 1\n")
    data = PairedImageDataset(**given, meta_info_file=str(tmp_path / "meta.txt"))
    assert sorted(data.sample(k, None).name for k in range(len(data))) == ["a", "b b"]


def test_a_name_on_two_lines_counts_twice_with_and_without_lq(tmp_path):
    given = folders(tmp_path, ["a.png", "b.png"], ["a.png", "b.png"])
    (tmp_path / "meta.txt").write_text("b.png\na.png\nb.png\n")
    for roots in (given, {k: v for k, v in given.items() if k != "dataroot_lq"}):
        data = PairedImageDataset(**roots, meta_info_file=str(tmp_path / "meta.txt"))
        assert [data.sample(k, None).name for k in range(3)] == ["b", "a", "b"]


def test_a_number_in_brackets_is_part_of_a_name_unless_it_is_a_size(tmp_path):
    given = folders(tmp_path, ["tile (12).png", "b.png"], ["tile (12).png", "b.png"])
    (tmp_path / "meta.txt").write_text("tile (12).png (4,4,3)\nb.png (4, 4)\ntile (12).png\n")
    data = PairedImageDataset(**given, meta_info_file=str(tmp_path / "meta.txt"))
    assert [data.sample(k, None).name for k in range(3)] == ["tile (12)", "b", "tile (12)"]


def test_meta_info_may_name_folders_below_the_root(tmp_path):
    given = folders(tmp_path, ["s1/a.png", "s2/a.png"], ["s1/ax2.png", "s2/ax2.png"])
    (tmp_path / "meta.txt").write_text("s1/a.png\ns2/a.png\n")
    data = PairedImageDataset(**given, filename_tmpl="{}x2", meta_info_file=str(tmp_path / "meta.txt"))
    assert [data.sample(k, None).name for k in range(2)] == ["s1__a", "s2__a"]


@pytest.mark.parametrize("line", ["../a.png", "x/../../a.png", "/etc/a.png", "C:\\a.png"])
def test_lines_that_lead_out_of_the_root_are_refused(tmp_path, line):
    given = folders(tmp_path, ["a.png"], ["a.png"])
    (tmp_path / "meta.txt").write_text(f"a.png\n{line}\n")
    with pytest.raises(DataError, match="line 2"):
        PairedImageDataset(**given, meta_info_file=str(tmp_path / "meta.txt"))


def test_names_of_the_list_that_are_gone_are_reported(tmp_path):
    given = folders(tmp_path, ["a.png"], ["a.png"])
    (tmp_path / "meta.txt").write_text("a.png\nz.png\n")
    with pytest.raises(DataError, match=r"1 of 2 names in .*meta.txt are not in .*gt \(first: z.png\)"):
        PairedImageDataset(**given, meta_info_file=str(tmp_path / "meta.txt"))


def microscopy(root: Path, lr: list[str], hr: list[str]) -> dict:
    for name in lr:
        grey(root / name, 2, 2)
    for name in hr:
        grey(root / name)
    (root / "lr.txt").write_text("\n".join(lr))
    (root / "hr.txt").write_text("\n".join(hr))
    return {
        "scale": (2, 2),
        "lr_meta_file": str(root / "lr.txt"),
        "hr_meta_file": str(root / "hr.txt"),
        "root": str(root),
    }


def tile(slide: str, size: int, x: int = 0) -> str:
    return f"M/1.{slide}/{size}px/TCGA-BR-{slide}-01A.u_40x_{size}px_x{x}_y512_Patch3.png"


EDGE = r"image_\d+px_(\d+)"


def test_pair_pattern_pairs_by_the_id_in_both_names(tmp_path):
    ids = ("0000", "0007")
    given = folders(tmp_path, [f"image_2400px_{k}.png" for k in ids], [f"image_600px_{k}.png" for k in ids])
    data = PairedImageDataset(**given, pair_pattern=EDGE)
    assert data.sample(1, None).paths["lq"].endswith("image_600px_0007.png")
    assert data.sample(1, None).name == "image_2400px_0007"


def test_one_missing_picture_is_reported_and_not_replaced_by_its_neighbour(tmp_path):
    gt = [f"image_2400px_{k:04d}.png" for k in range(4)]
    lq = [f"image_600px_{k:04d}.png" for k in (0, 2, 3)]
    with pytest.raises(DataError) as caught:
        PairedImageDataset(**folders(tmp_path, gt, lq), pair_pattern=EDGE)
    assert "1 problem\n" in str(caught.value)
    assert "1 of 4 files" in str(caught.value)
    assert "(first: image_2400px_0001.png)" in str(caught.value)


def test_names_without_an_id_and_ids_met_twice_are_reported(tmp_path):
    given = folders(tmp_path, ["image_9px_1.png", "notes.png"], ["image_3px_1.png", "image_4px_1.png"])
    with pytest.raises(DataError) as caught:
        PairedImageDataset(**given, pair_pattern=EDGE)
    assert "1 names in" in str(caught.value)
    assert "hold no id by pair_pattern" in str(caught.value)
    assert "notes.png" in str(caught.value)
    assert "image_3px_1.png = image_4px_1.png" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pair_pattern": r"px_\d+"}, "has 0 groups, expected one"),
        ({"pair_pattern": r"px_(\d+"}, "is no regular expression"),
        ({"pair_pattern": EDGE, "filename_tmpl": "{}x2"}, "found with filename_tmpl"),
        ({"pair_pattern": EDGE, "dataroot_lq": None}, "found without dataroot_lq"),
        ({"recursive": True, "meta_info_file": "list.txt"}, "found with meta_info_file"),
        ({"recursive": True, "io_backend": "lmdb"}, "found with an LMDB"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, message):
    with pytest.raises(RefusedError, match=message):
        PairedImageDataset(**{**folders(tmp_path, ["a.png"], ["a.png"]), **options})


def test_recursive_pairs_pictures_of_the_same_folder(tmp_path):
    names = ["a.png", "s1/a.png", "s1/deep/a.png", "s2/b.png"]
    data = PairedImageDataset(**folders(tmp_path, [*names, ".trash/x.png"], names), recursive=True)
    assert [data.sample(k, None).paths["lq"].removeprefix(f"{tmp_path}/lq/") for k in range(4)] == names


def test_without_recursive_folders_below_are_not_read(tmp_path):
    assert len(PairedImageDataset(**folders(tmp_path, ["a.png", "s/b.png"], ["a.png", "s/b.png"]))) == 1


def test_recursive_follows_links_and_reads_a_loop_once(tmp_path):
    grey(tmp_path / "far/b.png")
    grey(tmp_path / "root/a.png")
    (tmp_path / "root/link").symlink_to(tmp_path / "far")
    for name in ("loop", "again"):  # two: walked without end, they would be 2^40 folders
        (tmp_path / "root" / name).symlink_to(tmp_path / "root")
    data = SingleImageDataset(dataroot_lq=str(tmp_path / "root"), recursive=True)
    assert sorted(data.sample(k, None).name for k in range(len(data))) == ["a", "b"]


def test_other_files_are_named_in_one_line(tmp_path, caplog):
    given = folders(tmp_path, ["a.png"], ["a.png"])
    for name in ("Thumbs.db", "readme.txt"):
        (tmp_path / "gt" / name).write_text("no picture")
    with caplog.at_level("INFO", "srkit"):
        PairedImageDataset(**given)
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/gt: 2 files that are no pictures are passed over: Thumbs.db, readme.txt"
    ]


def test_a_list_file_may_use_either_slash(tmp_path):
    grey(tmp_path / "s1/a.png")
    (tmp_path / "list.txt").write_text("s1\\a.png\n")
    data = PairedImageDataset(scale=(2, 2), dataroot_gt=str(tmp_path), meta_info_file=str(tmp_path / "list.txt"))
    assert data.sample(0, None).paths["gt"] == f"{tmp_path}/s1/a.png"


def test_list_files_pair_line_by_line_and_slides_with_equal_fields_stay_two_pairs(tmp_path):
    data = MicroscopyPairedDataset(
        **microscopy(tmp_path, [tile("8363", 128), tile("1111", 128)], [tile("8363", 256), tile("1111", 256)])
    )
    assert len(data) == 2
    assert data.sample(0, None).name != data.sample(1, None).name
    assert "8363" in data.sample(0, None).paths["lq"]
    data.check()


def test_a_shifted_list_is_found_by_slide_and_field(tmp_path):
    lr, hr = [tile("1", 128), tile("2", 128)], [tile("2", 256), tile("1", 256)]
    with pytest.raises(DataError, match="2 lines pair different slides or fields"):
        MicroscopyPairedDataset(**microscopy(tmp_path, lr, hr))


def test_lists_of_different_length_and_repeated_lines_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"has 1 lines and .* 2"):
        MicroscopyPairedDataset(**microscopy(tmp_path, ["a.png", "b.png"], ["c.png"]))
    with pytest.raises(DataError, match=r"1 names stand twice in .*hr\.txt"):
        MicroscopyPairedDataset(**microscopy(tmp_path, ["a.png", "b.png"], ["c.png", "c.png"]))


def test_a_listed_file_that_is_gone_is_named_by_check(tmp_path):
    given = microscopy(tmp_path, ["a.png"], ["b.png"])
    (tmp_path / "b.png").unlink()
    with pytest.raises(DataError, match=r"gt files are missing: .*b\.png"):
        MicroscopyPairedDataset(**given, check="off").check()


def test_tile_key_is_slide_and_field_at_every_resolution():
    assert tile_key(tile("8363", 128)) == tile_key(tile("8363", 1024)) == "TCGA-BR-8363-01A.u x0_y512_Patch3"
    assert tile_key(tile("8363", 128)) != tile_key(tile("8364", 128))
    assert tile_key("holiday.png") is None


def test_single_images_have_no_gt(tmp_path):
    grey(tmp_path / "x.png")
    sample = SingleImageDataset(dataroot_lq=str(tmp_path)).sample(0, None)
    assert list(sample.images) == ["lq"]
    assert sample.name == "x"


def test_name_list_holds_bytes_not_strings():
    names = [f"bild_ä_{k:06}.png" for k in range(1000)]
    packed = NameList(names)
    assert list(packed) == names
    assert packed.nbytes == sum(len(n.encode()) for n in names) + 8 * 1001
    with pytest.raises(IndexError):
        packed[1000]


def test_output_names_keep_folders_only_where_they_must():
    assert not need_folders(NameList(["a/x.png", "b/y.png"]))
    assert need_folders(NameList(["a/x.png", "b/x.png"]))
    assert [output_name("a/x.1.png", keep) for keep in (False, True)] == ["x.1", "a__x.1"]
