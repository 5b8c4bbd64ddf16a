"""What the entry points share: reading option files, and turning every end into a message and an exit code."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from srkit.errors import ExitCode, OptionError, SrkitError
from srkit.options import Options, load_options

Launcher = Literal["none", "pytorch", "slurm"]

_QUICK = "edsr/quickstart_edsr_x2.yml"
_MODEL = "experiments/quickstart_edsr_x2/models/net_g_latest.pth"
EXAMPLES: dict[str, tuple[str, ...]] = {
    "train": (
        f"-opt options/train/{_QUICK}",
        f"-opt options/train/{_QUICK} --auto_resume --time_limit 9m",
        f"-opt options/train/{_QUICK} --force_yml name=seed_1 manual_seed=1",
    ),
    "test": (
        f"-opt options/test/{_QUICK}",
        f"-opt options/test/{_QUICK} -m {_MODEL} natural-x2 --force_yml name=two_models",
    ),
    "infer": (
        "-m natural-x2 -i photo.png -o large.png",
        f"-m {_MODEL} -i datasets/quickstart/test/lq -o results/enlarged",
        "-m mri-x3 -i scans/ -o results/scans --recursive",
    ),
}
"""Calls of the entry points, without `srkit NAME` in front; they expect what the quick start makes."""


def examples(name: str) -> str:
    """What the help of an entry point ends with."""
    return "examples:\n" + "\n".join(f"  srkit {name} {words}" for words in EXAMPLES[name])


def forced(models: Sequence[str]) -> list[str]:
    """What `-m` means to an option file, which may leave open which model it is for: the first one's path stands in it."""
    return [f"path:pretrain_network_g={json.dumps(file)}" for file in models[:1]]


def load_all(
    files: Sequence[str],
    *,
    mode: Literal["train", "test"],
    force: Sequence[str],
    launcher: Launcher,
    debug: bool = False,
) -> list[Options]:
    """Reads all option files before anything runs. Raises OptionError with the mistakes of every file."""
    loaded, errors = [], []
    for file in files:
        try:
            loaded.append(load_options(file, mode=mode, force=force, debug=debug, launcher=launcher))
        except OptionError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise OptionError(f"{len(errors)} option files", [f"{e.source}: {p}" for e in errors for p in e.problems])
    return loaded


def guarded(work: Callable[[], ExitCode]) -> ExitCode:
    """Runs a command. Foreseen errors print one message; a bug prints its traceback; neither ends with 0."""
    _open_streams()
    try:
        return work()
    except SrkitError as error:
        kind = "stopped" if error.exit_code in _STOPS else "error"
        print(f"\nsrkit: {kind}: {error}", file=sys.stderr, flush=True)
        _tell_torchrun(f"srkit: {kind}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        print("\nsrkit: stopped by Ctrl-C", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:  # noqa: BLE001 - a bug: the traceback is the message, and the code must not be 0
        traceback.print_exc()
        _tell_torchrun(traceback.format_exc())
        print("\nsrkit: this is a bug; please report it with the lines above", file=sys.stderr, flush=True)
        return ExitCode.BUG


def _tell_torchrun(text: str) -> None:
    """Leaves the message where torchrun looks for it: it ends a failed start with a page of its own, which then holds this."""
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": text, "timestamp": int(time.time())}), encoding="utf-8")


def _open_streams() -> None:
    """Gives a process that was started with closed streams (`>&-`) ones that lead nowhere.

    Else the next file to be opened would get the number 1 or 2, and what is printed would be written into it.
    """
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", closefd=False))


_STOPS = {ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.HUNG_UP, ExitCode.REQUEUE, ExitCode.TIME_LIMIT}
