"""Several processes restore one slide together: the file of one alone, to the bit, and no rank left waiting when one fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from infer_made import infer, made_archs, model_file  # noqa: F401
from ranks import on_ranks
from slide_files import WITHOUT, noise, stained, write_slide

from srkit.errors import StorageError
from srkit.imaging.files import write_image
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.tiff_container import TiffContainer
from srkit.inference import together
from srkit.inference.upscaler import Upscaler

openslide = pytest.importorskip("openslide", reason=WITHOUT)

CPU = ["--device", "cpu", "--tile", 64, "--compression", "deflate"]


def shared_by(
    world: int, folder: Path, *words, on_rank: Callable[[int], None] = lambda rank: None
) -> list[tuple[int, str]]:
    """Exit code and output of each rank; `on_rank` prepares its process."""

    def work() -> int:
        on_rank(int(os.environ["RANK"]))
        return infer(*words, *CPU, "--launcher", "pytorch")

    return on_ranks(folder, world, work)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    model_file(tmp_path / "m.pth", "BoxNet")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("world", "height"), [(2, 300), (3, 300), (3, 70)])  # 5 rows of tiles; 2, so one rank has none
def test_a_slide_of_many_ranks_is_the_file_of_one_to_the_bit(here, monkeypatch, world, height):
    write_slide(here / "a.tif", stained(height, 420), mpp=0.5)
    assert infer("-m", "m.pth", "-i", "a.tif", "-o", "one.tif", *CPU) == 0
    monkeypatch.setattr(together, "_PIECE_BYTES", 5 * 840 * 3)  # a strip is sent in many pieces, five rows each
    done = shared_by(world, here, "-m", "m.pth", "-i", "a.tif", "-o", "many.tif")
    assert [code for code, _ in done] == [0] * world, done
    assert (here / "many.tif").read_bytes() == (here / "one.tif").read_bytes()


def test_each_rank_restores_every_second_row_and_rank_0_alone_writes(here):
    write_slide(here / "a.tif", noise(300, 420))
    picture, enter = Upscaler.picture, SlideWriter.__enter__

    def count(rank: int) -> None:
        def counted(self, lq, *rest):
            print("tile", flush=True)
            return picture(self, lq, *rest)

        def entered(self):
            print("writer", flush=True)
            return enter(self)

        Upscaler.picture, SlideWriter.__enter__ = counted, entered

    done = shared_by(2, here, "-m", "m.pth", "-i", "a.tif", "-o", "b.tif", "--everything", on_rank=count)
    assert [code for code, _ in done] == [0, 0], done
    # Kept parts end at 62, 122, 182, 242, 300 (tile 64, overlap 2): 5 rows; 420 pixels are 7 columns.
    assert [text.count("tile\n") for _, text in done] == [3 * 7, 2 * 7]
    assert [text.count("writer\n") for _, text in done] == [1, 0]


def test_slides_are_shared_pictures_are_dealt_out_and_one_report_counts_each_once(here):
    for name in "ab":
        write_slide(here / f"in/{name}.tif", noise(256, 256))
    for name in "cde":
        write_image(here / f"in/{name}.png", noise(20, 30))
    done = shared_by(2, here, "-m", "m.pth", "-i", "in", "-o", "out")
    assert [code for code, _ in done] == [0, 0], done
    assert names(here / "out") == ["a_sr.tif", "b_sr.tif", "c_sr.png", "d_sr.png", "e_sr.png"]
    pixels = 4 * (2 * 256 * 256 + 3 * 20 * 30) / 1e6
    assert f"5 files: 5 done; {pixels:.1f} megapixels" in done[0][1]
    assert done[1][1] == ""


def test_a_tile_that_fails_on_rank_1_fails_the_slide_on_all_and_the_next_one_is_restored(here):
    for name in "ab":
        write_slide(here / f"in/{name}.tif", noise(300, 256))
    picture = Upscaler.picture

    def spoil(rank: int) -> None:
        calls: list[int] = []

        def spoiled(self, lq, *rest):
            calls.append(1)
            if rank == 1 and len(calls) == 7:  # 5 columns: in its second row
                raise RuntimeError("this tile is too hard\nlong story")
            return picture(self, lq, *rest)

        Upscaler.picture = spoiled

    done = shared_by(2, here, "-m", "m.pth", "-i", "in", "-o", "out", "--everything", on_rank=spoil)
    assert [code for code, _ in done] == [9, 9], done
    reason = "in/a.tif: the network refused it (this tile is too hard, on rank 1)"
    assert f"1 of 2 inputs failed:\n  - {reason}" in done[0][1]
    assert "1 done, 1 failed" in done[0][1]
    assert done[1][1] == ""
    assert names(here / "out") == ["b_sr.tif"]


def test_a_rank_that_dies_in_the_middle_of_a_slide_ends_the_others_and_leaves_no_file(here):
    write_slide(here / "a.tif", noise(300, 256))

    def die(rank: int) -> None:
        if rank == 1:
            Upscaler.picture = lambda *_: os._exit(77)

    done = shared_by(2, here, "-m", "m.pth", "-i", "a.tif", "-o", "out/b.tif", "--everything", on_rank=die)
    assert [code for code, _ in done] == [8, 77], done
    assert "a process of the group died" in done[0][1]
    assert not names(here / "out")


def test_a_slide_that_no_rank_can_read_is_reported_once_without_a_rank(here):
    write_slide(here / "a.tif", noise(256, 256), mpp=None)
    done = shared_by(2, here, "-m", "m.pth", "-i", "a.tif", "-o", "out/b.tif")
    assert [code for code, _ in done] == [9, 9], done
    assert "1 of 1 inputs failed:\n  - a.tif: does not say its microns per pixel" in done[0][1]
    assert "rank" not in done[0][1]
    assert done[1][1] == ""
    assert not names(here / "out")


# Tiles of 256 fill up in the second round, before rank 1 has sent its strip, and in the last one; then come the directories.
@pytest.mark.parametrize("after", [0, 2, 12])
def test_a_full_disk_on_rank_0_ends_the_work_of_all_and_leaves_nothing(here, after):
    for name in "ab":
        write_slide(here / f"in/{name}.tif", noise(300, 256))
    append = TiffContainer.append

    def fill(rank: int) -> None:
        written: list[int] = []

        def full(self, data):
            written.append(1)
            if len(written) > after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return append(self, data)

        TiffContainer.append = full

    done = shared_by(2, here, "-m", "m.pth", "-i", "in", "-o", "out", "--everything", on_rank=fill)
    assert [code for code, _ in done] == [6, 6], done
    assert "0 done, 2 left undone" in done[0][1]
    assert "a_sr.tif: cannot be written (No space left on device), on rank 0; make room" in done[0][1]
    assert done[1][1] == ""
    assert not names(here / "out")


def test_a_disk_that_refuses_the_end_of_the_file_is_told_to_all_ranks(here):
    write_slide(here / "a.tif", noise(300, 256))

    def refuse(rank: int) -> None:
        def refused(self, *_, **__):
            raise OSError(errno.EIO, "Input/output error")

        TiffContainer.finish = refused

    done = shared_by(2, here, "-m", "m.pth", "-i", "a.tif", "-o", "out/b.tif", on_rank=refuse)
    assert [code for code, _ in done] == [9, 9], done
    assert "a.tif: out/b.tif: cannot be written (Input/output error), on rank 0" in done[0][1]
    assert not names(here / "out")


def test_ranks_with_unequal_memory_cut_as_the_one_with_the_least(here):
    write_slide(here / "a.tif", noise(300, 256))
    tiles = Upscaler.tiles_of_side
    assert infer("-m", "m.pth", "-i", "a.tif", "-o", "one.tif", *CPU, "--everything") == 0

    def lessen(rank: int) -> None:
        Upscaler.tiles_of_side = lambda self, longest: (80, 2, 1) if rank == 0 else tiles(self, longest)
        picture = Upscaler.picture

        def shown(self, lq, *rest):
            print(f"seen {lq.shape[0]}", flush=True)
            return picture(self, lq, *rest)

        Upscaler.picture = shown

    done = shared_by(2, here, "-m", "m.pth", "-i", "a.tif", "-o", "b.tif", "--everything", on_rank=lessen)
    assert [code for code, _ in done] == [0, 0], done
    assert "seen 64" in done[0][1]
    assert "seen 80" not in done[0][1]
    assert (here / "b.tif").read_bytes() == (here / "one.tif").read_bytes()


def test_a_slide_that_one_rank_does_not_see_is_refused_by_all_before_they_wait(here):
    for name in "ab":
        write_slide(here / f"in/{name}.tif", noise(256, 256))

    def hide(rank: int) -> None:
        if rank == 1:
            os.chdir(here / "other")

    (here / "other/in").mkdir(parents=True)
    model_file(here / "other/m.pth", "BoxNet")
    (here / "other/in/a.tif").symlink_to(here / "in/a.tif")
    done = shared_by(2, here, "-m", "m.pth", "-i", "in", "-o", "out", on_rank=hide)
    assert [code for code, _ in done] == [2, 2], done
    for _, text in done:
        assert "in/b.tif: rank 0 is to restore it and rank 1 is not" in text


def test_an_error_reaches_other_ranks_with_its_class_its_cause_and_one_mark_of_the_rank():
    try:
        raise StorageError("a.tif: cannot be written") from OSError(errno.ENOSPC, "full")
    except StorageError as error:
        made = together._Problem.of(error).error(", on rank 0")
    assert type(made) is StorageError
    assert str(made) == "a.tif: cannot be written, on rank 0"
    assert made.__cause__.errno == errno.ENOSPC


def test_pieces_of_a_strip_cover_it_and_hold_a_row_at_least():
    assert list(together._pieces((7, 10, 3))) == [(0, 7)]
    wide = together._PIECE_BYTES // 3 // 2  # two rows a piece
    assert list(together._pieces((5, wide, 3))) == [(0, 2), (2, 4), (4, 5)]
    assert list(together._pieces((2, 5 * wide, 3))) == [(0, 1), (1, 2)]
