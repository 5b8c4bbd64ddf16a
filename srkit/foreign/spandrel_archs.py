"""`type: spandrel/NAME`: the architectures of the package spandrel, built from options, trained, and read from its files."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError, did_you_mean
from srkit.foreign.declare import declare_options, is_plain

_log = logging.getLogger("srkit")

_INNER_FACTOR = {"ESRGAN": "shuffle_factor", "SwinIR": "start_unshuffle"}
"""Constructors whose `scale` counts from the picture after it was shrunk by this option (pixel unshuffle)."""

_UNREADABLE = "spandrel does not recognise this network's weights; programs that use it will not load them"

_HARMLESS = ("drop", "checkpoint", "use_chk", "img_size")
"""Parts of the names of options that change training only, or nothing."""

_KEEPS_SIZE = ("SAFMNBCIE",)
"""Architectures that give back the size they got; what sounds like a scale is the depth of their inner pyramid."""

_ONE_BY_ONE = ("DRUNet", "DnCNN", "IPT")
"""Architectures that spandrel calls in a way made for one picture."""

_ONE_BY_ONE_IN_EVAL = ("SeemoRe",)
"""Architectures that choose their path by the picture when they do not train."""

NOT_TRAINABLE: Mapping[str, str] = {
    "LaMa": "it fills holes, and takes a mask beside the picture",
    "GFPGAN": "it restores faces of 512 x 512 pixels with noise drawn anew in every pass",
    "AuraSR": "it draws its noise anew in every pass, so that no validation repeats",
}
"""Name -> why it is no network `lq -> sr` that gradients can teach."""


class SpandrelNetwork(nn.Module):
    """A network of spandrel's as srkit wants one: `lq -> sr`, any size, intensities 0 to 1, spandrel's state-dict keys.

    A picture whose size the network cannot take is extended at its right and lower edge (reflected, then repeated), and
    the result is cut; spandrel says which sizes that concerns.

    Args:
        options: Arguments of `network_class`; its scale is that from lq to sr.

    Attributes:
        net: The bare network.
        scale: sr size / lq size, or None when spandrel does not recognise the network.

    Shape: (B, C, H, W) -> (B, C, H * scale, W * scale).
    Source: github.com/chaiNNer-org/spandrel (MIT; each architecture under its own licence), used as an installed package.
    """

    network_class: ClassVar[type[nn.Module]]
    architecture: ClassVar[Any]
    scale_options: ClassVar[tuple[str, ...]]

    def __init__(self, **options: Any) -> None:
        super().__init__()
        factor = options.get(_INNER_FACTOR.get(self.architecture.id, "")) or 1
        scales = {name: options[name] * factor for name in self.scale_options if options.get(name) is not None}
        self.net = self.network_class(**{**options, **scales})
        self.scale: int | None = None
        state = self.net.state_dict()
        try:
            # What spandrel knows of a network it tells for weights only: sizes it takes, and how it is called.
            described = self.architecture.load(dict(state))
        except Exception as error:  # noqa: BLE001 - each architecture looks for its numbers in its own way
            _log.warning("%s: %s (%s: %s)", self._name, _UNREADABLE, type(error).__name__, error)
            return
        self.scale = described.scale
        self._sizes = described.size_requirements
        self.tile_step = self._sizes.multiple_of  # windows and unshuffled pixels are counted from a picture's corner
        self._call = described._call_fn
        if not next(self.net.parameters()).is_meta:  # a probe of the shapes; the network itself says it
            self._warn_of_readers(state, described)

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _warn_of_readers(self, state: Mapping[str, Tensor], described: Any) -> None:
        """Says what a program would get wrong that has only the weights; srkit's model files keep the options too."""
        import spandrel

        detected = next((s for s in spandrel.MAIN_REGISTRY.architectures("detection") if s.detect(dict(state))), None)
        if detected is None or detected.architecture is not self.architecture:
            _log.warning("%s: %s", self._name, _UNREADABLE)
            return
        own, theirs = vars(self.net)["hyperparameters"], vars(described.model)["hyperparameters"]
        guesses = [
            f"{key} {json.dumps(theirs[key])} (here {json.dumps(own[key])})"
            for key in own.keys() & theirs.keys()
            if is_plain(own[key]) and not _equal(own[key], theirs[key]) and not any(w in key for w in _HARMLESS)
        ]
        if guesses:
            _log.warning(
                "%s: its weights do not tell everything; spandrel would take %s", self._name, ", ".join(sorted(guesses))
            )

    def forward(self, lq: Tensor) -> Tensor:
        if self.scale is None:
            return self.net(lq)
        height, width = lq.shape[-2:]
        lq = _extended(lq, *self._sizes.get_padding(width, height))
        single = _ONE_BY_ONE if self.training else _ONE_BY_ONE + _ONE_BY_ONE_IN_EVAL
        batches = lq.split(1) if self.architecture.id in single else (lq,)
        sr = torch.cat([self._call(self.net, batch) for batch in batches])
        return sr[..., : height * self.scale, : width * self.scale]

    # Files hold spandrel's own keys, so that it and other programs load them.
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.net.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        return self.net.load_state_dict(state_dict, strict, assign)

    def translated(self, state: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str]:
        """Weights under this network's keys, where spandrel knows how, and a note on what network they are of."""
        own = self.state_dict()
        if state.keys() == own.keys() and all(state[key].shape == own[key].shape for key in own):
            return state, ""
        import spandrel

        try:
            found = spandrel.MAIN_REGISTRY.load(dict(state))
        except Exception as error:  # noqa: BLE001 - see __init__; the comparison of keys says what differs
            _log.debug("spandrel does not know these weights: %s", error)
            return state, ""
        return found.model.state_dict(), f"spandrel takes it for scale {found.scale}, network_g: {_section(found)}"


