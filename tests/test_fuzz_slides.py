"""Damaged and hostile slides: each is read or refused by name, without a crash of the library, a hang or a flood of memory."""

from __future__ import annotations

import random
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import Ending, in_fork
from infer_made import infer, made_archs, model_file  # noqa: F401
from slide_files import WITHOUT, foreign_slide, smooth, write_slide

from srkit.demo.views import slide_map
from srkit.errors import DataError
from srkit.imaging.slide_claims import require_possible
from srkit.imaging.slides import open_slide
from srkit.imaging.tissue import find_tissue
from srkit.inference.slides import is_slide

pytest.importorskip("openslide", reason=WITHOUT)

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR = 256, 257, 258, 259, 262, 277, 284  # tags of TIFF 6.0
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
PICTURE = smooth(200, 260)
LARGEST = 2**32 - 1


def by_srkit(path: Path) -> Path:
    return write_slide(path, PICTURE)


def in_jpeg(path: Path) -> Path:
    return write_slide(path, PICTURE, compression="jpeg")


def as_ome(path: Path) -> Path:
    return write_slide(path, PICTURE, ome=True)


def by_another(path: Path) -> Path:
    return foreign_slide(path, [PICTURE, PICTURE[::2, ::2]])


WRITERS = [by_srkit, in_jpeg, as_ome, by_another]


def directories(content: bytes) -> list[tuple[int, int]]:
    """Place and number of entries of each directory of a classic little-endian TIFF."""
    found, (place,) = [], struct.unpack_from("<I", content, 4)
    while place:
        (count,) = struct.unpack_from("<H", content, place)
        found.append((place, count))
        (place,) = struct.unpack_from("<I", content, place + 2 + 12 * count)
    return found


def read_before_pixels(content: bytes) -> list[int]:
    """Places of the bytes of header, directories and lists of tiles."""
    places = list(range(8))
    for place, count in directories(content):
        places += range(place, place + 6 + 12 * count)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            _, kind, values, there = struct.unpack_from("<HHII", content, entry)
            length = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 13: 4}[kind] * values
            places += range(there, there + length) if length > 4 else ()
    return places


