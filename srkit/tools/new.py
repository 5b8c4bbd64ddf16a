"""`srkit new arch MyNet`: a part of your own, outside the package: its code, its test, an option file that trains with it."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from string import Template

import srkit.build
import srkit.engine.recipes  # noqa: F401 - these two fill the registries
from srkit.errors import RefusedError
from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS, RECIPES
from srkit.tools.part_templates import CODE, OPTIONS, TESTS, YAML_OF

REGISTRIES = {"arch": ARCHS, "dataset": DATASETS, "loss": LOSSES, "metric": METRICS, "recipe": RECIPES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=tuple(REGISTRIES), help="what it is")
    parser.add_argument("name", help="name of the class and in option files, such as MyNet")
    parser.add_argument("--out", type=Path, default=Path("my_parts"), help="folder to write into (default my_parts)")


def run(flags: argparse.Namespace) -> None:
    require_free_name(flags.kind, flags.name)
    file = snake(flags.name)
    words = {"name": flags.name, "file": file, "out": flags.out.as_posix(), **YAML_OF["default"], **YAML_OF[flags.kind]}
    words = {key: Template(text).substitute(name=flags.name) for key, text in words.items()}
    written = {
        flags.out / f"{file}.py": Template(CODE[flags.kind]).substitute(words),
        flags.out / f"test_{file}.py": Template(TESTS[flags.kind]).substitute(words),
        flags.out / f"{file}.yml": Template(OPTIONS).substitute(words),
    }
    if taken := [str(path) for path in written if path.exists()]:
        raise RefusedError(f"{', '.join(taken)} exists already; remove it, or give another name or --out")
    flags.out.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8")
    code, test, options = written
    print(f"{code}  the {flags.kind}: change it as you like; its constructor's arguments are its options")
    print(f"{test}  its test:  python -m pytest {test}")
    print(f"{options}  a short training with it:  srkit example-data && srkit train -opt {options}")


def require_free_name(kind: str, name: str) -> None:
    """RefusedError unless it is a class name in CamelCase that srkit does not use itself."""
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name):
        raise RefusedError(
            f"name: found '{name}', expected a class name: letters and digits, a capital first, such as MyNet"
        )
    if name in REGISTRIES[kind]:
        raise RefusedError(f"name: srkit has {name} among its own already; choose another")


def snake(name: str) -> str:
    """ "MyEDSRNet" -> "my_edsr_net"."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return parted.lower()
