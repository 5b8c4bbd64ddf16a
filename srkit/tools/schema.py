"""`srkit schema`: the JSON schema of option files, for editors, from the classes that check them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from srkit.options.json_schema import build_schema


def write_schema(file: str | Path) -> None:
    Path(file).write_text(json.dumps(build_schema(), indent=1) + "\n")
    print(f"wrote {file}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="options/srkit.schema.json")


def run(flags: argparse.Namespace) -> None:
    write_schema(flags.file)
