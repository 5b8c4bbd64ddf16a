"""The `train` section: optimizers, schedules, losses, and how an iteration is carried out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from srkit.options.aliases import canonical
from srkit.options.components import LossOptions
from srkit.options.section import Section
from srkit.options.values import Count, Flag, Fraction, Label, Natural, NotNegative, Positive, Warmup, expected


class _Optimizer(Section):
    """What all optimizers take. Names and defaults are torch.optim's."""

    lr: Positive = Field(description="Learning rate before warm-up and schedule.")
    weight_decay: NotNegative = Field(default=0.0, description="Decay of the weights.")


class AdamOptions(_Optimizer):
    """torch.optim.Adam."""

    type: Literal["Adam"] = Field(description="Optimizer.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="Decay of the running averages.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator.")
    amsgrad: Flag = Field(default=False, description="Keep the largest second moment.")


class AdamWOptions(_Optimizer):
    """torch.optim.AdamW."""

    type: Literal["AdamW"] = Field(description="Optimizer.")
    weight_decay: NotNegative = Field(default=0.01, description="Decay of the weights, apart from the gradient.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="Decay of the running averages.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator.")
    amsgrad: Flag = Field(default=False, description="Keep the largest second moment.")


class SGDOptions(_Optimizer):
    """torch.optim.SGD."""

    type: Literal["SGD"] = Field(description="Optimizer.")
    momentum: NotNegative = Field(default=0.0, description="Momentum.")
    nesterov: Flag = Field(default=False, description="Nesterov's momentum; needs momentum above 0.")


class AdamaxOptions(_Optimizer):
    """torch.optim.Adamax."""

    type: Literal["Adamax"] = Field(description="Optimizer.")
    betas: tuple[Fraction, Fraction] = Field(default=(0.9, 0.999), description="Decay of the running averages.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator.")


class ASGDOptions(_Optimizer):
    """torch.optim.ASGD."""

    type: Literal["ASGD"] = Field(description="Optimizer.")
    lambd: NotNegative = Field(default=1e-4, description="Decay term.")
    alpha: NotNegative = Field(default=0.75, description="Power of the step size's decay.")
    t0: NotNegative = Field(default=1e6, description="Update at which averaging starts.")


class RMSpropOptions(_Optimizer):
    """torch.optim.RMSprop."""

    type: Literal["RMSprop"] = Field(description="Optimizer.")
    alpha: Fraction = Field(default=0.99, description="Decay of the running average.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator.")
    momentum: NotNegative = Field(default=0.0, description="Momentum.")
    centered: Flag = Field(default=False, description="Normalise by the variance.")


class RpropOptions(Section):
    """torch.optim.Rprop, which has no weight decay."""

    type: Literal["Rprop"] = Field(description="Optimizer.")
    lr: Positive = Field(description="First step size.")
    etas: tuple[Positive, Positive] = Field(default=(0.5, 1.2), description="Factors that shrink and grow a step.")
    step_sizes: tuple[Positive, Positive] = Field(default=(1e-6, 50.0), description="Smallest and largest step.")


OptimizerOptions = Annotated[
    AdamOptions | AdamWOptions | SGDOptions | AdamaxOptions | ASGDOptions | RMSpropOptions | RpropOptions,
    Field(discriminator="type"),
]


class MultiStepOptions(Section):
    """lr x gamma at each milestone, as BasicSR's MultiStepRestartLR."""

    type: Literal["MultiStepLR"] = Field(description="Schedule.")
    milestones: tuple[Count, ...] = Field(description="Iterations at which the rate is multiplied, ascending.")
    gamma: Positive = Field(default=0.1, description="Factor at each milestone.")
    restarts: tuple[Natural, ...] = Field(default=(), description="Iterations at which the schedule begins anew.")
    restart_weights: tuple[Positive, ...] = Field(default=(), description="Factor on the rate from each restart on.")


class CosineRestartOptions(Section):
    """eta_min + weight/2 x (lr - eta_min) x (1 + cos(pi t/T)), t counted from the last restart."""

    type: Literal["CosineAnnealingRestartLR"] = Field(description="Schedule.")
    periods: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        description="Length of each period in iterations."
    )
    restart_weights: tuple[Positive, ...] = Field(default=(1.0,), description="Factor on the rate in each period.")
    eta_min: NotNegative = Field(default=0.0, description="Rate at the end of a period.")


def _own_type(raw: Any) -> Any:
    """Spells the family's schedule names as srkit's."""
    if isinstance(raw, dict) and isinstance(raw.get("type"), str):
        return {**raw, "type": canonical("scheduler", raw["type"])}
    return raw


SchedulerOptions = Annotated[
    MultiStepOptions | CosineRestartOptions, Field(discriminator="type"), BeforeValidator(_own_type)
]


class ClipOptions(Section):
    """Gradient clipping."""

    type: Literal["norm", "value", "value_over_lr"] = Field(
        default="norm",
        description="Clip the total norm, each value, or each value at max divided by the current rate (VDSR).",
    )
    max: Positive = Field(description="Largest norm or value.")


def _compile_mode(value: Any) -> Any:
    if value in (False, "default", "max-autotune"):
        return value
    if value is True:
        return "default"
    raise expected("true, false, default or max-autotune")


CompileMode = Annotated[
    Literal[False, "default", "max-autotune"],
    BeforeValidator(_compile_mode, json_schema_input_type=bool | Literal["default", "max-autotune"]),
]


class TrainSection(Section):
    """How the networks are trained."""

    total_iter: Count = Field(description="Iterations (attempted optimizer updates) in all.")
    warmup_iter: Warmup = Field(default=-1, description="Iterations of linear warm-up from 0; -1 is none.")
    ema_decay: Fraction = Field(default=0.0, description="Decay of the averaged weights; 0 keeps no average.")
    optim_g: OptimizerOptions = Field(description="Optimizer of network_g.")
    optim_d: OptimizerOptions | None = Field(default=None, description="Optimizer of network_d.")
    scheduler: SchedulerOptions | None = Field(default=None, description="Learning-rate schedule; constant by default.")
    pixel_opt: LossOptions | None = Field(default=None, description="Main image loss, logged as l_pix.")
    perceptual_opt: LossOptions | None = Field(
        default=None, description="Loss on the features of a trained network, logged as l_percep and l_style."
    )
    losses: dict[Label, LossOptions] = Field(
        default={}, description="Further image losses by name, logged as l_<name>."
    )
    gan_opt: LossOptions | None = Field(
        default=None, description="Adversarial loss; the discriminator's own is not weighted."
    )
    feature_matching_opt: LossOptions | None = Field(
        default=None, description="Loss on the discriminator's feature maps, logged as l_g_fm."
    )
    net_d_iters: Count = Field(
        default=1, description="network_g learns in every so manieth iteration, network_d in all."
    )
    net_d_init_iters: Natural = Field(default=0, description="Iterations at the start in which network_d learns alone.")
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        default=None, description="Number format; obeyed on every device."
    )
    use_amp: Flag = Field(
        default=False, description="Mixed precision as the device is good at it; precision says it exactly."
    )
    compile: CompileMode = Field(
        default=False,
        description="torch.compile the training networks, and not those of validation: true or default, or max-autotune, "
        "which tries several kernels for each operation and takes minutes to begin. For GPUs.",
    )
    cuda_graph: Flag = Field(
        default=False,
        description="Record a whole iteration as one CUDA graph, which spares small networks the time of starting each "
        "operation by itself. For one GPU, crops of one size (gt_size), fp32 or bf16, and Adam, AdamW or SGD.",
    )
    accum_iter: Count = Field(default=1, description="Batches whose gradients are summed for one update.")
    sync_batchnorm: Flag = Field(
        default=False,
        description="With several processes, batch normalisation over all their batches together; else each has its own.",
    )
    grad_clip: ClipOptions | None = Field(default=None, description="Gradient clipping; none by default.")
    max_nonfinite: Count = Field(
        default=20, description="Skipped updates in a row (NaN or infinite) after which training stops."
    )
    deterministic: Flag = Field(default=False, description="Bit-equal repetition on CUDA, slower.")

    def image_losses(self) -> dict[str, LossOptions]:
        """All image losses by name; pixel_opt is "pix", perceptual_opt "perceptual"."""
        own = {"pix": self.pixel_opt, "perceptual": self.perceptual_opt}
        return {**{name: item for name, item in own.items() if item}, **self.losses}

    def optimizers(self) -> dict[str, OptimizerOptions]:
        """Optimizers by the name of their network."""
        both = {"network_g": self.optim_g, "network_d": self.optim_d}
        return {name: item for name, item in both.items() if item}
