"""A test from start to end: rebuild the network from its file, measure, write results, print the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from srkit import build
from srkit.data.forms import PictureForm, VolumeForm
from srkit.engine.checkpoint import write_atomically
from srkit.engine.distributed import Group, join_group
from srkit.engine.evaluator import EvalSet, Evaluator, NamedMetric, Row, SetResult
from srkit.engine.experiment import archive, environment
from srkit.engine.log import logger, start_console, start_log_file, timestamp
from srkit.engine.model_file import ModelFile, read_model
from srkit.engine.precision import Precision
from srkit.engine.restorer import Restorer
from srkit.engine.results import Journal, table_md, write_results
from srkit.engine.stored import read_parts
from srkit.engine.timing import Stopwatch, Timing
from srkit.engine.transfer import Normalization
from srkit.errors import ExitCode, OptionError, RefusedError, StorageError
from srkit.models import shipped
from srkit.options import Options
from srkit.rebuild import rebuilt, require_known_arch


class Model(NamedTuple):
    """A network under test: the name of its rows, its file, what runs it, and the sets read as it was trained to see them."""

    name: str
    file: ModelFile
    restorer: Restorer
    sets: list[EvalSet]


def test_phases(
    phases: Sequence[Options],
    launcher: Literal["none", "pytorch", "slurm"],
    models: Sequence[str],
    resume: bool,
) -> ExitCode:
    """Runs test option files in order. Raises SrkitError.

    Args:
        models: Model files to compare, in place of each file's `path.pretrain_network_g`.
        resume: Keep what an earlier test of the same name measured, as far as it would come out the same.
    """
    dist = phases[0].dist_params
    group, note = join_group(
        launcher,
        phases[0].num_gpu,
        backend=dist.backend,
        port=dist.port,
        timeout_s=dist.timeout_s,
        join_timeout_s=dist.join_timeout_s,
    )
    start_console(group.is_main)
    if note:
        logger.warning(note)
    for options in phases:
        test_phase(options, group, models, resume)
    group.close()
    return ExitCode.OK


def test_phase(options: Options, group: Group, files: Sequence[str], resume: bool) -> list[SetResult]:
    """One option file: every val*/test* set, with interpolation rows once and rows of every model."""
    for warning in options.warnings if group.is_main else ():
        logger.warning(warning)
    models = load_models(options, group, files)
    root = build.absolute(options.path.results_root)
    assert root is not None
    folder = root / options.name
    about = json.loads(json.dumps(_about(options, models)))  # tuples become lists, as an earlier file's have
    known: dict[str, list[Row]] = {}
    earlier: dict[str, Any] = {}
    if resume and folder.is_dir():
        known, earlier = reusable(folder, about, {item.name: item for item in models[0].sets})
    group.barrier()  # everybody has read what was there
    if group.is_main:
        open_results(folder, options.name, keep=resume)
        write_atomically(folder / "options.yml", options.to_yaml().encode())
        write_atomically(folder / "metrics.json", (json.dumps(about, indent=1) + "\n").encode())
    group.barrier()  # nobody writes pictures into a folder that is about to be renamed
    for model in models:
        logger.info("%s: weights '%s' of %s, on %s", model.name, model.file.key, model.file.path, group.device)
    evaluator = Evaluator(models[0].sets, group, progress=options.val.pbar)
    with Journal(folder / "metrics.csv", known) if group.is_main else nullcontext() as journal:
        results = [
            _test_set(options, group, evaluator, models, index, folder, known, journal)
            for index in range(len(models[0].sets))
        ]
    if group.is_main:
        _keep_timings(results, earlier)
        write_results(folder, results, about)
        logger.info("results in %s\n%s", folder, table_md(results))
    return results


def _test_set(
    options: Options,
    group: Group,
    evaluator: Evaluator,
    models: Sequence[Model],
    index: int,
    folder: Path,
    known: Mapping[str, Sequence[Row]],
    journal: Journal | None,
) -> SetResult:
    """The set of that index, with the rows of all models."""
    joined: SetResult | None = None
    for model in models:
        item = model.sets[index]
        logger.info("testing %s on %s: %s", model.name, item.name, build.describe_dataset(item.dataset))
        result = evaluator.evaluate(
            item,
            model.restorer,
            model.name,
            _namer(options, folder, item, model.name if len(models) > 1 else ""),
            known=known.get(item.name, ()),
            keep=partial(journal.add, item.name) if journal else lambda rows: None,
            stopwatch=Stopwatch(group.device),
        )
        joined = result if joined is None else joined.joined(result)
    assert joined is not None
    return joined


def reusable(
    folder: Path, about: Mapping[str, Any], sets: Mapping[str, EvalSet]
) -> tuple[dict[str, list[Row]], dict[str, Any]]:
    """Rows that a new test would make again: of the same set (options, names and sizes), metric (with its options) and
    protocol and, of a network, the same weights run in the same way. With them the earlier metrics.json."""
    rows, earlier = read_parts(folder)
    models = {n for n, told in about["models"].items() if earlier.get("models", {}).get(n) == told}
    same_run = all(
        earlier.get(key) == about[key] for key in ("scale", "precision", "tile", "tile_overlap", "network_g")
    )
    kept: dict[str, list[Row]] = {}
    for name, item in sets.items():
        if earlier.get("read", {}).get(name) != about["read"][name]:
            continue
        measures = earlier.get("measures", {})
        protocols = {
            m.name: f"{m.protocol.name}#{m.protocol.hash}"
            for m in item.metrics
            if measures.get(m.name) == about["measures"][m.name]
        }
        kept[name] = [
            row
            for row in rows.get(name, [])
            if protocols.get(row.metric) == row.protocol
            and (
                (row.method in models and same_run) or row.method not in {*about["models"], *earlier.get("models", {})}
            )
        ]
        logger.info("%s: %d of %d earlier values are kept", name, len(kept[name]), len(rows.get(name, [])))
    return kept, earlier


def _keep_timings(results: Sequence[SetResult], earlier: Mapping[str, Any]) -> None:
    """What was not restored again keeps its times; those of a set that was restored in part are of this part."""
    for result in results:
        for method, told in earlier.get("sets", {}).get(result.name, {}).get("timing", {}).items():
            if method in result.methods() and method not in result.timings:
                result.timings[method] = Timing(**told)


def load_models(options: Options, group: Group, files: Sequence[str] = ()) -> list[Model]:
    """The option file's own model under the name of the test, or `files` under their own names. Raises SrkitError."""
    given = files or ([options.path.pretrain_network_g] if options.path.pretrain_network_g else [])
    if not given:
        raise OptionError(str(options.source), ["path.pretrain_network_g: missing; name the model file to test"])
    read = [read_model(path, options.path.param_key_g) for f in given if (path := build.model_path(f)) is not None]
    _require_one_scale(read)
    names = _names(read) if files else [options.name]
    sets: dict[str, list[EvalSet]] = {}
    models = []
    for name, file in zip(names, read, strict=True):
        restorer = build_restorer(options, file, group, by_file=bool(files))
        read_as = file.info.read_as() if file.info else None
        key = json.dumps(read_as)
        if key not in sets:
            sets[key] = build.build_eval_sets(options, read_as)
        models.append(Model(name, file, restorer, sets[key]))
    return models


