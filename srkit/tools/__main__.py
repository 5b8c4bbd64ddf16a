"""`srkit COMMAND ...` (or `python -m srkit.tools COMMAND ...`): every command there is, each in a module of its own."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from srkit.commands import guarded
from srkit.errors import ExitCode
from srkit.tools.catalog import TASKS, TOOLS


def main(argv: Sequence[str] | None = None) -> ExitCode:
    words = list(sys.argv[1:] if argv is None else argv)
    overview = argparse.ArgumentParser(
        prog="srkit",
        usage="srkit COMMAND ...",
        description="Super-resolution from option files. `srkit COMMAND -h` explains one command, with examples.",
        epilog=overview_text(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("command", choices=TOOLS, metavar="COMMAND", help="one of those below")
    name = overview.parse_args(words[:1]).command
    command = TOOLS[name]

    def work() -> ExitCode:
        code = importlib.import_module(command.module)
        if command.is_entry_point:
            result: ExitCode = code.main(words[1:])
            return result
        return code.run(parser_of(name).parse_args(words[1:])) or ExitCode.OK

    return guarded(work)


def overview_text() -> str:
    """All commands by task, a line each."""
    blocks = []
    for task, title in TASKS.items():
        lines = [f"  {name:<16}{command.text}" for name, command in TOOLS.items() if command.task == task]
        blocks.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join(blocks)


def parser_of(name: str) -> argparse.ArgumentParser:
    """The arguments of a tool; its help ends with examples."""
    command = TOOLS[name]
    parser = argparse.ArgumentParser(
        prog=f"srkit {name}",
        description=command.text[0].upper() + command.text[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  srkit {name} {words}".rstrip() for words in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    importlib.import_module(command.module).add_arguments(parser)
    return parser


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
