"""`srkit lmdb`: a folder of pictures as an LMDB folder: data.mdb, lock.mdb and meta_info.txt, as BasicSR lays them out.

The files' own bytes are stored, under their names without suffix: nothing is encoded again, so JPEGs stay small and every
pixel stays as it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from srkit.data.checks import Findings
from srkit.data.folders import Folders
from srkit.data.lmdb_backend import import_lmdb
from srkit.data.names import stem
from srkit.data.sources import Shape, StoredSource, in_threads
from srkit.errors import DataError, RefusedError
from srkit.imaging.files import decode_image
from srkit.tools.writing import new_folder

_LEVEL = 1  # the line's third word, a PNG compression level; no reader uses it
_PAGE = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="pictures to store")
    parser.add_argument("out", type=Path, help="new folder, whose name ends in .lmdb")
    parser.add_argument("--recursive", action="store_true", help="also the folders below")


def run(flags: argparse.Namespace) -> None:
    if flags.out.suffix != ".lmdb":
        raise RefusedError(f"{flags.out}: BasicSR opens only folders named *.lmdb; name it {flags.out}.lmdb")
    source, problems = Folders(recursive=flags.recursive).open("folder", flags.folder)
    Findings("lmdb", problems).refuse()
    dotted = [name for name in source.names if "." in stem(name)]
    if dotted:
        print(f"note: {len(dotted)} names hold a dot (first: {dotted[0]}); srkit reads them, BasicSR cuts them there")
    make_lmdb(source, flags.out)
    print(f"{len(source.names)} pictures in {flags.out}; read them with io_backend: {{type: lmdb}}")


def make_lmdb(source: StoredSource, out: Path) -> None:
    """Stores the files of a source, each decoded once to prove it.

    Raises: DataError naming every picture that cannot be read; RefusedError when `out` exists or lmdb is not installed.
    """
    lmdb = import_lmdb()
    names, sizes = list(source.names), source.stats()[:, 0]
    # A value has pages of its own; the tree of keys takes a small part of that.
    map_size = int((sizes.clip(0) // _PAGE + 3).sum()) * _PAGE * 5 // 4 + 2**20

    def work(k: int) -> tuple[bytes, Shape] | str:
        try:
            data = source.encoded(k)
            return data, decode_image(data, source.label(k)).shape
        except DataError as error:
            return str(error)

    lines, failed = [], []
    with new_folder(out) as folder:
        # No sync but the last: a database cut short keeps its temporary name. And a transaction for each picture, for one
        # for all would hold them in memory.
        with lmdb.open(str(folder), map_size=map_size, sync=False) as environment:
            results = in_threads(work, range(len(names)))
            for name, result in zip(names, tqdm(results, "storing", len(names), disable=None)):
                if isinstance(result, str):
                    failed.append(result)
                    continue
                data, (height, width, channels) = result
                with environment.begin(write=True) as transaction:
                    transaction.put(stem(name).encode("utf-8", "surrogateescape"), data)
                lines.append(f"{stem(name)}.png ({height},{width},{channels}) {_LEVEL}\n")
            environment.sync(True)
        if failed:
            raise DataError("\n  - ".join([f"lmdb: {len(failed)} of {len(names)} files are unreadable", *failed]))
        (folder / "meta_info.txt").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