def _require_one_scale(models: Sequence[ModelFile]) -> None:
    scales = {m.path: tuple(m.info.scale) for m in models if m.info}
    if len(set(scales.values())) > 1:
        found = "; ".join(f"{path} has scale {list(scale)}" for path, scale in scales.items())
        raise RefusedError(f"-m: models of different scales are no comparison: {found}; test each scale by itself")


def _names(models: Sequence[ModelFile]) -> list[str]:
    """What each is called: a model of srkit's own by its name, others by the experiment that made the file, else by the
    file's stem; both where experiments repeat."""
    own = shipped().values()
    first = [m.info.experiment if m.info and m.info.experiment and m.path not in own else m.path.stem for m in models]
    names = [f"{n}_{m.path.stem}" if first.count(n) > 1 else n for n, m in zip(first, models, strict=True)]
    taken = {*PictureForm.BASELINES, *PictureForm.LUMA_BASELINES, *VolumeForm.baselines}
    bad = sorted({n for n in names if names.count(n) > 1 or n in taken})
    if bad:
        raise RefusedError(
            f"-m: several models, or a model and an interpolation, are named {', '.join(bad)}; rename a file"
        )
    return names


def open_results(folder: Path, name: str, keep: bool = False) -> None:
    """Makes the folder and begins its log. Earlier results get another name unless `keep`: pictures of two models never
    mix."""
    try:
        archived = archive(folder) if not keep and folder.is_dir() and any(folder.iterdir()) else None
        folder.mkdir(parents=True, exist_ok=True)
        start_log_file(folder / f"test_{name}_{timestamp()}.log")
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be written ({error.strerror}); set path.results_root to another place"
        ) from error
    if archived:
        logger.info("earlier results of that name were kept as %s", archived)


