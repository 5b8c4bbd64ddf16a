"""A constructor's annotations as typing objects, from the syntax tree and without evaluating anything."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

_NAMES: dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "None": None,
    "Any": Any,
    "list": list,
    "List": list,
    "tuple": tuple,
    "Tuple": tuple,
    "Sequence": Sequence,
    "dict": dict,
    "Dict": dict,
    "Mapping": Mapping,
}


class UnreadableAnnotation(ValueError):
    """An annotation that is none of the types options may have."""


def read_annotation(node: ast.expr | None, aliases: Mapping[str, ast.expr], depth: int = 0) -> Any:
    """The type an annotation spells.

    Args:
        aliases: Names given to annotations at the top of the same file (`Side = Literal["l", "r"]`).

    Raises: UnreadableAnnotation naming the part it cannot express.
    """
    if node is None:
        raise UnreadableAnnotation("it has no type annotation")
    if depth > 20:
        raise UnreadableAnnotation("its type annotation refers to itself")

    def read(inner: ast.expr) -> Any:
        return read_annotation(inner, aliases, depth + 1)

    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return read(_parsed(text))
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[read(left), read(right)]  # noqa: UP007 - the parts are known only here
        case ast.Subscript(value=base, slice=index):
            return _subscripted(_last_name(base), index, read)
        case ast.Name() | ast.Attribute():
            name = _last_name(node)
            if name in _NAMES:
                return _NAMES[name]
            if name in aliases:
                return read(aliases[name])
    raise UnreadableAnnotation(f"its type '{ast.unparse(node)}' cannot be written in an option file")


def _parsed(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        raise UnreadableAnnotation(f"its type annotation '{text}' is no Python") from None


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _subscripted(name: str, index: ast.expr, read: Any) -> Any:
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    if name == "Literal":
        try:
            return Literal[tuple(ast.literal_eval(p) for p in parts)]
        except ValueError:
            raise UnreadableAnnotation("its Literal holds something other than plain values") from None
    if name in ("Annotated", "Final"):
        return read(parts[0])
    if name == "Optional":
        return Union[read(index), None]  # noqa: UP007
    inner = [... if isinstance(p, ast.Constant) and p.value is Ellipsis else read(p) for p in parts]
    if name == "Union":
        return Union[tuple(inner)]  # noqa: UP007
    if name not in _NAMES or _NAMES[name] not in (list, tuple, Sequence, dict, Mapping):
        raise UnreadableAnnotation(f"its type '{name}[...]' cannot be written in an option file")
    return _NAMES[name][tuple(inner) if len(inner) > 1 else inner[0]]
