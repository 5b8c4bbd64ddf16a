"""Pictures in zip and tar archives: the samples of the folder, and one clear line for what cannot be read."""

from __future__ import annotations

import io
import itertools
import json
import multiprocessing
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import in_process, options, pictures

from srkit.data import PairedImageDataset, SingleImageDataset
from srkit.data.folders import Folders
from srkit.data.loader import train_batches
from srkit.data.sources import in_threads
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image
from srkit.tools.__main__ import main as srkit


def pack(folder: Path, archive: Path, *, below: str = "", deflate: bool = True) -> Path:
    """All files of a folder, under their names below it, in an archive of the kind its suffix says."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [below + str(p.relative_to(folder)) for p in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as out:
            for path, name in zip(files, names):
                out.write(path, name)
    else:
        with tarfile.open(archive, "w") as out:
            for path, name in zip(files, names):
                out.add(path, name)
    return archive


def add_to_tar(archive: Path, name: str, data: bytes = b"", **changes) -> None:
    with tarfile.open(archive, "a") as out:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        for key, value in changes.items():
            setattr(member, key, value)
        out.addfile(member, io.BytesIO(data))


@pytest.fixture
def roots(tmp_path):
    rng = np.random.default_rng(0)
    for part, shape in (("gt", (16, 20, 3)), ("lq", (8, 10, 3))):
        for k in range(5):
            flat = np.full(shape, k, np.uint8) if k == 4 else rng.integers(0, 256, shape, dtype=np.uint8)
            write_image(tmp_path / part / f"p{k}.{'bmp' if k == 4 else 'png'}", flat)  # one that deflates well
    return tmp_path


def pairs(root: Path, gt: str = "gt", lq: str = "lq", **options) -> PairedImageDataset:
    given = {"cache_dir": str(root / "cache"), "gt_size": 8} | options
    return PairedImageDataset(scale=(2, 2), dataroot_gt=str(root / gt), dataroot_lq=str(root / lq), **given)


def batches(data, workers: int) -> list[np.ndarray]:
    data.check()
    data.sample(0, None)
    order = train_batches(data, seed=0, batch_size=4, num_workers=workers)
    return [
        np.concatenate([b.images[role].numpy().ravel() for role in ("lq", "gt")]) for b in itertools.islice(order, 3)
    ]


def deflated(root):
    return pairs(root, str(pack(root / "gt", root / "gt.zip")), str(pack(root / "lq", root / "lq.zip")))


def half_in_a_folder_half_stored(root):
    return pairs(root, str(pack(root / "gt", root / "gt.zip", deflate=False)), "lq", cache="none")


def tars(root):
    return pairs(
        root, str(pack(root / "gt", root / "gt.tar", below="./")), str(pack(root / "lq", root / "lq.tar")), cache="none"
    )


def folders_inside(root):
    gt, lq = pack(root / "gt", root / "gt.zip", below="HR/"), pack(root / "lq", root / "lq.tar", below="LR/X2/")
    return pairs(root, f"{gt}/HR", f"{lq}/LR/X2", cache="none")


def shards(root):
    for part in ("gt", "lq"):
        for k in range(5):
            (root / f"{part}_one").mkdir(exist_ok=True)
            file = next((root / part).glob(f"p{k}.*"))
            one = (root / f"{part}_one" / file.name).absolute()
            one.write_bytes(file.read_bytes())
            (root / f"{part}_shards").mkdir(exist_ok=True)
            pack(one.parent, root / f"{part}_shards/{k:03d}.tar")
            one.unlink()
    return pairs(root, "gt_shards", "lq_shards", io_backend="tar")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packed", [deflated, half_in_a_folder_half_stored, tars, folders_inside, shards])
def test_archives_give_the_samples_of_the_folders(roots, packed, workers):
    np.testing.assert_array_equal(batches(packed(roots), workers), batches(pairs(roots, cache="none"), workers))


def _pictures_of(data, results):
    results.put([data.sample(k, None).images["gt"].tobytes() for k in range(len(data))])


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("packed", [tars, deflated])
def test_a_set_opened_before_gives_the_same_pictures_in_other_processes(roots, start, packed):
    data = packed(roots)
    data.prepare(progress=False)
    here = [data.sample(k, None).images["gt"].tobytes() for k in range(5)]
    context = multiprocessing.get_context(start)
    results = context.Queue()
    others = [context.Process(target=_pictures_of, args=(data, results)) for _ in range(2)]
    for other in others:
        other.start()
    found = [results.get(timeout=60) for _ in others]
    for other in others:
        other.join(30)
    assert found == [here, here]


def test_threads_read_one_archive_beside_each_other(roots):
    source, _ = Folders().open("gt", str(pack(roots / "gt", roots / "gt.tar")))
    files, _ = Folders().open("gt", str(roots / "gt"))
    order = [k % 5 for k in range(200)]
    assert list(in_threads(source.encoded, order)) == [files.encoded(k) for k in order]


def test_an_archive_has_the_fingerprint_of_its_folder(roots):
    assert tars(roots).fingerprint() == pairs(roots).fingerprint()


def test_pictures_of_an_archive_are_evaluated_alone_too(roots):
    archive = pack(roots / "lq", roots / "lq.zip")
    alone, files = SingleImageDataset(dataroot_lq=str(archive)), SingleImageDataset(dataroot_lq=str(roots / "lq"))
    np.testing.assert_array_equal(alone.sample(3, None).images["lq"], files.sample(3, None).images["lq"])
    assert alone.sample(3, None).paths["lq"] == f"{archive}/p3.png"


def test_a_list_picks_pictures_by_their_names_in_the_archive(roots):
    (roots / "list.txt").write_text("HR/p3.png (16,20,3)\nHR/p1.png\n")
    archive = pack(roots / "gt", roots / "gt.zip", below="HR/")
    data = PairedImageDataset(scale=(2, 2), dataroot_gt=str(archive), meta_info_file=str(roots / "list.txt"))
    assert [data.sample(k, None).name for k in range(2)] == ["p3", "p1"]


def test_recursive_takes_the_folders_below_and_without_it_they_are_named(roots):
    archive = pack(roots / "gt", roots / "gt.tar", below="HR/")
    assert len(PairedImageDataset(scale=(2, 2), dataroot_gt=str(archive), recursive=True)) == 5
    with pytest.raises(DataError, match=r"5 of 5 lie in folder 'HR': write dataroot_gt: .*gt.tar/HR$"):
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(archive))


def test_hidden_files_are_no_pictures(roots):
    with zipfile.ZipFile(pack(roots / "gt", roots / "gt.zip"), "a") as out:
        out.writestr("__MACOSX/._p0.png", b"no picture")
        out.writestr("._p1.png", b"no picture")
    assert len(Folders(recursive=True).open("gt", str(roots / "gt.zip"))[0].names) == 5


def test_a_hard_link_in_a_tar_is_a_picture(roots):
    os.link(roots / "gt/p0.png", roots / "gt/q0.png")
    source, _ = Folders().open("gt", str(pack(roots / "gt", roots / "gt.tar")))
    names = list(source.names)
    assert source.encoded(names.index("q0.png")) == (roots / "gt/p0.png").read_bytes()


def test_a_long_name_in_a_tar_is_whole(tmp_path):
    name = "slide_" + "x" * 200 + ".png"
    write_image(tmp_path / "gt" / name, np.zeros((4, 4, 3), np.uint8))
    source, _ = Folders().open("gt", str(pack(tmp_path / "gt", tmp_path / "gt.tar")))
    assert list(source.names) == [name]


# Refusals


def refusal(root: Path, gt: str, **options) -> str:
    with pytest.raises(DataError) as caught:
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(root / gt), **options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["gt.tar.gz", "gt.tgz"])
def test_a_compressed_tar_is_answered_with_the_remedy(roots, name):
    with tarfile.open(roots / name, "w:gz") as out:
        out.add(roots / "gt/p0.png", "p0.png")
    assert "compressed as a whole" in refusal(roots, name)
    (roots / name).rename(roots / "gt.tar")  # or under a name that hides it
    assert "unpack it to a .tar (gunzip" in refusal(roots, "gt.tar")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.4])
def test_an_archive_that_is_cut_short_is_named(roots, kind, part):
    archive = pack(roots / "gt", roots / f"gt.{kind}")
    os.truncate(archive, int(archive.stat().st_size * part))
    assert f"gt.{kind}' cannot be read as a {kind}" in refusal(roots, f"gt.{kind}")


def test_a_tar_cut_between_two_members_is_named(roots):
    archive = pack(roots / "gt", roots / "gt.tar")
    with tarfile.open(archive) as opened:
        second = opened.getmembers()[1].offset
    os.truncate(archive, second)
    assert f"no member and no end mark at byte {second}" in refusal(roots, "gt.tar")


def test_a_damaged_header_within_a_tar_is_not_taken_for_its_end(roots):
    archive = pack(roots / "gt", roots / "gt.tar")
    with tarfile.open(archive) as opened:
        second = opened.getmembers()[1].offset
    with archive.open("r+b") as file:
        file.seek(second)
        file.write(b"\xff" * 512)
    assert f"at byte {second}" in refusal(roots, "gt.tar")


def test_joined_tars_are_not_read_by_half(roots):
    first = pack(roots / "gt", roots / "gt.tar").read_bytes()
    (roots / "gt.tar").write_bytes(first + pack(roots / "lq", roots / "lq.tar").read_bytes())
    assert "there is more after its end mark" in refusal(roots, "gt.tar")


def test_an_encrypted_zip_is_named(roots):
    archive = pack(roots / "gt", roots / "gt.zip")
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1  # the flag, in the first entry of the central directory
    archive.write_bytes(data)
    assert "1 pictures are encrypted; pack them again without a password (first: p0.png)" in refusal(roots, "gt.zip")


def test_a_compression_other_than_deflate_is_named(roots):
    with zipfile.ZipFile(roots / "gt.zip", "w", zipfile.ZIP_LZMA) as out:
        out.write(roots / "gt/p0.png", "p0.png")
    assert "neither stored nor deflated" in refusal(roots, "gt.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice_is_named(roots):
    with zipfile.ZipFile(pack(roots / "gt", roots / "gt.zip"), "a") as out:
        out.write(roots / "gt/p1.png", "p0.png")
    assert "1 names stand twice" in refusal(roots, "gt.zip")
    assert "first: p0.png" in refusal(roots, "gt.zip")
    shards = roots / "shards"
    shards.mkdir()
    for k in range(2):
        pack(roots / "gt", shards / f"{k}.tar")
    assert "5 names stand twice" in refusal(roots, "shards", io_backend="tar")


@pytest.mark.parametrize("name", ["../p9.png", "/etc/p9.png", "a/../../p9.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_leads_out_of_the_archive_is_refused_and_nothing_is_written(roots, name, kind):
    archive = pack(roots / "gt", roots / f"gt.{kind}")
    if kind == "tar":
        add_to_tar(archive, name, (roots / "gt/p0.png").read_bytes())
    else:
        with zipfile.ZipFile(archive, "a") as out:
            out.write(roots / "gt/p0.png", "place")
            out.infolist()[-1].filename = name
    assert "1 names" in (found := refusal(roots, f"gt.{kind}"))
    assert name.removeprefix("/") in found
    assert srkit(["slice", str(archive), str(roots / "tiles"), "--size", "4", "--stride", "4", "--recursive"]) == 2
    assert {p.name for p in roots.iterdir()} == {"gt", "lq", f"gt.{kind}"}


def test_symbolic_links_in_a_tar_are_named(roots):
    archive = pack(roots / "gt", roots / "gt.tar")
    add_to_tar(archive, "p9.png", type=tarfile.SYMTYPE, linkname="p0.png")
    assert "1 pictures are links to other files" in refusal(roots, "gt.tar")


def test_the_kind_must_be_the_one_that_the_option_names(roots):
    pack(roots / "gt", roots / "gt.zip")
    assert "is a zip, found with io_backend tar; write {type: zip}" in refusal(roots, "gt.zip", io_backend="tar")
    assert "no .zip file in" in refusal(roots, "gt", io_backend="zip")
    (roots / "archives").mkdir()
    (roots / "gt.zip").rename(roots / "archives/a.zip")
    assert "write io_backend: {type: zip}" in refusal(roots, "archives")


def test_a_picture_damaged_in_a_zip_is_named_by_its_checksum(roots):
    archive = pack(roots / "gt", roots / "gt.zip", deflate=False)
    data = bytearray(archive.read_bytes())
    data[data.index((roots / "gt/p4.bmp").read_bytes()[-60:])] ^= 1  # a pixel, which BMP itself would not notice
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"gt\.zip/p4\.bmp: damaged in the zip \(checksum\)"):
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(archive)).check()


def test_an_archive_that_changes_in_the_run_is_not_read_at_old_places(roots):
    data = tars(roots)
    pack(roots / "lq", roots / "gt.tar")
    with pytest.raises(DataError, match=r"gt\.tar has changed since it was opened"):
        data.sample(0, None)


def test_an_empty_file_in_an_archive_is_named(roots):
    (roots / "gt/p2.png").write_bytes(b"")
    (roots / "lq/p2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 gt files are empty \(0 bytes\): .*gt\.tar/p2\.png"):
        tars(roots).check()


# Tools


def test_tools_that_take_a_folder_take_an_archive(roots, capsys):
    gt, lq = pack(roots / "gt", roots / "gt.zip"), pack(roots / "lq", roots / "lq.tar")
    assert srkit(["meta", str(gt), str(roots / "of_zip.txt")]) == 0
    assert srkit(["meta", str(roots / "gt"), str(roots / "of_folder.txt")]) == 0
    assert (roots / "of_zip.txt").read_text() == (roots / "of_folder.txt").read_text()
    assert srkit(["check-pairs", str(gt), str(lq), "--scale", "2"]) in (0, 9)
    assert "5 of 5 pairs looked at" in capsys.readouterr().out
    assert srkit(["check-split", str(gt), str(roots / "gt")]) == 9  # equal files on two sides
    assert "p0.png" in capsys.readouterr().out
    for kind, root in (("zip", gt), ("folder", roots / "gt")):
        assert srkit(["slice", str(root), str(roots / f"tiles_{kind}"), "--size", "8", "--stride", "8"]) == 0
        assert (
            srkit(["split", str(root), str(roots / f"parts_{kind}"), "--key", r"p(\d)", "--parts", "a=0.4", "b=0.6"])
            == 0
        )
    for part in ("tiles", "parts"):
        of_zip, of_folder = (
            {p.name: p.read_bytes() for p in (roots / f"{part}_{k}").iterdir() if p.suffix in (".png", ".txt")}
            for k in ("zip", "folder")
        )
        assert of_zip == of_folder != {}
    pytest.importorskip("lmdb")
    assert srkit(["lmdb", str(gt), str(roots / "gt.lmdb")]) == 0


def test_recursive_with_an_lmdb_is_still_refused(roots):
    with pytest.raises(RefusedError, match="found with an LMDB"):
        Folders(backend="lmdb", recursive=True)


def test_a_training_and_its_validation_read_archives_as_they_read_folders(tmp_path):
    weights, psnr = [], []
    for kind in ("disk", "archives"):
        root = tmp_path / kind
        pictures(root / "data")
        changes = {"train__total_iter": 4, "val__val_freq": 4}
        if kind == "archives":
            for part in ("gt", "lq"):
                (root / part).mkdir()
                pack(root / "data" / part, root / part / "0.tar")
                pack(root / "data" / part, root / f"{part}.zip")
                changes[f"datasets__train__dataroot_{part}"] = str(root / part)
                changes[f"datasets__val__dataroot_{part}"] = str(root / f"{part}.zip")
            changes["datasets__train__io_backend"] = {"type": "tar"}
        assert in_process(root, options(root, **changes)) == 0
        file = root / "experiments/tiny/models/net_g_4.pth"
        weights.append(torch.load(file, weights_only=True)["params"])
        lines = (root / "experiments/tiny/records.jsonl").read_text().splitlines()
        psnr.append([value for line in lines for key, value in json.loads(line).items() if "psnr" in key])
        if kind == "archives":
            assert srkit(["check", str(root / "x.yml")]) == 0
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert psnr[0] == psnr[1]
    assert psnr[0]