def _namer(options: Options, folder: Path, item: EvalSet, model: str) -> Any:
    """Of several models each has a folder of its own in that of the set."""
    if not options.val.save_img:
        return None
    suffix = f"_{options.val.suffix}" if options.val.suffix else ""
    return lambda name: folder / "visualization" / item.name / model / f"{name}{suffix}"


def build_restorer(options: Options, model: ModelFile, group: Group, by_file: bool = False) -> Restorer:
    """The network of a model file, with its weights.

    Args:
        by_file: Networks are what their files say; `network_g` describes only a file that says nothing.

    Raises: RefusedError when the option file says otherwise.
    """
    name, arch_options = _architecture(options, model, by_file)
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


def _architecture(options: Options, model: ModelFile, by_file: bool) -> tuple[str, Mapping[str, Any]]:
    """Arch and its options: the file's, the YAML's, or both when they agree."""
    wanted = options.networks.get("network_g")
    if by_file and wanted is not None and model.info is not None and wanted.type != model.info.arch:
        wanted = None
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
                not by_file
                and key not in build.RUNTIME_ARCH_OPTIONS
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


def _about(options: Options, models: Sequence[Model]) -> dict[str, Any]:
    """What the numbers depend on beside the protocol. Of one model its facts stand at the top too."""
    facts = {model.name: _facts(model) for model in models}
    return {
        "name": options.name,
        **(facts[models[0].name] if len(models) == 1 else {}),
        "models": facts,
        "network_g": {n: part.model_dump(mode="json") for n, part in options.networks.items()}.get("network_g"),
        "scale": list(options.scale),
        "precision": options.val.precision,
        "tile": options.val.tile,
        "tile_overlap": options.val.tile_overlap if options.val.tile else None,
        "measures": {m.name: _measure(m) for m in models[0].sets[0].metrics},
        "read": {item.name: build.reading(options, item) for item in models[0].sets},
        "environment": environment(),
    }


def _facts(model: Model) -> dict[str, Any]:
    with model.file.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "model_file": str(model.file.path),
        "model_sha256": digest,
        "weights": model.file.key,
        "read_as": model.file.info.read_as() if model.file.info else {},
        "arch": type(model.restorer.network).__name__,
        "iteration": model.file.info.iteration if model.file.info else None,
    }


def _measure(metric: NamedMetric) -> str:
    """What a value is of, besides its protocol."""
    eroded = f", eroded by {metric.erode}" if metric.erode else ""
    return metric.told + (f" inside the mask{eroded}" if metric.region == "mask" else "")
