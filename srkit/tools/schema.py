"""`srkit schema`: what is made from the classes that check option files, the JSON schema of editors and the page of options."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from srkit.errors import RefusedError
from srkit.options.json_schema import build_schema
from srkit.tools.options_page import options_page


def write_schema(file: str | Path) -> None:
    """Writes the schema (.json) or the page (.md). Raises RefusedError for another ending or a folder that does not exist."""
    path = Path(file)
    texts = {".json": lambda: json.dumps(build_schema(), indent=1) + "\n", ".md": options_page}
    if path.suffix not in texts:
        raise RefusedError(f"found {file}, expected a name that ends in .json (for editors) or .md (to read)")
    if not path.parent.is_dir():
        raise RefusedError(f"{path.parent}: no such folder; make it, or give another file")
    path.write_text(texts[path.suffix](), encoding="utf-8")
    print(f"wrote {file}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        default=["options/srkit.schema.json", "docs/options.md"],
        help="ending in .json or .md (default: options/srkit.schema.json and docs/options.md of a checkout)",
    )


def run(flags: argparse.Namespace) -> None:
    for file in flags.files:
        write_schema(file)
