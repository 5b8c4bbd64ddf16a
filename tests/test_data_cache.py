"""The decoded cache: equal pixels, rebuilt only where files changed, safe beside other processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle

import numpy as np
import pytest

from srkit.data import PairedImageDataset
from srkit.data.cache import CachedSource
from srkit.errors import DataError
from srkit.imaging.files import write_image


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        write_image(tmp_path / f"gt/p{k}.png", rng.integers(0, 256, (17, 20 + k, 3), dtype=np.uint8))
    return tmp_path


def dataset(root, **options) -> PairedImageDataset:
    given = {"scale": (2, 2), "dataroot_gt": str(root / "gt"), "gt_size": 8, "cache_dir": str(root / "cache")}
    return PairedImageDataset(**(given | options))


def crops(data) -> list[bytes]:
    samples = [data.sample(k % len(data), np.random.default_rng(k)) for k in range(12)]
    return [s.images["lq"].tobytes() + s.images["gt"].tobytes() for s in samples]


def test_cached_samples_equal_decoded_ones(pictures):
    plain, cached = dataset(pictures, cache="none"), dataset(pictures)
    cached.prepare(progress=False)
    assert isinstance(cached.reader.gt, CachedSource)
    assert all(cached.reader.gt.holds(k) and cached.reader.lq.holds(k) for k in range(4))
    assert crops(cached) == crops(plain)
    np.testing.assert_array_equal(cached.sample(3, None).images["lq"], plain.sample(3, None).images["lq"])


def test_sixteen_bit_and_grey_survive_the_cache(tmp_path):
    grey = np.arange(400, dtype=np.uint16).reshape(20, 20, 1) * 150
    write_image(tmp_path / "gt/a.png", grey)
    data = dataset(tmp_path)
    data.prepare(progress=False)
    np.testing.assert_array_equal(data.reader.gt.read(0), grey)


def test_only_changed_files_are_decoded_again(pictures, monkeypatch):
    dataset(pictures).prepare(progress=False)
    write_image(pictures / "gt/p1.png", np.zeros((17, 30, 3), np.uint8))
    write_image(pictures / "gt/p9.png", np.full((17, 20, 3), 9, np.uint8))
    (pictures / "gt/p0.png").unlink()
    data = dataset(pictures)
    read, decoded = data.reader.gt.read, []
    monkeypatch.setattr(data.reader.gt, "read", lambda k: decoded.append(data.reader.gt.names[k]) or read(k))
    data.prepare(progress=False)
    assert set(decoded) == {"p1.png", "p9.png"}
    assert crops(data) == crops(dataset(pictures, cache="none"))


def test_a_current_cache_is_not_written_again(pictures):
    dataset(pictures).prepare(progress=False)
    before = {p: p.stat().st_mtime_ns for p in (pictures / "cache").rglob("*.*")}
    data = dataset(pictures)
    data.prepare(progress=False)
    assert {p: p.stat().st_mtime_ns for p in (pictures / "cache").rglob("*.*")} == before
    assert crops(data)


@pytest.mark.parametrize("damage", ["cut data", "foreign index", "no data"])
def test_a_damaged_cache_is_made_anew(pictures, damage):
    dataset(pictures).prepare(progress=False)
    for folder in (pictures / "cache").iterdir():
        raw = next(folder.glob("data-*.raw"))
        if damage == "cut data":
            os.truncate(raw, 100)
        elif damage == "no data":
            raw.unlink()
        else:
            (folder / "index.json").write_text('{"names": 3')
    data = dataset(pictures)
    data.prepare(progress=False)
    assert crops(data) == crops(dataset(pictures, cache="none"))


def test_an_unreadable_file_is_named_by_check_and_left_out_of_the_cache(pictures):
    (pictures / "gt/p2.png").write_bytes(b"foreign")
    data = dataset(pictures)
    with pytest.raises(DataError, match=r"1 files are unreadable: .*p2.png"):
        data.check()
    assert [data.reader.gt.holds(k) for k in range(4)] == [True, True, False, True]
    with pytest.raises(DataError, match=r"p2.png"):
        data.sample(2, None)


def test_one_bad_file_does_not_cause_a_copy_at_every_start(pictures):
    (pictures / "gt/p2.png").write_bytes(b"foreign")
    dataset(pictures).prepare(progress=False)
    before = {p: p.stat().st_mtime_ns for p in (pictures / "cache").rglob("data-*")}
    dataset(pictures).prepare(progress=False)
    assert {p: p.stat().st_mtime_ns for p in (pictures / "cache").rglob("data-*")} == before


def _prepare_and_hash(root, results):
    data = dataset(root)
    data.prepare(progress=False)
    results.put(crops(data))


def test_processes_that_start_together_share_one_cache(pictures):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [context.Process(target=_prepare_and_hash, args=(pictures, results)) for _ in range(3)]
    for rank in ranks:
        rank.start()
    found = [results.get(timeout=30) for _ in ranks]
    for rank in ranks:
        rank.join(30)
    assert found == [crops(dataset(pictures, cache="none"))] * 3
    assert len(list((pictures / "cache").rglob("data-*.raw"))) == 2  # gt and the lq made from it


def test_the_fingerprint_does_not_depend_on_the_cache(pictures):
    data = dataset(pictures)
    before = data.fingerprint()
    data.prepare(progress=False)
    assert data.fingerprint() == before == dataset(pictures, cache="none").fingerprint()


def test_pickling_carries_no_pixels(pictures):
    data = dataset(pictures)
    data.prepare(progress=False)
    assert len(pickle.dumps(data)) < 5000 + sum(p.stat().st_size for p in (pictures / "gt").iterdir()) // 10
    assert crops(pickle.loads(pickle.dumps(data))) == crops(data)


def test_auto_caches_crops_only_and_says_why_not(pictures, monkeypatch):
    assert "cache off" in dataset(pictures, gt_size=None).describe()
    assert str(pictures / "cache") in dataset(pictures).describe()
    monkeypatch.setattr("srkit.data.pairs._CACHE_LIMIT_BYTES", 1000)
    refused = dataset(pictures)
    refused.prepare(progress=False)
    assert "above the limit" in refused.describe()
    assert not isinstance(refused.reader.gt, CachedSource)
    assert not (pictures / "cache").exists()


def test_the_index_lists_what_is_cached(pictures):
    dataset(pictures).prepare(progress=False)
    index = [json.loads(p.read_text()) for p in (pictures / "cache").rglob("index.json")]
    assert {tuple(i["names"]) for i in index} == {("p0.png", "p1.png", "p2.png", "p3.png")}
    assert {tuple(i["height"]) for i in index} == {(17,) * 4, (8,) * 4}
