"""LMDB folders as BasicSR writes them."""

from __future__ import annotations

import builtins
import itertools

import numpy as np
import pytest

from srkit.data import PairedImageDataset
from srkit.data.loader import train_batches
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import write_image

lmdb = pytest.importorskip("lmdb")


def write_lmdb(folder, files) -> str:
    """Keys without suffix, encoded pictures as values, "name.png (h,w,c) level" lines: BasicSR's lmdb_util."""
    folder.mkdir()
    with lmdb.open(str(folder), map_size=2**20) as environment, environment.begin(write=True) as transaction:
        for path, shape in files:
            transaction.put(path.stem.encode(), path.read_bytes())
    lines = [f"{path.name} ({','.join(map(str, shape))}) 1" for path, shape in files]
    (folder / "meta_info.txt").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture
def roots(tmp_path):
    rng = np.random.default_rng(0)
    for part, shape in (("gt", (16, 20, 3)), ("lq", (8, 10, 3))):
        for k in range(5):
            write_image(tmp_path / part / f"p{k}.png", rng.integers(0, 256, shape, dtype=np.uint8))
        write_lmdb(tmp_path / f"{part}.lmdb", [(p, shape) for p in sorted((tmp_path / part).iterdir())])
    return tmp_path


def open_data(root, kind: str, **options) -> PairedImageDataset:
    end = ".lmdb" if kind == "lmdb" else ""
    return PairedImageDataset(
        scale=(2, 2),
        dataroot_gt=str(root / f"gt{end}"),
        dataroot_lq=str(root / f"lq{end}"),
        io_backend=kind,
        cache_dir=str(root / "cache"),
        gt_size=8,
        **options,
    )


@pytest.mark.parametrize("workers", [0, 2])  # the handle must not cross the fork
@pytest.mark.parametrize("cache", ["none", "disk"])
def test_lmdb_gives_the_samples_of_the_files(roots, workers, cache):
    def batches(kind):
        data = open_data(roots, kind, cache=cache)
        data.check()
        data.sample(0, None)
        return [
            b.images["gt"].numpy()
            for b in itertools.islice(train_batches(data, seed=0, batch_size=4, num_workers=workers), 3)
        ]

    np.testing.assert_array_equal(batches("lmdb"), batches("disk"))


def test_a_key_the_database_lacks_is_named(roots):
    with (roots / "gt.lmdb/meta_info.txt").open("a") as meta, (roots / "lq.lmdb/meta_info.txt").open("a") as other:
        meta.write("ghost.png (16,20,3) 1\n")
        other.write("ghost.png (8,10,3) 1\n")
    with pytest.raises(DataError, match="lists 'ghost', the database does not hold it"):
        open_data(roots, "lmdb", cache="none").check()


def test_a_plain_folder_and_a_foreign_line_are_told_apart(roots):
    with pytest.raises(DataError, match="no LMDB folder"):
        PairedImageDataset(scale=(2, 2), dataroot_gt=str(roots / "gt"), io_backend="lmdb")
    (roots / "gt.lmdb/meta_info.txt").write_text("p0.png\n")
    with pytest.raises(DataError, match="line 1: expected"):
        open_data(roots, "lmdb")


def test_a_missing_package_is_answered_with_the_command(roots, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "lmdb":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RefusedError, match="pip install lmdb"):
        open_data(roots, "lmdb")
