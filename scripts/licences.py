"""Prints the licence of every installed package, as its metadata say it: `python scripts/licences.py [--direct]`.

`--direct` prints those alone that requirements.txt and the extras of setup.py name. Packages without a word on their
licence stand at the end; look those up before you pass an environment on.
"""

from __future__ import annotations

import argparse
import re
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def licence(package: Distribution) -> str:
    """From the newest to the oldest way of saying it; empty when nothing is said."""
    meta = package.metadata
    if expression := meta.get("License-Expression"):
        return expression
    named = [c.split(" :: ")[-1] for c in meta.get_all("Classifier") or [] if c.startswith("License ::")]
    named = [name for name in named if name != "OSI Approved"]
    if named:
        return ", ".join(named)
    text = (meta.get("License") or "").strip()
    return text.splitlines()[0][:80] if text and text.lower() != "unknown" else ""


def direct() -> set[str]:
    """Names in requirements.txt and setup.py, in the form in which names are compared."""
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.py").read_text()
    return {plain(name) for name in re.findall(r'(?:^|")([A-Za-z][\w-]*)(?:[>=]|"|$)', text, re.MULTILINE)}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--direct", action="store_true", help="only what srkit itself names")
    wanted = direct() if parser.parse_args().direct else None
    rows = {}
    for package in distributions():
        name = package.metadata["Name"]
        if wanted is None or plain(name) in wanted:
            rows[plain(name)] = (name, package.version, licence(package))
    print("| package | version | licence |\n| --- | --- | --- |")
    for name, version, said in sorted(rows.values(), key=lambda row: (not row[2], row[0].lower())):
        print(f"| {name} | {version} | {said or '(its metadata do not say)'} |")


if __name__ == "__main__":
    main()
