"""Reading and writing pictures: forms of pixels, and what is said about files that are none."""

from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from srkit.errors import DataError, StorageError
from srkit.imaging.files import decode_image, image_size, read_image, write_image


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def smooth(height=60, width=80):
    return cv2.resize(noise(6, 8, 3), (width, height), interpolation=cv2.INTER_LINEAR)


def pillow_file(path, picture, **options):
    picture.save(path, **options)
    return path


def black_png(side):
    """A PNG of side x side black pixels, cut off after the first thousand rows: its header is all that may be read."""
    packed = zlib.compress(bytes(1 + 3 * side) * 1000)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("suffix", "channels"),  # WebP has no grey; it comes back as RGB
    [(".png", 1), (".png", 3), (".bmp", 1), (".bmp", 3), (".tif", 1), (".tif", 3), (".tiff", 3), (".webp", 3)],
)
def test_lossless_formats_return_what_was_written(tmp_path, suffix, channels):
    image = noise(7, 9, channels)
    write_image(tmp_path / f"deep/a{suffix}", image)
    back = read_image(tmp_path / f"deep/a{suffix}")
    assert (back == image).all()
    assert back.dtype == np.uint8
    header = image_size(tmp_path / f"deep/a{suffix}")
    assert (header.height, header.width, header.channels) == (7, 9, channels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_is_kept(tmp_path, suffix, channels):
    image = noise(7, 9, channels, dtype=np.uint16)
    write_image(tmp_path / f"a{suffix}", image)
    assert read_image(tmp_path / f"a{suffix}").dtype == np.uint16
    assert (read_image(tmp_path / f"a{suffix}") == image).all()


def test_files_are_rgb_for_other_programs(tmp_path):
    image = noise(7, 9, 3)
    write_image(tmp_path / "a.png", image)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == image).all()


def test_jpeg_decodes_as_opencv_does(tmp_path):
    write_image(tmp_path / "a.jpg", smooth())
    assert (read_image(tmp_path / "a.jpg") == cv2.imread(str(tmp_path / "a.jpg"))[..., ::-1]).all()


def test_alpha_is_dropped_not_blended(tmp_path):
    image = noise(5, 6, 4)
    assert (read_image(pillow_file(tmp_path / "a.png", Image.fromarray(image))) == image[..., :3]).all()


def test_grey_with_alpha_stays_grey(tmp_path):
    image = noise(5, 6, 2)
    assert (read_image(pillow_file(tmp_path / "a.png", Image.fromarray(image, "LA"))) == image[..., :1]).all()


@pytest.mark.parametrize("transparency", [{}, {"transparency": 3}])
def test_a_palette_becomes_rgb(tmp_path, transparency):
    picture = Image.fromarray(noise(5, 6, 3)).quantize(16)
    path = pillow_file(tmp_path / "a.png", picture, **transparency)
    assert (read_image(path) == np.asarray(picture.convert("RGB"))).all()
    assert image_size(path).channels == 3


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit_pictures_are_black_and_white(tmp_path, suffix):
    bits = noise(5, 16, 1)[..., 0] > 127
    image = read_image(pillow_file(tmp_path / f"a{suffix}", Image.fromarray(bits)))
    assert (image[..., 0] == bits * np.uint8(255)).all()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_exif_orientation_is_reported_and_not_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6
    turned = pillow_file(tmp_path / f"turned{suffix}", Image.fromarray(smooth(40, 64)), exif=exif)
    plain = pillow_file(tmp_path / f"plain{suffix}", Image.fromarray(smooth(40, 64)))
    assert (read_image(turned) == read_image(plain)).all()
    assert (image_size(turned).orientation, image_size(plain).orientation) == (6, 1)
    assert (image_size(turned).height, image_size(turned).width) == (40, 64)


