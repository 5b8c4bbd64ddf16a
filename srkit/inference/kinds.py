"""What a kind of input is: pictures, volumes, and whatever else this command learns to enlarge."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from srkit.imaging.tiles import Tick


class Kind(Protocol):
    """One kind of file: which are of it, what their results are called, how one becomes the other.

    Attributes:
        name: Plural, for messages.
        suffixes: Of files it reads.
        extensions: Of files it writes.
        unit: What its results are counted in, in millions: "pixels" or "voxels".
    """

    name: str
    suffixes: tuple[str, ...]
    extensions: tuple[str, ...]
    unit: str

    def takes(self, source: Path) -> bool:
        """Whether the file is of this kind, by its name."""

    def stem(self, source: Path) -> str:
        """The name without what says its format."""

    def extension(self, source: Path) -> str:
        """What ends the result's name."""

    def require(self, source: Path, out: Path) -> None:
        """Raises RefusedError for what the names alone show to be impossible."""

    def restore(self, source: Path, out: Path, tick: Tick) -> int:
        """Reads, enlarges, writes whole or not at all; tells `tick` how far it is. Returns the pixels written.

        Raises: DataError for a file that cannot be used, StorageError, OutOfMemoryError, DivergedError.
        """
