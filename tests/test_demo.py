"""The demo page: what it makes of files, what it refuses, who it answers to, and all of it in a browser."""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from browser import BROWSER
from infer_made import infer, made_archs, model_file, nifti, picture, read_nifti, repeated, scan  # noqa: F401
from slide_files import WITHOUT, stained, write_slide
from tiny import ROOT

from srkit.demo.models import labels, open_models
from srkit.demo.server import Guard, bound, is_loopback
from srkit.demo.views import Box, slide_map, volume_pairs
from srkit.demo.work import Workbench
from srkit.errors import DataError, RefusedError, SrkitError, WeightsError
from srkit.imaging.files import read_image, write_image
from srkit.imaging.slides import open_slide
from srkit.inference.settings import RunSettings, VolumeSettings

PLAIN = VolumeSettings(preview=False)
AXIS_1 = VolumeSettings(preview=False, axis=1)


@pytest.fixture
def bench(tmp_path):
    paths = [
        model_file(tmp_path / "flat.pth", "BoxNet"),
        model_file(tmp_path / "thick.pth", "BoxNet", (1, 3, 1), num_in_ch=1),
    ]
    models = open_models(paths, RunSettings(device="cpu"))
    return Workbench(models, tmp_path / "job", max_pixels=100_000)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["runs/edsr.pth", "runs/vdsr.pth"], ["edsr", "vdsr"]),
        (["a/models/net_g.pth", "b/models/net_g.pth"], ["a/models/net_g", "b/models/net_g"]),
        (["a/net_g.pth", "a/net_g.onnx"], ["net_g.pth", "net_g.onnx"]),
    ],
)
def test_models_of_one_name_are_told_apart_by_as_much_of_their_place_as_it_takes(paths, expected):
    assert labels([Path(path) for path in paths]) == expected


def test_a_model_named_twice_is_refused():
    with pytest.raises(RefusedError, match="named twice"):
        labels([Path("a.pth"), Path("b/../a.pth")])


def test_a_file_that_is_no_model_is_refused_before_the_page_opens(tmp_path):
    (tmp_path / "net.pth").write_text("no network")
    with pytest.raises(WeightsError, match=r"net\.pth"):
        open_models([tmp_path / "net.pth"], RunSettings(device="cpu"))


@pytest.mark.parametrize("name", ["cat.png", "cat.jpg", "cat.tif"])
def test_a_picture_becomes_what_infer_makes_of_it(bench, tmp_path, name):
    write_image(tmp_path / name, picture(20, 24, 3))
    made = bench.enlarge(tmp_path / name, "flat", PLAIN)
    assert infer("-m", tmp_path / "flat.pth", "-i", tmp_path / name, "-o", tmp_path / "out/", "--device", "cpu") == 0
    (expected,) = (tmp_path / "out").iterdir()
    assert (made.out.name, made.out.read_bytes()) == (expected.name, expected.read_bytes())


def test_a_volume_becomes_what_infer_makes_of_it(bench, tmp_path):
    source = nifti(tmp_path / "brain.nii.gz", scan(12, 8, 10))
    made = bench.enlarge(source, "thick", PLAIN)
    assert infer("-m", tmp_path / "thick.pth", "-i", source, "-o", tmp_path / "out/", "--device", "cpu") == 0
    ours, theirs = read_nifti(made.out), read_nifti(tmp_path / "out/brain_sr.nii.gz")
    assert made.out.name == "brain_sr.nii.gz"
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs))


def test_three_planes_of_a_volume_are_shown_in_true_proportions():
    volume = scan(10, 4, 6)
    pairs = volume_pairs(volume, repeated(volume, 1, 3, 1), (1, 3, 1), (1.0, 1.0, 2.0), 0, 1)
    heights_over_widths = [12 / 12, 12 / 10, 12 / 10]  # in mm: (J, K) = 12 x 12, (I, K) = 10 x 12, (I, J) = 10 x 12
    assert [before.shape for before, _ in pairs] == [after.shape for _, after in pairs]
    assert [a.shape[0] / a.shape[1] for _, a in pairs] == pytest.approx(heights_over_widths, abs=0.01)