def test_a_turned_tiff_is_refused(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    with pytest.raises(DataError, match="stored turned"):
        read_image(pillow_file(tmp_path / "a.tif", Image.fromarray(smooth()), exif=exif))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    "form",
    [{}, {"compression": "deflate", "predictor": True}, {"tile": (32, 32)}, {"byteorder": ">"}, {"bigtiff": True}],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_tiffs_of_another_program_are_read(tmp_path, form, dtype, channels):
    image = noise(40, 50, channels, dtype=dtype)
    kind = "rgb" if channels == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", image if channels == 3 else image[..., 0], photometric=kind, **form)
    assert (read_image(tmp_path / "a.tif") == image).all()


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40, 50, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        ((40, 50, 2), {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
        ((3, 40, 50), {"photometric": "rgb", "planarconfig": "separate"}),
        ((40, 50, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_tiffs_that_opencv_would_change_are_refused(tmp_path, shape, options):
    tifffile.imwrite(tmp_path / "a.tif", noise(*shape, dtype=np.uint16), **options)
    with pytest.raises(DataError, match="save it so or as PNG"):
        read_image(tmp_path / "a.tif")


def test_float_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 3), np.float32), photometric="rgb")
    with pytest.raises(DataError, match=r"a\.tif: float32 samples"):
        read_image(tmp_path / "a.tif")


def test_jpeg_2000_in_tiff_is_refused_because_opencv_would_return_black(test_data):
    with pytest.raises(DataError, match="OpenCV cannot decode"):
        read_image(test_data / "histology/wsi/tcga-cr-7395-01a-01-ts1.svs")


def test_a_pyramid_gives_its_first_level(test_data):
    path = test_data / "histology/wsi/tcga-cr-7395_pyramid_jpeg.tif"
    assert read_image(path).shape == (3567, 4443, 3)


def test_cmyk_is_refused(tmp_path):
    with pytest.raises(DataError, match="CMYK"):
        read_image(pillow_file(tmp_path / "a.jpg", Image.fromarray(noise(5, 6, 4), "CMYK")))


def test_a_bomb_is_refused_from_its_header(tmp_path):
    (tmp_path / "bomb.png").write_bytes(black_png(20_000))
    with pytest.raises(DataError, match=r"bomb\.png: 20000 x 20000 = 400,000,000 pixels, above .* 100,000,000"):
        read_image(tmp_path / "bomb.png")


def test_max_pixels_is_the_largest_allowed(tmp_path):
    write_image(tmp_path / "a.png", noise(10, 10, 1))
    assert read_image(tmp_path / "a.png", max_pixels=100).shape == (10, 10, 1)
    with pytest.raises(DataError, match="limit of 99"):
        read_image(tmp_path / "a.png", max_pixels=99)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
@pytest.mark.parametrize("left", [0.3, 0.9, -2])
def test_a_file_cut_short_is_refused_by_name(tmp_path, suffix, left):
    write_image(tmp_path / f"a{suffix}", smooth())
    data = (tmp_path / f"a{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * left) if left > 0 else left])
    with pytest.raises(DataError, match=rf"cut\{suffix}: .*cut short"):
        read_image(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("compression", ["jpeg", "tiff_lzw", "raw"])
def test_a_tiff_with_its_directory_in_front_cut_short_is_refused(tmp_path, compression):
    path = pillow_file(tmp_path / "a.tif", Image.fromarray(smooth()), compression=compression)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=r"a\.tif"):
        read_image(path)


def test_a_progressive_jpeg_cut_short_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(smooth()).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert decode_image(data, "whole").shape == (60, 80, 3)
    for length in range(700, len(data), 50):
        with pytest.raises(DataError):
            decode_image(data[:length], "cut")


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path):
    write_image(tmp_path / "a.jpg", smooth())
    data = (tmp_path / "a.jpg").read_bytes()
    assert (decode_image(data + b"\x00" * 100, "padded") == read_image(tmp_path / "a.jpg")).all()


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    write_image(tmp_path / "a.png", smooth())
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(DataError, match="damaged"):
        decode_image(bytes(data), "a.png")


@pytest.mark.parametrize("read", [read_image, image_size])
def test_files_that_are_no_pictures_say_why(tmp_path, read):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "start.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIH")
    for name, reason in {
        "empty.png": "empty",
        "text.png": "not a PNG.*version https",
        "missing.png": "no such file",
        "folder.png": "folder",
        "start.png": "header cannot be read",
    }.items():
        with pytest.raises(DataError, match=rf"{name}: .*{reason}"):
            read(tmp_path / name)


def test_a_jpeg_named_png_is_read_by_content(tmp_path):
    write_image(tmp_path / "a.jpg", smooth())
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png").format == "JPEG"
    assert read_image(tmp_path / "a.png").shape == (60, 80, 3)


def test_writing_replaces_and_leaves_no_other_file(tmp_path):
    write_image(tmp_path / "a.png", noise(4, 4, 3))
    write_image(tmp_path / "a.png", noise(5, 4, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert image_size(tmp_path / "a.png").height == 5


def test_a_failed_write_keeps_the_old_file_and_names_the_path(tmp_path, monkeypatch):
    write_image(tmp_path / "a.png", noise(4, 4, 3))

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(StorageError, match=r"a\.png: .*No space left"):
        write_image(tmp_path / "a.png", noise(5, 4, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert image_size(tmp_path / "a.png").height == 4


@pytest.mark.parametrize(
    ("name", "image", "reason"),
    [
        ("a.xyz", noise(4, 4, 3), "no picture format"),
        ("a.jpg", noise(4, 4, 3, dtype=np.uint16), "8 bit only"),
        ("a.png", np.zeros((4, 4, 3)), "float64"),
        ("a.png", noise(4, 4), r"\(4, 4\)"),
        ("a.png", noise(4, 4, 2), r"\(4, 4, 2\)"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, image, reason):
    with pytest.raises(DataError, match=reason):
        write_image(tmp_path / name, image)
