"""A test from start to end: rebuild the network from its file, measure, write results, print the table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from srkit import build
from srkit.engine.distributed import Group, join_group
from srkit.engine.evaluator import EvalSet, Evaluator, SetResult
from srkit.engine.experiment import archive, environment
from srkit.engine.log import logger, start_console, start_log_file, timestamp
from srkit.engine.model_file import ModelFile, read_model
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.results import table_md, write_results
from srkit.engine.transfer import Normalization
from srkit.errors import ExitCode, OptionError, RefusedError, StorageError
from srkit.options import Options
from srkit.rebuild import rebuilt, require_known_arch


def test_phases(phases: Sequence[Options], launcher: Literal["none", "pytorch", "slurm"]) -> ExitCode:
    """Runs test option files in order. Raises SrkitError."""
    dist = phases[0].dist_params
    group, note = join_group(
        launcher, phases[0].num_gpu, backend=dist.backend, port=dist.port, timeout_s=dist.timeout_s
    )
    start_console(group.is_main)
    if note:
        logger.warning(note)
    for options in phases:
        test_phase(options, group)
    group.close()
    return ExitCode.OK


def test_phase(options: Options, group: Group) -> list[SetResult]:
    """One option file: every val*/test* set, with interpolation rows."""
    for warning in options.warnings:
        logger.warning(warning)
    model, sets, restorer = load_for_test(options, group)
    root = build.absolute(options.path.results_root)
    assert root is not None
    folder = root / options.name
    if group.is_main:
        open_results(folder, options.name)
    group.barrier()  # nobody writes pictures into a folder that is about to be renamed
    logger.info("%s: weights '%s' of %s, on %s", options.name, model.key, model.path, group.device)
    evaluator = Evaluator(sets, group, progress=options.val.pbar)
    results = []
    for item in sets:
        logger.info("testing %s: %s", item.name, build.describe_dataset(item.dataset))
        results.append(evaluator.evaluate(item, restorer, options.name, _namer(options, folder, item)))
    if group.is_main:
        write_results(folder, results, _about(options, model), options.name)
        logger.info("results in %s\n%s", folder, table_md(results, options.name))
    return results


def load_for_test(options: Options, group: Group) -> tuple[ModelFile, list[EvalSet], Restorer]:
    """Everything a test needs, checked. Raises SrkitError."""
    path = build.absolute(options.path.pretrain_network_g)
    if path is None:
        raise OptionError(str(options.source), ["path.pretrain_network_g: missing; name the model file to test"])
    model = read_model(path, options.path.param_key_g)
    restorer = build_restorer(options, model, group)
    return model, build.build_eval_sets(options, model.info.read_as() if model.info else None), restorer


def open_results(folder: Path, name: str) -> None:
    """Makes the folder and begins its log. Earlier results keep another name: pictures of two models never mix."""
    try:
        archived = archive(folder) if folder.is_dir() and any(folder.iterdir()) else None
        start_log_file(folder / f"test_{name}_{timestamp()}.log")
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror}); set path.results_root to another place"
        ) from error
    if archived:
        logger.info("earlier results of that name were kept as %s", archived)


def _namer(options: Options, folder: Path, item: EvalSet) -> Any:
    if not options.val.save_img:
        return None
    suffix = f"_{options.val.suffix}" if options.val.suffix else ""
    return lambda name: folder / "visualization" / item.name / f"{name}{suffix}"


def build_restorer(options: Options, model: ModelFile, group: Group) -> Restorer:
    """The network of a model file, with its weights. Raises RefusedError when the option file says otherwise."""
    name, arch_options = _architecture(options, model)
    network = rebuilt(model, name, arch_options, options.scale, group.device, options.path.strict_load_g)
    tile, overlap = build.tile_of(options)
    return Restorer(
        network,
        normalization=model.info.normalization if model.info else Normalization(),
        scale=options.scale,
        device=group.device,
        precision=Precision(options.val.precision, group.device),
        tile=tile,
        overlap=overlap,
    )


def _architecture(options: Options, model: ModelFile) -> tuple[str, Mapping[str, Any]]:
    """Arch and its options: the file's, the YAML's, or both when they agree."""
    wanted = options.networks.get("network_g")
    if model.info is None:
        if wanted is None:
            raise RefusedError(
                f"{model.path} does not say which network it holds (it is not srkit's); describe it under network_g"
            )
        return wanted.type, wanted.options
    info = model.info
    require_known_arch(model, info)
    problems = []
    if tuple(info.scale) != options.scale:
        problems.append(f"scale: {list(options.scale)} in the option file, {list(info.scale)} in the model file")
    if wanted is not None and wanted.type != info.arch:
        problems.append(f"network_g.type: {wanted.type} in the option file, {info.arch} in the model file")
    elif wanted is not None:
        for key, value in wanted.options.items():
            if (
                key not in build.RUNTIME_ARCH_OPTIONS
                and key in info.arch_options
                and _plain(value) != _plain(info.arch_options[key])
            ):
                problems.append(
                    f"network_g.{key}: {_plain(value)} in the option file, {_plain(info.arch_options[key])} in the model file"
                )
    if problems:
        raise OptionError(f"{options.source} against {model.path}", problems)
    runtime = {k: v for k, v in wanted.options.items() if k in build.RUNTIME_ARCH_OPTIONS} if wanted else {}
    return info.arch, {**info.arch_options, **runtime}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _about(options: Options, model: ModelFile) -> dict[str, Any]:
    """What the numbers depend on beside the protocol."""
    with model.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "name": options.name,
        "model_file": str(model.path),
        "model_sha256": digest,
        "weights": model.key,
        "iteration": model.info.iteration if model.info else None,
        "scale": list(options.scale),
        "precision": options.val.precision,
        "tile": options.val.tile,
        "tile_overlap": options.val.tile_overlap if options.val.tile else None,
        "environment": environment(),
    }
