"""A training from start to end: check everything, open the experiment, resume or begin, run, say how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from srkit import build
from srkit.assemble import Parts, assemble, build_parts, choose_kernels, load_pretrained, manifest_meta
from srkit.engine.checkpoint import CheckpointStore
from srkit.engine.distributed import Group, join_group
from srkit.engine.experiment import Experiment
from srkit.engine.log import logger, start_console, start_log_file, timestamp
from srkit.engine.memory import is_out_of_memory
from srkit.engine.resuming import Resume, check_same_run, find_resume
from srkit.engine.seeding import seed_everything
from srkit.engine.stopping import StopRequest, parse_duration
from srkit.engine.trainer import Trainer
from srkit.errors import (
    DivergedError,
    ExitCode,
    LoadingError,
    OutOfMemoryError,
    PeerLostError,
    RefusedError,
    SrkitError,
    Stopped,
)
from srkit.options import Options


@dataclass(frozen=True)
class TrainFlags:
    """The command line of a training, without its option files."""

    auto_resume: bool = False
    restart: bool = False
    accept_data_change: bool = False
    time_limit: str | None = None
    debug: bool = False
    launcher: Literal["none", "pytorch", "slurm"] = "none"
    started: float | None = None


def train_phases(phases: Sequence[Options], flags: TrainFlags) -> ExitCode:
    """Runs option files in order; each is an experiment of its own. Raises SrkitError."""
    stop = StopRequest(parse_duration(flags.time_limit) if flags.time_limit else None, flags.started)
    dist = phases[0].dist_params
    group, note = join_group(
        flags.launcher,
        phases[0].num_gpu,
        backend=dist.backend,
        port=dist.port,
        timeout_s=dist.timeout_s,
        join_timeout_s=dist.join_timeout_s,
    )
    start_console(group.is_main, flags.debug)
    stop.install()
    if note:
        logger.warning(note)
    rehearse(phases, group, goes_on=flags.auto_resume and not flags.restart)
    for options in phases:
        train_phase(options, flags, group, stop)
    group.close()
    return ExitCode.OK


def rehearse(phases: Sequence[Options], group: Group, *, goes_on: bool = False) -> None:
    """Builds the later phases before the first one trains, so that what they lack is said tonight and not tomorrow.

    A pretrained file that an earlier phase will write need not exist yet, but its network must fit. A phase that `goes_on`
    from a checkpoint needs none.

    Raises: RefusedError when two phases share a name, and what building raises.
    """
    promised: dict[Path, nn.Module] = {}
    folders: set[Path] = set()
    for number, options in enumerate(phases):
        root = build.absolute(options.path.experiments_root)
        assert root is not None
        models = root / options.name / "models"
        if models in folders:
            raise RefusedError(
                f"two option files are named '{options.name}'; each phase needs an experiment of its own"
            )
        folders.add(models)
        if number:
            parts = build_parts(options, group)
            if not (goes_on and CheckpointStore(models.parent / "training_states").folders()):
                load_pretrained(parts, promised=promised)
        if options is not phases[-1]:
            for name, part in options.networks.items():
                network = build.build_network(part.type, part.options, options.scale)
                promised |= dict.fromkeys(model_files(options, models, name), network)


def model_files(options: Options, models: Path, name: str) -> list[Path]:
    """The files of the network of that option name which a training leaves in the folder `models`."""
    assert options.train is not None
    total, short = options.train.total_iter, name.replace("network_", "net_")
    saves = range(0, total, options.logger.save_checkpoint_freq)[1:]
    is_validated = any(phase.startswith(("val", "test")) for phase in options.datasets)
    best = ["best"] if name == "network_g" and is_validated else []
    return [models / f"{short}_{label}.pth" for label in (*saves, total, "latest", *best)]


def train_phase(options: Options, flags: TrainFlags, group: Group, stop: StopRequest) -> None:
    """One option file. Raises SrkitError; exit.json in the experiment then says the same."""
    for warning in options.warnings if group.is_main else ():
        logger.warning(warning)
    parts = build_parts(options, group)
    seed_everything(options.manual_seed, group.rank)  # building drew the same initial weights on every rank
    choose_kernels(parts)
    root = build.absolute(options.path.experiments_root)
    assert root is not None
    experiment = Experiment(root, options.name)
    keep = (flags.auto_resume or options.path.resume_state is not None) and not flags.restart
    if not keep:
        load_pretrained(parts)  # refused now, before an experiment is archived
    archived = experiment.open(keep) if group.is_main else None
    iteration: int | None = None
    try:
        group.barrier()
        if group.is_main:
            start_log_file(experiment.folder / f"train_{timestamp()}.log")
        if archived:
            logger.info("the experiment of that name was kept as %s", archived)
        resume = find_resume(experiment, options.path.resume_state, flags.auto_resume and keep, group)
        meta = manifest_meta(parts, group)
        if resume:
            check_same_run(resume, meta, flags.accept_data_change)
            iteration = resume.snapshot.iteration
        # Of a checkpoint that was named, once: what this run then makes of these networks is its own.
        ignored = options.path.ignore_resume_networks if resume and resume.is_named else ()
        if keep and resume is None:
            load_pretrained(parts)
        elif ignored:
            load_pretrained(parts, only=ignored)
        if group.is_main:
            experiment.write_start(options.to_yaml(), Path(options.source))
        if hasattr(parts.dataset, "prepare"):
            parts.dataset.prepare(progress=group.is_main)
        trainer = assemble(parts, group, stop, experiment, meta, resume.snapshot if resume else None, ignored)
        try:
            if trainer.is_finished():
                logger.info("%s is finished (iteration %s); nothing to do", options.name, f"{trainer.iteration:,}")
            else:
                announce(parts, trainer, experiment, resume)
                trainer.saver.require_room(trainer)
                run(trainer, options.datasets["train"].options.get("gt_size"), options.scale)
                logger.info(
                    "%s is finished (iteration %s); networks in %s",
                    options.name,
                    f"{trainer.iteration:,}",
                    experiment.models,
                )
        finally:
            iteration = trainer.iteration
            trainer.close()
            trainer.log.close()
        if group.is_main:
            experiment.write_exit(ExitCode.OK, "finished", iteration, newest(experiment))
    except BaseException as error:
        if group.is_main:
            code = error.exit_code if isinstance(error, SrkitError) else ExitCode.BUG
            experiment.write_exit(code, str(error) or type(error).__name__, iteration, newest(experiment))
        raise
    finally:
        experiment.close()


def run(trainer: Trainer, gt_size: int | Sequence[int] | None, scale: Sequence[int]) -> None:
    """Runs to the end. What breaks on the way still saves the last whole iteration, when it can."""
    try:
        trainer.run()
    except (Stopped, DivergedError, PeerLostError):
        raise
    except SrkitError as error:
        emergency_save(trainer)
        if (
            isinstance(error, LoadingError)
            and trainer.stop.is_overdue()
            and trainer.iteration in (0, trainer.saver.saved_at)  # before the first there is nothing to save
        ):
            logger.warning("%s", error)
            raise trainer.stopped() from error
        raise
    except Exception as error:
        if is_out_of_memory(error):
            emergency_save(trainer)
            raise OutOfMemoryError(
                f"out of memory at iteration {trainer.iteration:,}; {less_memory(trainer, gt_size, scale)}; then run again "
                "with --auto_resume"
            ) from error
        if trainer.group.is_distributed and ("gloo" in str(error) or isinstance(error, torch.distributed.DistError)):
            raise PeerLostError(
                f"a process of the group died or stopped answering at iteration {trainer.iteration:,}; start all of them "
                "again with --auto_resume"
            ) from error
        emergency_save(trainer)
        raise


def less_memory(trainer: Trainer, gt_size: int | Sequence[int] | None, scale: Sequence[int]) -> str:
    """What to set, in numbers: a part of the batch at a time, and when it is one sample already a smaller patch."""
    batch = trainer.samples_per_iteration // (trainer.accum_iter * trainer.group.world_size)
    if batch > 1:
        parts = next(n for n in range(2, batch + 1) if batch % n == 0)
        return (
            f"set datasets.train.batch_size_per_gpu to {batch // parts} (now {batch}) with train.accum_iter "
            f"{trainer.accum_iter * parts} (same batch in all), or lower gt_size"
        )
    if gt_size is None:
        return "the batch is one whole picture: set datasets.train.gt_size, so that it is trained on crops"
    sizes = [gt_size] * len(scale) if isinstance(gt_size, int) else list(gt_size)
    halves = [max(s, size // 2 // s * s) for size, s in zip(sizes, scale, strict=True)]
    smaller = halves[0] if isinstance(gt_size, int) else halves
    return f"the batch is one sample already: set datasets.train.gt_size to {smaller} (now {gt_size})"


def emergency_save(trainer: Trainer) -> None:
    """Saves the last whole iteration unless it is saved already, is half-updated, or peers would have to help."""
    if trainer.in_update or trainer.group.is_distributed or trainer.iteration in (0, trainer.saver.saved_at):
        return
    try:
        trainer.saver.save(trainer, required=True)
        logger.warning("iteration %s was saved before giving up", f"{trainer.iteration:,}")
    except (SrkitError, RuntimeError, MemoryError, OSError) as error:  # what brought us here is the one to report
        logger.warning("the last iteration could not be saved: %s", error)


def newest(experiment: Experiment) -> str | None:
    folders = CheckpointStore(experiment.training_states).folders()
    return str(folders[0]) if folders else None


def announce(parts: Parts, trainer: Trainer, experiment: Experiment, resume: Resume | None) -> None:
    """One screen that says what will run, on what, for how long, and where things go."""
    train, item, group = parts.train, parts.options.datasets["train"], trainer.group
    networks = ", ".join(
        f"{name} {type(net).__name__} ({build.parameter_count(net):,} parameters)"
        for name, net in trainer.networks.items()
    )
    per_epoch = trainer.epoch_length / trainer.samples_per_iteration
    device = (
        torch.cuda.get_device_name(group.device)
        if group.device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    where = f"{group.world_size} processes on {group.machines} machine(s), each " if group.is_distributed else ""
    seed = parts.options.manual_seed
    begin = f"from iteration {resume.snapshot.iteration:,} ({resume.source})" if resume else "from zero"
    sets = ", ".join(f"{s.name} ({len(s.dataset)})" for s in parts.eval_sets)
    schedule = f"every {trainer.validation.freq:,} iterations, weights {trainer.validation.weights}"
    reads_back = any(step.reads_back for step in trainer.optimizers.values())
    lines = [
        f"{parts.options.name}: {parts.options.model_type}, scale {'x'.join(map(str, parts.options.scale))}, {begin}",
        f"  network     {networks}",
        f"  data        {build.describe_dataset(parts.dataset)}",
        f"  batch       {item.batch_size_per_gpu} x {group.world_size} process(es) x {trainer.accum_iter} accumulated "
        f"= {trainer.samples_per_iteration} samples an iteration",
        f"  length      {train.total_iter:,} iterations = {train.total_iter / per_epoch:,.1f} epochs of {per_epoch:,.1f} iterations",
        f"  optimizer   {', '.join(f'{item.type}, lr {item.lr:g}' for item in train.optimizers().values())}"
        + (", as written: not multiplied by the number of processes" if group.is_distributed else "")
        + (", checks each step for non-finite gradients on the host" if reads_back else ""),
        f"  seed        {seed} for first weights, order and crops"
        + (f"; {seed} to {seed + group.world_size - 1}, by rank, for dropout" if group.is_distributed else ""),
        f"  runs on     {where}{device}, {trainer.precision.told}{f', compiled ({train.compile}) in the first iterations' if train.compile else ''}"
        + (", iterations as CUDA graphs" if train.cuda_graph else ""),
        f"  validation  {f'{sets}, {schedule}' if sets else 'none'}",
        f"  everything goes to {experiment.folder}",
    ]
    logger.info("\n".join(lines))
