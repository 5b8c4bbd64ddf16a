"""Volumes made ready once: on disk where that is wanted, else in memory, or anew at each look."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srkit.data.sources import in_threads
from srkit.data.volume_entries import read_entry, write_entry
from srkit.data.volume_pairs import Facts, VolumePair, VolumePairs
from srkit.errors import DataError, RefusedError

_MAPPED = 256  # maps open at a time: each holds a file handle, of which a process may have about a thousand
_log = logging.getLogger("srkit")
_LEFT_OVER_S = 24 * 3600.0


class VolumeCache:
    """`volumes`, each made once.

    Args:
        folder: Where made volumes are written as files; None writes nothing.
        keep: Without a folder, hold every volume that was made in memory.
        insist: Refuse a folder that cannot be written, instead of going on in memory.
        note: Where volumes are kept, for people; None is the folder.
    """

    def __init__(
        self, volumes: VolumePairs, folder: Path | None, *, keep: bool, insist: bool = False, note: str | None = None
    ) -> None:
        self.volumes, self.folder, self.keep, self.insist = volumes, folder, keep, insist
        self.note = note or str(folder or "in memory")
        self._facts: dict[int, Facts] = {}
        self._held: dict[int, VolumePair] = {}
        first: dict[tuple[str, ...], int] = {}  # a volume that a list names several times is made once
        self._same = [first.setdefault(tuple(volumes.inputs(k)), k) for k in range(len(volumes))]

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker maps the files itself instead of receiving the arrays.
        return {**self.__dict__, "_held": self._held if self.keep and self.folder is None else {}}

    @property
    def is_lasting(self) -> bool:
        """Whether a volume that was made is there at the next look."""
        return self.keep or self.folder is not None

    def get(self, index: int) -> VolumePair:
        """The volume. Raises DataError naming a file that cannot be used, OSError when the folder cannot be written."""
        index = self._same[index]
        pair = self._held.get(index)
        if pair is None:
            pair = self._mapped(index) or self._make(index)
            if self.is_lasting:
                if self.folder is not None and len(self._held) >= _MAPPED:
                    self._held.clear()
                self._held[index] = pair
        return pair

    def facts(self, index: int) -> Facts:
        """Of the volume; raises as `get` does."""
        index = self._same[index]
        if index not in self._facts:
            self._facts[index] = self.get(index).facts
        return self._facts[index]

    def build(self, indices: Iterable[int], *, progress: bool = False) -> dict[int, str]:
        """Makes what is not yet made. Returns index -> reason of the volumes that cannot be.

        Where the folder cannot be written, volumes are held in memory from then on, and one line says so.
        Raises: RefusedError instead, for those who insist on the folder.
        """
        wanted = list(indices)
        try:
            return self._build(wanted, progress)
        except OSError as error:
            text = f"{self.folder} cannot be written ({error})"
            if self.insist:
                raise RefusedError(f"{text}; choose another cache_dir, or cache: none") from error
            _log.warning("volumes: no cache on disk, %s", text)
            self.folder, self.note = None, f"in memory, {text}"
            return self._build(wanted, progress)

    def _build(self, indices: Sequence[int], progress: bool) -> dict[int, str]:
        from tqdm import tqdm

        if self.folder is not None and self.folder.is_dir():
            _sweep(self.folder)
        wanted = [k for k in dict.fromkeys(self._same[k] for k in indices) if k not in self._facts]
        # disable=None: no bar where stderr is no terminal
        bar = tqdm(total=len(wanted), desc="volumes", unit="file", disable=None if progress else True)
        failures = {}
        with bar:
            for k, result in zip(wanted, in_threads(self._try, wanted)):
                if isinstance(result, str):
                    failures[k] = result
                else:
                    self._facts[k] = result
                bar.update()
        return {k: failures[self._same[k]] for k in indices if self._same[k] in failures}

    def missing(self) -> list[int]:
        """Volumes the folder does not hold yet."""
        return [k for k in dict.fromkeys(self._same) if self._readable(k) and self._mapped(k) is None]

    def _readable(self, index: int) -> bool:
        try:
            self.volumes.identity(index)
        except DataError:
            return False
        return True

    def _try(self, index: int) -> Facts | str:
        try:
            return self.get(index).facts
        except DataError as error:
            return str(error)

    def _mapped(self, index: int) -> VolumePair | None:
        if self.folder is None:
            return None
        entry = read_entry(self._path(index), self.volumes.identity(index))
        return entry and VolumePair.of(*entry)

    def _make(self, index: int) -> VolumePair:
        if self.folder is None:
            return self.volumes.make(index)
        identity = self.volumes.identity(index)  # before reading: a file that changes meanwhile is then made again
        pair = self.volumes.make(index)
        write_entry(self._path(index), identity, pair.arrays, asdict(pair.facts))
        return self._mapped(index) or pair  # mapped, so that all processes share one copy

    def _path(self, index: int) -> Path:
        """The same after the files have changed: what is made of them then replaces what was."""
        assert self.folder is not None
        return self.folder / f"{hashlib.sha256(self.volumes.key(index).encode()).hexdigest()[:32]}.volume"


def _sweep(folder: Path) -> None:
    """Removes what runs that were killed while writing have left."""
    for path in folder.glob("*.tmp"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_OVER_S:
                path.unlink()
