"""One file per volume with its arrays as they lie in memory, to be mapped: a patch costs microseconds, decoding a tenth of a second.

Layout: one line of JSON (identity, facts, and for each array its type, shape and offset), then the arrays at multiples of
64 bytes. A file is written under another name and then renamed, so a reader finds the old one, the new one or none; a
reader that has it mapped keeps what it mapped. Two runs that write the same file write the same bytes.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_ALIGN = 64
_LONGEST_HEAD = 1 << 20


class Entry(NamedTuple):
    """Named arrays (read-only when mapped) and plain values."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def write_entry(path: Path, identity: str, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Writes or replaces the file, whole. Raises OSError, and then leaves nothing behind."""
    layout: dict[str, tuple[str, list[int], int]] = {}
    whole: dict[tuple[int, str, tuple[int, ...]], tuple[np.ndarray, int]] = {}  # by memory: lq of scale 1 is gt itself
    end = 0
    for name, array in arrays.items():
        array = np.ascontiguousarray(array)
        memory = (array.ctypes.data, array.dtype.str, array.shape)
        if memory not in whole:
            whole[memory] = array, end
            end += array.nbytes + -array.nbytes % _ALIGN
        layout[name] = (array.dtype.str, list(array.shape), whole[memory][1])
    head = json.dumps({"identity": identity, "facts": dict(facts), "layout": layout}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.stem}-{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as out:
            out.write(head + b" " * (-(len(head) + 1) % _ALIGN) + b"\n")
            for array, _ in whole.values():
                out.write(array.data)
                out.write(bytes(-array.nbytes % _ALIGN))
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_entry(path: Path, identity: str) -> Entry | None:
    """The mapped file, or None when it is missing, damaged or made from other files or settings."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEAD)
        head = json.loads(line)
        if head["identity"] != identity:
            return None
        # A plain array over the map: slicing a memmap object runs Python code each time.
        flat = np.asarray(np.memmap(path, dtype=np.uint8, mode="r", offset=len(line)))
        arrays = {}
        for name, (dtype, shape, start) in head["layout"].items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            arrays[name] = flat[start : start + size].view(dtype).reshape(shape)
    except (OSError, ValueError, KeyError, TypeError):  # ValueError also where arrays end before their shape does
        return None
    return Entry(arrays, head["facts"])
