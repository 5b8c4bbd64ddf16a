"""The page of all options, in Markdown, from the JSON schema: what editors complete is what people read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from srkit.metrics.protocol import PROTOCOLS, Protocol
from srkit.options.aliases import ABSENT, ALIASES
from srkit.options.components import DatasetOptions, LossOptions, MetricOptions, NetworkOptions
from srkit.options.json_schema import build_schema
from srkit.options.realesrgan import MODELS, TOP_LEVEL
from srkit.options.signatures import PACKAGE_ROOTS, scan

_HEAD = """\
# Options: every key of an option file

Written from the code by `python -m srkit.tools schema`; a test compares the two, so do not edit this page by hand. To try a file without starting
it: `srkit check x.yml`. A key that is not on this page is refused, with its line and the nearest name.

- A dot stands for one level more in the file: `train.optim_g.lr` is the key `lr` of the section `optim_g` in the section `train`.
- **required** keys have no default. `~` is YAML's word for nothing; where a sentence below says None, write `~`.
- Numbers may be written as `1e-4`; `5e3` and BasicSR's `!!float 5e3` also count as the whole number 5000.
- A section with a `type` takes the keys of its kind and the arguments of the class that `type` names, side by side.
- Classes of your own, named under `imports`, take their constructor's arguments: [extending.md](extending.md).
"""
_SCALE = "Filled from the top-level `scale`; if written, it must agree."
_SHARED = {"dataset": "PairedImageDataset"}
"""Kind -> the class whose sentences hold for arguments that other classes of the kind take without a word of their own."""

_OPTIMIZERS = (
    "AdamOptions", "AdamWOptions", "SGDOptions", "AdamaxOptions", "ASGDOptions", "RMSpropOptions", "RpropOptions",
)  # fmt: skip
_KINDS: Mapping[str, tuple[str, str, type, str]] = {
    "dataset": (
        "Data sets",
        "`datasets` holds one section for each set: `train`, and for evaluation `val`, `val_2`, ..., `test_1`, ...",
        DatasetOptions,
        "Every data set takes",
    ),
    "arch": ("Networks", "`network_g` is the generator, `network_d` the discriminator.", NetworkOptions, ""),
    "loss": (
        "Losses",
        "`train.pixel_opt`, `perceptual_opt`, `gan_opt`, `feature_matching_opt`, and any number by names of your own under "
        "`train.losses`.",
        LossOptions,
        "Every loss takes",
    ),
    "metric": (
        "Metrics",
        "`val.metrics`, by names of your own. More about them: [evaluation.md](evaluation.md).",
        MetricOptions,
        "Every metric takes",
    ),
}


def options_page(roots: Sequence[Path] = PACKAGE_ROOTS) -> str:
    """The whole page.

    Args:
        roots: Where srkit's components are read from, as for `build_schema`.
    """
    schema = build_schema(roots)
    return "\n".join(_pages(schema, roots)) + "\n"


def _pages(schema: Mapping[str, Any], roots: Sequence[Path]) -> Iterator[str]:
    definitions = schema["$defs"]
    yield _HEAD
    yield from _contents(definitions)
    top = {key: part for key, part in schema["properties"].items() if key not in TOP_LEVEL}
    yield "\n## Top level\n"
    yield from _table({"properties": top, "required": schema["required"]})
    yield from _recipes(roots)
    yield from _kind("dataset", definitions)
    yield from _section("io_backend", "BackendSection", "datasets.PHASE.io_backend", definitions)
    yield from _kind("arch", definitions)
    yield "\nNetworks of other projects, by file or by package: [architectures.md](architectures.md)."
    yield from _section("path", "PathSection", "path", definitions, level=2)
    yield from _section("train", "TrainSection", "train", definitions, level=2)
    yield "\n### Optimizers\n\n`train.optim_g` and `train.optim_d`; `type` names one of these."
    for name in _OPTIMIZERS:
        yield from _typed(definitions[name])
    yield "\n### Schedulers\n\n`train.scheduler`; `type` names one of these."
    for name in ("MultiStepOptions", "CosineRestartOptions"):
        yield from _typed(definitions[name])
    yield from _section("grad_clip", "ClipOptions", "train.grad_clip", definitions)
    yield from _kind("loss", definitions)
    yield from _section("val", "ValSection", "val", definitions, level=2)
    yield from _protocols()
    yield from _kind("metric", definitions)
    yield from _section("logger", "LoggerSection", "logger", definitions, level=2)
    yield from _section("wandb", "WandbSection", "logger.wandb", definitions)
    yield from _section("dist_params", "DistSection", "dist_params", definitions, level=2)
    yield from _other_names()


def _contents(definitions: Mapping[str, Any]) -> Iterator[str]:
    """The list of sections, with the classes of each kind."""

    def classes(kind: str) -> str:
        return ", ".join(f"[{name}](#{name.lower()})" for name, _ in _of_kind(kind, definitions))

    yield "- [Top level](#top-level), [model_type](#model_type)"
    for kind in ("dataset", "arch"):
        title = _KINDS[kind][0]
        yield f"- [{title}](#{title.lower().replace(' ', '-')}): {classes(kind)}"
    yield "- [path](#path)"
    yield "- [train](#train): [optimizers](#optimizers), [schedulers](#schedulers), [grad_clip](#grad_clip)"
    yield f"- [Losses](#losses): {classes('loss')}"
    yield "- [val](#val): [protocols](#protocols)"
    yield f"- [Metrics](#metrics): {classes('metric')}"
    yield "- [logger](#logger), [dist_params](#dist_params)"
    yield "- [Other names](#other-names) that are understood"


def _of_kind(kind: str, definitions: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    start = f"{kind}_"
    return [(name.removeprefix(start), part) for name, part in definitions.items() if name.startswith(start)]


def _section(title: str, name: str, place: str, definitions: Mapping[str, Any], level: int = 3) -> Iterator[str]:
    part = definitions[name]
    yield f"\n{'#' * level} {title}\n\n`{place}`. {part['description']}\n"
    yield from _table(part)


def _kind(kind: str, definitions: Mapping[str, Any]) -> Iterator[str]:
    """All classes of a kind: what they share, then each with its own arguments."""
    title, text, section, shared_title = _KINDS[kind]
    own = [name for name in section.model_fields if name not in section.filled and name != "type"]  # type: ignore[attr-defined]
    members = _of_kind(kind, definitions)
    yield f"\n## {title}\n\n{text}"
    if own:
        properties = members[0][1]["properties"]
        yield f"\n{shared_title}\n"
        yield from _table({"properties": {key: properties[key] for key in own}})
    words = {name: part["properties"] for name, part in members}.get(_SHARED.get(kind, ""), {})
    for name, part in members:
        arguments = {key: item for key, item in part["properties"].items() if key not in (*own, "type")}
        described = {
            key: {"description": words.get(key, {}).get("description"), **item} for key, item in arguments.items()
        }
        yield f"\n### {name}\n\n{_title(part)}\n"
        yield from _table({"properties": described, "required": part.get("required", ())})


def _title(part: Mapping[str, Any]) -> str:
    """The class's first line, and other names that mean it."""
    word = part["properties"]["type"]
    text = str(word["description"]).partition(": ")[2]
    others = word.get("enum", [])[1:]
    return text + (f" Also: {', '.join(f'`{name}`' for name in others)}." if others else "")


