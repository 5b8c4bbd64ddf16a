"""Broken and hostile input, made by seeded chance: every answer is a result or one message, never a traceback."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import time

import cv2
import numpy as np
import pytest
import torch
import yaml
from test_engine_checkpoint import Evil, snapshot
from test_options_samples import TRAIN
from tiny import in_process, options, pictures

from srkit.data.names import unsafe
from srkit.engine.checkpoint import CheckpointStore, _seal, find_damage, read_checkpoint
from srkit.engine.model_file import read_model, write_model
from srkit.errors import OptionError, SrkitError, WeightsError
from srkit.imaging.files import image_size, read_image
from srkit.options import load_options


def answer(call, *arguments, **options):
    """The result and None, or None and the foreseen error; any other exception fails the test."""
    try:
        return call(*arguments, **options), None
    except SrkitError as error:
        return None, error


# Option files

VALUES = [
    None, True, -1, 0, 10**17, 1.5, float("nan"), float("inf"), -float("inf"), "", " ", "~", "1e-4", "../../x", "/x", "a" * 5000,
    "{}", "%s%n", "{0.__class__}", "__import__('os').system('touch sentinel')", "$(touch sentinel)", "é\u202e\u0000"[:2], [], {}, [[]],
    [None], {"type": None}, {"type": "EDSR"}, {"type": ["EDSR"]}, {"a": {"b": {"c": 1}}}, ["x"] * 300, [1, "a", {}], "EDSR", "L1Loss",
]  # fmt: skip
WORDS = [
    "type",
    "name",
    "scale",
    "<<",
    "datasets",
    "train",
    "val",
    "loss_weight",
    "lr",
    "num_block",
    "__class__",
    "0",
    "a.b",
    "a:b",
]
TEXT = ["!!python/object/apply:os.system [touch sentinel]", "&a", "*a", "<<: *a", "- ", "? ", ": ", "|", ">", "\t", "%TAG ! !\n", "---",
        "...", "{", "[", "]", "}", "'", '"', "#", "@", "`", "\\", "\u0085", "\ufeff", "!!binary", "!!set", "0x1F", "1_0", "\r"]  # fmt: skip


def places(node, path=()):
    """Every place of a tree of sections and lists."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated_tree(draw: random.Random) -> str:
    """The sample file with one to four places replaced, removed, moved or added to."""
    data = yaml.safe_load(TRAIN)
    for _ in range(draw.randint(1, 4)):
        *parents, last = draw.choice([p for p in places(data) if p] or [("name",)])
        section = data
        for parent in parents:
            section = section[parent]
        what = draw.randrange(4)
        if what == 0:
            section[last] = draw.choice(VALUES)
        elif what == 1:
            del section[last]
        elif isinstance(section, dict):
            section[draw.choice(WORDS)] = section[last] if what == 2 else draw.choice(VALUES)
    return yaml.safe_dump(data, allow_unicode=True)


def mutated_text(draw: random.Random) -> str:
    """The sample file with pieces of YAML's grammar thrown in, and parts doubled, cut out or shuffled."""
    text = TRAIN
    for _ in range(draw.randint(1, 5)):
        at, to = sorted(draw.randrange(len(text) + 1) for _ in range(2))
        what = draw.randrange(4)
        if what < 2:
            text = text[:at] + draw.choice(TEXT) + text[at:]
        elif what == 2:
            text = text[:at] + text[min(to, at + 30) :]
        else:
            text = text[:to] + text[at : min(to, at + 60)] + text[to:]
    return text


@pytest.mark.parametrize("mutated", [mutated_tree, mutated_text])
def test_any_option_file_is_read_or_refused_with_places(tmp_path, monkeypatch, mutated):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.yml"
    load_options(_written(file, TRAIN), mode="train")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for seed in range(150):
        _written(file, mutated(random.Random(seed)))
        began = time.process_time()
        _, error = answer(load_options, file, mode="train")
        assert time.process_time() - began < 1, seed
        if error is not None:
            refused += 1
            assert isinstance(error, OptionError), seed
            assert error.problems, seed
            assert all(": " in p or p.startswith(("empty", "larger")) for p in error.problems), (seed, error.problems)
    assert refused > 75
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert [p.name for p in tmp_path.iterdir()] == ["x.yml"]  # nothing that stood in a file was carried out


def _written(file, text):
    file.write_text(text, encoding="utf-8", errors="replace", newline="")
    return file


# Pictures


def damages(content: bytes, count: int, seed: int):
    """Every third copy cut at a random length, the others with one to three bits flipped, the first bytes more often."""
    draw = random.Random(seed)
    for number in range(count):
        if number % 3 == 0:
            yield content[: draw.randrange(len(content))]
            continue
        damaged = bytearray(content)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(min(len(damaged), 64) if draw.random() < 0.5 else len(damaged))] ^= (
                1 << draw.randrange(8)
            )
        yield bytes(damaged)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm"])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_damaged_picture_is_read_or_refused_by_name(tmp_path, suffix, depth):
    picture = cv2.resize(np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8), (42, 30))
    if depth is np.uint16:
        if suffix not in (".png", ".tif", ".ppm"):
            pytest.skip(f"{suffix} has 8 bits")
        picture = picture.astype(np.uint16) * 257
    content = cv2.imencode(suffix, picture)[1].tobytes()
    file = tmp_path / f"a{suffix}"
    for damaged in damages(content, 90, 1):
        file.write_bytes(damaged)
        for read in (image_size, read_image):
            _, error = answer(read, file)
            if error is not None:
                assert str(error).startswith(f"{file}: ")
                assert "\n" not in str(error)
            else:
                assert read is image_size or len(damaged) == len(content)  # pixels of a cut file are never made up