def find(name: str) -> type[SpandrelNetwork]:
    """The class behind `spandrel/NAME`. Raises RefusedError when spandrel is missing or has no such network."""
    if name in NOT_TRAINABLE:
        raise RefusedError(f"spandrel/{name} cannot be trained here: {NOT_TRAINABLE[name]}")
    known = exported()
    if name not in known:
        raise RefusedError(f"spandrel has no network '{name}'{did_you_mean(name, known)}")
    return _adapted(name)


@functools.cache
def _adapted(name: str) -> type[SpandrelNetwork]:
    architecture, network_class = exported()[name]
    members = {"architecture": architecture, "network_class": network_class, "__doc__": f"spandrel's {name}."}
    cls: type[SpandrelNetwork] = type(f"spandrel/{name}", (SpandrelNetwork,), members)
    declare_options(cls, network_class)
    if architecture.id in _KEEPS_SIZE:
        cls.scale_options = ()
    return cls


@functools.cache
def exported() -> Mapping[str, tuple[Any, type[nn.Module]]]:
    """Name -> architecture and network class, of everything in spandrel's main registry.

    The names are those under which `spandrel.architectures.*` offer the classes.
    Raises: RefusedError when spandrel cannot be imported.
    """
    try:
        import spandrel
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit torch is a RuntimeError
        raise RefusedError(
            f"a network of type spandrel/... needs the package spandrel ({error}); pip install 'srkit[community]'"
        ) from None
    found: dict[str, tuple[Any, type[nn.Module]]] = {}
    for support in spandrel.MAIN_REGISTRY:
        module = sys.modules[type(support.architecture).__module__]
        for name in module.__all__:
            member = getattr(module, name)
            if isinstance(member, type) and issubclass(member, nn.Module):
                found[name] = (support.architecture, member)
    return found


def _section(described: Any) -> str:
    """The options of a loaded network that differ from its constructor's defaults, as one line of YAML."""
    name, cls = next((n, find(n)) for n, (_, c) in exported().items() if type(described.model) is c)
    defaults = {p.name: p.default for p in cls.__signature__.parameters.values()}  # type: ignore[attr-defined]
    options = {
        key: value
        for key, value in described.model.hyperparameters.items()
        if key in defaults and key not in cls.scale_options and is_plain(value) and not _equal(value, defaults[key])
    }
    text = "".join(f", {key}: {json.dumps(value)}" for key, value in options.items())
    return f"{{type: spandrel/{name}{text}}}"


def _equal(a: Any, b: Any) -> bool:
    return list(a) == list(b) if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) else bool(a == b)


def _extended(picture: Tensor, right: int, below: int) -> Tensor:
    """(B, C, H, W) with columns and rows added: reflected as far as that goes, then the last one repeated."""
    if not (right or below):
        return picture
    height, width = picture.shape[-2:]
    mirrored = (min(right, width - 1), min(below, height - 1))
    picture = F.pad(picture, (0, mirrored[0], 0, mirrored[1]), mode="reflect")
    return F.pad(picture, (0, right - mirrored[0], 0, below - mirrored[1]), mode="replicate")
