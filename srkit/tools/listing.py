"""`srkit list archs`: registered names with their options, as the option reader sees them."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Literal

import srkit.build
import srkit.engine.recipes  # noqa: F401 - these two fill the registries
from srkit.models import shipped
from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS, RECIPES

Kind = Literal["archs", "datasets", "losses", "metrics", "recipes"]


def listing(kind: Kind) -> str:
    """One block per class: its name, the first line of its description, its options with defaults."""
    registry = {"archs": ARCHS, "datasets": DATASETS, "losses": LOSSES, "metrics": METRICS, "recipes": RECIPES}[kind]
    blocks = []
    for name in registry:
        cls = registry.get(name)
        title = (inspect.getdoc(cls) or "").partition("\n")[0]
        lines = [f"{name}: {title}"]
        if kind != "recipes":  # a recipe is built from finished networks and losses, not from options
            lines += [
                f"    {_option(p)}" for p in inspect.signature(cls).parameters.values() if p.kind not in _NOT_OPTIONS
            ]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


_NOT_OPTIONS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)  # torch's, where a class has no own


def _option(parameter: inspect.Parameter) -> str:
    """`name: type = default`, with annotations as they are written."""
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    written = parameter.annotation
    return f"{parameter.name}: {written if isinstance(written, str) else inspect.formatannotation(written)}{default}"


def models() -> str:
    """The models that come with srkit: name, title of the card, file."""
    return "\n".join(f"{_title(path)}\n    {path}" for path in shipped().values())


def _title(model: Path) -> str:
    return model.with_suffix(".md").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=("models", "archs", "datasets", "losses", "metrics", "recipes"))


def run(flags: argparse.Namespace) -> None:
    print(models() if flags.kind == "models" else listing(flags.kind))
