"""One experiment's folder: made, locked, archived, described; how the last start ended stands in exit.json."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from srkit import __version__
from srkit.engine.checkpoint import free_space
from srkit.errors import ExitCode, InUseError, RefusedError, StorageError

logger = logging.getLogger("srkit")


class Experiment:
    """`experiments/NAME/` and what lies where in it."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = (root / name).resolve()
        self._lock: TextIO | None = None

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def training_states(self) -> Path:
        return self.folder / "training_states"

    @property
    def visualization(self) -> Path:
        return self.folder / "visualization"

    @property
    def tb_logger(self) -> Path:
        return self.folder / "tb_logger"

    @property
    def records(self) -> Path:
        return self.folder / "records.jsonl"

    def has_content(self) -> bool:
        return self.folder.is_dir() and any(p.name != ".lock" for p in self.folder.iterdir())

    def open(self, keep: bool) -> Path | None:
        """Makes and locks the folder. An existing one is archived under a new name unless `keep`.

        Returns: The archive's path, when one was made.
        Raises: InUseError naming the holder; RefusedError when the place cannot be written.
        """
        place = self.folder
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            archived = None
            if not keep and self.has_content():
                archived = archive(self.folder)
                self._release()
                self.folder.mkdir()
                self._take_lock()
            for folder in (self.models, self.training_states, self.visualization):
                folder.mkdir(exist_ok=True)
            for stray in self.models.glob(".tmp-*"):  # a killed start was writing it
                stray.unlink()
            for place in (self.models, self.training_states, self.folder):
                # A glob finds nothing where it may not look, and checkpoints would seem not to be there.
                list(place.iterdir())
                probe = place / ".probe"
                try:
                    with probe.open("w") as file:
                        file.write("x" * 4096)
                        file.flush()
                        os.fsync(file.fileno())
                finally:
                    probe.unlink(missing_ok=True)
            (self.folder / "exit.json").unlink(missing_ok=True)  # of the start before; a killed start has none
        except OSError as error:
            raise RefusedError(
                f"{place}: cannot be written or read ({error.strerror}); {free_space(self.folder)}; "
                "make room, set path.experiments_root to another place or change its permissions"
            ) from error
        return archived

    def _take_lock(self) -> None:
        file = (self.folder / ".lock").open("a+")
        try:
            # A record lock, not flock: loader workers inherit a flock and would hold it beyond this process's death.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise InUseError(
                f"{self.folder} is in use by {holder}; wait for it, stop it, or give this run another name"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        self._lock = file

    def _release(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def close(self) -> None:
        self._release()

    def write_start(self, options_yaml: str, source: Path) -> None:
        """Saves what is about to run: the option file as given, resolved options, command line, environment.

        Raises: StorageError when the disk refuses.
        """
        stamp = self._start_number()
        try:
            (self.folder / f"options{stamp}.yml").write_text(options_yaml)
            (self.folder / f"{source.stem}{stamp}{source.suffix}").write_bytes(source.read_bytes())
            (self.folder / f"command{stamp}.txt").write_text(shlex.join([sys.executable, *sys.argv]) + "\n")
            (self.folder / f"environment{stamp}.json").write_text(json.dumps(environment(), indent=1) + "\n")
        except OSError as error:
            raise StorageError(
                f"{error.filename or self.folder}: cannot be written ({error.strerror}); {free_space(self.folder)}; "
                "make room, then run again; nothing was trained"
            ) from error

    def _start_number(self) -> str:
        number = 1
        while (self.folder / f"options{'' if number == 1 else f'_{number}'}.yml").exists():
            number += 1
        return "" if number == 1 else f"_{number}"

    def write_exit(self, code: ExitCode, reason: str, iteration: int | None, checkpoint: str | None) -> None:
        """Says how this start ended, for job scripts (torchrun hides exit codes)."""
        content = {
            "code": int(code),
            "meaning": code.name.lower(),
            "reason": reason,
            "iteration": iteration,
            "checkpoint": checkpoint,
        }
        part = self.folder / ".exit.json.tmp"
        try:
            part.write_text(json.dumps(content, indent=1) + "\n")
            part.replace(self.folder / "exit.json")
        except OSError as error:  # the reason above is the one to report, not that it cannot be noted down
            logger.warning("%s/exit.json: cannot be written (%s)", self.folder, error.strerror)


def archive(folder: Path) -> Path:
    """Renames a folder to NAME_archived_TIME, as the family does; returns the new path. Raises OSError."""
    stem = f"{folder.name}_archived_{time.strftime('%Y%m%d_%H%M%S')}"
    number, path = 1, folder.with_name(stem)
    while path.exists():
        number, path = number + 1, folder.with_name(f"{stem}_{number}")
    return folder.rename(path)


def environment() -> dict[str, Any]:
    """Versions and machine, for the record; never the process's environment variables."""
    import numpy
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "srkit": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
        "cuda": torch.version.cuda if gpus else None,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "gpus": gpus,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
    }
