"""Name -> class for everything an option file can pick by `type`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from srkit.errors import RefusedError, did_you_mean

T = TypeVar("T", bound=type)


def _place(cls: type) -> str:
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):  # classes made in a shell have no file
        return f"{cls.__module__}.{cls.__qualname__}"


class Registry:
    """Classes of one kind under their own names; the registered name is the class name.

    Args:
        families: Word before a slash -> module whose `find(name)` makes the class of `word/name`, when it is asked for.
    """

    def __init__(self, kind: str, families: Mapping[str, str] = MappingProxyType({})) -> None:
        self.kind = kind
        self.families = families
        self._classes: dict[str, type] = {}

    def register(self) -> Callable[[T], T]:
        """Decorator that adds a class. Raises RefusedError when another class holds the name."""

        def add(cls: T) -> T:
            held = self._classes.get(cls.__name__)
            if held is not None and _place(held) != _place(cls):
                raise RefusedError(
                    f"{self.kind} '{cls.__name__}' is registered twice: {_place(held)} and {_place(cls)}; rename one"
                )
            self._classes[cls.__name__] = cls
            return cls

        return add

    def get(self, name: str) -> type:
        """The class of that name. Raises RefusedError with the nearest known name."""
        if self.is_of_family(name):
            family, _, rest = name.partition("/")
            found: type = importlib.import_module(self.families[family]).find(rest)
            return found
        if name not in self._classes:
            raise RefusedError(f"no {self.kind} is named '{name}'{did_you_mean(name, self._classes)}")
        return self._classes[name]

    def is_of_family(self, name: str) -> bool:
        """Whether the name is `word/name` of a family; it need not exist there."""
        return "/" in name and name.partition("/")[0] in self.families

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes))


ARCHS = Registry("arch", {"spandrel": "srkit.foreign.spandrel_archs"})
DATASETS = Registry("dataset")
LOSSES = Registry("loss")
METRICS = Registry("metric")
RECIPES = Registry("recipe")
