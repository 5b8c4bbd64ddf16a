"""Sections that name a class by `type`: their other keys are the arguments of that class's constructor."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, create_model, model_validator

from srkit.errors import RefusedError, nearest
from srkit.options.aliases import ABSENT, spellings
from srkit.options.catalog import Catalog, Context
from srkit.options.live import family_signature
from srkit.options.problems import Problem, found
from srkit.options.section import Section, collected, problems_of
from srkit.options.signatures import Argument, Signature
from srkit.options.values import (
    Count,
    Flag,
    IntOrPerAxis,
    Label,
    Natural,
    Num,
    PositiveShare,
    Share,
    Text,
    UnsupportedType,
    describe,
    option_type,
)


class ComponentOptions(Section):
    """A class by name and the options given for it (validated; defaults stay the constructor's business).

    With a Context, validation reads the class's signature; without one, `options` is taken as it is.
    """

    kind: ClassVar[str]
    filled: ClassVar[frozenset[str]] = frozenset({"options"})

    type: Text = Field(description="Name of the registered class.")
    options: dict[str, Any] = Field(default={}, description="Constructor arguments as given.")

    @classmethod
    def own(cls) -> list[str]:
        """Keys that belong to the section itself and not to the named class."""
        return [n for n in cls.model_fields if n not in cls.filled and n != "type"]

    @model_validator(mode="wrap")
    @classmethod
    def explain(cls, raw: Any, handler: Any, info: ValidationInfo) -> Any:
        """Splits the section's keys into its own and the class's, and checks both."""
        if not isinstance(info.context, Context) or isinstance(raw, cls):
            return handler(raw)
        signature = _signature(cls, raw, info.context.catalog)
        try:
            given = _model_of(cls, signature, info.context.catalog).model_validate(raw)
        except ValidationError as error:
            raise collected([*problems_of(error, raw), *_scale_problems(raw, signature, info.context.scale)]) from None
        if problems := _scale_problems(raw, signature, info.context.scale):
            raise collected(problems)
        own, options = {}, dict(given.model_extra or {})
        filled = {a.name for a in signature.arguments if a.is_scale}
        for field, spec in type(given).model_fields.items():
            if field in given.model_fields_set and field in cls.model_fields:
                own[field] = getattr(given, field)
            elif field in given.model_fields_set and spec.alias and spec.alias not in filled:
                options[spec.alias] = getattr(given, field)
        return handler({**own, "type": signature.name, "options": options})


class NetworkOptions(ComponentOptions):
    """A network."""

    kind: ClassVar[str] = "arch"


class LossOptions(ComponentOptions):
    """A loss and its weight."""

    kind: ClassVar[str] = "loss"

    loss_weight: Num = Field(default=1.0, description="Factor on the loss in the sum of losses.")
    start_iter: Natural = Field(default=0, description="Iteration from which the loss counts.")
    stop_iter: Count | None = Field(default=None, description="Iteration from which it does not count any more.")
    target: Literal["gt", "gt_usm"] = Field(
        default="gt", description="What it compares with: gt, or the sharpened gt that RealESRGANDataset hands out."
    )


class MetricOptions(ComponentOptions):
    """A metric and the protocol it is measured under."""

    kind: ClassVar[str] = "metric"

    crop_border: Natural | None = Field(
        default=None, description="Pixels left out on every side before measuring; default: as many as the scale."
    )
    test_y_channel: Flag = Field(default=False, description="Measure BT.601 limited-range luma instead of RGB.")
    region: Literal["whole", "mask"] = Field(
        default="whole", description="Where it looks: everywhere, or inside the mask that a volume has."
    )
    erode: Natural = Field(
        default=0, description="Voxels the mask is made smaller by from all sides; with region: mask."
    )
    better: Literal["higher", "lower"] | None = Field(
        default=None, description="What counts as best; default: as the metric says."
    )


class BackendSection(Section):
    """How pictures are stored."""

    type: Literal["disk", "lmdb", "zip", "tar"] = Field(
        default="disk",
        description="Plain files (or a .zip or .tar file), BasicSR's LMDB folders, or folders of .zip or of .tar files.",
    )


class DatasetOptions(ComponentOptions):
    """A dataset and how its samples are loaded."""

    kind: ClassVar[str] = "dataset"
    filled: ClassVar[frozenset[str]] = frozenset({"options", "phase"})

    phase: Text = Field(default="", exclude=True, description="Key under datasets: train, val, val_2, test_1.")
    name: Label | None = Field(
        default=None, description="Name in tables, logs and folders; default: the key under datasets."
    )
    io_backend: BackendSection | None = Field(
        default=None, description="How the pictures are stored; default: plain files."
    )
    scales: tuple[Count, ...] | None = Field(
        default=None,
        description="Several scales for a network that takes one with each call: training draws one for each batch, an "
        "evaluation measures each as a set <name>_x<scale>. '{scale}' in paths and filename_tmpl stands for the number.",
    )
    batch_size_per_gpu: Count = Field(
        default=1, description="Samples in a batch of one process; required in datasets.train."
    )
    num_worker_per_gpu: Natural = Field(
        default=0, description="Loader processes of one process; 0 loads in the training process."
    )
    use_shuffle: Flag = Field(default=True, description="Draw a new order each epoch.")
    dataset_enlarge_ratio: Count = Field(
        default=1, description="The list counts this often in an epoch, with other crops each time."
    )
    prefetch_mode: Literal["cpu", "cuda"] | None = Field(
        default=None, description="cuda copies the next batch on a side stream, cpu fetches it in a thread."
    )
    num_prefetch_queue: Count | None = Field(default=None, description="Batches that prefetch_mode cpu keeps ready.")
    pin_memory: Flag = Field(default=False, description="Load into page-locked memory, for faster copies to the GPU.")
    persistent_workers: Flag = Field(default=True, description="Keep loader processes between epochs.")
    mean: tuple[Share, ...] | None = Field(
        default=None, description="Per channel, for intensities in 0 to 1; undone on every output."
    )
    std: tuple[PositiveShare, ...] | None = Field(default=None, description="Per channel, for intensities in 0 to 1.")


COMPONENTS: tuple[type[ComponentOptions], ...] = (NetworkOptions, LossOptions, MetricOptions, DatasetOptions)


def _signature(cls: type[ComponentOptions], raw: Any, catalog: Catalog) -> Signature:
    """The signature `type` asks for. Raises the section's problem when there is none."""
    if not isinstance(raw, dict):
        raise collected([Problem((), f"found {found(raw)}, expected a section with type")])
    names = catalog.names(cls.kind)
    known = f"known: {', '.join(names) or 'none'}"
    if "type" not in raw:
        raise collected([Problem(("type",), f"missing; it names the {cls.kind} ({known})")])
    name = raw["type"]
    if not isinstance(name, str):
        raise collected([Problem(("type",), f"found {found(name)}, expected the name of a {cls.kind} ({known})")])
    try:
        signature = catalog.get(cls.kind, name) or family_signature(cls.kind, name)
    except RefusedError as error:  # the package is missing, or has no class of that name
        raise collected([Problem(("type",), str(error))]) from None
    if signature is not None:
        return signature
    if not catalog.is_complete:
        raise collected([])  # the failed import is in the report already and may well hold this class
    if why := ABSENT.get(cls.kind, {}).get(name):
        raise collected([Problem(("type",), f"no {cls.kind} is named {found(name)}; {why} ({known})")])
    close = nearest(name[:60], names)
    hint = f"; did you mean '{close}'?" if close else ""
    raise collected([Problem(("type",), f"no {cls.kind} is named {found(name)}{hint} ({known})")])


def _model_of(cls: type[ComponentOptions], signature: Signature, catalog: Catalog) -> type[Section]:
    model: type[Section] | None = catalog.models.get((cls, signature.name))
    if model is None:
        model = catalog.models[cls, signature.name] = flat_model(cls, signature)
    return model


class _OpenSection(Section):
    """A section of a class that takes keys it does not name; they are warned about one by one."""

    model_config = ConfigDict(extra="allow")


def flat_model(cls: type[ComponentOptions], signature: Signature) -> type[Section]:
    """The section as it stands in a file: own keys and constructor arguments side by side.

    Raises the section's problem when the constructor has an argument that no file can give.
    """
    own = cls.own()
    fields: dict[str, Any] = {
        "type": (
            Literal[spellings(cls.kind, signature.name)],
            Field(description=f"{signature.kind.capitalize()}: {signature.description}"),
        ),
        **{name: (cls.model_fields[name].annotation, cls.model_fields[name]) for name in own},
    }
    for argument in signature.arguments:
        if argument.name not in own:  # an own key of that name wins: the loader, not the class, uses it
            # The prefix keeps names such as `copy` or `schema` clear of pydantic's own.
            fields[f"option_{argument.name}"] = (_type_of(argument, signature), _field_of(argument))
    base = _OpenSection if signature.is_open else Section
    model: type[Section] = create_model(signature.name, __base__=base, **fields)
    model.unknown = f"{signature.name} takes no such option"
    return model


def _type_of(argument: Argument, signature: Signature) -> Any:
    if argument.is_scale:
        return IntOrPerAxis
    trouble = "the key 'type' names the class itself" if argument.name == "type" else argument.trouble
    if not trouble:
        try:
            return option_type(argument.annotation)
        except UnsupportedType as error:
            trouble = f"its type '{error}' cannot be written in an option file"
    text = f"{signature.name} ({signature.place}) cannot be configured: argument '{argument.name}': {trouble}"
    raise collected([Problem(("type",), text)])


def _field_of(argument: Argument) -> Any:
    is_required = argument.required and not argument.is_scale
    default = argument.default
    if argument.is_scale or (default is ... and not is_required):
        default = None
    return Field(... if is_required else default, alias=argument.name, description=argument.description or None)


def _scale_problems(raw: dict[str, Any], signature: Signature, scale: tuple[int, ...] | None) -> list[Problem]:
    """Where a component's scale is not the file's: repeated and different, or of a kind it cannot have."""
    if scale is None:
        return []
    problems = []
    for argument in signature.arguments:
        if not argument.is_scale:
            continue
        stated = raw.get(argument.name)
        per_axis = tuple(stated) if isinstance(stated, list) else (stated,) * len(scale)
        if stated is not None and per_axis != scale:
            text = f"found {found(stated)}, but the top-level scale is {_scale_text(scale)}; they must agree"
            problems.append(Problem((argument.name,), text))
        elif not _can_be(argument, scale):
            wanted = f"{signature.name} takes {argument.name} {describe(argument.annotation)}"
            text = f"{wanted}; the top-level scale is {_scale_text(scale)}"
            problems.append(Problem(("type",), text))
    return problems


def _can_be(argument: Argument, scale: tuple[int, ...]) -> bool:
    values: list[Any] = [scale, scale[0]] if len(set(scale)) == 1 else [scale]
    try:
        adapter = TypeAdapter(option_type(argument.annotation))
    except UnsupportedType:
        return True  # reported by flat_model
    for value in values:
        try:
            adapter.validate_python(value)
        except ValidationError:
            continue
        return True
    return False


def _scale_text(scale: tuple[int, ...]) -> str:
    return str(scale[0]) if len(set(scale)) == 1 else str(list(scale))
