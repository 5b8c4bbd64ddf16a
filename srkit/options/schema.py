"""The option file as a whole. Keys are the BasicSR family's; each field's description is its documentation."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    model_validator,
)

from srkit.errors import nearest
from srkit.options.aliases import ALIASES, canonical
from srkit.options.catalog import Context
from srkit.options.components import ComponentOptions, DatasetOptions, MetricOptions, NetworkOptions
from srkit.options.problems import Problem
from srkit.options.section import Section, collected, problems_of
from srkit.options.training import TrainSection
from srkit.options.values import (
    Count,
    Flag,
    GpuCount,
    IntOrPerAxis,
    Label,
    NaturalOrPerAxis,
    Port,
    Seed,
    Text,
    expected,
)
from srkit.options.writer import to_yaml

PHASE = r"train|(val|test)(_[A-Za-z0-9]+)*"
MAX_SCALE = 16


class PathSection(Section):
    """Weights to start from and folders to write to; relative paths start at the current directory."""

    pretrain_network_g: Text | None = Field(default=None, description="Model file to start from, or to test.")
    param_key_g: Literal["params", "params_ema"] | None = Field(
        default=None, description="Weights to take from it; default: params_ema when there, else params."
    )
    strict_load_g: Flag = Field(default=True, description="Refuse a model file whose keys or shapes differ.")
    pretrain_parts: dict[Label, Text] = Field(
        default={}, description="Model files for parts of network_g by the part's name, such as edge in EdgeSRGAN."
    )
    pretrain_network_d: Text | None = Field(default=None, description="Model file network_d starts from.")
    param_key_d: Literal["params", "params_ema"] | None = Field(
        default=None, description="Weights to take from that file; default as for param_key_g."
    )
    strict_load_d: Flag = Field(default=True, description="Refuse a file for network_d whose keys or shapes differ.")
    resume_state: Text | None = Field(
        default=None, description="Checkpoint folder or BasicSR .state file to go on from."
    )
    ignore_resume_networks: tuple[Text, ...] = Field(
        default=(), description="Networks not taken from the resumed checkpoint."
    )
    experiments_root: Text = Field(default="experiments", description="Folder of all experiments.")
    results_root: Text = Field(default="results", description="Folder of all test results.")


class ValSection(Section):
    """What is measured, during training and in tests."""

    val_freq: Count = Field(default=5000, description="Iterations between validations.")
    save_img: Flag = Field(default=False, description="Write the restored pictures.")
    suffix: Label | None = Field(default=None, description="Added to file names after an underscore; ~ adds nothing.")
    pbar: Flag = Field(default=True, description="Show a progress bar.")
    metrics: dict[Label, MetricOptions] = Field(
        default={},
        description="Metrics by name; default: psnr and ssim on RGB, of edge maps edge_f1, edge_precision and edge_recall; "
        "border = scale. Of volumes the protocol mri-volume-v1.",
    )
    protocol: Text | None = Field(default=None, description="A named protocol instead of metrics.")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="Number format of the network in tests."
    )
    tile: IntOrPerAxis | None = Field(default=None, description="Side of a tile in lq pixels; ~ takes whole pictures.")
    tile_overlap: NaturalOrPerAxis = Field(default=32, description="Overlap of tiles in lq pixels.")

    @model_validator(mode="before")
    @classmethod
    def _empty_metrics_are_default(cls, raw: Any) -> Any:
        """`metrics: ~` is a file that says nothing about metrics; `metrics: {}` asks for none."""
        if isinstance(raw, dict) and raw.get("metrics", ...) is None:
            return {k: v for k, v in raw.items() if k != "metrics"}
        return raw


class WandbSection(Section):
    """Weights & Biases; contacted only when project is given."""

    project: Text | None = Field(default=None, description="Project name; ~ contacts nobody.")
    resume_id: Text | None = Field(default=None, description="Run to go on with.")


class LoggerSection(Section):
    """What is printed and kept."""

    print_freq: Count = Field(default=100, description="Iterations between log lines.")
    save_checkpoint_freq: Count = Field(default=5000, description="Iterations between checkpoints.")
    async_save: Flag = Field(
        default=True,
        description="Write checkpoints while training goes on. false: training waits for them, and a kill never costs more "
        "than save_checkpoint_freq iterations.",
    )
    use_tb_logger: Flag = Field(default=True, description="Write TensorBoard files.")
    wandb: WandbSection | None = Field(default=None, description="Weights & Biases.")
    prune_weights: Flag = Field(default=False, description="Delete exported weights together with their checkpoint.")
    keep_last: Count = Field(default=3, description="Newest checkpoints that are kept.")
    keep_every: Count | None = Field(default=None, description="Checkpoints at multiples of this are kept too.")


class DistSection(Section):
    """Several processes; used with --launcher."""

    backend: Literal["nccl", "gloo"] | None = Field(default=None, description="Default: nccl on GPUs, else gloo.")
    port: Port | None = Field(
        default=None,
        description="Port of the first process, for --launcher slurm; by default 20000 to 29999, by the job's number.",
    )
    timeout_s: Count = Field(default=1800, description="Seconds after which a silent peer is given up.")
    join_timeout_s: Count = Field(default=60, description="Seconds in which all processes must have started.")


def _experiment_name(value: Any) -> Any:
    if isinstance(value, str) and (not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value) or value in (".", "..")):
        raise expected("letters, digits, '.', '_' and '-', 200 at the most, for it names a folder")
    return value


def _recipe(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or not isinstance(info.context, Context):
        return value
    catalog = info.context.catalog
    if catalog.get("recipe", value) is None and catalog.is_complete:
        known = [*catalog.names("recipe"), *ALIASES["recipe"]]
        close = nearest(value[:60], known)
        raise expected(f"one of {', '.join(known)}" + (f"; did you mean '{close}'?" if close else ""))
    return canonical("recipe", value)


def _scale(value: Any) -> Any:
    axes = value if isinstance(value, (list, tuple)) else [value, value]
    whole = [int(a) if type(a) is float and a.is_integer() else a for a in axes]
    if not 1 <= len(whole) <= 3 or not all(type(a) is int and 1 <= a <= MAX_SCALE for a in whole):
        raise expected(f"a whole number from 1 to {MAX_SCALE}, or a list of one per axis")
    return tuple(whole)


def _phases(value: Any, handler: Any) -> Any:
    """Refuses sections under datasets other than train, val, val_2, test, test_1 ..., after checking the rest."""
    if not isinstance(value, dict):
        return handler(value)
    wrong = [k for k in value if not re.fullmatch(PHASE, k)]
    problems = [Problem((k,), "unknown option", ("train", "val", "val_2", "test", "test_1")) for k in wrong]
    try:
        datasets = handler({k: v for k, v in value.items() if k not in wrong})
    except ValidationError as error:
        raise collected([*problems, *problems_of(error, value)]) from None
    if problems:
        raise collected(problems)
    return datasets


def _modules(value: Any) -> Any:
    if isinstance(value, str):
        raise expected(f"a list; write [{value}]")
    return value


Phase = Annotated[str, Field(pattern=f"^({PHASE})$")]
Scale = Annotated[tuple[int, ...], BeforeValidator(_scale, json_schema_input_type=int | list[int])]


class Options(Section):
    """A whole option file, checked."""

    name: Annotated[Text, BeforeValidator(_experiment_name)] = Field(
        description="Name of the experiment and of its folder."
    )
    model_type: Annotated[Text, BeforeValidator(_recipe)] = Field(
        description="Recipe: which networks are trained, and how."
    )
    scale: Scale = Field(description="Output size / input size: one number, or one per axis.")
    num_gpu: GpuCount = Field(default="auto", description="GPUs to use; 0 is the CPU, auto takes what there is.")
    manual_seed: Seed = Field(default=0, description="Seed of everything random.")
    imports: Annotated[tuple[Text, ...], BeforeValidator(_modules)] = Field(
        default=(), description="Modules or .py files with components of your own; importing runs their code."
    )
    datasets: Annotated[dict[Phase, DatasetOptions], WrapValidator(_phases)] = Field(
        default={}, description="train, val, val_2 ..., test_1 ..."
    )
    network_g: NetworkOptions | None = Field(default=None, description="Generator: lq -> sr.")
    network_d: NetworkOptions | None = Field(default=None, description="Discriminator: picture -> logits.")
    path: PathSection = Field(default=PathSection(), description="Weights to start from and folders.")
    train: TrainSection | None = Field(default=None, description="Training.")
    val: ValSection = Field(default=ValSection(), description="Validation and tests.")
    logger: LoggerSection = Field(default=LoggerSection(), description="Logs and checkpoints.")
    dist_params: DistSection = Field(default=DistSection(), description="Several processes.")
    print_network: Flag = Field(default=False, description="Accepted for BasicSR's files; has no effect.")

    _source: str = PrivateAttr("")
    _warnings: tuple[str, ...] = PrivateAttr(())

    @property
    def source(self) -> str:
        """The file the options came from."""
        return self._source

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each option without effect or of doubtful value, with line and key."""
        return self._warnings

    @property
    def networks(self) -> dict[str, NetworkOptions]:
        """Networks by their key in the file."""
        both = {"network_g": self.network_g, "network_d": self.network_d}
        return {name: item for name, item in both.items() if item}

    def to_yaml(self) -> str:
        """The options, defaults included, as an option file that loads to equal options."""
        return to_yaml(self._plain())

    def digest(self) -> str:
        """SHA-256 (hex) of the resolved options."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Equal options, wherever they were read."""
        return isinstance(other, Options) and self._plain() == other._plain()

    def __hash__(self) -> int:
        return hash(self.digest())

    def _plain(self) -> dict[str, Any]:
        """Plain values in the layout of a file."""
        return {name: value for name, value in _plain(self).items() if value is not None}


def _plain(section: Section) -> dict[str, Any]:
    """A section's values; a dataset for evaluation without the loader keys that it does not use."""
    plain: dict[str, Any] = {}
    for name in type(section).model_fields:
        if isinstance(section, ComponentOptions) and name in section.filled:
            continue
        if isinstance(section, DatasetOptions) and section.phase != "train" and name not in section.model_fields_set:
            continue
        plain[name] = _plain_value(getattr(section, name))
    if isinstance(section, ComponentOptions):
        plain.update(_plain_value(section.options))
    return plain


def _plain_value(value: Any) -> Any:
    if isinstance(value, Section):
        return _plain(value)
    if isinstance(value, dict):
        return {k: _plain_value(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_value(v) for v in value]
    return value
