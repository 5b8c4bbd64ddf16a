"""JSON Schema of option files, for editors: completion and marks while typing. `load_options` remains the judge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srkit.options.aliases import ALIASES, spellings
from srkit.options.catalog import Catalog
from srkit.options.components import COMPONENTS, flat_model
from srkit.options.realesrgan import MODELS, TOP_LEVEL
from srkit.options.schema import MAX_SCALE, Options
from srkit.options.signatures import PACKAGE_ROOTS, REGISTRIES, scan

DIALECT = "http://json-schema.org/draft-07/schema#"
_MAY_BE_EMPTY = ("path", "val", "logger", "dist_params", "network_g", "train")


def build_schema(roots: Sequence[Path] = PACKAGE_ROOTS) -> dict[str, Any]:
    """The schema of all option files, in JSON Schema draft 7 (what YAML editors speak).

    Args:
        roots: Where srkit's components are read from. Components of `imports` are unknown to it.
    """
    catalog = Catalog(scan(roots))
    schema = Options.model_json_schema()
    definitions = schema["$defs"]
    for cls in COMPONENTS:
        choices: list[dict[str, Any]] = []
        for name in catalog.names(cls.kind):
            signature = catalog.signatures[cls.kind][name]
            part = flat_model(cls, signature).model_json_schema()
            definitions.update(part.pop("$defs", {}))
            definitions[f"{cls.kind}_{name}"] = part
            choices.append({"$ref": f"#/$defs/{cls.kind}_{name}"})
        for family in next(r.families for r in REGISTRIES.values() if r.kind == cls.kind):
            word: dict[str, Any] = {"description": f"A {cls.kind} of the package {family}.", "pattern": f"^{family}/"}
            choices.append({"type": "object", "properties": {"type": word}, "required": ["type"]})
        definitions[cls.__name__] = {"description": cls.__doc__, "anyOf": choices}
    properties = schema["properties"]
    recipes = [s for name in catalog.names("recipe") for s in spellings("recipe", name)]
    properties["model_type"] = {"description": properties["model_type"]["description"], "enum": recipes}
    for key, home in TOP_LEVEL.items():
        text = f"Real-ESRGAN's place for {home}; read where model_type is {' or '.join(MODELS)}."
        properties[key] = {"description": text}
    number = {"type": "integer", "minimum": 1, "maximum": MAX_SCALE}
    scale = {"anyOf": [number, {"type": "array", "items": number, "minItems": 1, "maxItems": 3}]}
    properties["datasets"]["additionalProperties"] = False  # beside the pattern of its keys
    properties["scale"] = {"description": properties["scale"]["description"], **scale}
    for name in _MAY_BE_EMPTY:
        properties[name] = _or_empty(properties[name])
    for alias, name in ALIASES["scheduler"].items():
        definition = next(d for d in definitions.values() if _type_is(d, name))
        definition["properties"]["type"] = {**definition["properties"]["type"], "enum": [name, alias]}
        definition["properties"]["type"].pop("const", None)
    return {"$schema": DIALECT, **_draft_7(schema), "title": "srkit option file"}


def _type_is(definition: dict[str, Any], name: str) -> bool:
    return bool(definition.get("properties", {}).get("type", {}).get("const") == name)


def _or_empty(part: dict[str, Any]) -> dict[str, Any]:
    """The part, or nothing after the colon, which reads as a section without keys."""
    choices = part.get("anyOf") or [{"$ref": part["$ref"]}]
    rest = {k: v for k, v in part.items() if k not in ("$ref", "anyOf", "default")}
    null = {"type": "null"}
    return {**rest, "anyOf": choices if null in choices else [*choices, null]}


def _draft_7(part: Any) -> Any:
    """Rewrites what pydantic says in later dialects: tuples, discriminators, titles made from keys."""
    if isinstance(part, list):
        return [_draft_7(p) for p in part]
    if not isinstance(part, dict):
        return part
    result: dict[str, Any] = {}
    for key, value in part.items():
        if key == "properties":
            result[key] = {name: _draft_7({k: v for k, v in p.items() if k != "title"}) for name, p in value.items()}
        elif key == "prefixItems":
            result["items"], result["additionalItems"] = _draft_7(value), False
        elif key != "discriminator":
            result[key] = _draft_7(value)
    if "$ref" in result and len(result) > 1:  # draft 7 reads nothing beside a $ref
        result["allOf"] = [{"$ref": result.pop("$ref")}]
    return result
