"""Plain values -> YAML that `reader` reads back to equal values."""

from __future__ import annotations

from typing import Any

import yaml

from srkit.options.reader import plain_value


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader takes for a number although PyYAML does not (`1e-4`), and repeats instead of aliasing."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    is_text = isinstance(plain_value(value), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if is_text else "'")


_Dumper.add_representer(str, _text)


def to_yaml(values: dict[str, Any]) -> str:
    """A YAML document with the keys in the order given; lists stand on one line."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)
