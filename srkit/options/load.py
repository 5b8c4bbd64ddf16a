"""From an option file to checked options: read, force, validate, cross-check; every mistake in one report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from srkit.errors import OptionError
from srkit.options.catalog import Catalog, Context, make_catalog
from srkit.options.checks import check
from srkit.options.components import DatasetOptions, MetricOptions
from srkit.options.effects import warnings
from srkit.options.force import apply_debug, apply_force
from srkit.options.hints import with_hint
from srkit.options.live import import_all
from srkit.options.problems import MAX_REPORTED, Places, Problem
from srkit.options.reader import read_file
from srkit.options.realesrgan import in_srkit_places
from srkit.options.schema import Options, ValSection
from srkit.options.section import problems_of
from srkit.options.sections import Mode, valid_scale, valid_sections
from srkit.options.signatures import PACKAGE_ROOTS
from srkit.options.training import TrainSection


def load_options(
    path: str | Path,
    *,
    mode: Mode,
    force: Sequence[str] = (),
    debug: bool = False,
    launcher: Literal["none", "pytorch", "slurm"] | None = None,
    roots: Sequence[Path] = PACKAGE_ROOTS,
) -> Options:
    """Reads and checks an option file.

    Args:
        path: The YAML file.
        mode: What it is read for; a test needs other sections than a training.
        force: "section:key=value" words of --force_yml; they win over the file.
        debug: Make it the short trial of --debug.
        launcher: Who starts the processes, so that options for several processes are warned about when there is one.
        roots: Where srkit's own components are read from.

    Raises: OptionError with every mistake in the file, found without importing torch unless `imports` does.
    """
    document = read_file(path)
    data, forced, problems = apply_force(document.data, force)
    if debug:
        data, more = apply_debug(data)
        forced |= more
    data, places, moved = in_srkit_places(data, Places(document.lines, forced))
    catalog = make_catalog(roots, import_all(_imports(data), Path(path).resolve().parent))
    context = Context(catalog, valid_scale(data))
    problems += [*document.problems, *catalog.problems, *moved]
    options: Options | None = None
    try:
        options = Options.model_validate(data, context=context)
    except ValidationError as error:
        problems += problems_of(error, data)
    sections = valid_sections(data, mode, context)
    problems += check(sections)
    if problems or options is None:
        raise OptionError(str(path), _report(problems, places, catalog))
    options = _resolved(options, data.get("model_type"))
    options._source = str(path)
    options._warnings = tuple(places.sentences(warnings(options, sections, launcher)))
    return options


def _report(problems: Sequence[Problem], places: Places, catalog: Catalog) -> list[str]:
    """The sentences of a report. Hints cost time, so only problems that are shown get one."""
    ordered = sorted(problems, key=lambda p: places.line(p.place))
    shown = [with_hint(p, catalog) for p in ordered[:MAX_REPORTED]]
    return places.sentences([*shown, *ordered[MAX_REPORTED:]])


def _imports(data: dict[str, Any]) -> list[str]:
    names = data.get("imports")
    return [n for n in names if isinstance(n, str)] if isinstance(names, list) else []


def _resolved(options: Options, model_type: Any) -> Options:
    """The options with what follows from others filled in: dataset phases and names, the default metrics."""
    datasets: dict[str, DatasetOptions] = {
        phase: item.model_copy(update={"phase": phase}) for phase, item in options.datasets.items()
    }
    update: dict[str, Any] = {"datasets": datasets, "val": _with_metrics(options)}
    if model_type == "ESRGANModel" and options.train is not None:
        update["train"] = _relativistic(options.train)
    return options.model_copy(update=update)


def _relativistic(train: TrainSection) -> TrainSection:
    """BasicSR's ESRGANModel makes any gan_type relativistic; here the loss says so."""
    if train.gan_opt is None or train.gan_opt.type != "GANLoss":
        return train
    loss = train.gan_opt.model_copy(update={"options": {"relativistic": True, **train.gan_opt.options}})
    return train.model_copy(update={"gan_opt": loss})


def _with_metrics(options: Options) -> ValSection:
    """When the file names neither metrics nor a protocol: the protocol of volumes, or the recipe's own metrics with a border
    as wide as the scale."""
    val = options.val
    if val.protocol is not None or "metrics" in val.model_fields_set:
        return val
    if len(options.scale) == 3:
        return val.model_copy(update={"protocol": "mri-volume-v1"})
    types = _EDGE_METRICS if options.model_type == "EdgeAdversarial" else _PICTURE_METRICS
    metrics = {name: MetricOptions(type=kind, options={}) for name, kind in types.items()}
    return val.model_copy(update={"metrics": metrics})


_PICTURE_METRICS = {"psnr": "PSNR", "ssim": "SSIM"}
_EDGE_METRICS = {"edge_f1": "EdgeF1", "edge_precision": "EdgePrecision", "edge_recall": "EdgeRecall"}
