"""Pictures known to be the same under two names, so that nobody trains on what is reported. From names and sizes."""

from __future__ import annotations

from collections.abc import Sequence

from srkit.data.names import stem
from srkit.data.pairing import first_names
from srkit.data.sources import Source
from srkit.errors import DataError

_NUMBERS = (
    3096, 8023, 12084, 14037, 16077, 19021, 21077, 24077, 33039, 37073, 38082, 38092, 41033, 41069, 42012, 42049,
    43074, 45096, 54082, 55073, 58060, 62096, 65033, 66053, 69015, 69020, 69040, 76053, 78004, 85048, 86000, 86016,
    86068, 87046, 89072, 97033, 101085, 101087, 102061, 103070, 105025, 106024, 108005, 108070, 108082, 109053,
    119082, 123074, 126007, 130026, 134035, 143090, 145086, 147091, 148026, 148089, 156065, 157055, 159008, 160068,
    163085, 167062, 167083, 170057, 175032, 175043, 182053, 189080, 196073, 197017, 208001, 210088, 216081, 219090,
    220075, 223061, 227092, 229036, 236037, 241004, 241048, 253027, 253055, 260058, 271035, 285079, 291000, 295087,
    296007, 296059, 299086, 300091, 302008, 304034, 304074, 306005, 351093, 361010, 376043, 385039,
)  # fmt: skip
BSD100 = frozenset(map(str, _NUMBERS))
"""Names of BSDS500's val pictures: the 100 of the benchmark BSD100, also called B100 and BSDS300 test."""
_SET5_WOMAN = "302003"  # of BSDS500 train
_T91_TWINS = ("t36", "t65")
_KNOWN = {*BSD100, _SET5_WOMAN, *_T91_TWINS}
_BSDS_SIDES = (321, 481)
_CUT = 12  # benchmark copies are cut to a multiple of the scale


def known_pictures(gt: Source) -> list[str]:
    """A line for each known double use that the pictures of `gt` make possible.

    Numbers are common names: BSDS500 is believed only of pictures that have its size.
    """
    named = ((stem(name[name.rfind("/") + 1 :]), index) for index, name in enumerate(gt.names))
    held = {name: index for name, index in named if name in _KNOWN}
    lines = []
    benchmark = [held[name] for name in sorted(BSD100 & held.keys()) if _has_sides(gt, held[name], _BSDS_SIDES)]
    if benchmark:
        lines.append(
            f"{len(benchmark)} pictures ({first_names(gt.label(k) for k in benchmark)}) are of BSDS500 val, which is "
            "the benchmark BSD100: train on them, or choose weights by them, and its figures mean nothing"
        )
    if _SET5_WOMAN in held and _has_sides(gt, held[_SET5_WOMAN], _BSDS_SIDES):
        lines.append(
            f"{gt.label(held[_SET5_WOMAN])} is the photograph of Set5's woman (another crop): leave it out of a training "
            "that reports Set5"
        )
    if held.keys() >= set(_T91_TWINS):
        a, b = (held[name] for name in _T91_TWINS)
        if _shape(gt, a) is not None and _shape(gt, a) == _shape(gt, b):
            lines.append(f"{gt.label(a)} and {gt.label(b)} are one picture of T91, which counts twice: leave one out")
    return lines


def _shape(source: Source, index: int) -> tuple[int, ...] | None:
    try:
        return source.shape(index)
    except DataError:  # reported by the check of files
        return None


def _has_sides(source: Source, index: int, sides: Sequence[int]) -> bool:
    shape = _shape(source, index)
    return shape is not None and all(s - _CUT < n <= s for n, s in zip(sorted(shape[:2]), sides))