def test_what_srkit_warns_of_stands_beside_the_result(bench, tmp_path):
    made = bench.enlarge(nifti(tmp_path / "cube.nii.gz", scan(9, 9, 9), (1, 1, 1)), "thick", AXIS_1)
    assert any("are 1 times as long along axis 1" in line for line in made.text if line.startswith("Note: cube"))


def test_a_large_picture_is_shown_in_part_and_restored_whole(bench, tmp_path):
    write_image(tmp_path / "wide.png", picture(8, 1000, 3))
    made = bench.enlarge(tmp_path / "wide.png", "flat", PLAIN)
    (caption, (before, after)), sr = made.pairs[0], read_image(made.out)
    assert sr.shape == (16, 2000, 3)
    assert "middle 1536 x 16" in caption
    assert before.shape == (16, 1536, 3)
    assert np.array_equal(after, sr[:, 232:1768])


@pytest.fixture
def slide(tmp_path):
    pytest.importorskip("openslide", reason=WITHOUT)
    return write_slide(tmp_path / "slide.tif", stained(600, 800), mpp=0.25)


def test_a_region_of_a_slide_is_restored_from_its_own_pixels_and_carries_finer_microns(slide, tmp_path):
    path = model_file(tmp_path / "repeat.pth")
    bench = Workbench(open_models([path], RunSettings(device="cpu")), tmp_path / "job", 10**6)
    made = bench.enlarge(slide, "repeat", PLAIN, Box(100, 50, 64, 48))
    assert np.array_equal(read_image(made.out), repeated(stained(600, 800)[50:98, 100:164], 2, 2))
    tifffile = pytest.importorskip("tifffile")
    with tifffile.TiffFile(made.out) as file:
        tags = file.pages[0].tags
        per_cm = tags["XResolution"].value
    assert per_cm[1] / per_cm[0] * 1e4 == pytest.approx(0.125)


def test_a_region_at_coarser_microns_has_fewer_pixels(slide, bench):
    assert read_image(bench.enlarge(slide, "flat", PLAIN, Box(0, 0, 128, 64), mpp=0.5).out).shape == (64, 128, 3)


@pytest.mark.parametrize("box", [Box(790, 0, 64, 64), Box(0, 590, 64, 64), Box(-1, 0, 8, 8), Box(0, 0, 0, 8)])
def test_a_region_beyond_the_slide_is_refused_with_both_sizes(slide, bench, box):
    with pytest.raises(DataError, match=r"^slide\.tif: a region of .* is not inside its 800 x 600 pixels"):
        bench.enlarge(slide, "flat", PLAIN, box)


def test_a_region_above_the_limit_is_refused(slide, bench):
    with pytest.raises(DataError, match=r"800 x 600 = 480,000 pixels in this region, this page takes 100,000"):
        bench.enlarge(slide, "flat", PLAIN, Box(0, 0, 800, 600))


def test_the_map_of_a_slide_begins_in_tissue_and_a_click_stays_inside(slide):
    chart = slide_map(open_slide(slide))
    assert chart.start == Box(0, 0, 512, 512)  # tissue is the left half
    assert chart.box_around(799, 599, 100, 50) == Box(700, 550, 100, 50)
    assert chart.box_around(0, 0, 100, 50) == Box(0, 0, 100, 50)


