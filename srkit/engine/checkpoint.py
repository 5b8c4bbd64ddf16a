"""Checkpoints that survive a kill at any moment: a folder per iteration, a manifest written last, one atomic rename."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import torch

from srkit.disk import free_disk_bytes
from srkit.engine.faults import fault
from srkit.errors import StorageError, WeightsError

FORMAT = 1
logger = logging.getLogger("srkit")
_ZIP = b"PK\x03\x04"  # by which torch, too, tells its files from those of the old kind
_PICKLE = b"\x80"  # first byte of protocol 2 and later; torch wrote 2
_FOLDER = re.compile(r"iter_(\d+)$")


def load_tensors(path: Path) -> Any:
    """The only place that unpickles: tensors and plain values, on the CPU, never code.

    Raises: WeightsError naming the file when it is missing, damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder, expected a .pth file") from None
    except Exception as error:  # torch raises RuntimeError, EOFError, UnpicklingError, ... for bad files
        text = str(error) or type(error).__name__
        if not _could_be_torch(path):
            raise WeightsError(f"{path}: damaged or not a PyTorch file (it begins as none does)") from error
        if "Unsupported" in text or "weights_only" in text or "WeightsUnpickler" in text:
            raise WeightsError(
                f"{path}: holds more than tensors and plain values, so loading it could run code; refused. "
                "Ask its author for a file with a state dict only"
            ) from error
        raise WeightsError(f"{path}: damaged or not a PyTorch file ({text.splitlines()[0][:160]})") from error


def _could_be_torch(path: Path) -> bool:
    """Whether a file begins as torch writes: a zip archive, or before 1.6 a pickle."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return True  # the loader's own reason is the better one
    return not start or start == _ZIP or start[:1] == _PICKLE


def require_whole(path: Path) -> None:
    """Compares each part of a zip archive, as torch writes them, with its checksum: torch itself reads flipped bits as weights.

    Raises: WeightsError naming the file. Files that are no zip archives, as torch wrote before 1.6, have no checksums.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != _ZIP:
                return
    except OSError:
        return  # the loader says what is wrong with it
    try:
        with ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile has a type for each kind of damage
        raise WeightsError(f"{path}: damaged ({error or type(error).__name__})") from error
    if damaged is not None:
        raise WeightsError(
            f"{path}: damaged: '{damaged}' in it differs from its checksum; use another copy of the file"
        )


class _HashingFile:
    """Write-only file that hashes and counts what passes; keeps the first OSError, where torch's zip writer would not."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self._file.flush()


def _write(path: Path, dump: Any) -> dict[str, Any]:
    """Writes and fsyncs one file; returns its manifest entry."""
    with path.open("wb") as raw:
        out = _HashingFile(raw)
        if isinstance(dump, bytes):
            out.write(dump)
        else:
            # A write-only object is all that torch's zip writer needs. It ends its archive after a refused write, too, and
            # then complains of a wrong position (RuntimeError) instead of the disk.
            try:
                torch.save(dump, out)  # type: ignore[arg-type]
            except RuntimeError:
                if out.error is None:
                    raise
            if out.error is not None:
                raise out.error
        raw.flush()
        os.fsync(raw.fileno())
    return {"size": out.size, "sha256": out.sha256.hexdigest()}


def fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, dump: Any) -> None:
    """Writes tensors (or bytes) so that `path` holds the old or the new content, never a part.

    Raises: StorageError with path and reason.
    """
    part = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(part, dump)
        part.replace(path)
        fsync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):  # where there is no folder there is no part of a file either
            part.unlink()
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}); {free_space(path, tensor_bytes(dump))}"
        ) from error


def free_space(path: Path, needed: int = 0) -> str:
    """What is free where `path` lies, in words; beside it what is `needed`, in bytes."""
    free = f"{megabytes(free_disk_bytes(path))} free on that disk"
    return f"{free}, about {megabytes(needed)} needed" if needed >= 2**20 else free


def megabytes(count: float) -> str:
    return f"{count / 2**20:,.0f} MB" if count >= 10 * 2**20 else f"{count / 2**20:.1f} MB"


def tensor_bytes(value: Any) -> int:
    """What the tensors in dictionaries and lists take in a file."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


@dataclass
class Snapshot:
    """Everything a run needs to continue, on the CPU; taking it is separate from writing it."""

    iteration: int
    networks: dict[str, dict[str, torch.Tensor]]
    training: dict[str, Any]
    random: list[dict[str, Any]]
    meta: dict[str, Any] = field(default_factory=dict)


