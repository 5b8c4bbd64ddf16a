"""Components that are not srkit's own: imports the user's modules and reads the classes registered there."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from srkit.errors import OptionError, SrkitError, did_you_mean
from srkit.foreign.basicsr_names import basicsr_names
from srkit.foreign.declare import is_declared
from srkit.options.problems import Problem
from srkit.options.signatures import (
    CATCH_ALL,
    REGISTRIES,
    SCALE_ARGUMENTS,
    Argument,
    Signature,
    describe_arguments,
)
from srkit.options.values import UnsupportedType, option_type

_WITHOUT_OPTIONS = ("builtins", "torch", "typing", "abc")
"""Packages whose constructors (nn.Module's) are inherited by components and take no options."""


def import_all(names: Sequence[str], beside: Path) -> list[Problem]:
    """Imports what an option file names under `imports`; this runs the user's code. Returns what failed.

    Files written for BasicSR find its registries and helpers (srkit.foreign.basicsr_names).

    Args:
        names: Modules on the Python path, or .py files relative to the current directory, else to `beside`.
        beside: Folder of the option file.
    """
    problems: list[Problem] = []
    for index, name in enumerate(names):
        try:
            _import(name, beside)
        except OptionError as error:
            problems.extend(Problem(("imports", index), text) for text in error.problems)
    return problems


def _import(name: str, beside: Path) -> None:
    file = _find(name, beside) if name.endswith(".py") else None
    module = _make_importable(file) if file else name
    try:
        with basicsr_names(file):
            importlib.import_module(module)
    except SrkitError as error:  # registering a taken name
        raise OptionError("", [f"importing {name!r} failed: {error}"]) from error
    except Exception as error:  # a user's module may raise anything
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package not in ("", module.partition(".")[0]) and importlib.util.find_spec(package) is None:
            text = f"importing {name!r} failed: it needs the package '{package}', which is not installed"
            raise OptionError("", [f"{text} (pip install {package})"]) from error
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if len(frames) > 1 else ""
        path = f"{name.replace('.', '/')}.py"
        hint = (
            f"; a file is named with its ending: {path}" if isinstance(error, ModuleNotFoundError) and not where else ""
        )
        raise OptionError("", [f"importing {name!r} failed: {type(error).__name__}: {error}{where}{hint}"]) from error


def _find(name: str, beside: Path) -> Path:
    path = Path(name).expanduser()
    candidates = [path.resolve(), (beside / path).resolve()]
    file = next((c for c in candidates if c.is_file()), None)
    if file is None:
        near = [str(p.name) for p in candidates[-1].parent.glob("*.py")] if candidates[-1].parent.is_dir() else []
        raise OptionError(
            "", [f"no file {candidates[0]} nor {candidates[1]}" + (did_you_mean(path.name, near) if near else "")]
        )
    return file


def _make_importable(file: Path) -> str:
    """Puts a file's folder at the end of the Python path, so that loader workers can import it too. Returns the module."""
    if not file.stem.isidentifier():
        raise OptionError("", [f"{file.name} cannot be imported: rename it to letters, digits and underscores"])
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    importlib.invalidate_caches()
    try:
        spec = importlib.util.find_spec(file.stem)
    except ValueError:  # a running script, whose module has no origin
        spec = None
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != file:
        place = spec.origin if spec else "nowhere"
        raise OptionError(
            "", [f"{file} cannot be imported: a module '{file.stem}' exists already ({place}); rename the file"]
        )
    return file.stem


def registered(known: Mapping[str, Mapping[str, Signature]]) -> tuple[dict[str, dict[str, Signature]], list[str]]:
    """Kind -> name -> signature of classes that are not `known`; and a sentence for each name taken twice."""
    added: dict[str, dict[str, Signature]] = {}
    clashes = []
    for registry in REGISTRIES.values():
        added[registry.kind] = {}
        for name in registry:
            cls = registry.get(name)
            own = known.get(registry.kind, {}).get(name)
            if own is None:
                added[registry.kind][name] = live_signature(registry.kind, cls)
            elif cls.__module__.partition(".")[0] != "srkit":
                clashes.append(
                    f"{registry.kind} '{name}' of {cls.__module__} is also srkit's own ({own.place}); rename it, "
                    "or leave its import out"
                )
    return added, clashes


def family_signature(kind: str, name: str) -> Signature | None:
    """The signature of a class such as `spandrel/RCAN`; None when the name is of no family.

    Raises: RefusedError when the family's package is not installed or has no such class.
    """
    registry = next(r for r in REGISTRIES.values() if r.kind == kind)
    return live_signature(kind, registry.get(name)) if registry.is_of_family(name) else None


def live_signature(kind: str, cls: type) -> Signature:
    """The signature of an imported class, equal to what `signatures.scan` reads from its source."""
    docs = inspect.getdoc(cls) or ""
    if is_declared(cls):
        return _foreign_signature(kind, cls, docs)
    owner = next(c for c in cls.__mro__ if "__init__" in vars(c))
    arguments: tuple[Argument, ...] = ()
    if owner.__module__.partition(".")[0] not in _WITHOUT_OPTIONS:
        arguments = tuple(_arguments(owner, describe_arguments(docs)))
    return Signature(kind, cls.__name__, f"{cls.__module__}.{cls.__qualname__}", arguments, docs.partition("\n")[0])


def _arguments(owner: type, docs: Mapping[str, str]) -> list[Argument]:
    init: Any = vars(owner)["__init__"]
    trouble = ""
    try:
        hints = typing.get_type_hints(init)
    except (NameError, TypeError) as error:
        hints, trouble = {}, f"its type annotation cannot be read ({error})"
    arguments = []
    for p in list(inspect.signature(init).parameters.values())[1:]:  # without self
        if p.kind is p.VAR_KEYWORD:
            arguments.append(Argument(f"**{p.name}", None, False, trouble=CATCH_ALL))
        elif p.kind is not p.VAR_POSITIONAL:
            required = p.default is p.empty
            reason = "" if p.name in hints else trouble or "it has no type annotation"
            default = ... if required else p.default
            arguments.append(
                Argument(
                    p.name,
                    hints.get(p.name),
                    required,
                    default,
                    docs.get(p.name, ""),
                    reason,
                    p.name in SCALE_ARGUMENTS,
                )
            )
    return arguments


def _foreign_signature(kind: str, cls: Any, docs: str) -> Signature:
    """Of a class that was not written for srkit: arguments without a type take what resembles their default."""
    parameters = inspect.signature(cls).parameters.values()
    sentences = describe_arguments(docs)
    arguments = []
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            continue
        required, is_scale = p.default is p.empty, p.name in cls.scale_options
        default = ... if required else p.default
        annotation = int if is_scale else _foreign_type(p)
        arguments.append(Argument(p.name, annotation, required, default, sentences.get(p.name, ""), is_scale=is_scale))
    place = f"{cls.__module__}.{cls.__qualname__}"
    is_open = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return Signature(kind, cls.__name__, place, tuple(arguments), docs.partition("\n")[0], is_open)


def _foreign_type(p: inspect.Parameter) -> Any:
    if p.annotation is not p.empty:
        with suppress(UnsupportedType):  # a type of that project's own; the default tells what a file may say
            option_type(p.annotation)
            return typing.Optional[p.annotation] if p.default is None else p.annotation  # noqa: UP045 - known only here
    return next((kind for cls, kind in _RESEMBLING if isinstance(p.default, cls)), Any)


_RESEMBLING: tuple[tuple[Any, Any], ...] = (
    (bool, bool),
    (int, int | float | list),  # `res_scale=1` means any number, `img_size=64` may be one number per axis
    (float, int | float),
    (str, str | None),
    ((list, tuple), list),
    (dict, dict),
)
"""Default of an argument without a type -> what may be given for it; None or no default: anything."""
