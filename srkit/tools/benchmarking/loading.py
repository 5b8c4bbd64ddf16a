"""Samples per second and CPU time per sample, for every form in which a training set can be stored."""

from __future__ import annotations

import inspect
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srkit import build
from srkit.data.pairs import PictureDataset
from srkit.data.sources import Source
from srkit.engine.distributed import Group, join_group
from srkit.errors import RefusedError
from srkit.imaging.files import write_image
from srkit.imaging.resize import mod_crop
from srkit.options import DatasetOptions, Options
from srkit.options.components import BackendSection
from srkit.registry import DATASETS
from srkit.tools.make_lmdb import make_lmdb

_WARM_UP_BATCHES = 5


@dataclass(frozen=True)
class LoadingRow:
    """Batches on the device as a network takes them, of one form.

    Attributes:
        form: How the pictures are stored.
        prepared_s: What making the form took, once; None where nothing is made.
    """

    form: str
    workers: int
    samples_per_s: float
    cpu_ms_per_sample: float
    prepared_s: float | None = None


def measure_loading(options: Options, seconds: float, workers: Sequence[int], pictures: int) -> dict[str, Any]:
    """Rows for the set as it is and, of pairs of pictures, for up to `pictures` of them in every other form.

    Args:
        seconds: For each row.
    """
    item = options.datasets["train"]
    group: Group = join_group("none", options.num_gpu, backend=None, port=0, timeout_s=0)[0]
    rows: list[LoadingRow] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="srkit-benchmark-") as folder:
        whole = build.build_dataset(_with(item, check="off"), options.scale)
        forms = [("as the option file says", _with(item, check="off"))]
        if isinstance(whole, PictureDataset) and item.type == "PairedImageDataset" and item.scales is None:
            forms += _forms(item, whole, Path(folder), pictures)
        else:
            left_out["other forms"] = f"made for PairedImageDataset with one scale, found {item.type}"
        for name, section in forms:
            try:
                rows += _rows(name, section, options, group, seconds, workers)
            except RefusedError as error:
                left_out[name] = str(error)
    return {
        "pictures": len(whole),
        "pictures_in_made_forms": min(len(whole), pictures),
        "batch": item.batch_size_per_gpu,
        "rows": [asdict(row) for row in rows],
        "left_out": left_out,
        "verdict": verdict(rows),
    }


def verdict(rows: Sequence[LoadingRow]) -> str:
    """The fastest form, and how far the option file's own is from it."""
    own = max((r for r in rows if r.form == rows[0].form), key=lambda r: r.samples_per_s)
    best = max(rows, key=lambda r: r.samples_per_s)
    if best.samples_per_s <= 1.1 * own.samples_per_s:
        return f"the option file's own form is as fast as any: {own.samples_per_s:,.0f} samples/s with {own.workers} workers"
    return (
        f"{best.form} with {best.workers} workers gives {best.samples_per_s:,.0f} samples/s, "
        f"{best.samples_per_s / own.samples_per_s:.1f} times what the option file's own form gives"
    )


def _with(item: DatasetOptions, **changes: Any) -> DatasetOptions:
    """The section with other options; those its class does not take are left out."""
    known = set(type(item).model_fields)
    fields = {k: v for k, v in changes.items() if k in known}
    given = {**item.options, **{k: v for k, v in changes.items() if k not in known}}
    takes = inspect.signature(DATASETS.get(item.type)).parameters
    return item.model_copy(update={**fields, "options": {k: v for k, v in given.items() if k in takes}})


def _forms(
    item: DatasetOptions, whole: PictureDataset, folder: Path, pictures: int
) -> Iterator[tuple[str, DatasetOptions]]:
    """The first pictures, whole pairs, as files of two kinds, LMDB, decoded cache and resident on the device."""
    pairs = whole.reader.sources
    alone = {
        "meta_info_file": None,
        "scale_augment": None,
        "pair_pattern": None,
        "filename_tmpl": "{}",
        "recursive": False,
    }
    made = {**alone, "cache_dir": str(folder / "cache"), "check": "off", "io_backend": None}
    for suffix, name in (("png", "PNG files"), ("jpg", "JPEG files, quality 95")):
        roots = {role: folder / suffix / role for role in ("gt", "lq")}
        for k in range(min(len(whole), pictures)):
            for role, image in _pair(pairs, k, whole.reader.scale).items():
                if image.dtype == np.uint8 or suffix == "png":
                    write_image(roots[role] / f"{k}.{suffix}", image)
        if not roots["gt"].exists():
            continue  # 16 bit, which JPEG does not hold
        given = {**made, "dataroot_gt": str(roots["gt"]), "dataroot_lq": str(roots["lq"])}
        yield name, _with(item, **given, cache="none")
        if suffix == "jpg":
            continue
        yield from _containers(item, given, folder)
        yield "decoded cache", _with(item, **given, cache="disk")
        yield "resident on the device", _with(item, **given, cache="device")


def _containers(item: DatasetOptions, given: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, DatasetOptions]]:
    from srkit.data.folders import Folders

    roots = {}
    for key in ("dataroot_gt", "dataroot_lq"):
        source = Folders().open(key, given[key])[0]
        roots[key] = str(folder / f"{key}.lmdb")
        try:
            make_lmdb(source, Path(roots[key]))
        except RefusedError:  # the package lmdb is not installed
            return
    backend = BackendSection(type="lmdb")
    yield "LMDB of the PNG files", _with(item, **{**given, **roots, "io_backend": backend, "cache": "none"})


def _pair(pairs: Mapping[str, Source], index: int, scale: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {
        role: mod_crop(source.read(index), scale) if role == "gt" else source.read(index)
        for role, source in pairs.items()
    }


def _rows(
    name: str, item: DatasetOptions, options: Options, group: Group, seconds: float, workers: Sequence[int]
) -> Iterator[LoadingRow]:
    dataset = build.build_dataset(item, options.scale)
    began = time.perf_counter()
    if hasattr(dataset, "prepare"):
        dataset.prepare(progress=False)
    if item.options.get("cache") == "device":
        if not build.hold(item, dataset, group):
            raise RefusedError("these options or this device cannot have it; the line above says why")
        workers = (0,)  # they have nothing to do
    prepared = time.perf_counter() - began
    for count in workers:
        section = item.model_copy(update={"num_worker_per_gpu": count})
        of_row = options.model_copy(update={"datasets": {"train": section}})
        samples_per_s, cpu_ms = _measure(of_row, dataset, group, seconds)
        yield LoadingRow(name, count, samples_per_s, cpu_ms, prepared if prepared > 0.01 else None)


def _measure(options: Options, dataset: Any, group: Group, seconds: float) -> tuple[float, float]:
    """Samples a second by the clock, and CPU milliseconds a sample, workers included."""
    item = options.datasets["train"]
    size = item.batch_size_per_gpu
    cpu_start = _cpu_seconds()
    with closing(build.build_batches(options, dataset, group, build.build_normalization(options), 0)) as batches:
        for _ in range(_WARM_UP_BATCHES):
            next(batches)
        warm_cpu, start, count = _cpu_seconds(), time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            next(batches)
            count += size
    # Closed, for workers' time counts only when they have ended; their warm-up cannot be told apart and is in both figures.
    if item.num_worker_per_gpu:
        cpu, samples = _cpu_seconds() - cpu_start, count + _WARM_UP_BATCHES * size
    else:
        cpu, samples = _cpu_seconds() - warm_cpu, count
    return count / elapsed, 1000 * cpu / samples


def _cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
