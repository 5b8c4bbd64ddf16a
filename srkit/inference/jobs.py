"""Which file becomes which: inputs found, outputs named, and everything refused that can be refused before work."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from srkit.engine.log import logger
from srkit.errors import DataError, RefusedError, StorageError
from srkit.inference.kinds import Kind
from srkit.inference.settings import FileSettings

_FIRST = 3


@dataclass(frozen=True)
class Job:
    """One input and its result."""

    source: Path
    out: Path
    kind: Kind


def require_inputs(inputs: Sequence[Path]) -> None:
    """Raises DataError for an input that is not there."""
    for path in inputs:
        if not path.exists():
            raise DataError(f"{path}: no such file or folder")


def find_jobs(files: FileSettings, kinds: Sequence[Kind], model: str, scale: Sequence[int]) -> list[Job]:
    """All of them, inputs sorted, results under their names.

    Raises: RefusedError for an output folder inside an input folder, two inputs of one result, a result that is an input;
        DataError for inputs of which nothing can be used.
    """
    single = files.inputs[0] if len(files.inputs) == 1 and files.inputs[0].is_file() else None
    to_file = single is not None and files.out.suffix != "" and not (files.out_is_folder or files.out.is_dir())
    if not to_file and files.out.exists() and not files.out.is_dir():
        raise RefusedError(f"-o {files.out}: is a file, expected a folder for the results")
    name = _Names(files, model, scale)
    jobs = []
    for path in files.inputs:
        if path.is_dir():
            _require_apart(files.out, path)
            jobs += [
                Job(found, files.out / found.relative_to(path).parent / name(found, kind), kind)
                for found, kind in _found(path, files.recursive, kinds)
            ]
        else:
            kind = _kind_of(path, kinds)
            jobs.append(Job(path, files.out if to_file else files.out / name(path, kind), kind))
    _require_different(jobs)
    if to_file:
        _require_named(files, jobs[0])
    for job in jobs:
        job.kind.require(job.source, job.out)
    return jobs


def pending(jobs: Sequence[Job], files: FileSettings) -> tuple[list[Job], list[Job]]:
    """Those still to be done, and those whose result is there. RefusedError for one file whose result is there."""
    if files.overwrite:
        return list(jobs), []
    todo: list[Job] = []
    done: list[Job] = []
    for job in jobs:
        (done if job.out.exists() else todo).append(job)
    if done and len(jobs) == 1 and files.inputs[0].is_file():
        raise RefusedError(f"{done[0].out} exists; --overwrite replaces it")
    return todo, done


def require_writable(folder: Path) -> None:
    """Makes the folder and tries it. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".srkit-{os.getpid()}.tmp"
        probe.write_bytes(b"srkit")
        probe.unlink()
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written ({error.strerror}); choose another -o") from error


class _Names:
    """File name of a result."""

    def __init__(self, files: FileSettings, model: str, scale: Sequence[int]) -> None:
        self._template = files.template or "{stem}" + files.suffix.replace("{", "{{").replace("}", "}}") + "{ext}"
        number = scale[:1] if len(set(scale)) == 1 else scale
        self._fields = {"model": model, "scale": "x".join(map(str, number))}

    def __call__(self, source: Path, kind: Kind) -> str:
        ext = kind.extension(source)
        name = self._template.format(stem=kind.stem(source), ext=ext, **self._fields)
        return name if name.endswith(ext) else name + ext


def _found(folder: Path, recursive: bool, kinds: Sequence[Kind]) -> Iterator[tuple[Path, Kind]]:
    """Files of a folder that one of the kinds takes, sorted; hidden ones are passed over, others with one line."""
    taken, others = [], []
    for path in _files(folder, recursive):
        kind = next((k for k in kinds if k.takes(path)), None)
        if kind is None:
            others.append(path)
        else:
            taken.append((path, kind))
    if not taken:
        where = f"{folder}{'' if recursive else ' itself (--recursive looks below)'}"
        found = f"; found {_listed(others)}" if others else ""
        raise DataError(f"no {_kinds(kinds)} in {where}{found}")
    if others:
        count = f"{len(others)} other file{' is' if len(others) == 1 else 's are'}"
        logger.info("%s: %s passed over: %s", folder, count, _listed(others))
    yield from taken


def _files(folder: Path, recursive: bool) -> Iterator[Path]:
    for place, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith(".")) if recursive else []
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _kind_of(path: Path, kinds: Sequence[Kind]) -> Kind:
    kind = next((k for k in kinds if k.takes(path)), None)
    if kind is None:
        raise DataError(f"{path}: '{path.suffix}' is no suffix of what this model enlarges: {_kinds(kinds)}")
    return kind


def _kinds(kinds: Sequence[Kind]) -> str:
    return " or ".join(f"{kind.name} ({', '.join(kind.suffixes)})" for kind in kinds)


def _listed(paths: Sequence[Path]) -> str:
    more = f", ... ({len(paths) - _FIRST} more)" if len(paths) > _FIRST else ""
    return ", ".join(path.name for path in paths[:_FIRST]) + more


def _require_apart(out: Path, folder: Path) -> None:
    if out.resolve() == folder.resolve() or folder.resolve() in out.resolve().parents:
        raise RefusedError(f"-o {out}: lies in the input folder {folder}, where the next start would find the results")


def _require_different(jobs: Sequence[Job]) -> None:
    first: dict[Path, Path] = {}
    sources = {job.source.resolve() for job in jobs}
    for job in jobs:
        out = job.out.resolve()
        other = first.setdefault(out, job.source)
        if other is not job.source:
            raise RefusedError(
                f"{other} and {job.source} would both become {job.out}; rename one, or restore them into different folders"
            )
        if out in sources:
            raise RefusedError(
                f"{job.out}: the result of {job.source} would replace an input; give another --suffix or -o"
            )


def _require_named(files: FileSettings, job: Job) -> None:
    """A result named by -o has no use for the other ways to name it."""
    if files.template or files.suffix != FileSettings.suffix:
        raise RefusedError(f"-o {files.out} names the result; leave --suffix and --template out, or name a folder")
    if not str(job.out).lower().endswith(job.kind.extensions):
        known = ", ".join(job.kind.extensions)
        raise RefusedError(
            f"-o {files.out}: no suffix of {job.kind.name} ({known}); a folder's name has no dot, or ends with /"
        )