def _typed(part: Mapping[str, Any]) -> Iterator[str]:
    """An optimizer or a scheduler."""
    word = part["properties"]["type"]
    names = [word["const"]] if "const" in word else word["enum"]
    others = f" Also: {', '.join(f'`{name}`' for name in names[1:])}." if names[1:] else ""
    yield f"\n#### {names[0]}\n\n{part['description']}{others}\n"
    rest = {key: item for key, item in part["properties"].items() if key != "type"}
    yield from _table({"properties": rest, "required": part.get("required", ())})


def _recipes(roots: Sequence[Path]) -> Iterator[str]:
    yield "\n### model_type\n\n| name | also | what is trained |\n| --- | --- | --- |"
    for name, signature in sorted(scan(roots)["recipe"].items()):
        others = [f"`{alias}`" for alias, own in ALIASES["recipe"].items() if own == name]
        yield f"| `{name}` | {', '.join(others)} | {_cell(signature.description)} |"


def _protocols() -> Iterator[str]:
    yield "\n### Protocols\n\n`val.protocol`: a name that fixes how a picture becomes a number. Tables carry the hash of what it fixes.\n"
    yield "| name | compares | border | rounding | range | beside it |\n| --- | --- | --- | --- | --- | --- |"
    for name, item in PROTOCOLS.items():
        border = (
            "as wide as the scale" if item.border == "scale" else "none" if item.border == 0 else f"{item.border} px"
        )
        rounding = "as the file's integers" if item.rounding == "file" else "none"
        cells = (f"`{name}`", _compared(item), border, rounding, _RANGES[item.data_range], ", ".join(item.baselines))
        yield f"| {' | '.join(cells)} |"


def _compared(item: Protocol) -> str:
    if item.colour == "y":
        return f"luma, BT.601, {item.y_range} range"
    masked = ", whole and inside the mask" if item.mask == "whole-and-inside" else ""
    return {"rgb": "RGB", "values": f"the volume's own values{masked}", "edges": "Canny's edge maps"}[item.colour]


_RANGES = {
    "white": "the file's white",
    "gt-set": "gt's maximum minus minimum over the set",
    "gt-volume": "gt's maximum minus minimum in this volume",
}


