"""Every component an option file can name, and what validation needs to know about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from srkit.options.aliases import canonical
from srkit.options.live import registered
from srkit.options.problems import Problem
from srkit.options.signatures import PACKAGE_ROOTS, Signature, scan


@dataclass(frozen=True)
class Catalog:
    """Signatures by kind and name.

    Args:
        is_complete: False when an import failed; an unknown name may then be one of those that did not arrive.
    """

    signatures: Mapping[str, Mapping[str, Signature]]
    is_complete: bool = True
    problems: tuple[Problem, ...] = ()
    models: dict[tuple[type, str], Any] = field(
        default_factory=dict, repr=False, compare=False
    )  # made once for each class

    def names(self, kind: str) -> list[str]:
        return sorted(self.signatures.get(kind, {}))

    def get(self, kind: str, name: str) -> Signature | None:
        """The component of that name or alias."""
        return self.signatures.get(kind, {}).get(canonical(kind, name))

    def takers(self, kind: str, option: str) -> list[str]:
        """Components of a kind that take an option of that name."""
        return [n for n, s in sorted(self.signatures.get(kind, {}).items()) if option in s.names]


@dataclass(frozen=True)
class Context:
    """What pydantic's validators are told beside the values.

    Args:
        scale: The top-level scale when it is valid; components that repeat it must agree.
    """

    catalog: Catalog
    scale: tuple[int, ...] | None = field(default=None)


def make_catalog(roots: Sequence[Path] = PACKAGE_ROOTS, import_problems: Iterable[Problem] = ()) -> Catalog:
    """srkit's own components, read from source, and whatever else is registered by now."""
    own = scan(roots)
    added, clashes = registered(own)
    failed = tuple(import_problems)
    merged = {kind: {**added.get(kind, {}), **signatures} for kind, signatures in own.items()}
    return Catalog(merged, not failed, (*failed, *(Problem(("imports",), text) for text in clashes)))
