"""A guess which files belong together (slide, patient, person), from their names, so that a split keeps them together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

CANDIDATES = (  # what is said of it, regular expression whose group is the key; sure kinds of names first
    ("TCGA patients", r"(?i)(tcga-[a-z0-9]{2}-[a-z0-9]{4})"),
    ("BIDS subjects", r"(sub-[A-Za-z0-9]+)"),
    ("folders", r"^([^/]+)/"),
    ("what stands before the first _", r"^(?:.*/)?([^_/]+)_"),
    ("what stands before the first -", r"^(?:.*/)?([^-/]+)-"),
    ("what stands before the second _", r"^(?:.*/)?([^_/]+_[^_/]+)_"),
)
_LEAST_GROUPS = 3
_LEAST_SHARED = 0.5


def guess_key(names: Sequence[str]) -> tuple[str, str] | None:
    """(what it is, expression) of the first kind of key that all names have and that repeats; None where none does.

    A key repeats when there are at least 3 groups and half of the files share theirs with another file.
    """
    for title, pattern in CANDIDATES:
        found = [match[1] if (match := re.search(pattern, name)) else None for name in names]
        if None in found:
            continue
        counts = Counter(found)
        shared = sum(n for n in counts.values() if n > 1)
        if _LEAST_GROUPS <= len(counts) < len(names) and shared >= _LEAST_SHARED * len(names):
            return title, pattern
    return None
