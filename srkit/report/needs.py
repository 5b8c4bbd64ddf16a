"""The packages of the extra `report`: imported where a page or figure is made, and asked for by name when absent."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from srkit.errors import RefusedError


def require(packages: Sequence[str] = ("matplotlib", "jinja2")) -> None:
    """Raises RefusedError naming what is not installed."""
    missing = []
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise RefusedError(f"this needs {' and '.join(missing)}; pip install 'srkit[report]'")