# List files


def test_names_of_list_files_stay_below_their_folder():
    """Against the file system's own answer: a name that is let through, resolved, lies below the root."""
    draw = random.Random(0)
    parts = ["..", ".", "a", "b.png", "/", "\\", "C:", "~", "...", " ", "\0", "%2e%2e", "é", "//", "..\\"]
    refused = 0
    for _ in range(3000):
        name = "".join(draw.choice(parts) + draw.choice(["/", "\\", ""]) for _ in range(draw.randint(1, 5)))
        if unsafe(name):
            refused += 1
            continue
        for spelt in (name, name.replace("\\", "/")):
            path = os.path.normpath(os.path.join("/root/data", spelt))
            assert path == "/root/data" or path.startswith("/root/data/"), name
    assert refused > 500


@pytest.mark.parametrize(
    "line", ["../secret/p0.png", "/etc/hostname", "a/../../secret/p0.png", "..\\secret\\p0.png", "C:\\x.png"]
)
def test_a_list_file_that_leads_out_of_its_folder_starts_no_training(tiny, capsys, line):
    pictures(tiny / "data/secret")
    (tiny / "list.txt").write_text(f"{line}\n")
    assert in_process(tiny, options(tiny, datasets__train__meta_info_file=str(tiny / "list.txt"))) == 2
    assert line.replace("\\", "/") in capsys.readouterr().err


# Checkpoints and weights


def test_a_checkpoint_with_code_in_it_is_refused_however_well_it_is_sealed(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    sentinel = tmp_path / "sentinel"
    torch.save({"optimizers": Evil(sentinel)}, folder / "training.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "training.pt").read_bytes()
    manifest["files"]["training.pt"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.pop("sha256")
    (folder / "manifest.json").write_bytes(_seal(manifest))
    assert find_damage(folder) is None
    with pytest.raises(WeightsError, match=r"training\.pt: .*could run code"):
        read_checkpoint(folder)
    assert not sentinel.exists()


def test_a_sealed_manifest_of_any_shape_is_read_or_refused(tmp_path):
    folder = CheckpointStore(tmp_path).save(snapshot(5))
    draw = random.Random(0)
    refused = 0
    written = json.loads((folder / "manifest.json").read_text())
    written.pop("sha256")
    for _ in range(300):
        manifest = json.loads(json.dumps(written))
        for _ in range(draw.randint(1, 2)):
            found = [p for p in places(manifest) if p]
            if not found:
                break
            *parents, last = draw.choice(found)
            section = manifest
            for parent in parents:
                section = section[parent]
            if draw.random() < 0.3:
                del section[last]
            else:
                section[last] = draw.choice(
                    [None, -1, "", "x", [], {}, ["a"], {"../x": {"size": 1, "sha256": "0"}}, 10**30, True]
                )
        (folder / "manifest.json").write_bytes(_seal(manifest))
        _, error = answer(read_checkpoint, folder)
        if error is not None:
            refused += 1
            assert "iter_5" in str(error)
    assert refused > 150


def test_a_damaged_model_file_never_gives_other_weights(tmp_path):
    """A file cut anywhere, or with one bit flipped: the checksum of each part of the file tells."""
    file = tmp_path / "net_g.pth"
    weights = {"conv.weight": torch.linspace(-1, 1, 300).reshape(3, 100)}
    write_model(file, weights, None, None)
    content = file.read_bytes()
    refused = 0
    for damaged in damages(content, 200, 2):
        file.write_bytes(damaged)
        found, error = answer(read_model, file)
        if error is not None:
            refused += 1
            assert "net_g.pth" in str(error)
        else:
            assert torch.equal(found.state["conv.weight"], weights["conv.weight"])
    assert refused > 100


# Names


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "/x", "a/b", "a\\b", "", " ", "a\nb", "~", "a\0b", "-rf", "x" * 300]
)
@pytest.mark.parametrize("place", ["name", "datasets__val__name"])
def test_no_name_leads_a_training_out_of_its_folder(tiny, capsys, name, place):
    before = {p for p in tiny.parent.rglob("*") if p.is_file()}
    code = in_process(tiny, options(tiny, train__total_iter=1, val__save_img=True, **{place: name}))
    assert code in (0, 2), capsys.readouterr().err
    made = {p for p in tiny.parent.rglob("*") if p.is_file()} - before - {tiny / "x.yml"}
    assert all(p.is_relative_to(tiny / "experiments") or p.is_relative_to(tiny / "cache") for p in made), made
