"""Finding the checkpoint to go on from, and refusing to go on as something else."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srkit.engine.basicsr_state import read_basicsr_state
from srkit.engine.checkpoint import CheckpointStore, Snapshot, find_damage, read_checkpoint
from srkit.engine.distributed import Group
from srkit.engine.experiment import Experiment
from srkit.errors import DataError, RefusedError, SrkitError, WeightsError

logger = logging.getLogger("srkit")
_BASICSR = ".state"  # suffix of BasicSR's training states


@dataclass(frozen=True)
class Resume:
    """Where a run goes on.

    Args:
        is_named: By `path.resume_state`; else the run's own newest checkpoint was found.
    """

    source: Path
    snapshot: Snapshot
    is_named: bool


def find_resume(experiment: Experiment, resume_state: str | None, auto: bool, group: Group) -> Resume | None:
    """With `auto` the newest valid checkpoint, else the one named by `path.resume_state`, else None: a fresh start.

    In this order, as in the family: the command that a stopped run is to be continued with is the one that started it.
    Checkpoints of the experiment that are newer than the found one are set aside; they belong to a branch given up.

    Rank 0 looks (and sets damaged folders aside); all ranks then read the same one.

    Raises: WeightsError when the named one is neither a checkpoint nor a training state of BasicSR; RefusedError when there are checkpoints but none is valid.
    """
    found: Path | None = None
    is_named = False
    problem: SrkitError | None = None
    if group.is_main:
        try:
            found = _newest(experiment) if auto else None
            is_named = found is None and bool(resume_state)
            if found is None and resume_state:
                found = _named(Path(resume_state))
            if found:
                CheckpointStore(experiment.training_states).set_aside_after(found)
        except SrkitError as error:
            problem = error
    found, is_named, text = group.gather((found, is_named, str(problem) if problem else None))[0]
    if text is not None:
        raise problem or RefusedError(text)
    if found is None:
        return None
    snapshot = read_basicsr_state(found) if found.suffix == _BASICSR else read_checkpoint(found)
    return Resume(found, snapshot, is_named)


def _newest(experiment: Experiment) -> Path | None:
    store = CheckpointStore(experiment.training_states)
    store.remove_strays()
    found, notes = store.newest_valid()
    for note in notes:
        logger.warning(note)
    damaged = sorted(p.name for p in experiment.training_states.glob("iter_*"))  # set aside, for whatever reason
    if found is None and damaged:
        raise RefusedError(
            f"{experiment.training_states}: no checkpoint is whole ({', '.join(damaged)}); starting from zero would throw "
            "the run away in silence. Use --restart to begin anew (this experiment is kept under another name); to go on from "
            "one that was set aside and is whole, rename it to iter_N"
        )
    return found


def _named(path: Path) -> Path:
    path = path.expanduser().resolve()
    if path.suffix == _BASICSR:
        if path.is_file():
            return path
        path = path.with_name(f"iter_{path.stem}")  # what BasicSR calls N.state lies here under this name
    if path.is_file():
        raise WeightsError(
            f"path.resume_state: {path} is a file, and a training state is a folder training_states/iter_N. "
            "A model file belongs under path.pretrain_network_g; to go on from the newest state use --auto_resume"
        )
    problem = find_damage(path) if path.is_dir() else "no such folder"
    if problem:
        raise WeightsError(f"path.resume_state: {path}: {problem}")
    return path


def check_same_run(resume: Resume, meta: Mapping[str, Any], accept_data_change: bool) -> None:
    """Compares what is about to run with what was saved.

    Raises: RefusedError for another network, seed, scale or normalisation; DataError for other training files.
    Changes that leave the run itself (rates, lengths, logging, machine) are logged.
    """
    saved = resume.snapshot.meta
    if not saved:
        logger.warning(
            "%s is BasicSR's: weights, averages and optimizer states go on, but not bit for bit, because it keeps neither "
            "random states nor the place in the data",
            resume.source,
        )
        return
    differences = _differences(saved["identity"], meta["identity"])
    if differences:
        raise RefusedError(
            f"{resume.source} is of another run:\n"
            + "\n".join(f"  - {d}" for d in differences)
            + "\n  change the option file back, or give this run a name of its own"
        )
    if saved["data"] != meta["data"]:
        if not accept_data_change:
            raise DataError(
                f"{resume.source}: the training files (names or sizes) changed since it was saved, so sample order and "
                "results would differ; restore them, or pass --accept_data_change"
            )
        logger.warning("the training files changed since %s was saved; going on as told", resume.source)
    for difference in _differences(_flat(saved["options"]), _flat(meta["options"])):
        logger.info("option changed since the checkpoint: %s", difference)
    for difference in _differences(saved["machine"], meta["machine"]):
        logger.warning("not bit-identical to an uninterrupted run: %s", difference)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {
            k: v for key, item in value.items() for k, v in _flat(item, f"{path}.{key}" if path else str(key)).items()
        }
    return {path: value}


def _differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    keys = sorted({*saved, *now})
    return [f"{k}: {saved.get(k)!r} in the checkpoint, {now.get(k)!r} now" for k in keys if saved.get(k) != now.get(k)]
