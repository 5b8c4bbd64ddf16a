"""The command from start to end: open the model, find the files, restore each, report once."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tqdm import tqdm

from srkit.commands import Launcher
from srkit.engine.distributed import Group, join_group
from srkit.engine.log import logger, start_console
from srkit.errors import ExitCode, PeerLostError, RefusedError, SrkitError, StorageError
from srkit.imaging.tiles import Tick
from srkit.inference.confidence import Confidence
from srkit.inference.jobs import Job, find_jobs, pending, require_inputs, require_writable
from srkit.inference.kinds import Kind
from srkit.inference.opening import open_model
from srkit.inference.pictures import Pictures
from srkit.inference.settings import (
    FileSettings,
    ModelSettings,
    PictureSettings,
    RunSettings,
    SlideSettings,
    VolumeSettings,
)
from srkit.inference.slides import Slides
from srkit.inference.upscaler import Upscaler, device_of
from srkit.inference.volumes import Volumes

_FULL = (errno.ENOSPC, errno.EDQUOT)
_PATIENCE_S = 7 * 24 * 3600.0  # ranks wait for the slowest; a dead one is the launcher's business


@dataclass
class Report:
    """What one process did."""

    done: int = 0
    millions: float = 0.0
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped: str = ""


def infer(
    model: ModelSettings,
    run: RunSettings,
    files: FileSettings,
    pictures: PictureSettings,
    slides: SlideSettings,
    volumes: VolumeSettings,
    launcher: Launcher,
) -> ExitCode:
    """Runs the command. Raises SrkitError for what is refused before work, and for a single file that fails."""
    require_inputs(files.inputs)
    group = _join(run.device, launcher)
    opened = open_model(model, group.device)
    upscaler = Upscaler(opened, run, group.device)
    confidence = None if run.confidence is None else Confidence(run.confidence, opened, run.precision)
    kinds = kinds_of(upscaler, pictures, slides, volumes, confidence)
    jobs = find_jobs(files, kinds, model.path.stem, opened.scale)
    _require_used(jobs, pictures, slides)
    if volumes.gt is not None and len(jobs) > 1:
        raise RefusedError(f"--gt {volumes.gt}: belongs to one volume, found {len(jobs)}")
    if volumes.gt is not None and not volumes.preview:
        raise RefusedError(f"--gt {volumes.gt}: shows in the preview; leave --no_preview out")
    todo, before = pending(jobs, files)
    if confidence is not None:
        _require_maps(confidence, jobs, before)
    if group.is_main:
        for folder in dict.fromkeys(job.out.parent for job in todo):
            require_writable(folder)
    shared = _agreed(group, [job for job in todo if _is_shared(job, group)])
    name = opened.info.arch if opened.info else type(opened.network).__name__
    logger.info("%s, weights '%s' of %s, on %s, %s", name, opened.key, opened.path, group.device, run.precision)
    started = time.monotonic()
    mine = shared + [job for job in todo if not _is_shared(job, group)][group.rank :: group.world_size]
    one = len(jobs) == 1 and files.inputs[0].is_file() and not group.is_distributed  # many have one report in any case
    reports = group.gather(_restore_one(mine) if one else _restore_each(mine, group))
    if group.is_main:
        _tell(reports, len(jobs), len(before), time.monotonic() - started, jobs[0].kind.unit)
    group.close()
    return _code(reports)


def kinds_of(
    upscaler: Upscaler,
    pictures: PictureSettings,
    slides: SlideSettings,
    volumes: VolumeSettings,
    confidence: Confidence | None = None,
) -> Sequence[Kind]:
    """What a network of that many axes enlarges. RefusedError for settings of another kind."""
    if len(upscaler.scale) == 3:
        _require_unset(pictures, "pictures")
        _require_unset(slides, "slides")
        return [Volumes(upscaler, volumes, confidence)]
    _require_unset(volumes, "volumes")
    return [Slides(upscaler, slides), Pictures(upscaler, pictures, confidence)]


def _require_maps(confidence: Confidence, jobs: Sequence[Job], before: Sequence[Job]) -> None:
    """RefusedError for slides, and for results that were made without a map."""
    if slides := [job.source for job in jobs if job.kind.name == "slides"]:
        raise RefusedError(
            f"--confidence: {slides[0]} is a whole slide, of which no map is made; give fields cut from it, as pictures"
        )
    for job in before:
        ending = ".nii.gz" if job.kind.name == "volumes" else ".tif"
        if not confidence.map_of(job.out, ending).exists():
            raise RefusedError(
                f"--confidence: {job.out} exists without a map; --overwrite makes both, or choose another -o"
            )


def _require_used(jobs: Sequence[Job], pictures: PictureSettings, slides: SlideSettings) -> None:
    """RefusedError for settings of pictures, or of slides, where the inputs are all of the other kind."""
    found = {job.kind.name for job in jobs}
    if found == {"pictures"}:
        # --quality is both kinds'
        _require_unset(replace(slides, quality=SlideSettings.quality), "slides", "none of the inputs is")
    elif found == {"slides"}:
        _require_unset(replace(pictures, quality=None), "pictures", "none of the inputs is")


def _require_unset(
    settings: PictureSettings | SlideSettings | VolumeSettings,
    kind: str,
    why: str = "which this model does not enlarge",
) -> None:
    default = type(settings)()
    given = [name for name, value in vars(settings).items() if value != getattr(default, name)]
    if given:
        flags = ", ".join("--" + _FLAGS.get(name, name) for name in given)
        raise RefusedError(f"{flags}: for {kind}, {why}; leave it out")


_FLAGS = {"spacing_mm": "spacing", "target_spacing_mm": "target_spacing", "preview": "no_preview"}


def _join(device: str, launcher: Launcher) -> Group:
    """This process among its peers, on the device that was asked for."""
    if launcher != "none" and ":" in device:
        raise RefusedError(f"--device {device}: with a launcher each process takes a GPU of its own; say cuda")
    device_of(device)  # refuses a GPU that is not there, before peers wait for each other
    group, note = join_group(launcher, 0 if device == "cpu" else "auto", backend=None, port=None, timeout_s=_PATIENCE_S)
    start_console(group.is_main)
    if note:
        logger.warning(note)
    return group if group.is_distributed else replace(group, device=device_of(device))


def _is_shared(job: Job, group: Group) -> bool:
    """Whether all ranks restore it together. A slide takes long enough for that; other files are dealt out."""
    return group.is_distributed and isinstance(job.kind, Slides)


def _agreed(group: Group, shared: list[Job]) -> list[Job]:
    """The files that ranks restore together; every rank has then looked for results before the first appears.

    Raises: RefusedError when the ranks found different ones, and so would wait for each other.
    """
    found = group.gather([str(job.source) for job in shared])
    for rank, names in enumerate(found):
        if odd := sorted(set(names) ^ set(found[0])):
            raise RefusedError(
                f"{odd[0]}: rank {'0' if odd[0] in found[0] else rank} is to restore it and rank "
                f"{rank if odd[0] in found[0] else '0'} is not, but all processes restore each slide together; start again "
                "when no file is being copied, with -i and -o that every machine sees alike"
            )
    return shared


def _restore(job: Job, tick: Tick, group: Group) -> int:
    if group.is_distributed and isinstance(job.kind, Slides):
        return job.kind.restore_together(job.source, job.out, tick, group)
    return job.kind.restore(job.source, job.out, tick)


def _restore_one(todo: Sequence[Job]) -> Report:
    """A single file: what goes wrong with it is the command's own error."""
    report = Report()
    with _Bar(len(todo), sys.stdout.isatty()) as bar:
        for job in todo:
            try:
                pixels = job.kind.restore(job.source, job.out, bar.tick)
            except RuntimeError as error:
                raise RefusedError(f"{job.source}: {_reason(job, error)}") from error
            report.done, report.millions = 1, pixels / 1e6
            logger.info("wrote %s", job.out)
    return report