def png(width: int, height: int) -> bytes:
    """A PNG that promises these sides and has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def two_channels(path: Path) -> None:
    pytest.importorskip("tifffile").imwrite(path, picture(2, 9, 9), photometric="minisblack", planarconfig="separate")


def cut_short(path: Path) -> None:
    write_image(path, picture(40, 40, 3))
    path.write_bytes(path.read_bytes()[:2000])


def cut_volume(path: Path) -> None:
    nifti(path, scan(12, 12, 12))
    path.write_bytes(path.read_bytes()[:1500])


WRONG = {
    "text.png": (lambda path: path.write_text("no picture"), "flat", "not a PNG"),
    "cut.png": (cut_short, "flat", "does not decode"),
    "two.tif": (two_channels, "flat", "TIFF"),
    "huge.png": (lambda path: path.write_bytes(png(60_000, 60_000)), "flat", "3,600,000,000 pixels, this page takes 100,000"),
    "series.nii.gz": (lambda path: nifti(path, np.stack([scan(8, 8, 8)] * 2, -1)), "thick", "choose one with volume: 0 to 1"),
    "cut.nii.gz": (cut_volume, "thick", "cut short|damaged|ends"),
    "zeros.nii.gz": (lambda path: path.write_bytes(gzip.compress(b"\0" * 400)), "thick", "not a NIfTI"),
    "table.xlsx": (lambda path: path.write_bytes(b"PK"), "flat", r"'\.xlsx' is none of what this page takes"),
    "fine.png": (lambda path: write_image(path, picture(9, 9, 3)), "thick", "picture; the model thick enlarges volumes"),
    "fine.nii.gz": (lambda path: nifti(path, scan(8, 8, 8)), "flat", "volume; the model flat enlarges pictures"),
    "no.png": (lambda path: write_image(path, picture(9, 9, 3)), "other", "no model 'other' here"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(WRONG))
def test_a_wrong_input_is_answered_by_one_message_that_names_it_without_folders(bench, tmp_path, name):
    make, model, expected = WRONG[name]
    make(tmp_path / name)
    with pytest.raises(SrkitError, match=expected) as error:
        bench.enlarge(tmp_path / name, model, PLAIN)
    assert str(tmp_path) not in str(error.value)
    assert str(error.value).startswith(name) or model == "other"


def test_a_volume_above_the_limit_is_refused_by_its_header(bench, tmp_path):
    with pytest.raises(DataError, match=r"50 x 50 x 50 = 125,000 voxels, this page takes 100,000"):
        bench.look(nifti(tmp_path / "large.nii", np.ones((50, 50, 50), np.uint8)))


def test_without_simpleitk_bias_correction_says_what_to_install(bench, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    source = nifti(tmp_path / "brain.nii.gz", scan(8, 8, 8))
    with pytest.raises(RefusedError, match="pip install SimpleITK"):
        bench.enlarge(source, "thick", VolumeSettings(bias_correct=True, preview=False))


def test_a_taken_port_is_one_clear_error():
    with bound("127.0.0.1", 0) as door:
        port = door.getsockname()[1]
        with pytest.raises(RefusedError, match=rf"--port {port}: another program has this port"):
            bound("127.0.0.1", port)


def test_a_host_that_is_not_of_this_machine_is_refused():
    with pytest.raises(RefusedError, match=r"--host 192\.0\.2\.1"):  # RFC 5737: never anyone's
        bound("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("10.1.2.3", False)]
)
def test_only_loopback_counts_as_local(host, local):
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    ("name", "status"),
    [("127.0.0.1:7860", 200), ("localhost:7860", 200), ("[::1]:7860", 200), ("evil.example:7860", 400)],
)
def test_on_loopback_another_host_name_is_not_answered(name, status):
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(app, is_local=True)({"type": "http", "headers": [(b"host", name.encode())]}, None, send))
    assert sent[0]["status"] == status
    if status == 200:
        assert b"default-src 'self'" in dict(sent[0]["headers"])[b"content-security-policy"]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page of its own process, with a small EDSR."""
    pytest.importorskip("gradio", reason="the page is made with gradio: pip install gradio")
    folder = tmp_path_factory.mktemp("served")
    model = model_file(folder / "small.pth", "EDSR", num_feat=8, num_block=1)
    temporary = folder / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    words = ["-m", model, "--no-open", "--max_upload_mb", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts/demo.py", *map(str, words)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"the page is at (http://\S+)", line):
            yield SimpleNamespace(address=found[1], folder=folder, model=model, temporary=temporary, process=process)
            break
    else:
        pytest.fail(said)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    process.stdout.close()


def test_the_page_is_bound_to_loopback(served):
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no address but loopback")
    with pytest.raises(OSError), socket.create_connection((own, int(served.address.rsplit(":", 1)[1])), timeout=2):
        pass


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../../etc/passwd"])
def test_no_file_of_the_machine_is_given_away(served, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{served.address}/gradio_api/file={path}")
    assert error.value.code in (403, 404)


def asked(served, place: str, words: dict | None = None) -> str:
    body = None if words is None else json.dumps(words).encode()
    request = urllib.request.Request(f"{served.address}/{place}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return "".join(iter(lambda: answer.readline().decode(), ""))


def test_a_request_that_names_a_file_that_was_not_uploaded_is_refused(served, tmp_path):
    write_image(tmp_path / "secret.png", picture(8, 8, 3))
    config = json.loads(asked(served, "config"))
    run = max(config["dependencies"], key=lambda event: len(event["inputs"]))
    file = {"path": str(tmp_path / "secret.png"), "meta": {"_type": "gradio.FileData"}}
    values = [file, "small", None, 0, 0, 1, 1, 0, "the one with thick slices", None, False]
    asked(served, "gradio_api/queue/join", {"data": values, "fn_index": run["id"], "session_hash": "s"})
    answer = asked(served, "gradio_api/queue/data?session_hash=s")
    assert '"success":false' in answer
    assert "not uploaded" in answer


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_in_a_browser_a_picture_becomes_what_infer_makes_of_it_and_no_other_host_is_asked(served, tmp_path):
    pytest.importorskip("websockets", reason="the browser is driven over a web socket: pip install websockets")
    from devtools import Tab

    source = tmp_path / "cat<b>.png"
    write_image(source, picture(24, 30, 3))
    assert infer("-m", served.model, "-i", source, "-o", tmp_path / "out/", "--device", "cpu") == 0
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "large.png").write_bytes(b"\x89PNG" + bytes(1_100_000))
    upload = "#file input[type=file]"
    with Tab(tmp_path) as tab:
        tab.open(served.address)
        tab.until(f"!!document.querySelector('{upload}')", 60)
        tab.give(upload, source)
        tab.until("document.querySelector('#go')?.disabled === false")
        tab.click("#go")
        tab.until("document.querySelector('#status').innerText.includes('Size: 30 x 24 → 60 x 48 pixels (x2)')", 60)
        tab.until("document.querySelector('#download')?.innerText.includes('_sr.png')")
        tab.click("#download")
        loaded = tab.file(tmp_path, "cat*_sr.png")
        assert loaded.read_bytes() == (tmp_path / "out/cat<b>_sr.png").read_bytes()
        assert tab.until("document.querySelectorAll('#compared-0 img').length") == 2
        assert tab.js("[1, 2].every((k) => !document.querySelector(`#compared-${k} img`))")
        assert {url.split("/")[2] for url in tab.asked if url.startswith("http")} == {served.address.split("/")[2]}
        for name, seen, expected in (
            ("text.png", "#status", "This file cannot be used. text.png: not a PNG"),
            ("large.png", "#limit", "large.png has 1.1 MB, this page takes 1 MB at most"),
        ):
            tab.open(served.address)
            tab.until(f"!!document.querySelector('{upload}')", 60)
            tab.give(upload, tmp_path / name)
            tab.until(f"[...document.querySelectorAll('{seen}')].some((e) => e.innerText.includes('{expected}'))")
            assert tab.js("document.querySelector('#go').disabled")


def test_ended_by_sigterm_the_page_leaves_nothing_behind(served):
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 143
    assert not list(served.temporary.glob("srkit-demo-*"))
