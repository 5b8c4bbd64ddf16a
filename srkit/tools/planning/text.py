"""The option files that a plan becomes: every line says why it is as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from srkit.tools.planning.facts import PROTOCOLS, Kind, PictureFacts, SlideFacts, VolumeFacts
from srkit.tools.planning.fitting import Fit
from srkit.tools.planning.layout import Part

EDSR_SCALES = (1, 2, 3, 4, 8, 16)
_EVALUATED_PATCHES, _EVALUATED_SIDE = 8, 512


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was decided.

    Attributes:
        out: Folder of the option files and lists, as written in the files.
        scale_why, kind_why, key_why: Where scale, kind and groups come from, for comments.
        key: Regular expression of the groups, or None.
        parts: By phase; what `listed` names is picked out by a list file in `out`.
        is_small: For a CPU: a small network.
        to_beat: Lines about interpolation on the validation set.
    """

    name: str
    source: str
    out: str
    facts: PictureFacts | SlideFacts | VolumeFacts
    scale: tuple[int, ...]
    scale_why: str
    kind: Kind
    kind_why: str
    key: str | None
    key_why: str
    parts: dict[str, Part]
    listed: frozenset[str]
    fit: Fit
    total_iter: int
    is_small: bool
    workers: int
    slide_mpp: float | None = None
    found: Sequence[str] = ()
    to_beat: Sequence[str] = field(default=())

    @property
    def thick(self) -> bool:
        """Whether the scans themselves have thick slices, so that there is nothing sharper to learn from."""
        return (
            isinstance(self.facts, VolumeFacts) and self.facts.thick_axis is not None and self.parts["train"].lq is None
        )

    @property
    def hours(self) -> float | None:
        return None if self.fit.step_s is None else self.total_iter * self.fit.step_s / 3600


def train_text(plan: Plan) -> str:
    """train.yml."""
    hours = "unknown, nothing was measured" if plan.hours is None else f"{plan.hours:.2g} hours on {plan.fit.device}"
    step = (
        ""
        if plan.fit.step_s is None
        else f" ({plan.fit.step_s:.3g} s an iteration, loading and validation not counted)"
    )
    head = [
        f"Written by `srkit plan {plan.source}`. Guesses say so; change what you know better. Then",
        f"  srkit check {plan.out}/train.yml",
        f"  srkit train -opt {plan.out}/train.yml",
        *[f"Found: {line}" for line in plan.found],
        f"Expected: {hours}{step}.",
        *[f"To beat: {line}" for line in plan.to_beat],
    ]
    total = plan.total_iter
    lines = [
        *[f"# {line}" for line in head],
        f"name: {plan.name} # folder below experiments/",
        "model_type: SRModel # a pixel loss alone: sharper-looking GAN phases start from what this leaves",
        f"scale: {_scale(plan.scale)} # {plan.scale_why}",
        "num_gpu: auto",
        "manual_seed: 0",
        "",
        "datasets:",
        "  train:",
        *_indented(_dataset(plan, "train")),
    ]
    if "val" in plan.parts and not plan.thick:
        lines += ["  val:", *_indented(_dataset(plan, "val"))]
    elif not plan.thick:
        lines += ["  # no val: there is one group only, and a figure on what was trained on means nothing"]
    else:
        lines += [
            "  # no val: thick scans hold no truth; isotropic ones, made thick by `srkit thicken`, would measure it"
        ]
    lines += [
        "",
        "network_g:",
        *_network(plan),
        "",
        "train:",
        f"  total_iter: {total} # as many as fit into the hours asked for" if plan.hours else f"  total_iter: {total}",
        f"  ema_decay: {_ema_decay(total)} # averaged weights, over about the last {round(1 / (1 - _ema_decay(total))):,} iterations, "
        "are validated and tested",
        "  use_amp: true # bf16 where the device is good at it, else as it can",
    ]
    if plan.fit.accum > 1:
        lines.append(
            f"  accum_iter: {plan.fit.accum} # batches of {plan.fit.batch} are what fits; together {plan.fit.accum * plan.fit.batch}"
        )
    rate, least = ("1e-3", "1e-6") if plan.is_small else ("2e-4", "1e-7")
    lines += [
        "  optim_g:",
        "    type: Adam",
        f"    lr: {rate} # {'usual for a network this small' if plan.is_small else 'usual for networks of this size'}",
        "    betas: [0.9, 0.99]",
        "  scheduler:",
        "    type: CosineAnnealingRestartLR # falls to eta_min over the whole training",
        f"    periods: [{total}]",
        f"    eta_min: {least}",
        f"  warmup_iter: {min(500, max(1, total // 20))} # the rate rises slowly at first",
        "  grad_clip: {type: norm, max: 1.0} # one odd picture cannot throw the weights far",
        "  pixel_opt: {type: L1Loss} # scores higher PSNR than squared errors in practice",
        "",
    ]
    if "val" in plan.parts and not plan.thick:
        lines += ["val:", f"  val_freq: {max(1, total // 10)}", *_protocol(plan), ""]
    lines += [
        "logger:",
        f"  print_freq: {min(200, max(1, total // 100))}",
        f"  save_checkpoint_freq: {max(1, total // 20)} # --auto_resume loses at most so many iterations",
    ]
    return "\n".join(lines) + "\n"