def _restore_each(todo: Sequence[Job], group: Group) -> Report:
    """All of them; a bad one does not keep the others from being restored, a full disk does."""
    report = Report()
    with _Bar(len(todo), group.is_main and sys.stdout.isatty()) as bar:
        for job in todo:
            counts = group.is_main or not _is_shared(job, group)
            try:
                pixels = _restore(job, bar.tick, group)
                if counts:
                    report.done, report.millions = report.done + 1, report.millions + pixels / 1e6
            except PeerLostError:
                raise
            # torch raises RuntimeError for pictures that a network cannot take, such as one too small for its padding.
            except (SrkitError, RuntimeError) as error:
                if _disk_is_full(error):
                    report.stopped = str(error)
                    break
                if counts:
                    reason = _reason(job, error)
                    logger.warning("failed: %s: %s", job.source, reason)
                    report.failed.append((str(job.source), reason))
            bar.next()
    return report


def _reason(job: Job, error: Exception) -> str:
    """Why, without the name that a report puts before it."""
    text = str(error) if isinstance(error, SrkitError) else f"the network refused it ({str(error).splitlines()[0]})"
    return text.removeprefix(f"{job.source}: ")


def _disk_is_full(error: Exception) -> bool:
    cause = error.__cause__
    return isinstance(error, StorageError) and isinstance(cause, OSError) and cause.errno in _FULL


def _code(reports: Sequence[Report]) -> ExitCode:
    if any(report.stopped for report in reports):
        return ExitCode.STORAGE
    return ExitCode.INCOMPLETE if any(report.failed for report in reports) else ExitCode.OK


def _tell(reports: Sequence[Report], total: int, before: int, elapsed_s: float, unit: str) -> None:
    """The one report of all processes."""
    done, millions = sum(report.done for report in reports), sum(report.millions for report in reports)
    failed = sorted(line for report in reports for line in report.failed)
    stopped = next((report.stopped for report in reports if report.stopped), "")
    left = total - before - done - len(failed)
    parts = [f"{done} done", f"{before} skipped as done before", f"{len(failed)} failed", f"{left} left undone"]
    shown = [part for part in parts if not part.startswith("0 ") or part == "0 done"]
    logger.info(
        "%d file%s: %s; %.1f mega%s in %.1f s (%.2f mega%s/s)",
        total, "s" * (total != 1), ", ".join(shown), millions, unit, elapsed_s, millions / max(elapsed_s, 1e-9), unit,
    )  # fmt: skip
    if failed:
        lines = "".join(f"\n  - {source}: {reason}" for source, reason in failed)
        print(f"\nsrkit: {len(failed)} of {total} inputs failed:{lines}", file=sys.stderr, flush=True)
    if stopped:
        text = f"{stopped}; make room and start again: what is done is skipped"
        print(f"\nsrkit: error: {text}", file=sys.stderr, flush=True)


class _Bar:
    """Files, and how far the current one is; nothing off a terminal."""

    def __init__(self, count: int, shown: bool) -> None:
        self._bar = tqdm(total=count, unit="file", dynamic_ncols=True, disable=not shown, bar_format=_FORMAT)
        self._whole = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def tick(self, done: int, total: int) -> None:
        self._bar.update(self._whole + done / total - self._bar.n)

    def next(self) -> None:
        self._whole += 1
        self.tick(0, 1)


_FORMAT = "{percentage:3.0f}%|{bar}| {n:.2f} of {total_fmt} files [{elapsed} gone, {remaining} to go]"
