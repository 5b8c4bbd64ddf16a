"""A table for a paper (LaTeX, booktabs): a line a method, columns by set and metric, the best bold and the second underlined."""

from __future__ import annotations

import math
from collections.abc import Sequence

from srkit.engine.evaluator import NamedMetric, SetResult
from srkit.metrics.summary import decimals, places

_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def table_tex(results: Sequence[SetResult]) -> str:
    """The table; needs \\usepackage{booktabs}. A set without values is left out; without any the text is a comment."""
    measured = [r for r in results if r.measured()]
    if not measured:
        return "% no set has values\n"
    columns = [(r, m) for r in measured for m in r.measured()]
    methods = list(dict.fromkeys(method for r in measured for method in r.methods()))
    cells = [_column(result, metric, methods) for result, metric in columns]
    spans, rules, start = [], [], 2
    for result in measured:
        width = len(result.measured())
        mark = r"$^\dagger$" if result.jpeg_gt else ""
        spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escaped(result.name)}{mark}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
        start += width
    arrows = {"higher": r"$\uparrow$", "lower": r"$\downarrow$"}
    names = [escaped(m.name) + arrows[m.better] for _, m in columns]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(measured)}}}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["", *spans]) + r" \\",
        " ".join(rules),
        " & ".join(["method", *names]) + r" \\",
        r"\midrule",
        *(" & ".join([escaped(m), *(column[i] for column in cells)]) + r" \\" for i, m in enumerate(methods)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _column(result: SetResult, metric: NamedMetric, methods: Sequence[str]) -> list[str]:
    means = {method: result.mean(method, metric.name) for method in result.methods()}
    digits = (
        2 if max((abs(v) for v in means.values() if math.isfinite(v)), default=0.0) >= 10 else decimals(means.values())
    )
    ranks = places(means, metric.better, digits)
    texts = []
    for method in methods:
        if method not in means:
            texts.append("--")
            continue
        text = f"{means[method]:.{digits}f}" if math.isfinite(means[method]) else r"$\infty$"
        if ranks[method] == 0:
            text = rf"\textbf{{{text}}}"
        elif ranks[method] == 1:
            text = rf"\underline{{{text}}}"
        texts.append(text)
    return texts


def _caption(results: Sequence[SetResult]) -> str:
    protocols = {f"{m.name}: {m.protocol.name}, hash {m.protocol.hash}" for r in results for m in r.measured()}
    counts = "; ".join(f"{escaped(r.name)}: {r.images} images" for r in results)
    caption = f"Means over images ({counts}). {escaped('; '.join(sorted(protocols)))}. Best bold, second underlined."
    if any(r.jpeg_gt for r in results):
        caption += r" $^\dagger$Reference pictures are JPEG files."
    return caption