def test_text(plan: Plan) -> str:
    """test.yml; for plans with a test part."""
    lines = [
        f"# Measures what {plan.out}/train.yml trained, beside interpolation, on what neither training nor choice of weights saw.",
        f"#   srkit test -opt {plan.out}/test.yml",
        f"name: {plan.name}",
        "model_type: SRModel",
        f"scale: {_scale(plan.scale)}",
        "num_gpu: auto",
        "",
        "datasets:",
        "  test_1:",
        *_indented(_dataset(plan, "test")),
        "",
        "path:",
        f"  pretrain_network_g: experiments/{plan.name}/models/net_g_best.pth # the best in validation",
        "",
        "val:",
        "  save_img: true",
        *_protocol(plan),
    ]
    return "\n".join(lines) + "\n"


def _dataset(plan: Plan, phase: str) -> list[str]:
    part, facts = plan.parts[phase], plan.facts
    is_training = phase == "train"
    kind = "SlideDataset" if isinstance(facts, SlideFacts) else "PairedImageDataset"
    if isinstance(facts, VolumeFacts):
        kind = "SelfSupervisedSlices" if plan.thick else "VolumeDataset"
    lines = [f"name: {plan.name}_{phase}", f"type: {kind}", f"dataroot_gt: {quoted(part.gt)}"]
    if part.lq is not None:
        lines.append(
            f"dataroot_lq: {quoted(part.lq)} # its files pair by name; sizes in the headers agree with the scale"
        )
        if part.filename_tmpl != "{}":
            lines.append(f"filename_tmpl: {quoted(part.filename_tmpl)} # name of lq from the name of gt")
        if part.pair_pattern is not None:
            lines.append(f"pair_pattern: {quoted(part.pair_pattern)} # a guess: the number that both names hold")
    elif kind == "PairedImageDataset":
        lines.append(
            "# no dataroot_lq: lq is gt shrunk by the antialiased bicubic; real low-resolution files train better for them"
        )
    elif kind == "VolumeDataset":
        lines.append("# no dataroot_lq: lq is made by box slices, as a scanner with thicker slices would record")
    if phase in plan.listed:
        lines.append(f"meta_info_file: {quoted(f'{plan.out}/{phase}.txt')} # {plan.key_why}")
    elif part.recursive:
        lines.append("recursive: true # the files lie in folders below")
    lines += _reading(plan)
    if kind in ("VolumeDataset", "PairedImageDataset") and plan.key is not None:
        lines.append(f"group_pattern: {quoted(plan.key)} # intervals are drawn over groups")
    if not is_training:
        if kind == "SlideDataset":
            lines += [
                f"gt_size: {_EVALUATED_SIDE // plan.scale[0] * plan.scale[0]}",
                f"patches_per_slide: {_EVALUATED_PATCHES} # always the same places",
            ]
        return lines
    size = plan.fit.gt_size
    side = str(size[0]) if len(set(size)) == 1 else f"[{', '.join(map(str, size))}]"
    lines.append(f"gt_size: {side} # patch; larger ones see more context and cost more")
    if kind in ("PairedImageDataset", "SlideDataset"):
        mirrored = (
            "letters and scenes upside down do not occur: only left and right"
            if plan.kind == "faces"
            else "all eight turns"
        )
        lines += [f"use_hflip: true # {mirrored}"] + ([] if plan.kind == "faces" else ["use_rot: true"])
    if kind == "SlideDataset":
        lines += [
            "patches_per_slide: 1000 # samples of each slide in an epoch",
            "tissue_fraction: 0.5 # glass teaches nothing",
        ]
    if kind == "VolumeDataset":
        lines.append(
            "flip_axes: [] # name the left-right axis here: mirrored brains are brains, upside-down ones are not"
        )
    peak = "" if plan.fit.peak_bytes is None else f" about {plan.fit.peak_bytes / 2**30:.1f} GiB in all"
    lines.append(f"batch_size_per_gpu: {plan.fit.batch} #{peak or ' not measured'}")
    count = len(part.names) * (1000 if kind == "SlideDataset" else 1)
    enlarge = max(1, -(-plan.fit.batch * 100 // count))
    if enlarge > 1:
        lines.append(f"dataset_enlarge_ratio: {enlarge} # few files: an epoch takes each so often, with other patches")
    if plan.workers:
        lines.append(f"num_worker_per_gpu: {plan.workers} # `srkit doctor -opt` says whether loading keeps up")
    return lines


def _reading(plan: Plan) -> list[str]:
    facts = plan.facts
    if isinstance(facts, PictureFacts) and facts.bit_depth is not None:
        return [f"bit_depth: {facts.bit_depth} # a guess: the brightest of a sample is {facts.brightest}"]
    if isinstance(facts, SlideFacts):
        lines = []
        if plan.slide_mpp is not None:
            lines.append(f"slide_mpp: {plan.slide_mpp} # given by --slide_mpp, for slides that do not say theirs")
        known = [*facts.mpp, *([plan.slide_mpp] * bool(facts.silent) if plan.slide_mpp else [])]
        if known and (plan.slide_mpp or not facts.silent):
            lines.append(f"mpp: {max(known):.4g} # microns per pixel of gt: the coarsest slide's, which all can give")
        else:
            lines.append(
                "# no mpp: some slides do not say theirs (--slide_mpp would), so level 0 of each is taken as it is"
            )
        return lines
    return []


def _network(plan: Plan) -> list[str]:
    size = "small, for a CPU" if plan.is_small else "of moderate size"
    if isinstance(plan.facts, VolumeFacts):
        features, blocks = (32, 3) if plan.is_small else (64, 6)
        kind = "ThroughPlane" if plan.thick else "ResnetGenerator"
        return [
            f"  type: {kind} # {size}",
            f"  num_feat: {features}",
            f"  num_block: {blocks}",
            "  norm: none",
            "  residual: linear # starts at linear interpolation",
        ]
    features, blocks = (32, 8) if plan.is_small else (64, 16)
    if len(set(plan.scale)) > 1 or plan.scale[0] not in EDSR_SCALES:
        return [
            f"  type: ResnetGenerator # {size}; EDSR does not enlarge by this scale",
            "  num_in_ch: 3",
            "  num_out_ch: 3",
            f"  num_feat: {features}",
            f"  num_block: {blocks}",
            "  norm: none",
            "  residual: linear # starts at linear interpolation",
        ]
    lines = [f"  type: EDSR # {size}", f"  num_feat: {features}", f"  num_block: {blocks}"]
    if isinstance(plan.facts, PictureFacts):
        mean = ", ".join(map(str, plan.facts.mean))
        lines += ["  img_range: 1.", f"  rgb_mean: [{mean}] # of a sample of the training pictures"]
    return lines


def _protocol(plan: Plan) -> list[str]:
    if isinstance(plan.facts, VolumeFacts):
        return ["  protocol: mri-volume-v1 # whole volume and inside the mask, float, in the file's units"]
    return [f"  protocol: {PROTOCOLS[plan.kind]} # {plan.kind_why}"]


def quoted(value: Path | str) -> str:
    """A YAML scalar; in double quotes where it needs them."""
    text = str(value)
    return (
        text
        if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*[A-Za-z0-9_./-]", text)
        else json.dumps(text, ensure_ascii=False)
    )


def _ema_decay(total: int) -> float:
    """An average over a tenth of the training at most, or the random weights of its beginning stay in it."""
    return 0.999 if total >= 10_000 else 0.99 if total >= 1_000 else 0.9


def _scale(scale: Sequence[int]) -> str:
    return str(scale[0]) if len(scale) == 2 and len(set(scale)) == 1 else f"[{', '.join(map(str, scale))}]"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]
