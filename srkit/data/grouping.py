"""Which slide, patient, animal or person each file of a set is of: by its name, or by a table."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from srkit.data.names import stem
from srkit.data.pairing import first_names
from srkit.errors import DataError, RefusedError

_ONE = {"volumes": "animal", "pictures": "slide"}


def groups_of(
    keys: Sequence[str],
    pattern: str | None,
    table: str | None,
    problems: list[str],
    files: Literal["volumes", "pictures"],
    bare: Callable[[str], str] = stem,
) -> list[str]:
    """The group of each key; all "" when nothing says it. Keys without one are a line of `problems`.

    Args:
        keys: Names without suffix, folders kept.
        pattern: `group_pattern` of the option file.
        table: `group_file`.
        bare: A name of the table as keys are written; names that are keys as they stand are not asked about.

    Raises: RefusedError for both at once or a bad expression, DataError for a table of another form.
    """
    if pattern is None and table is None:
        return [""] * len(keys)
    if pattern is not None and table is not None:
        raise RefusedError(f"group_pattern and group_file both say which {_ONE[files]} a file is of: drop one")
    if pattern is not None:
        expression = _compiled(pattern, _ONE[files])
        groups = [match[1] or "" if (match := expression.search(key)) else "" for key in keys]
    else:
        known = _table(str(table), set(keys), bare)
        groups = [known.get(key, "") for key in keys]
    if without := [key for key, group in zip(keys, groups) if not group]:
        problems.append(f"{len(without)} {files} have no group by {pattern or table}: {first_names(without)}")
    return groups


def _compiled(pattern: str, one: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise RefusedError(f"group_pattern: '{pattern}' is no regular expression ({error})") from None
    if expression.groups != 1:
        raise RefusedError(
            f"group_pattern: '{pattern}' has {expression.groups} groups, expected one, round the {one}: '^([^_]+)_'"
        )
    return expression


def _table(path: str, keys: set[str], bare: Callable[[str], str]) -> dict[str, str]:
    """Key -> group."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"group_file: {path} cannot be read ({error})") from None
    if not rows or not {"name", "key"} <= rows[0].keys():
        columns = ", ".join(rows[0]) if rows else "no rows"
        raise DataError(f"group_file: {path} has {columns}; expected columns name and key")
    groups: dict[str, str] = {}
    for row in rows:
        name, group = (row["name"] or "").replace("\\", "/"), row["key"] or ""
        name = name if name in keys else bare(name)
        if groups.setdefault(name, group) != group:
            raise DataError(f"group_file: {path} gives '{name}' two groups, '{groups[name]}' and '{group}'")
    return groups
