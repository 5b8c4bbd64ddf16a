"""`srkit TOOL ...` (or `python -m srkit.tools TOOL ...`): the small tools, each in a module of its own.

A tool's module has `add_arguments(parser)` and `run(flags)`, which may return an exit code.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from srkit.commands import guarded
from srkit.errors import ExitCode

TOOLS: Mapping[str, tuple[str, str]] = {
    "check": ("check", "all that a start would refuse, without starting"),
    "check-pairs": ("check_pairs", "pairs that are shifted against each other, or are no pairs"),
    "check-split": ("check_split", "groups, pictures and near copies that stand in two parts of a split"),
    "compare": ("compare", "one picture: lq, bicubic, sr and gt side by side"),
    "degrade": ("degrade", "what a training set makes of its pictures: a page of examples, or pairs to validate on"),
    "example-data": ("example_data", "make a small paired data set from scikit-image's pictures"),
    "export": ("export", "a trained network for other programs: ONNX, TorchScript, safetensors, BasicSR"),
    "import": ("import_weights", "weights that other projects saved, as model files of srkit"),
    "import-options": ("import_options", "enhanced-srgan's hyper-parameters (JSON) as option files of its two phases"),
    "interpolate": ("interpolate", "networks between two trained ones, from PSNR to GAN"),
    "join": ("joining", "tiles put together again to pictures"),
    "list": ("listing", "what `type:` can name: archs, datasets, losses, metrics, recipes"),
    "lmdb": ("make_lmdb", "a folder of pictures as an LMDB folder, as BasicSR keeps it"),
    "meta": ("meta_info", "a list of the pictures in a folder, for meta_info_file"),
    "schema": ("schema", "write the JSON schema that editors use"),
    "slice": ("slicing", "cut pictures into tiles, lq and gt at once"),
    "split": ("split", "part pictures into train, val and test by group: slide, patient, person"),
    "thicken": ("thicken", "volumes as a scanner with thicker slices sees them, to try networks where the truth is known"),
}
"""Name on the command line -> module here, help."""


def main(argv: Sequence[str] | None = None) -> ExitCode:
    words = list(sys.argv[1:] if argv is None else argv)
    known = "\n".join(f"  {name:<16}{text}" for name, (_, text) in TOOLS.items())
    overview = argparse.ArgumentParser(
        prog="srkit",
        description="Small tools around training and testing; `srkit TOOL -h` explains one.",
        epilog=f"tools:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("tool", choices=TOOLS, metavar="TOOL")
    tool = overview.parse_args(words[:1]).tool
    module, text = TOOLS[tool]

    def work() -> ExitCode:
        code = importlib.import_module(f"srkit.tools.{module}")
        parser = argparse.ArgumentParser(prog=f"srkit {tool}", description=text)
        code.add_arguments(parser)
        return code.run(parser.parse_args(words[1:])) or ExitCode.OK

    return guarded(work)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