class CheckpointStore:
    """The `training_states/` folder of one experiment.

    Args:
        folder: Where the `iter_N` folders live; made when missing.
        keep_last: Newest checkpoints kept.
        keep_every: Iterations whose multiples are kept for ever, or None.
    """

    def __init__(self, folder: Path, keep_last: int = 3, keep_every: int | None = None) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.keep_every = keep_every

    def save(self, snapshot: Snapshot, best_iteration: int | None = None) -> Path:
        """Commits a snapshot and prunes old ones. Raises StorageError; older checkpoints stay whole."""
        final = self.folder / f"iter_{snapshot.iteration}"
        part = self.folder / f".tmp-{final.name}-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if part.exists():
                shutil.rmtree(part)
            part.mkdir()
            files = {"networks.pt": _write(part / "networks.pt", snapshot.networks)}
            fault("save.after_networks")
            files["training.pt"] = _write(part / "training.pt", snapshot.training)
            for rank, states in enumerate(snapshot.random):
                files[f"rng_rank{rank}.pt"] = _write(part / f"rng_rank{rank}.pt", states)
            fault("save.before_manifest")
            manifest = {"format": FORMAT, "iteration": snapshot.iteration, "files": files, **snapshot.meta}
            _write(part / "manifest.json", _seal(manifest))
            fsync_folder(part)
            fault("save.before_rename")
            if final.exists():
                self._set_aside(final, "replaced")
                fault("save.between_renames")
            part.rename(final)
            fsync_folder(self.folder)
            fault("save.after_rename")
            write_atomically(self.folder / "latest.json", json.dumps({"checkpoint": final.name}).encode())
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise StorageError(
                f"checkpoint {final} could not be written ({error.strerror or error}); "
                f"{free_space(self.folder, tensor_bytes([snapshot.networks, snapshot.training]))}; "
                "older checkpoints are untouched"
            ) from error
        fault("save.before_prune")
        self._prune(best_iteration)
        return final

    def folders(self) -> list[Path]:
        """Committed checkpoint folders, newest iteration first."""
        found = [p for p in self.folder.glob("iter_*") if _FOLDER.match(p.name) and p.is_dir()]
        return sorted(found, key=lambda p: -int(_FOLDER.match(p.name)[1]))  # type: ignore[index]

    def newest_valid(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint whose manifest and hashes hold, and one line for each that was set aside.

        Damaged folders are renamed `*.corrupt`, never deleted.
        """
        notes: list[str] = []
        for folder in self.folders():
            problem = find_damage(folder)
            if problem is None:
                return folder, notes
            aside = self._set_aside(folder, "corrupt")
            notes.append(f"{problem}; the checkpoint was set aside as {aside}")
        return None, notes

    def set_aside_after(self, found: Path) -> None:
        """Renames folders of later iterations than `found`, one of this store, to `*.superseded`."""
        if found.parent == self.folder:
            for folder in self.folders():
                if folder == found:
                    return
                self._set_aside(folder, "superseded")

    def remove_strays(self) -> None:
        """Unfinished saves of processes that died. Call only while holding the experiment's lock."""
        for stray in self.folder.glob(".tmp-*"):
            shutil.rmtree(stray) if stray.is_dir() and not stray.is_symlink() else stray.unlink()

    def _set_aside(self, folder: Path, why: str) -> Path:
        number = 0
        while (aside := folder.with_name(f"{folder.name}.{why}" + (f"-{number}" if number else ""))).exists():
            number += 1
        return folder.rename(aside)

    def _prune(self, best_iteration: int | None) -> None:
        """Removes what is no longer kept. A folder that cannot be removed stays: the new checkpoint is written already."""
        for folder in self.folders()[self.keep_last :]:
            iteration = int(_FOLDER.match(folder.name)[1])  # type: ignore[index]
            if iteration == best_iteration or (self.keep_every and iteration % self.keep_every == 0):
                continue
            if folder.is_symlink():
                continue
            # Renamed first: a kill half-way must not leave a folder that looks like a damaged checkpoint.
            try:
                doomed = folder.rename(folder.with_name(f".tmp-{folder.name}-pruned-{os.getpid()}"))
                fault("save.in_prune")
            except OSError as error:
                logger.warning("%s: cannot be removed (%s); it stays there", folder, error.strerror or error)
                continue
            shutil.rmtree(doomed, ignore_errors=True)


_NO_SEAL = "0" * 64


def _seal(manifest: Mapping[str, Any]) -> bytes:
    """JSON whose `sha256` is that of the same bytes with zeros in its place."""
    text = json.dumps({"sha256": _NO_SEAL, **manifest}, indent=1)
    return text.replace(_NO_SEAL, hashlib.sha256(text.encode()).hexdigest(), 1).encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    """Raises OSError, ValueError or KeyError unless every byte is as written."""
    data = path.read_bytes()
    manifest: dict[str, Any] = json.loads(data)
    seal = manifest.pop("sha256")
    if hashlib.sha256(data.replace(seal.encode(), _NO_SEAL.encode(), 1)).hexdigest() != seal:
        raise ValueError("content differs from its checksum")
    return manifest


def find_damage(folder: Path) -> str | None:
    """None when the folder is a whole checkpoint, else what is wrong and with which file."""
    path = folder / "manifest.json"
    try:
        manifest = _read_manifest(path)
        files: Mapping[str, Any] = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"{path}: format {manifest['format']}, this srkit reads {FORMAT}"
        if f"iter_{manifest['iteration']}" != folder.name.split(".")[0]:
            return f"{path}: is of iteration {manifest['iteration']}, found in {folder.name}"
        if not {"networks.pt", "training.pt", "rng_rank0.pt"} <= files.keys():
            return f"{path}: does not list the files of a checkpoint, found {', '.join(files) or 'none'}"
        expected = {folder / name: (int(entry["size"]), str(entry["sha256"])) for name, entry in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{path}: missing or unreadable ({error})"
    for file, (size, digest) in expected.items():
        try:
            with file.open("rb") as opened:
                if (found := os.fstat(opened.fileno()).st_size) != size:
                    return f"{file}: {found} bytes, {size} were written"
                if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                    return f"{file}: content differs from its checksum"
        except OSError as error:
            return f"{file}: cannot be read ({error.strerror})"
    return None


def read_checkpoint(folder: Path) -> Snapshot:
    """Loads a checkpoint folder that was found whole. Raises WeightsError naming the damage."""
    problem = find_damage(folder)
    if problem:
        raise WeightsError(problem)
    manifest = _read_manifest(folder / "manifest.json")
    ranks = sum(name.startswith("rng_rank") for name in manifest["files"])
    return Snapshot(
        iteration=manifest["iteration"],
        networks=load_tensors(folder / "networks.pt"),
        training=load_tensors(folder / "training.pt"),
        random=[load_tensors(folder / f"rng_rank{rank}.pt") for rank in range(ranks)],
        meta={k: v for k, v in manifest.items() if k not in ("format", "iteration", "files")},
    )
