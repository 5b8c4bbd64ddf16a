"""One slide restored by all ranks: rank r of W makes rows of tiles r, r + W, ..., and rank 0 alone writes the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch

from srkit.engine.distributed import Group
from srkit.errors import SrkitError
from srkit.imaging.slide_upscale import SlideRows
from srkit.imaging.slide_writer import SlideWriter
from srkit.imaging.tiles import Tick

P = ParamSpec("P")
T = TypeVar("T")
_PIECE_BYTES = 64 << 20  # of a strip, sent at once: rank 0 never holds two whole strips


class _Problem(NamedTuple):
    """An error as it travels to the other ranks, which must raise the same one."""

    kind: type[Exception]
    text: str
    errno: int | None  # of the disk, which may be full

    @classmethod
    def of(cls, error: Exception) -> _Problem:
        # RuntimeError is the network's, and of classes that take other arguments than a text
        kind = type(error) if isinstance(error, SrkitError) else RuntimeError
        return cls(kind, str(error), getattr(error.__cause__, "errno", None))

    def error(self, where: str) -> Exception:
        first, *others = self.text.splitlines() or [""]
        made = self.kind("\n".join([first + where, *others]))
        made.__cause__ = None if self.errno is None else OSError(self.errno, self.text)
        return made


class Together:
    """What goes wrong on one rank ends the work on all of them at the next `agree`, so none waits for one that has left."""

    def __init__(self, group: Group) -> None:
        self.group = group
        _ = group.pairs  # made here, where all ranks are: with few rows some of them never send
        self._problem: _Problem | None = None

    def attempt(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `work` returns; None when it fails, or something before it has failed on this rank."""
        if self._problem is None:
            try:
                return work(*args, **kwargs)
            except (SrkitError, RuntimeError) as error:  # the second is what torch raises
                self._problem = _Problem.of(error)
        return None

    def agree(self, value: T) -> list[T]:
        """Every rank's value. Raises on all ranks what failed on the first of those where something did."""
        told = self.group.gather((self._problem, value))
        failed = [(rank, problem) for rank, (problem, _) in enumerate(told) if problem is not None]
        if failed:
            rank, problem = failed[0]
            raise problem.error("" if len(failed) == len(told) else f", on rank {rank}")
        return [value for _, value in told]


def write_together(rows: SlideRows, writer: SlideWriter, ranks: Together, tick: Tick) -> None:
    """Restores `rows` into `writer`, which only rank 0 enters. Raises as `Together.agree`, and PeerLostError."""
    group = ranks.group
    with ExitStack() as stack:
        if group.is_main:
            ranks.attempt(stack.enter_context, writer)
        for first in range(0, len(rows), group.world_size):
            present = range(first, min(first + group.world_size, len(rows)))
            mine = first + group.rank
            strip = None
            if mine in present:
                told = partial(_tell, tick, first, len(present), len(rows))
                strip = ranks.attempt(rows.restore_row, mine, told)
            ranks.agree(None)
            if group.is_main:
                assert strip is not None
                ranks.attempt(writer.append, strip)
                del strip
                for other in present[1:]:
                    for start, stop in _pieces(rows.shape(other)):
                        piece = np.empty((stop - start, *rows.shape(other)[1:]), np.uint8)
                        group.receive(torch.from_numpy(piece), other - first)
                        ranks.attempt(writer.append, piece)  # after an error it is received all the same: it was sent
            elif strip is not None:
                for start, stop in _pieces(strip.shape):
                    group.send(torch.from_numpy(strip[start:stop]), 0)
        ranks.attempt(stack.close)  # the last rows and the directories
        ranks.agree(None)


def _tell(tick: Tick, before: int, present: int, total: int, done: int, columns: int) -> None:
    """Counts the tiles of all rows: the `present` ones are about as far as this one."""
    tick(before * columns + done * present, total * columns)


def _pieces(shape: Sequence[int]) -> Iterator[tuple[int, int]]:
    """First row and end of each piece of a strip (H, W, 3)."""
    height, width, channels = shape
    count = max(1, _PIECE_BYTES // (width * channels))
    yield from ((start, min(start + count, height)) for start in range(0, height, count))