def _other_names() -> Iterator[str]:
    yield "\n## Other names\n\nNames that option files of the BasicSR family use. They are read as srkit's own.\n"
    yield "| where | name | read as |\n| --- | --- | --- |"
    for kind, names in ALIASES.items():
        for alias, own in names.items():
            yield f"| {kind} | `{alias}` | `{own}` |"
    top = f"top level, with {' or '.join(MODELS)}"
    same = [key for key, home in TOP_LEVEL.items() if home == f"datasets.train.{key}"]
    yield f"| {top} | {', '.join(f'`{key}`' for key in same)} | the same key of `datasets.train` |"
    for key, home in TOP_LEVEL.items():
        if key not in same:
            yield f"| {top} | `{key}` | `{home.replace(' and ', '` and `')}` |"
    yield "\nRefused by name, with the way out:\n"
    for kind, reasons in ABSENT.items():
        for name, why in reasons.items():
            yield f"- {kind} `{name}`: {why}."


def _table(section: Mapping[str, Any]) -> Iterator[str]:
    properties = section["properties"]
    if not properties:
        yield "It takes no options."
        return
    yield "| key | type | default | meaning |\n| --- | --- | --- | --- |"
    for key, part in properties.items():
        yield f"| `{key}` | {_type(part)} | {_default(key, part, section)} | {_cell(_meaning(key, part))} |"


def _meaning(key: str, part: Mapping[str, Any]) -> str:
    text = part.get("description") or ""
    return f"{text} {_SCALE}".strip() if key in ("scale", "upscale") and "default" in part else text


def _default(key: str, part: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    if key in section.get("required", ()):
        return "**required**"
    if key in ("scale", "upscale") and "default" in part:
        return "`scale`"
    if "default" not in part:
        return ""
    if part["default"] is None and "type" in part:  # None is not among its values: the class works it out
        return "(the class's own)"
    text = "~" if part["default"] is None else json.dumps(part["default"]).replace('"', "")
    return f"`{text}`" if text else "(nothing)"


def _cell(text: str) -> str:
    """Text that Markdown shows as it is, in a table; what stands between backticks is left alone."""
    parts = text.replace("|", "\\|").split("`")
    for index in range(0, len(parts), 2):
        parts[index] = re.sub(r"([*~])", r"\\\1", parts[index].replace("<", "&lt;"))
    return "`".join(parts)


def _type(part: Mapping[str, Any]) -> str:
    """A type in words: "whole number from 1, or a list of them"."""
    if "$ref" in part:
        return _named(part["$ref"])
    if "const" in part:
        return f"`{part['const']}`"
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    for key in ("anyOf", "oneOf", "allOf"):
        if key in part:
            return _either(part[key])
    match part.get("type"):
        case "integer":
            return "whole number" + _bounds(part)
        case "number":
            return "number" + _bounds(part)
        case "boolean":
            return "`true`, `false`"
        case "string":
            return "text"
        case "array" if isinstance(part.get("items"), list):
            inner = dict.fromkeys(_type(item) for item in part["items"])
            return f"list of {len(part['items'])}: {', '.join(inner)}"
        case "array":
            return f"list: {_type(part.get('items', {}))}"
        case "object" if "patternProperties" in part:
            return _either(list(part["patternProperties"].values()))
        case "object":
            inner_type = part.get("additionalProperties")
            return f"names, each with: {_type(inner_type)}" if isinstance(inner_type, dict) else "section"
    return "anything"


def _either(parts: Sequence[Mapping[str, Any]]) -> str:
    words = list(dict.fromkeys(_type(part) for part in parts if part.get("type") != "null"))
    if words[1:] == [f"list: {words[0]}"]:
        words = [f"{words[0]}, or a list of them"]
    return " or ".join(words) + (", or `~`" if {"type": "null"} in parts else "")


def _bounds(part: Mapping[str, Any]) -> str:
    low, high = part.get("minimum"), part.get("maximum")
    words = []
    if low is not None:
        words.append(f"from {low:g}")
    if "exclusiveMinimum" in part:
        words.append(f"above {part['exclusiveMinimum']:g}")
    if high is not None:
        words.append(f"to {high:g}")
    if "exclusiveMaximum" in part:
        words.append(f"below {part['exclusiveMaximum']}")
    return " " + " ".join(words) if words else ""


_NAMES = {
    "DatasetOptions": "sections of [data sets](#data-sets)",
    "NetworkOptions": "a [network](#networks)",
    "LossOptions": "a [loss](#losses)",
    "MetricOptions": "a [metric](#metrics)",
    "PathSection": "[section](#path)",
    "TrainSection": "[section](#train)",
    "ValSection": "[section](#val)",
    "LoggerSection": "[section](#logger)",
    "DistSection": "[section](#dist_params)",
    "BackendSection": "[section](#io_backend)",
    "WandbSection": "[section](#wandb)",
    "ClipOptions": "[section](#grad_clip)",
    "MultiStepOptions": "a [scheduler](#schedulers)",
    "CosineRestartOptions": "a [scheduler](#schedulers)",
    **dict.fromkeys(_OPTIMIZERS, "an [optimizer](#optimizers)"),
}


def _named(reference: str) -> str:
    return _NAMES[reference.rpartition("/")[2]]
