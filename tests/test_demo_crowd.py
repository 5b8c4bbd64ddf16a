"""The demo page among many and hostile clients: each is answered with its own result or told to wait, and nothing lands elsewhere."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from infer_made import infer, made_archs, model_file, picture  # noqa: F401
from tiny import ROOT

from srkit.imaging.files import write_image

CLIENTS, WAITING = 20, 8


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A page of its own process, with a small EDSR and 1 MB at most."""
    pytest.importorskip("gradio", reason="the page is made with gradio: pip install gradio")
    folder = tmp_path_factory.mktemp("crowd")
    model = model_file(folder / "small.pth", "EDSR", num_feat=8, num_block=1)
    (folder / "temporary").mkdir()
    words = ["-m", model, "--no-open", "--max_upload_mb", "1", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts/demo.py", *map(str, words)],
        env=os.environ | {"TMPDIR": str(folder / "temporary")},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"the page is at (http://\S+)", line):
            threading.Thread(target=process.stdout.read, daemon=True).start()  # a full pipe would stop the page
            page = SimpleNamespace(address=found[1], folder=folder, model=model, process=process)
            config = json.loads(asked(page, "config"))
            page.run = max(config["dependencies"], key=lambda event: len(event["inputs"]))["id"]
            yield page
            break
    else:
        pytest.fail(said)
    process.send_signal(signal.SIGTERM)
    process.wait(30)
    process.stdout.close()


