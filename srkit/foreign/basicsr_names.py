"""BasicSR's module names, there while a file written for BasicSR is imported, leading to srkit's registries."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from srkit.errors import RefusedError
from srkit.foreign.declare import declare_options
from srkit.registry import ARCHS, LOSSES, Registry


class NotSupplied(RefusedError, ModuleNotFoundError):
    """A name of BasicSR that srkit has no counterpart for. Files that try an import and go on without it still may."""


@contextmanager
def basicsr_names(file: Path | None = None) -> Iterator[None]:
    """While inside, `import basicsr...` finds srkit's stand-ins, whether BasicSR is installed or not.

    Afterwards none of these modules is left in `sys.modules`, and those that were there before are there again. What the
    stand-ins do not hold is taken from beside `file`, or else from an installed BasicSR, submodule by submodule.

    Args:
        file: The arch file that is imported; it then counts as a part of `basicsr.archs`, so that its relative imports
            work, while it stays a top-level module named after the file.
    """
    before = _take_out()
    finder = _Finder(file)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _take_out()
        sys.modules.update(before)


def _take_out() -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == "basicsr"]
    return {name: sys.modules.pop(name) for name in names}


class _Family:
    """A registry as BasicSR's files know it, over one of srkit's or over none.

    Args:
        why: For one without counterpart: why nothing can be registered there.
    """

    def __init__(self, name: str, registry: Registry | None, why: str = "") -> None:
        self._name, self._registry, self._why = name, registry, why

    def register(self, obj: Any = None, suffix: str | None = None) -> Any:
        """`@X.register()` and `X.register(cls)`. A suffix keeps names apart in BasicSR, where srkit refuses a taken one.

        Only what stands in the file that `imports` names is registered, not what it takes from its neighbours.
        """

        def add(cls: Any) -> Any:
            if self._registry is None:
                raise RefusedError(f"{getattr(cls, '__name__', cls)} is registered in {self._name}, but {self._why}")
            declare_options(cls)
            return cls if cls.__module__.startswith("basicsr.") else self._registry.register()(cls)

        return add if obj is None else add(obj)

    def get(self, name: str) -> type:
        if self._registry is None:
            raise RefusedError(f"{self._name} is asked for '{name}', but {self._why}")
        return self._registry.get(name)

    def __contains__(self, name: str) -> bool:
        return self._registry is not None and name in self._registry

    def __iter__(self) -> Iterator[str]:
        return iter(self._registry or ())

    keys = __iter__


def _logger(*args: Any, **kwargs: Any) -> logging.Logger:
    """BasicSR's `get_root_logger`: its arguments say where to log, and that is the option file's business here."""
    return logging.getLogger("srkit")


_MODULES: dict[str, dict[str, Any]] = {
    "basicsr": {},
    "basicsr.archs": {},
    "basicsr.archs.arch_util": {},  # filled from basicsr_layers, which imports torch
    "basicsr.losses": {},
    "basicsr.utils": {"get_root_logger": _logger},
    "basicsr.utils.logger": {"get_root_logger": _logger},
    "basicsr.utils.registry": {
        "ARCH_REGISTRY": _Family("ARCH_REGISTRY", ARCHS),
        "LOSS_REGISTRY": _Family("LOSS_REGISTRY", LOSSES),
        "MODEL_REGISTRY": _Family("MODEL_REGISTRY", None, "srkit trains by model_type with its own recipes"),
        "DATASET_REGISTRY": _Family(
            "DATASET_REGISTRY", None, "srkit's data sets have another interface; use one of its"
        ),
        "METRIC_REGISTRY": _Family("METRIC_REGISTRY", None, "srkit's metrics have another interface; use one of its"),
    },
}


class _Finder(MetaPathFinder):
    """Finds the stand-ins, the arch file itself, and their neighbours. Everything else is left to Python."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        installed = PathFinder.find_spec("basicsr")
        self._installed = [Path(p) for p in (installed.submodule_search_locations or ())] if installed else []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if self._file is not None and fullname == self._file.stem:
            spec: ModuleSpec = _ArchFileSpec(
                fullname, SourceFileLoader(fullname, str(self._file)), origin=str(self._file)
            )
            spec.has_location = True
            return spec
        if fullname in _MODULES:
            # Each is a package, even where BasicSR has a module: `from it import name` then comes back here for a name it
            # does not hold, and the refusal below is the message.
            spec = ModuleSpec(fullname, _Loader(), is_package=True)
            spec.submodule_search_locations = self._neighbours(fullname)
            return spec
        if fullname.startswith("basicsr."):
            return PathFinder.find_spec(fullname, path) or _refuse(fullname)
        return None

    def _neighbours(self, package: str) -> list[str]:
        folders = [root.joinpath(*package.split(".")[1:]) for root in self._installed]
        if self._file is not None and package in ("basicsr.archs", "basicsr.losses"):
            folders.insert(0, self._file.parent)
        return [str(folder) for folder in folders]


class _ArchFileSpec(ModuleSpec):
    """Of a top-level module whose relative imports start at `basicsr.archs`."""

    @property
    def parent(self) -> str:
        return "basicsr.archs"


class _Loader(Loader):
    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])
        if module.__name__ == "basicsr.archs.arch_util":
            layers = importlib.import_module("srkit.foreign.basicsr_layers")
            vars(module).update({name: getattr(layers, name) for name in layers.__all__})


def _refuse(fullname: str) -> ModuleSpec:
    parent, _, name = fullname.rpartition(".")
    if fullname.startswith("basicsr.ops"):
        raise NotSupplied(f"{fullname} is one of BasicSR's compiled extensions, which srkit does not have")
    supplied: Iterable[str] = (
        (n for n in vars(sys.modules[parent]) if not n.startswith("_")) if parent in _MODULES else ()
    )
    known = ", ".join(sorted(supplied)) or "nothing"
    raise NotSupplied(
        f"srkit has no counterpart of BasicSR's '{name}' in {parent} (it has {known}); copy what is needed into the file, or "
        "put the module of that name beside it"
    )
