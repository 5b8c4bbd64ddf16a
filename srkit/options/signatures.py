"""Which options a component takes, read from its constructor's source without importing it.

Importing an arch means importing torch, which takes seconds; a typing slip should be answered at once. So srkit's own
source files are parsed, and classes decorated `@ARCHS.register()` and the like are found in the syntax tree.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import srkit.registry as registries
from srkit.errors import RefusedError
from srkit.options.annotations import UnreadableAnnotation, read_annotation
from srkit.registry import Registry

_PACKAGE = Path(registries.__file__).parent
PACKAGE_ROOTS: tuple[Path, ...] = (
    *(_PACKAGE / name for name in ("archs", "losses", "metrics", "data")),
    _PACKAGE / "engine/recipes.py",
)
"""Where srkit's own components are: folders (searched recursively) and files."""

SCALE_ARGUMENTS = ("scale", "upscale")
"""What srkit's classes call the enlargement; classes of other projects say it themselves."""

CATCH_ALL = "it would swallow typing slips in an option file; name each argument"

REGISTRIES: dict[str, Registry] = {
    name: value for name, value in vars(registries).items() if isinstance(value, Registry)
}
"""ARCHS, DATASETS, ...: the decorator's name -> registry; `Registry.kind` is the component's kind."""


@dataclass(frozen=True)
class Argument:
    """One keyword argument of a constructor, which is one option.

    Args:
        annotation: A typing object, or None where it cannot be expressed in YAML; `trouble` then says why.
        default: Its default, or `...` when it is computed.
        is_scale: build.py fills it from the top-level scale; a file may repeat that.
    """

    name: str
    annotation: Any
    required: bool
    default: Any = ...
    description: str = ""
    trouble: str = ""
    is_scale: bool = False


@dataclass(frozen=True)
class Signature:
    """A component: what it is called, where it stands, what it takes.

    Args:
        is_open: It takes further arguments that it does not name (a class of another project, with `**kwargs`).
    """

    kind: str
    name: str
    place: str
    arguments: tuple[Argument, ...] = ()
    description: str = ""
    is_open: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.arguments)


@dataclass(frozen=True)
class _Class:
    """A class statement and the file it stands in."""

    node: ast.ClassDef
    file: Path
    aliases: dict[str, ast.expr] = field(repr=False)  # NAME = annotation at the top of the file


def scan(roots: Sequence[Path] = PACKAGE_ROOTS) -> dict[str, dict[str, Signature]]:
    """Kind -> name -> signature of every registered class below the roots. Raises RefusedError for a repeated name."""
    return _scan(tuple(roots))


@functools.cache
def _scan(roots: tuple[Path, ...]) -> dict[str, dict[str, Signature]]:
    classes = [c for file in _files(roots) for c in _classes(file)]
    by_name: dict[str, _Class] = {c.node.name: c for c in classes}
    result: dict[str, dict[str, Signature]] = {r.kind: {} for r in REGISTRIES.values()}
    for item in classes:
        for kind in _kinds(item.node):
            place = f"{item.file}:{item.node.lineno}"
            taken = result[kind].get(item.node.name)
            if taken is not None:
                raise RefusedError(
                    f"{kind} '{item.node.name}' is registered twice: {taken.place} and {place}; rename one"
                )
            docs = ast.get_docstring(item.node) or ""
            arguments = tuple(_arguments(item, by_name, describe_arguments(docs)))
            result[kind][item.node.name] = Signature(kind, item.node.name, place, arguments, docs.partition("\n")[0])
    return result


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        yield from sorted(root.rglob("*.py")) if root.is_dir() else [root] if root.is_file() else []


def _classes(file: Path) -> Iterator[_Class]:
    tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    aliases: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            aliases[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            aliases[node.target.id] = node.value
    yield from (_Class(node, file, aliases) for node in tree.body if isinstance(node, ast.ClassDef))


def _kinds(node: ast.ClassDef) -> Iterator[str]:
    """Kinds under which `@KIND.register()` or `@registry.KIND.register()` stands over the class."""
    for decorator in node.decorator_list:
        if (
            isinstance(decorator, ast.Call)
            and isinstance(decorator.func, ast.Attribute)
            and decorator.func.attr == "register"
        ):
            owner = decorator.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else ""
            if name in REGISTRIES:
                yield REGISTRIES[name].kind


def _arguments(item: _Class, by_name: dict[str, _Class], docs: dict[str, str], depth: int = 0) -> list[Argument]:
    """Arguments of the class's __init__, or of the first base class with one that stands in the scanned files."""
    for node in item.node.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return list(_of_init(node.args, item.aliases, docs))
    if any("dataclass" in ast.dump(d) for d in item.node.decorator_list):
        return list(_of_dataclass(item, docs))
    for base in item.node.bases:
        name = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
        if name in by_name and depth < 10:
            return _arguments(by_name[name], by_name, docs, depth + 1)
    return []


def _of_init(args: ast.arguments, aliases: dict[str, ast.expr], docs: dict[str, str]) -> Iterator[Argument]:
    plain = [*args.posonlyargs, *args.args]
    defaults: list[ast.expr | None] = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    for arg, default in [*zip(plain, defaults), *zip(args.kwonlyargs, args.kw_defaults)][1:]:  # without self
        yield _argument(arg.arg, arg.annotation, default, aliases, docs)
    if args.kwarg:
        yield Argument(f"**{args.kwarg.arg}", None, False, trouble=CATCH_ALL)


def _of_dataclass(item: _Class, docs: dict[str, str]) -> Iterator[Argument]:
    for node in item.node.body:
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and "ClassVar" not in ast.dump(node.annotation)
        ):
            yield _argument(node.target.id, node.annotation, node.value, item.aliases, docs)


def _argument(
    name: str, annotation: ast.expr | None, default: ast.expr | None, aliases: dict[str, ast.expr], docs: dict[str, str]
) -> Argument:
    kind, trouble = None, ""
    try:
        kind = read_annotation(annotation, aliases)
    except UnreadableAnnotation as error:
        trouble = str(error)
    value: Any = ...
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except ValueError:  # computed, or a constant's name: known only when the class is imported
            value = ...
    return Argument(name, kind, default is None, value, docs.get(name, ""), trouble, name in SCALE_ARGUMENTS)


def describe_arguments(docstring: str) -> dict[str, str]:
    """Argument -> its sentence in the "Args:" part of a cleaned docstring."""
    match = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", docstring, re.MULTILINE)
    if not match:
        return {}
    entries = re.findall(r"^    (\w+)(?: \([^)]*\))?: (.*(?:\n {5,}.*)*)", match.group(1), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
