"""Says for a class that was not written for srkit which options a file can give it, and which of them is the scale."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any

from srkit.errors import RefusedError

SCALE_NAMES = (
    "upscale",
    "scale",
    "up_scale",
    "scale_factor",
    "upscale_factor",
    "upscaling_factor",
    "upsampling",
)
"""What other projects call the enlargement; filled from the top-level scale where the argument is a whole number."""


def declare_options(cls: type, constructor: type | None = None) -> None:
    """Sets `__signature__` (what can be given, typed where it says so) and `scale_options` on `cls`.

    An argument whose default no option file can express, such as a layer class, is left out and keeps that default.

    Args:
        constructor: The class whose `__init__` counts, when it is another one.

    Raises: RefusedError when `cls` is no class.
    """
    if not isinstance(cls, type):
        raise RefusedError(f"{getattr(cls, '__name__', cls)} is registered but no class; srkit builds classes only")
    owner = next(c for c in (constructor or cls).__mro__ if "__init__" in vars(c))
    parameters: list[inspect.Parameter] = []
    if owner.__module__.partition(".")[0] not in ("builtins", "torch"):
        init = vars(owner)["__init__"]
        hints = _hints(init)
        parameters = [
            p.replace(annotation=hints.get(p.name, p.empty))
            for p in list(inspect.signature(init).parameters.values())[1:]  # without self
            if p.kind is not p.VAR_POSITIONAL and (p.default is p.empty or is_plain(p.default))
        ]
    cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    cls.scale_options = tuple(p.name for p in parameters if _is_scale(p))  # type: ignore[attr-defined]


def is_declared(cls: type) -> bool:
    """Whether `declare_options` spoke for this very class."""
    return "scale_options" in vars(cls)


def is_plain(value: Any) -> bool:
    """Whether an option file and a model file can hold the value."""
    if isinstance(value, (list, tuple)):
        return all(is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


def _hints(init: Callable[..., None]) -> dict[str, Any]:
    """The annotations as typing objects; none at all when one names what was imported for type checkers only."""
    try:
        return typing.get_type_hints(init)
    except (NameError, TypeError, AttributeError):
        return {}


def _is_scale(p: inspect.Parameter) -> bool:
    # A residual factor may be called `scale` as well, but is no whole number.
    is_whole = p.default is p.empty or p.default is None or type(p.default) is int
    return p.name in SCALE_NAMES and is_whole and p.annotation in (p.empty, int, int | None, Any)
