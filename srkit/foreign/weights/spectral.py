"""The two ways in which torch names the tensors of a spectrally normalised layer."""

from __future__ import annotations

import re

from torch import Tensor

from srkit.foreign.weights.found import State

# torch.nn.utils.spectral_norm, as srkit names them, and torch.nn.utils.parametrizations.spectral_norm.
_PAIRS = (
    ("weight_orig", "parametrizations.weight.original"),
    ("weight_u", "parametrizations.weight.0._u"),
    ("weight_v", "parametrizations.weight.0._v"),
)


def with_hooks(state: State) -> dict[str, Tensor]:
    """The older names, whichever the weights have."""
    return _renamed(state, {new: old for old, new in _PAIRS})


def with_parametrizations(state: State) -> dict[str, Tensor]:
    """The newer names, whichever the weights have. The tensors are the same, u and v included."""
    return _renamed(state, dict(_PAIRS))


def _renamed(state: State, table: dict[str, str]) -> dict[str, Tensor]:
    ending = re.compile(rf"(?:^|(?<=\.))({'|'.join(map(re.escape, table))})$")
    return {ending.sub(lambda found: table[found[1]], key): value for key, value in state.items()}