def put(content: bytes, place: int, code: str, *values: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into("<" + code, changed, place, *values)
    return bytes(changed)


def entry_of(content: bytes, tag: int) -> int:
    """Where the entry of a tag stands in the first directory."""
    place, count = directories(content)[0]
    return next(
        k for k in range(place + 2, place + 2 + 12 * count, 12) if struct.unpack_from("<H", content, k)[0] == tag
    )


def says(content: bytes, **numbers: int) -> bytes:
    """The first directory with other numbers, by names of this file."""
    for name, number in numbers.items():
        content = put(content, entry_of(content, globals()[name]) + 2, "HII", 4, 1, number)
    return content


def listed(content: bytes, tag: int, number: int) -> bytes:
    """With another first number in the list of a tag."""
    return put(content, struct.unpack_from("<I", content, entry_of(content, tag) + 8)[0], "I", number)


def looked_through(path: Path) -> int:
    """All that srkit asks of a slide before a network sees it. 2 where it is refused by name."""
    try:
        is_slide(path)
        slide = open_slide(path)
        view = slide.view()
        size = (min(64, view.width), min(64, view.height))
        for place in ((0, 0), (view.width - size[0], view.height - size[1])):
            assert view.read(*place, *size).shape == (*size[::-1], 3)
        slide.view(level=len(slide.levels) - 1).read(0, 0, 1, 1)
        find_tissue(slide)
        slide_map(slide)
    except DataError as error:
        print(error)
        return 2
    return 0


def answer(content: bytes, folder: Path) -> Ending:
    (folder / "x.tif").write_bytes(content)
    ending = in_fork(lambda: looked_through(folder / "x.tif"), folder / "said")
    assert ending.code in (0, 2), ending
    assert ending.code == 0 or re.fullmatch(rf"{re.escape(str(folder))}/x\.tif: .+\n", ending.said), ending
    assert ending.elapsed_s < 10, ending
    assert ending.added_mib < 500, ending
    return ending


@pytest.mark.parametrize("writer", WRITERS)
def test_a_slide_with_a_flipped_bit_in_its_directories_is_read_or_refused_by_name(tmp_path, writer):
    """Without a look at what the header claims, some of these end the process, or keep it busy for minutes."""
    content = writer(tmp_path / "a.tif").read_bytes()
    places, draw = read_before_pixels(content), random.Random(1)
    assert answer(content, tmp_path).code == 0
    codes = []
    for _ in range(40):
        place, bit = draw.choice(places), draw.randrange(8)
        codes.append(answer(put(content, place, "B", content[place] ^ 1 << bit), tmp_path).code)
    assert 10 < codes.count(2) < 30


@pytest.mark.parametrize("writer", WRITERS)
def test_a_slide_cut_anywhere_is_refused(tmp_path, writer):
    content = writer(tmp_path / "a.tif").read_bytes()
    last = max(place for place, _ in directories(content))
    for length in (0, 1, 4, 8, 9, 100, len(content) // 4, len(content) // 2, last, last + 1, last + 30):
        assert answer(content[:length], tmp_path).code == 2


HOSTILE = {
    "a directory that follows itself": lambda c: put(c, sum(directories(c)[0]) + 11 * directories(c)[0][1] + 2, "I", directories(c)[0][0]),
    "a directory followed by the one before": lambda c: put(c, directories(c)[1][0] + 12 * directories(c)[1][1] + 2, "I", directories(c)[0][0]),
    "the first directory in the header": lambda c: put(c, 4, "I", 4),
    "the first directory beyond the file": lambda c: put(c, 4, "I", 2**31),
    "more entries than the file has": lambda c: put(c, directories(c)[0][0], "H", 65535),
    "2^31 pixels a side": lambda c: says(c, WIDTH=2**31, LENGTH=2**31),
    "2^31 - 1 pixels a side": lambda c: says(c, WIDTH=2**31 - 1, LENGTH=2**31 - 1),
    "2^32 - 1 pixels a side": lambda c: says(c, WIDTH=LARGEST, LENGTH=LARGEST),
    "a million rows without tiles": lambda c: says(c, LENGTH=10**6),
    "no pixels": lambda c: says(c, WIDTH=0, LENGTH=0),
    "2^31 pixels a side in one tile": lambda c: says(c, WIDTH=2**31, LENGTH=2**31, TILE_WIDTH=2**31, TILE_LENGTH=2**31),
    "a million pixels a side in one tile": lambda c: says(c, WIDTH=10**6, LENGTH=10**6, TILE_WIDTH=10**6, TILE_LENGTH=10**6),
    "tiles of 4 GB": lambda c: says(c, TILE_WIDTH=32768, TILE_LENGTH=32768),
    "tiles of 16 GB": lambda c: says(c, TILE_WIDTH=65536, TILE_LENGTH=65536),
    "tiles of 2^30 columns": lambda c: says(c, WIDTH=2**30, TILE_WIDTH=2**30),
    "tiles of no pixels": lambda c: says(c, TILE_WIDTH=0, TILE_LENGTH=0),
    "tiles of one pixel": lambda c: says(c, TILE_WIDTH=1, TILE_LENGTH=1),
    "no list of tiles": lambda c: put(c, entry_of(c, TILE_OFFSETS) + 4, "I", 0),
    "a list of tiles beyond the file": lambda c: put(c, entry_of(c, TILE_OFFSETS) + 8, "I", 2**31),
    "a tile beyond the file": lambda c: listed(c, TILE_OFFSETS, LARGEST),
    "a tile larger than the file": lambda c: listed(c, TILE_BYTES, 10**6),
    "a tile of 2^31 bytes": lambda c: listed(c, TILE_BYTES, 2**31),
    "a tile of 2^32 - 1 bytes": lambda c: listed(c, TILE_BYTES, LARGEST),
    "a palette that is not there": lambda c: says(c, PHOTOMETRIC=3),
    "a mask instead of colours": lambda c: says(c, PHOTOMETRIC=4),
    "inks instead of colours": lambda c: says(c, PHOTOMETRIC=5),
    "colours of a camera's sensor": lambda c: says(c, PHOTOMETRIC=32803),
    "colours of no kind": lambda c: says(c, PHOTOMETRIC=65535),
    "a compression of faxes": lambda c: says(c, COMPRESSION=3),
    "a compression of nobody": lambda c: says(c, COMPRESSION=34999),
    "one channel": lambda c: says(c, SAMPLES=1),
    "65535 channels": lambda c: says(c, SAMPLES=65535),
    "65535 bits": lambda c: says(c, BITS=65535),
}  # fmt: skip


@pytest.mark.parametrize("writer", [by_srkit, in_jpeg])
def test_a_hostile_slide_is_refused_by_name(tmp_path, writer):
    content = writer(tmp_path / "a.tif").read_bytes()
    accepted = [what for what, change in HOSTILE.items() if answer(change(content), tmp_path).code == 0]
    # libjpeg knows from its own data what the colours, channels and bits of a tile are
    assert not accepted or writer is in_jpeg
    assert set(accepted) <= {what for what in HOSTILE if "colours" in what or "palette" in what or "bits" in what}


def sparse(side: int, tile: int, packed: bytes) -> bytes:
    """A slide whose tiles are all the same piece of the file."""
    count = (side // tile) ** 2
    lists = 8 + 2 + 12 * 12 + 4
    places = lists + 8 * count + 8
    numbers = [
        (WIDTH, 4, 1, side), (LENGTH, 4, 1, side), (BITS, 3, 3, places - 8), (COMPRESSION, 3, 1, 8), (PHOTOMETRIC, 3, 1, 2),
        (SAMPLES, 3, 1, 3), (PLANAR, 3, 1, 1), (TILE_WIDTH, 4, 1, tile), (TILE_LENGTH, 4, 1, tile),
        (TILE_OFFSETS, 4, count, lists), (TILE_BYTES, 4, count, lists + 4 * count),
    ]  # fmt: skip
    directory = struct.pack("<H", len(numbers)) + b"".join(struct.pack("<HHII", *n) for n in numbers) + bytes(4)
    head = (b"II*\0" + struct.pack("<I", 8) + directory).ljust(lists, b"\0")
    offsets = np.full(count, places, "<u4").tobytes() + np.full(count, len(packed), "<u4").tobytes()
    return head + offsets + struct.pack("<HHHH", 8, 8, 8, 0) + packed


def test_a_slide_of_a_trillion_pixels_in_a_small_file_is_refused_by_its_size(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(sparse(983_040, 4096, zlib.compress(bytes(3 * 4096**2))))
    assert path.stat().st_size < 10**6
    assert answer(path.read_bytes(), tmp_path).code == 2
    with pytest.raises(DataError, match=r"983040 x 983040 pixels.* are too many to be looked over"):
        find_tissue(open_slide(path))


def test_the_largest_tile_that_is_read_takes_less_than_half_a_gigabyte(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(sparse(16_384, 8192, zlib.compress(bytes(3 * 8192**2), 1)))
    ending = in_fork(lambda: int(open_slide(path).view().read(0, 0, 64, 64).max()), tmp_path / "said")
    assert ending.code == 0, ending
    assert 192 < ending.added_mib < 500


def test_infer_ends_with_one_message_for_a_slide_whose_tiles_no_memory_holds(tmp_path):
    model = model_file(tmp_path / "flat.pth", "BoxNet")
    path = tmp_path / "x.svs"
    path.write_bytes(says(by_srkit(tmp_path / "a.tif").read_bytes(), TILE_WIDTH=65536, TILE_LENGTH=65536))
    words = ("-m", model, "-i", path, "-o", tmp_path / "out.tif", "--device", "cpu")
    ending = in_fork(lambda: infer(*words), tmp_path / "said")
    assert ending.code == 2, ending
    assert ending.said.splitlines()[-1] == (
        f"srkit: error: {path}: level 0 has tiles of 65536 x 65536 pixels, expected 67,108,864 in a tile at most; the slide is "
        "damaged, or no slide: copy it again, or leave it out"
    )
    assert "Traceback" not in ending.said


def test_bigtiff_is_looked_at_like_tiff(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PICTURE, tile=(64, 64), bigtiff=True, photometric="rgb")
    content = path.read_bytes()
    assert content[:4] == b"II+\0"
    assert open_slide(path).width == 260
    entry = next(
        m.start() for kind in (3, 4) for m in re.finditer(re.escape(struct.pack("<HHQ", LENGTH, kind, 1)), content)
    )
    path.write_bytes(put(content, entry + 12, "H", 40_000))
    with pytest.raises(DataError, match="260 x 40000 pixels are 3,125 tiles of 64 x 64, found 20 in its list"):
        require_possible(str(path), {"openslide.vendor": "generic-tiff"})
