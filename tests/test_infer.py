"""`srkit-infer` on pictures: what stays as it was, what results are called, what is skipped, refused and reported."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tifffile
import torch
from infer_made import BoxNet, infer, made_archs, model_file, nifti, picture, repeated, scan  # noqa: F401
from PIL import Image
from tiny import ROOT

from srkit.build import build_network
from srkit.engine.model_file import read_model, write_model
from srkit.errors import StorageError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.resize import imresize
from srkit.registry import ARCHS


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Paths in these tests are relative to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def model(here):
    return model_file(here / "net.pth")


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# What stays as it was


@pytest.mark.parametrize("color", ["rgb", "y", "y_full"])
def test_pure_red_stays_red(here, color):
    model_file(here / "net.pth", color=color, num_in_ch=3 if color == "rgb" else 1)
    red = np.zeros((5, 4, 3), np.uint8)
    red[..., 0] = 255
    write_image("red.png", red)
    assert infer("-m", "net.pth", "-i", "red.png", "-o", "big.png") == 0
    assert np.array_equal(read_image("big.png"), repeated(red, 2, 2))


def test_colours_of_a_luma_network_are_bicubic(here):
    model_file(here / "net.pth", color="y", num_in_ch=1)
    image = cv2.GaussianBlur(picture(24, 20, 3), (0, 0), 3)
    write_image("a.png", image)
    infer("-m", "net.pth", "-i", "a.png", "-o", ".")
    ycc, made = (
        cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2YCrCb) for x in (image, read_image("a_sr.png"))
    )  # around 0.5
    # Cut and rounded colours of a picture far from black and white: within the rounding of three channels.
    wanted = imresize(np.ascontiguousarray(ycc[..., 1:]), 2)
    assert np.abs(made[..., 1:] - wanted).max() < 1.5
    assert np.abs(made[..., 0] - repeated(ycc[..., 0], 2, 2)).max() < 1.5


def test_a_16_bit_ramp_comes_back_exactly(model):
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    image = np.stack([ramp, ramp[::-1], ramp.T], axis=-1)
    write_image("ramp.png", np.ascontiguousarray(image))
    assert infer("-m", model, "-i", "ramp.png", "-o", "big.tif", "--tile", "100", "--blend", "fade") == 0
    assert read_image("big.tif").dtype == np.uint16
    assert np.array_equal(read_image("big.tif"), repeated(image, 2, 2))


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_transparency_is_enlarged_by_bicubic_beside_the_colours(model, name):
    rgba = picture(9, 7, 4)
    rgba[..., 3] |= 1  # a WebP forgets colours that cannot be seen
    Image.fromarray(rgba).save(name, lossless=True)
    assert infer("-m", model, "-i", name, "-o", "out") == 0
    made = np.array(Image.open(f"out/{name.replace('.', '_sr.')}"))
    seen = made[..., 3] > 0
    assert np.array_equal(made[seen][:, :3], repeated(rgba[..., :3], 2, 2)[seen])
    assert np.array_equal(made[..., 3], imresize(rgba[..., 3:], 2)[..., 0])


def test_transparency_of_16_bit_and_of_grey_pictures_is_kept(model):
    deep = picture(6, 5, 4, dtype=np.uint16)
    cv2.imwrite("deep.png", deep)
    grey = picture(6, 5, 2)
    Image.fromarray(grey, mode="LA").save("grey.png")
    assert infer("-m", model, "-i", "deep.png", "grey.png", "-o", "out") == 0
    made = cv2.imread("out/deep_sr.png", cv2.IMREAD_UNCHANGED)
    assert made.dtype == np.uint16
    assert np.array_equal(made[..., :3], repeated(deep[..., :3], 2, 2))
    assert np.array_equal(made[..., 3:], imresize(deep[..., 3:], 2))
    made = np.array(Image.open("out/grey_sr.png").convert("LA"))
    assert np.array_equal(made[..., 0], repeated(grey[..., 0], 2, 2))
    assert np.array_equal(made[..., 1:], imresize(grey[..., 1:], 2))


@pytest.mark.parametrize("color", ["rgb", "y"])
def test_grey_stays_grey(here, color):
    model_file(here / "net.pth", color=color, num_in_ch=3 if color == "rgb" else 1)
    image = picture(8, 9, 1)
    write_image("a.png", image)
    infer("-m", "net.pth", "-i", "a.png", "-o", "out")
    assert np.array_equal(read_image("out/a_sr.png"), repeated(image, 2, 2))


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (1, 50), (33, 17)])
@pytest.mark.parametrize("extra", [[], ["--ensemble"], ["--tile", "16", "--tile_batch", "3"]])
def test_pictures_of_any_size_pass(model, size, extra):
    image = picture(*size, 3)
    write_image("a.png", image)
    assert infer("-m", model, "-i", "a.png", "-o", "b.png", *extra) == 0
    assert np.array_equal(read_image("b.png"), repeated(image, 2, 2))


def test_a_turned_picture_is_restored_as_stored_and_that_is_said(model, capsys):
    exif = Image.Exif()
    exif[274] = 6
    image = picture(4, 8, 3)
    Image.fromarray(image).save("a.png", exif=exif)
    infer("-m", model, "-i", "a.png", "-o", "out")
    assert np.array_equal(read_image("out/a_sr.png"), repeated(image, 2, 2))
    assert "a.png: stored turned (EXIF orientation 6)" in capsys.readouterr().out


def test_the_first_of_several_pages_is_restored_and_that_is_said(model, capsys):
    pages = picture(3, 6, 5, seed=1)
    tifffile.imwrite("stack.tif", pages, photometric="minisblack")
    assert infer("-m", model, "-i", "stack.tif", "-o", "out.tif") == 0
    assert "stack.tif: holds 3 pages or frames; the first is restored" in capsys.readouterr().out
    assert np.array_equal(read_image("out.tif")[..., 0], repeated(pages[0], 2, 2))


def test_half_precision_is_near_single(here):
    model_file(here / "net.pth", "BoxNet")
    write_image("a.png", picture(20, 20, 3))
    for precision in ("fp32", "bf16"):
        infer("-m", "net.pth", "-i", "a.png", "-o", f"{precision}.png", "--precision", precision)
    apart = np.abs(read_image("fp32.png").astype(int) - read_image("bf16.png"))
    assert 0 < apart.max() <= 3


# Formats and names


def test_a_jpeg_becomes_a_png_unless_asked_otherwise(model, here):
    image = picture(16, 16, 3)
    for name in ("a.jpg", "b.png", "c.tif", "d.webp", "e.bmp"):
        write_image(f"in/{name}", image)
    infer("-m", model, "-i", "in", "-o", "out")
    assert files_of("out") == ["a_sr.png", "b_sr.png", "c_sr.tif", "d_sr.webp", "e_sr.bmp"]
    infer("-m", model, "-i", "in", "-o", "all", "--format", "jpg", "--quality", "30")
    assert files_of("all") == [f"{letter}_sr.jpg" for letter in "abcde"]
    bgr = repeated(image, 2, 2)[..., ::-1]
    assert (here / "all/b_sr.jpg").read_bytes() == cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 30])[
        1
    ].tobytes()


def files_of(folder):
    return sorted(os.listdir(folder))


def test_names_with_dots_and_equal_names_in_two_folders_do_not_collide(model):
    images = {"in/a.01.png": 1, "in/x/a.01.png": 2, "in/x/y/b.png": 3}
    for name, seed in images.items():
        write_image(name, picture(4, 4, 3, seed=seed))
    infer("-m", model, "-i", "in", "-o", "out", "--recursive")
    for name, seed in images.items():
        made = read_image(name.replace("in/", "out/").replace(".png", "_sr.png"))
        assert np.array_equal(made, repeated(picture(4, 4, 3, seed=seed), 2, 2))
    infer("-m", model, "-i", "in", "-o", "flat")
    assert files_of("flat") == ["a.01_sr.png"]


def test_names_by_suffix_and_by_template(model):
    write_image("a.png", picture(4, 4, 3))
    infer("-m", model, "-i", "a.png", "-o", "out", "--suffix", "_{big}")
    infer("-m", model, "-i", "a.png", "-o", "out", "--template", "{stem}_{model}_x{scale}{ext}")
    assert files_of("out") == ["a_net_x2.png", "a_{big}.png"]


def test_the_result_is_a_file_only_for_a_file_and_a_name_with_a_suffix(model):
    write_image("in/a.png", picture(4, 4, 3))
    infer("-m", model, "-i", "in/a.png", "-o", "one/b.webp")
    infer("-m", model, "-i", "in/a.png", "-o", "v1.2/")
    infer("-m", model, "-i", "in", "-o", "v1.3")
    assert files_of("one") == ["b.webp"]
    assert files_of("v1.2") == files_of("v1.3") == ["a_sr.png"]


# A second start


def test_a_second_start_does_what_is_left_and_overwrite_does_all(model, capsys):
    for name in "abc":
        write_image(f"in/{name}.png", picture(4, 4, 3))
    infer("-m", model, "-i", "in", "-o", "out")
    os.remove("out/b_sr.png")
    write_image("out/a_sr.png", np.zeros((1, 1, 3), np.uint8))
    assert infer("-m", model, "-i", "in", "-o", "out") == 0
    assert "3 files: 1 done, 2 skipped as done before;" in capsys.readouterr().out
    assert read_image("out/a_sr.png").shape == (1, 1, 3)
    assert read_image("out/b_sr.png").shape == (8, 8, 3)
    assert infer("-m", model, "-i", "in", "-o", "out", "--overwrite") == 0
    assert read_image("out/a_sr.png").shape == (8, 8, 3)


def test_a_single_result_that_exists_is_refused(model, capsys):
    write_image("a.png", picture(4, 4, 3))
    assert infer("-m", model, "-i", "a.png", "-o", "b.png") == 0
    assert infer("-m", model, "-i", "a.png", "-o", "b.png") == 2
    assert "b.png exists; --overwrite replaces it" in capsys.readouterr().err
    assert infer("-m", model, "-i", "a.png", "-o", "b.png", "--overwrite") == 0


def test_a_bad_file_does_not_stop_the_others_and_is_named_at_the_end(model, here, capsys):
    write_image("in/a.png", picture(4, 4, 3))
    write_image("in/z.png", picture(4, 4, 3))
    (here / "in/cut.png").write_bytes((here / "in/a.png").read_bytes()[:60])
    (here / "in/empty.jpg").touch()
    (here / "in/text.png").write_text("no picture")
    (here / "in/notes.txt").write_text("passed over")
    Image.fromarray(picture(5, 5, 4), mode="CMYK").save("in/ink.jpg")
    assert infer("-m", model, "-i", "in", "-o", "out") == 9
    said = capsys.readouterr()
    assert files(here / "out") == ["a_sr.png", "z_sr.png"]
    assert "1 other file is passed over: notes.txt" in said.out
    assert "6 files: 2 done, 4 failed;" in said.out
    assert re.search(
        r"4 of 6 inputs failed:\n  - in/cut\.png: .*\n  - in/empty\.jpg: the file is empty.*\n  - in/ink\.jpg: .*CMYK.*\n"
        r"  - in/text\.png: not a PNG",
        said.err,
    )


def test_a_network_that_refuses_a_picture_fails_that_file_alone(here, capsys):
    model_file(here / "net.pth", "FacesSR", padding="reflect")
    write_image("in/dot.png", picture(1, 1, 3))
    write_image("in/ok.png", picture(9, 9, 3))
    assert infer("-m", "net.pth", "-i", "in", "-o", "out", "--color", "y") == 2  # the file says rgb
    model_file(here / "net.pth", "FacesSR", color="y", padding="reflect")
    assert infer("-m", "net.pth", "-i", "in", "-o", "out") == 9
    assert files_of("out") == ["ok_sr.png"]
    assert "in/dot.png: FacesSR: a picture of 1x1 pixels is too small" in capsys.readouterr().err


def test_a_full_disk_ends_the_work_and_leaves_nothing_half_written(model, here, monkeypatch, capsys):
    for name in "abcd":
        write_image(f"in/{name}.png", picture(4, 4, 3))
    import srkit.inference.pictures as kind

    write = kind.write_atomically

    def full(path, data):
        if path.name.startswith("b"):
            raise StorageError(f"{path}: cannot be written (No space left)") from OSError(errno.ENOSPC, "No space left")
        write(path, data)

    monkeypatch.setattr(kind, "write_atomically", full)
    assert infer("-m", model, "-i", "in", "-o", "out") == 6
    assert files(here / "out") == ["a_sr.png"]
    said = capsys.readouterr()
    assert "4 files: 1 done, 3 left undone;" in said.out
    assert "b_sr.png: cannot be written (No space left); make room and start again: what is done is skipped" in said.err


def test_a_file_that_the_system_refuses_to_grow_leaves_nothing_behind(model, here):
    write_image("in/a.png", picture(300, 300, 3))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); "
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "from srkit.infer import main; sys.exit(main(sys.argv[1:]))"
    )
    # A published network, for the other process knows no network of the tests.
    model_file(here / "net.pth", "EDSR", num_feat=4, num_block=1)
    done = subprocess.run(
        [sys.executable, "-c", code, "-m", "net.pth", "-i", "in", "-o", "out"],
        capture_output=True, text=True, cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 9, done.stderr
    assert "out/a_sr.png: cannot be written (File too large)" in done.stderr
    assert files(here / "out") == []


# What is refused


def bad_inputs(here):
    write_image("a.png", picture(4, 4, 3))
    write_image("deep.png", picture(4, 4, 3, dtype=np.uint16))
    Image.fromarray(picture(4, 4, 4)).save("clear.png")
    write_image("two/b/a.png", picture(4, 4, 3))
    write_image("same/a.png", picture(4, 4, 3))
    write_image("same/a.tif", picture(4, 4, 3))
    write_image("long.png", picture(1, 9000, 3))
    tifffile.imwrite("pair.tif", picture(4, 4, 2), photometric="minisblack", planarconfig="contig", extrasamples=[0])
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts/notes.txt").write_text("x")
    nifti(here / "v.nii.gz", scan(8, 8, 8))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-i nowhere.png -o out", "nowhere.png: no such file or folder"),
        ("-i empty -o out", r"no slides .* or pictures \(\.png, .*\) in empty itself \(--recursive looks below\)"),
        ("-i texts -o out", r"no slides .* or pictures .* in texts itself .*; found notes\.txt"),
        ("-i texts/notes.txt -o out", r"notes\.txt: '\.txt' is no suffix of what this model enlarges: slides .* or pictures"),
        ("-i v.nii.gz -o out", r"v\.nii\.gz: '\.gz' is no suffix of what this model enlarges: slides .* or pictures"),
        ("-i two -o two/out --recursive", r"-o two/out: lies in the input folder two"),
        ("-i two -o two", r"-o two: lies in the input folder two"),
        ("-i same -o out --format png", r"same/a\.png and same/a\.tif would both become out/a_sr\.png"),
        ("-i a.png two/b/a.png -o out", r"a\.png and two/b/a\.png would both become out/a_sr\.png"),
        ("-i a.png -o . --suffix=", r"the result of a\.png would replace an input"),
        ("-i same -o a.png", r"-o a\.png: is a file, expected a folder"),
        ("-i a.png -o b.xyz", r"-o b\.xyz: no suffix of pictures"),
        ("-i a.png -o b.png --format jpg", r"-o b\.png: ends with '\.png', --format says '\.jpg'"),
        ("-i a.png -o b.png --suffix _x", r"-o b\.png names the result; leave --suffix and --template out"),
        ("-i a.png -o out --quality 50", r"--quality 50: a_sr\.png loses nothing"),
        ("-i deep.png -o out --format jpg", r"deep\.png: has 16 bit, '\.jpg' holds 8 only; --format png or tif"),
        ("-i clear.png -o out --format tif", r"clear\.png: has transparency, which '\.tif' does not keep"),
        ("-i pair.tif -o out", r"pair\.tif: TIFF with .* of 2 channels"),
        ("-i long.png -o out --format webp", r"long\.png: 18000x2 pixels, more than '\.webp' holds"),
        ("-i a.png -o out --max_pixels 15", r"a\.png: 4 x 4 = 16 pixels, above the limit of 15"),
        ("-i a.png -o out --device cuda:99", r"--device cuda:99: \d+ CUDA GPUs are visible"),
        ("-i a.png -o out --device tpu", r"--device: found 'tpu', expected auto, cpu, cuda or cuda:N"),
        ("-i a.png -o out --tile 8,8,8", r"--tile: found 3 numbers, expected one, or 2"),
        ("-i a.png -o out --axis 1 --spacing 1,1,1", r"--axis, --spacing: for volumes, which this model does not enlarge"),
        ("-i a.png -o out --mpp 0.5 --everything", r"--mpp, --everything: for slides, none of the inputs is"),
        ("-i a.png -o out --scale 3", r"--scale 3: net\.pth enlarges by 2 and by nothing else"),
        ("-i a.png -o out --arch EDSR", r"net\.pth says itself that it holds RepeatingNet; leave --arch"),
        ("-i a.png -o out --color y", r"--color y: net\.pth says itself that it is 'rgb'"),
        ("-i a.png -o out --arch_opt num_feat", r"--arch_opt: found 'num_feat', expected KEY=VALUE"),
        ("-i a.png -o out --weights params_ema", r"net\.pth: has no weights under 'params_ema'"),
        ("-i a.png -o out --imports nothing_here", r"--imports.*nothing_here"),
        ("-i a.png -o out --launcher pytorch", r"--launcher pytorch: RANK"),
    ],
)  # fmt: skip
def test_mistakes_are_refused_with_one_message_and_nothing_is_written(here, model, capsys, words, message):
    bad_inputs(here)
    before = files(here)
    assert infer("-m", "net.pth", *words.split(" ")) == 2
    said = capsys.readouterr().err
    assert re.search(message, said, re.DOTALL), said
    assert "Traceback" not in said
    assert files(here) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--tile x", "found 'x', expected auto, none, N or N,M[,K]"),
        ("--tile 0", "found '0', expected auto"),
        ("--memory 4XB", "found '4XB', expected a size such as 4GB"),
        ("--quality 101", "found '101', expected 1 to 100"),
        ("--template x{ext}", "has no {stem}"),
        ("--template {stem}{x.y}", "has the field {x.y}"),
        ("--template a/{stem}", "has a slash"),
        ("--template {stem!z}{ext}", "'{stem!z}{ext}': Unknown conversion"),
        ("--template {stem:d}{ext}", "Unknown format code 'd'"),
        ("--suffix a --template {stem}", "not allowed with argument"),
        ("--suffix a/b", "found 'a/b', expected a word without slashes"),
        ("--target_spacing 0", "expected millimetres above 0"),
    ],
)
def test_words_that_mean_nothing_are_refused_before_torch_is_imported(model, capsys, words, message):
    with pytest.raises(SystemExit) as end:
        infer("-m", model, "-i", "a.png", "-o", "out", *words.split(" "))
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused_before_work(model, here, capsys):
    write_image("a.png", picture(4, 4, 3))
    (here / "shut").mkdir(mode=0o555)
    assert infer("-m", model, "-i", "a.png", "-o", "shut") == 6
    assert "shut: cannot be written (Permission denied)" in capsys.readouterr().err


def test_a_result_below_a_file_is_refused_before_work(model, capsys):
    write_image("a.png", picture(4, 4, 3))
    assert infer("-m", model, "-i", "a.png", "-o", "a.png/out") == 6
    assert "a.png/out: cannot be written (Not a directory)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or not a PyTorch file"),
        (b"text", "damaged or not a PyTorch file"),
        (b"\x89PNG\r\n\x1a\n", "damaged or not a PyTorch file"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(here, capsys, content, message):
    write_image("a.png", picture(4, 4, 3))
    if content is not None:
        (here / "net.pth").write_bytes(content)
    assert infer("-m", "net.pth", "-i", "a.png", "-o", "out") == 2
    assert re.search(rf"net\.pth: {message}", capsys.readouterr().err)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("opened",)


def test_a_model_file_that_would_run_code_is_refused(here, capsys):
    torch.save({"params": Hostile()}, "net.pth")
    write_image("a.png", picture(4, 4, 3))
    assert infer("-m", "net.pth", "-i", "a.png", "-o", "out") == 2
    assert "net.pth: holds more than tensors and plain values" in capsys.readouterr().err
    assert files_of(".") == ["a.png", "net.pth"]


# Models


def test_a_bare_file_is_described_on_the_command_line(here, capsys):
    torch.manual_seed(0)
    torch.save({"params": build_network("EDSR", {"num_feat": 4, "num_block": 1}, (3, 3)).state_dict()}, "bare.pth")
    write_image("a.png", picture(6, 5, 3))
    said = ["--arch", "EDSR", "--arch_opt", "num_feat=4", "num_block=1", "--scale", "3"]
    assert infer("-m", "bare.pth", "-i", "a.png", "-o", "b.png", *said) == 0
    assert read_image("b.png").shape == (18, 15, 3)
    for words, message in (
        (said[:2], r"missing: --scale"),
        (said[-2:], r"missing: --arch"),
        ([*said, "--arch_opt", "num_feats=4"], r"num_feats.*did you mean 'num_feat'"),
        ([*said, "--arch_opt", "num_feat=5", "num_block=1"], r"does not fit EDSR"),
    ):
        assert infer("-m", "bare.pth", "-i", "a.png", "-o", "c.png", *words) == 2
        assert re.search(message, capsys.readouterr().err)


def test_a_network_for_several_scales_takes_one_by_name(here):
    model_file(here / "vdsr.pth", "VDSR", color="y", num_feat=4, num_block=1)
    write_image("a.png", picture(10, 8, 3))
    for scale in (2, 3, 4):
        assert infer("-m", "vdsr.pth", "-i", "a.png", "-o", f"x{scale}.png", "--scale", scale) == 0
        assert read_image(f"x{scale}.png").shape == (10 * scale, 8 * scale, 3)


def test_a_network_of_the_users_own_comes_by_imports(here, capsys):
    (here / "lab_net.py").write_text(
        "import torch\nfrom torch import nn\nfrom srkit.registry import ARCHS\n\n\n"
        "@ARCHS.register()\nclass LabNet(nn.Module):\n"
        '    """Makes everything white."""\n\n'
        "    def __init__(self, scale: int = 2) -> None:\n        super().__init__()\n"
        "        self.scale, self.weight = scale, nn.Parameter(torch.ones(1))\n\n"
        "    def forward(self, lq: torch.Tensor) -> torch.Tensor:\n"
        "        return self.weight * nn.Upsample(scale_factor=self.scale)(torch.ones_like(lq))\n"
    )
    torch.save({"params": {"weight": torch.ones(1)}}, "lab.pth")
    write_image("a.png", picture(4, 4, 3))
    said = ["--arch", "LabNet", "--scale", "2", "--imports", "lab_net.py"]
    assert infer("-m", "lab.pth", "-i", "a.png", "-o", "b.png", *said) == 0
    assert (read_image("b.png") == 255).all()
    del ARCHS._classes["LabNet"]


def test_the_weights_that_are_asked_for_are_used(here):
    model = read_model(model_file(here / "net.pth", "BoxNet"))
    raw, averaged = model.state, {key: value * 0 for key, value in model.state.items()}
    write_model(here / "both.pth", raw, averaged, model.info)
    write_image("a.png", picture(8, 8, 3))
    for words in ([], ["--weights", "params_ema"], ["--weights", "params"]):
        infer("-m", "both.pth", "-i", "a.png", "-o", f"{len(words) and words[1]}.png", *words)
    assert (read_image("params_ema.png") == 128).all()  # 0.5 of 255, rounded half up
    assert np.array_equal(read_image("0.png"), read_image("params_ema.png"))
    assert not (read_image("params.png") == 128).all()


def test_a_network_that_diverged_is_reported_and_nothing_is_written(here, monkeypatch, capsys):
    model_file(here / "net.pth", "BoxNet")
    monkeypatch.setattr(BoxNet, "forward", lambda self, lq: torch.full((1, 3, 16, 16), float("nan")))
    write_image("a.png", picture(8, 8, 3))
    assert infer("-m", "net.pth", "-i", "a.png", "-o", "b.png") == 3
    assert "the network's output holds 768 NaN among 768 values" in capsys.readouterr().err
    assert files(here) == ["a.png", "net.pth"]


# Several processes


def test_two_processes_share_a_folder_and_report_once(here):
    model_file(here / "net.pth", "EDSR", num_feat=4, num_block=1)
    for name in "abcde":
        write_image(f"in/{name}.png", picture(8, 8, 3, seed=ord(name)))
    (here / "in/f.png").write_bytes(b"no picture")
    infer("-m", "net.pth", "-i", "in", "-o", "alone")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint",
         f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", str(ROOT / "srkit/infer.py"), "-m", "net.pth", "-i", "in", "-o",
         "out", "--launcher", "pytorch", "--device", "cpu"],
        cwd=here, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert files(here / "out") == files(here / "alone") == [f"{name}_sr.png" for name in "abcde"]
    for name in files(here / "alone"):
        assert np.array_equal(read_image(f"out/{name}"), read_image(f"alone/{name}"))
    assert done.stdout.count("6 files: 5 done, 1 failed") == 1, done.stdout + done.stderr
    assert done.stderr.count("1 of 6 inputs failed:\n  - in/f.png: not a PNG") == 1
    assert "exitcode  : 9" in done.stderr


def test_the_command_starts_as_a_file_and_helps_without_torch(here):
    code = f"import sys; sys.argv = ['infer', '-h']; sys.path.insert(0, {str(ROOT)!r}); import srkit.infer, json\n"
    code += "try:\n    srkit.infer.main()\nexcept SystemExit:\n    pass\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=here)
    assert not {"torch", "numpy", "cv2"} & set(json.loads(done.stdout.splitlines()[-1]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "srkit/infer.py"), "-h"], capture_output=True, text=True, cwd=here
    )
    assert done.returncode == 0
    assert "--target_spacing" in done.stdout


def test_axes_of_a_picture_may_be_enlarged_by_different_factors(here):
    model_file(here / "net.pth", scale=(2, 3))
    image = picture(4, 5, 3)
    write_image("in.png", image)
    assert infer("-m", "net.pth", "-i", "in.png", "-o", "big.png") == 0
    assert np.array_equal(read_image("big.png"), repeated(image, 2, 3))
