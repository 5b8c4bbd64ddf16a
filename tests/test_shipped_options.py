"""Every option file under options/ does what it says: headers, loading, two iterations of training, a test of what they left."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import math
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml
from shrunk import ITERATIONS, PICTURES, make_pictures, training_words
from tiny import ROOT

import srkit.test
import srkit.train
from srkit import build
from srkit.options import Options, load_options

OPTIONS = ROOT / "options"
TRAIN, TEST = (sorted((OPTIONS / mode).rglob("*.yml")) for mode in ("train", "test"))


def ident(path: Path) -> str:
    return str(path.relative_to(OPTIONS).with_suffix(""))


def mode_of(path: Path) -> str:
    return path.relative_to(OPTIONS).parts[0]


def load(path: Path, force: tuple[str, ...] = ()) -> Options:
    return load_options(path, mode=mode_of(path), force=force, launcher="none")


every_file = pytest.mark.parametrize("path", [*TRAIN, *TEST], ids=ident)


# As written


@every_file
def test_a_file_loads_without_a_warning(path):
    assert load(path).warnings == ()


@every_file
def test_the_first_line_names_the_schema(path):
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", path.read_text().splitlines()[0])
    assert named
    assert (path.parent / named[1]).resolve() == OPTIONS / "srkit.schema.json"


@every_file
def test_the_header_gives_the_command_that_runs_the_file_after_those_it_needs(path):
    command = f"#   python srkit/{mode_of(path)}.py -opt "
    given = [line.removeprefix(command) for line in path.read_text().splitlines() if line.startswith(command)]
    assert len(given) == 1
    files = [ROOT / name for name in given[0].split()]
    assert path in files
    needed = chain(path) if path in TRAIN else (path,)
    assert tuple(files[: len(needed)]) == needed


@every_file
def test_every_network_of_a_file_can_be_built_as_written(path):
    options = load(path)
    with torch.device("meta"):  # shapes without memory
        for part in options.networks.values():
            build.build_network(part.type, part.options, options.scale)


# Tiny runs


@functools.cache
def written(path: Path) -> dict:
    """The file as plain YAML, so that a mistake in one file is no matter to the tests of others."""
    return yaml.safe_load(path.read_text())


def starts_from(path: Path) -> list[str]:
    """Experiments whose weights a file starts from."""
    named = written(path).get("path") or {}
    given = [
        named.get("pretrain_network_g"),
        named.get("pretrain_network_d"),
        *named.get("pretrain_parts", {}).values(),
    ]
    return [Path(name).parts[1] for name in given if name]


@functools.cache
def chain(path: Path) -> tuple[Path, ...]:
    """The files to run for this training file, in order."""
    makers = {written(other)["name"]: other for other in TRAIN}
    earlier = [phase for name in starts_from(path) if name in makers for phase in chain(makers[name])]
    return (*dict.fromkeys(earlier), path)


def last_phase(name: str) -> Path:
    """The end of the longest command that trains the experiment of that name."""
    return max((p for p in TRAIN if name in [written(q)["name"] for q in chain(p)]), key=lambda p: len(chain(p)))


@dataclass
class Workshop:
    """A folder per command, with tiny pictures where its files look for theirs."""

    root: Path
    codes: dict[Path, int] = field(default_factory=dict)

    def train(self, last: Path) -> Path:
        """Runs a command once, all its phases; returns its folder."""
        folder = self.root / written(last)["name"]
        if last not in self.codes:
            files = chain(last)
            for path in files:
                make_pictures(load(path), folder)
            with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
                patch.setattr(srkit.train, "load_all", load_small)
                self.codes[last] = int(srkit.train.main(["-opt", *map(str, files)]))
        assert self.codes[last] == 0
        return folder


def load_small(files, **_) -> list[Options]:
    """Each file of a command with force words of its own: what is given on the command line counts for all."""
    return [load(Path(file), training_words(load(Path(file)))) for file in files]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Iterator[Workshop]:
    saved = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    threads, root = torch.get_num_threads(), tmp_path_factory.mktemp("shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRKIT_CACHE", str(root / "cache"))
        yield Workshop(root)
    torch.set_num_threads(threads)
    for number, handler in saved.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("path", TRAIN, ids=ident)
def test_a_training_file_trains(workshop, path):
    name = written(path)["name"]
    experiment = workshop.train(last_phase(name)) / "experiments" / name
    assert json.loads((experiment / "exit.json").read_text())["code"] == 0
    records = [json.loads(line) for line in (experiment / "records.jsonl").read_text().splitlines()]
    numbers = [v for record in records for v in record.values() if isinstance(v, float)]
    kinds = {"train", "validation"} if "val" in written(path)["datasets"] else {"train"}
    assert kinds <= {record["kind"] for record in records}
    assert numbers
    assert all(map(math.isfinite, numbers))
    assert (experiment / f"models/net_g_{ITERATIONS}.pth").exists()


@pytest.mark.parametrize("path", TEST, ids=ident)
def test_a_test_file_measures_what_the_training_file_left(workshop, path):
    options = load(path)
    (trained,) = starts_from(path)
    folder = workshop.train(last_phase(trained))
    make_pictures(options, folder)
    with contextlib.chdir(folder):
        assert srkit.test.main(["-opt", str(path), "--force_yml", "num_gpu=0", "val:pbar=false"]) == 0
    with (folder / "results" / options.name / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == options.name]
    sets = {
        f"{item.name}_x{scale}" if item.scales else item.name: item.options.get("dataroot_gt")
        for item in options.datasets.values()
        for scale in item.scales or (None,)
    }
    assert {row["set"] for row in rows} == {name for name, gt in sets.items() if gt}
    for name, gt in sets.items():  # measured, or without gt at least restored
        written = (folder / "results" / options.name / "visualization" / name).glob("*.png")
        assert len({row["image"] for row in rows if row["set"] == name} if gt else list(written)) >= PICTURES
    assert all(math.isfinite(float(row["value"])) for row in rows)
