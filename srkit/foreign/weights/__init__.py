"""Weights that other projects saved: what network a file holds, under names that srkit knows. One project a module."""

from __future__ import annotations

from types import ModuleType

from srkit.errors import WeightsError
from srkit.foreign.weights import easysr, edge_informed, edge_srgan, esrgan, faces, torch_sr, vdsr
from srkit.foreign.weights.found import Content, Found, first

KINDS: dict[str, ModuleType] = {
    "torch_sr": torch_sr,
    "edge-srgan": edge_srgan,
    "edge-informed": edge_informed,
    "esrgan": esrgan,
    "vdsr": vdsr,
    "faces": faces,
    "easysr": easysr,
}
"""Name on the command line -> module, whose `read(content)` finds its networks and whose `HOLDS` says what it looks for."""


def find(content: Content, kind: str | None = None) -> list[Found]:
    """The networks of a file: the generator, then perhaps its discriminator.

    Args:
        kind: Name of the project; None tries all.

    Raises: WeightsError when the file fits none, with what it holds and what was expected.
    """
    tried = {name: module for name, module in KINDS.items() if kind in (None, name)}
    for module in tried.values():
        networks: list[Found] = module.read(content)
        if networks:
            return networks
    held = [f"{f'{name}: ' if name else ''}{first(state)}" for name, state in content.states.items()]
    expected = "".join(f"\n  {name}: {module.HOLDS}" for name, module in tried.items())
    raise WeightsError(
        f"{content.path}: not recognised; it holds {'; '.join(held)}. Expected one of{expected}\n"
        "  or weights under srkit's or BasicSR's own keys, described by --arch TYPE key=value and --scale"
    )
