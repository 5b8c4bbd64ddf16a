"""Networks: one a file, each always `lq -> sr`; importing this package registers them in `srkit.registry.ARCHS`."""

from srkit.archs.edsr import EDSR

__all__ = ["EDSR"]
