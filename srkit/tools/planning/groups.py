"""A guess which files belong together (slide, patient, person), from their names, so that a split keeps them together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

SURE = (  # what is said of it, regular expression whose group is the key: kinds of names that mean nothing else
    ("TCGA patients", r"(?i)(tcga-[a-z0-9]{2}-[a-z0-9]{4}|^(?!.*tcga-).+)"),
    ("BIDS subjects", r"(sub-[A-Za-z0-9]+)"),
    ("folders", r"^([^/]+)/"),
)
LIKELY = (
    ("what stands before the first _", r"^(?:.*/)?([^_/]+)_"),
    ("what stands before the first -", r"^(?:.*/)?([^-/]+)-"),
    ("what stands before the second _", r"^(?:.*/)?([^_/]+_[^_/]+)_"),
)
_LEAST_GROUPS = 3
_LEAST_SHARED = 0.5


def guess_key(names: Sequence[str]) -> tuple[str, str] | None:
    """(what it is, expression) of the first kind of key that all names have and that repeats; None where none does.

    One repeated key will do for names that mean nothing else; others need 3 groups, and half of the files in groups of two
    or more.
    """
    for title, pattern in (*SURE, *LIKELY):
        found = [match[1] if (match := re.search(pattern, name)) else None for name in names]
        if None in found:
            continue
        counts = Counter(found)
        shared = sum(n for n in counts.values() if n > 1)
        is_likely = len(counts) >= _LEAST_GROUPS and shared >= _LEAST_SHARED * len(names)
        if len(counts) < len(names) and (is_likely or (title, pattern) in SURE):
            return title, pattern
    return None
