"""Which group a picture belongs to (slide, patient, animal, person): by its name or by a table."""

from __future__ import annotations

import argparse
import csv
import re
from collections.abc import Iterable
from pathlib import Path

from srkit.data.names import stem
from srkit.data.pairing import first_names
from srkit.errors import DataError, RefusedError


def add_key_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    rule = parser.add_mutually_exclusive_group(required=required)
    rule.add_argument(
        "--key", help="regular expression whose group is the group's key, searched in the name with folders"
    )
    rule.add_argument("--table", type=Path, help="CSV with columns name and key; names with or without suffix")


def keys_of(names: Iterable[str], pattern: str | None, table: Path | None) -> dict[str, str]:
    """Name -> key of its group.

    Raises: RefusedError for a bad expression; DataError for a table of another form, and naming pictures without key.
    """
    listed = list(dict.fromkeys(names))
    found = _by_pattern(listed, pattern) if pattern is not None else _by_table(listed, table)
    without = [name for name in listed if not found.get(name)]
    if without:
        rule = f"--key '{pattern}'" if pattern is not None else f"{table}"
        raise DataError(f"{len(without)} of {len(listed)} pictures have no group by {rule}: {first_names(without)}")
    return found


def _by_pattern(names: list[str], pattern: str) -> dict[str, str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RefusedError(f"--key: '{pattern}' is no regular expression ({error})") from None
    if compiled.groups != 1:
        raise RefusedError(f"--key: '{pattern}' has {compiled.groups} groups, expected one, round the key: '^([^_]+)_'")
    return {name: match[1] for name in names if (match := compiled.search(name))}


def _by_table(names: list[str], table: Path | None) -> dict[str, str]:
    assert table is not None
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"--table: {table} cannot be read ({error})") from None
    if not rows or not {"name", "key"} <= rows[0].keys():
        columns = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(f"--table: {table} has {columns}; expected columns name and key")
    keys: dict[str, str] = {}
    for row in rows:
        name, key = (row["name"] or "").replace("\\", "/"), row["key"] or ""
        if keys.setdefault(name, key) != key:
            raise DataError(f"--table: {table} gives '{name}' two keys, '{keys[name]}' and '{key}'")
    return {name: keys.get(name) or keys.get(stem(name)) or "" for name in names}