def asked(page, place: str, words: dict | None = None) -> str:
    body = None if words is None else json.dumps(words).encode()
    request = urllib.request.Request(f"{page.address}/{place}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return "".join(iter(lambda: answer.readline().decode(), ""))


def uploaded(page, name: bytes, content: bytes) -> str:
    """Where the page says that it put the file."""
    edge = b"--------------------------edge"
    head = (
        b'Content-Disposition: form-data; name="files"; filename="'
        + name
        + b'"\r\nContent-Type: application/octet-stream'
    )
    body = b"--" + edge + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n--" + edge + b"--\r\n"
    kind = {"Content-Type": f"multipart/form-data; boundary={edge.decode()}"}
    with urllib.request.urlopen(
        urllib.request.Request(f"{page.address}/gradio_api/upload", body, kind), timeout=60
    ) as answer:
        return json.loads(answer.read())[0]


def enlarged(page, path: str, session: str) -> dict:
    """The page's last word on a job: {"success": ..., "output": ...}; {"full": ...} where it is not let in."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    values = [file, "small", None, 0, 0, 1, 1, 0, "the one with thick slices", None, False]
    try:
        asked(page, "gradio_api/queue/join", {"data": values, "fn_index": page.run, "session_hash": session})
    except urllib.error.HTTPError as error:
        return {"full": error.code, "said": error.read().decode()}
    said = [
        json.loads(line[5:])
        for line in asked(page, f"gradio_api/queue/data?session_hash={quote(session)}").splitlines()
        if line
    ]
    return next(word for word in said if word["msg"] == "process_completed")


def result_of(page, done: dict) -> tuple[str, bytes]:
    """Name and content of the download."""
    assert done["success"], done
    path = done["output"]["data"][1]["value"]["path"]
    with urllib.request.urlopen(f"{page.address}/gradio_api/file={quote(path)}", timeout=60) as answer:
        return Path(path).name, answer.read()


def png(folder: Path, height: int, width: int, seed: int) -> Path:
    write_image(folder / f"{seed}.png", picture(height, width, 3, seed=seed))
    return folder / f"{seed}.png"


def resident_mib(process) -> float:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_twenty_at_once_get_their_own_results_or_are_told_to_wait(served, tmp_path):
    sources = [png(tmp_path, 8 + seed, 30 - seed, seed) for seed in range(CLIENTS)]
    assert infer("-m", served.model, "-i", *sources, "-o", tmp_path / "out", "--device", "cpu") == 0
    paths = [uploaded(served, source.name.encode(), source.read_bytes()) for source in sources]

    def one(number: int, part: str) -> bool:
        done = enlarged(served, paths[number], f"{part}{number}")
        if "full" in done:
            assert done["full"] == 503, done
            assert "full" in done["said"].lower(), done
            return False
        name, content = result_of(served, done)
        assert name == f"{number}_sr.png"
        assert content == (tmp_path / "out" / name).read_bytes()
        return True

    counts, memory = [], []
    with ThreadPoolExecutor(CLIENTS) as threads:
        for part in "abc":
            served_now = list(threads.map(lambda number, part=part: one(number, part), range(CLIENTS)))
            assert sum(served_now) >= WAITING
            counts.append(len(files_below(served.folder / "temporary")))
            memory.append(resident_mib(served.process))
    assert sum(one(number, "late") for number in range(CLIENTS)) == CLIENTS  # those told to wait come again, one by one
    once = len(files_below(served.folder / "temporary"))
    assert sum(one(number, "again") for number in range(CLIENTS)) == CLIENTS
    assert len(files_below(served.folder / "temporary")) == once  # the same results lie in the same places
    assert resident_mib(served.process) - memory[0] < 60


NAMES = {
    "above": b"../../../escaped.png",
    "absolute": b"/tmp/escaped.png",
    "of Windows": b"..\\..\\C:\\escaped.png",
    "percent": b"%2e%2e%2fescaped.png",
    "null byte": b"esc\0aped.png",
    "null byte before the end": b"escaped.sh\0.png",
    "300 letters": b"x" * 300 + b".png",
    "300 of two bytes": ("é" * 300).encode() + b".png",
    "other scripts": "Übersicht 病理 \u202egnp.exe.png".encode(),
    "no UTF-8": b"\xff\xfe.png",
    "dots": b"...png",
    "only dots": b"..",
    "a flag": b"-rf.png",
    "a template": b"{stem}%s$(touch escaped)`id`.png",
    "markup": b"<img src=x onerror=alert(1)>.png",
    "lines": b"a\tb;c.png",
}  # fmt: skip


@pytest.mark.parametrize("what", NAMES)
def test_no_name_of_an_upload_leads_out_of_its_folder(served, tmp_path, what):
    content = png(tmp_path, 9, 7, 1).read_bytes()
    places = (served.folder, Path("/tmp"), Path.cwd())
    before = {path for place in places[1:] for path in place.iterdir()}
    try:
        path = Path(uploaded(served, NAMES[what], content))
    except urllib.error.HTTPError as error:
        refused = error.code
    else:
        refused = None
    assert refused in (None, 400)
    if refused is None:
        inside = next((served.folder / "temporary").glob("srkit-demo-*")) / "uploads"
        assert path.resolve() == path
        assert path.is_relative_to(inside)
        assert path.read_bytes() == content
        assert len(path.name.encode()) <= 255
        done = enlarged(served, str(path), f"name {what}")
        if done["success"]:
            name, made = result_of(served, done)
            assert made.startswith(b"\x89PNG")
            assert not set(name) & set("/\\\0\n\r")
            assert name not in (".", "..")
        else:
            assert "is none of what this page takes" in done["output"]["error"], done
    assert {path for place in places[1:] for path in place.iterdir()} - before == set()
    assert not [
        path
        for path in files_below(served.folder)
        if not path.is_relative_to(served.folder / "temporary") and path.name != "small.pth"
    ]


def test_an_upload_above_the_limit_is_refused_and_leaves_no_file(served):
    before = files_below(served.folder / "temporary")
    with pytest.raises(urllib.error.HTTPError) as refused:
        uploaded(served, b"large.png", bytes(3_000_000))
    assert refused.value.code == 413
    assert files_below(served.folder / "temporary") == before


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (b"page.html", b"<script>alert(1)</script>", "is none of what this page takes"),
        (b"text.png", b"no picture", "not a PNG"),
        (b"empty.png", b"", "empty"),
        (b"text.svs", b"no slide", "not a slide that OpenSlide reads"),
        (b"text.nii.gz", b"no volume", "NIfTI"),
        (b"model.onnx", b"\x08\x0a", "is none of what this page takes"),
    ],
)
def test_a_file_of_another_kind_is_answered_by_one_message(served, name, content, expected):
    done = enlarged(served, uploaded(served, name, content), f"kind {name.decode()}")
    assert not done["success"]
    assert expected in done["output"]["error"]
    assert str(served.folder) not in json.dumps(done)


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["x"] * 11,
        [None] * 11,
        [{"path": 5}, *[None] * 10],
        [{"path": "../../etc/passwd", "meta": {"_type": "gradio.FileData"}}, *[None] * 10],
        [{"url": "http://192.0.2.1/x.png", "path": "", "meta": {"_type": "gradio.FileData"}}, *[None] * 10],
        [None, "small", None, "x", {}, [], -1, float("inf"), 7, "y", 3],
    ],
)
def test_values_of_wrong_kinds_end_nothing(served, tmp_path, values):
    words = {"data": values, "fn_index": served.run, "session_hash": f"wrong {len(str(values))}"}
    said = ""
    with suppress(urllib.error.HTTPError):
        asked(served, "gradio_api/queue/join", words)
        said = asked(served, f"gradio_api/queue/data?session_hash={quote(words['session_hash'])}")
    assert '"success":true' not in said
    assert "root:" not in said
    source = png(tmp_path, 8, 8, 2)
    assert enlarged(served, uploaded(served, b"2.png", source.read_bytes()), f"after {len(str(values))}")["success"]
