"""Options that change nothing in this run, or look unintended: warned about by name, once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from srkit.options.problems import Place, Problem
from srkit.options.schema import LoggerSection, Options
from srkit.options.sections import Sections
from srkit.options.training import MultiStepOptions, TrainSection

# Key of an evaluation dataset -> the values that ask for nothing.
_TRAIN_ONLY: Mapping[str, tuple[Any, ...]] = {
    "cache": ("auto", "disk", "none"),
    "gt_size": (None,),
    "gt_size_max": (None,),
    "crop_type": (None,),
    "use_hflip": (False,),
    "use_rot": (False,),
    "color_jitter_prob": (0,),
    "color_jitter_shift": (0,),
    "brightness": (0,),
    "contrast": (0,),
    "saturation": (0,),
    "hue": (0,),
    "lq_dropout_prob": (0,),
    "lq_jpeg_prob": (0,),
    "use_shuffle": (False,),
    "batch_size_per_gpu": (1,),
    "dataset_enlarge_ratio": (1,),
    "prefetch_mode": (None,),
    "num_prefetch_queue": (None,),
    "pin_memory": (False,),
    "mean": (None,),
    "std": (None,),
}


def warnings(options: Options, sections: Sections, launcher: str | None) -> list[Problem]:
    """Everything worth a warning in a file without mistakes.

    Args:
        launcher: Who starts the processes, or None when that is not known.
    """
    return [
        *_without_effect(options, sections, launcher),
        *_loader(sections),
        *_unnamed(options, sections),
        *(_schedule(options.train) if options.train and sections.mode == "train" else ()),
    ]


def _unnamed(options: Options, s: Sections) -> Iterator[Problem]:
    """Options of a class of another project that only its `**kwargs` takes."""
    for name, item in options.networks.items():
        signature = s.context.catalog.get("arch", item.type)
        if signature is not None and signature.is_open:
            for key in item.options.keys() - set(signature.names):
                text = f"{item.type} names no such option; its **kwargs takes it, and a slip would pass unnoticed"
                yield Problem((name, key), text)


def _idle(place: Place, why: str) -> Problem:
    return Problem(place, f"has no effect {why}")


def _without_effect(options: Options, s: Sections, launcher: str | None) -> Iterator[Problem]:
    if options.print_network:
        yield _idle(("print_network",), "in srkit")
    path = options.path
    if path.pretrain_network_g is None:
        if not path.strict_load_g:
            yield _idle(("path", "strict_load_g"), "without pretrain_network_g")
        if path.param_key_g is not None:
            yield _idle(("path", "param_key_g"), "without pretrain_network_g")
    if path.pretrain_network_d is None:
        if not path.strict_load_d:
            yield _idle(("path", "strict_load_d"), "without pretrain_network_d")
        if path.param_key_d is not None:
            yield _idle(("path", "param_key_d"), "without pretrain_network_d")
    val = options.val
    if val.suffix is not None and not val.save_img:
        yield _idle(("val", "suffix"), "without save_img: true")
    if (
        s.given(("val", "tile_overlap"))
        and val.tile is None
        and val.tile_overlap != type(val).model_fields["tile_overlap"].default
    ):
        yield _idle(("val", "tile_overlap"), "without tile")
    if launcher == "none" and options.dist_params != type(options.dist_params)():
        yield _idle(("dist_params",), "without --launcher")
    if launcher == "none" and options.train is not None and options.train.sync_batchnorm:
        yield _idle(("train", "sync_batchnorm"), "without --launcher")
    yield from _in_training(options, s) if s.mode == "train" else _in_test(options)


def _in_training(options: Options, s: Sections) -> Iterator[Problem]:
    if not s.evaluated and options.val != type(options.val)() and s.given(("val",)):
        yield _idle(("val",), "without a dataset to evaluate, such as datasets.val")
    if options.val.precision != "fp32":
        yield _idle(("val", "precision"), "in training, whose validation is fp32")
    if options.network_d is None and options.train is not None:
        if options.train.net_d_iters != 1:
            yield _idle(("train", "net_d_iters"), "without network_d")
        if options.train.net_d_init_iters:
            yield _idle(("train", "net_d_init_iters"), "without network_d")
        if options.path.pretrain_network_d is not None:
            yield _idle(("path", "pretrain_network_d"), "without network_d")
    features = options.train.feature_matching_opt if options.train else None
    if features is not None and features.target != "gt":
        yield _idle(("train", "feature_matching_opt", "target"), "beside gan_opt, whose target gives the maps")
    if options.train is not None and options.train.gan_opt is not None:
        if options.train.gan_opt.type == "GANLoss":
            yield from _in_adversarial_loss(options.train.gan_opt.options)
        if options.model_type == "EdgeAdversarial" and options.train.gan_opt.target != "gt":
            yield _idle(("train", "gan_opt", "target"), "with model_type EdgeAdversarial, which compares edge maps")
    if options.path.resume_state is None and options.path.ignore_resume_networks:
        yield _idle(("path", "ignore_resume_networks"), "unless a checkpoint is resumed")


def _in_adversarial_loss(given: Mapping[str, Any]) -> Iterator[Problem]:
    """Options of GANLoss that its other options leave nothing to do."""
    kind = given.get("gan_type", "vanilla")
    if given.get("detach_mean") and not given.get("relativistic"):
        yield _idle(("train", "gan_opt", "detach_mean"), "without relativistic: true")
    for key, default in (("real_label_val", 1), ("fake_label_val", 0)):
        if kind not in ("vanilla", "lsgan") and given.get(key, default) != default:
            yield _idle(("train", "gan_opt", key), f"with gan_type {kind}, which has no labels")


def _in_test(options: Options) -> Iterator[Problem]:
    if options.train is not None:
        yield _idle(("train",), "in a test")
    if "train" in options.datasets:
        yield _idle(("datasets", "train"), "in a test")
    if options.logger != LoggerSection():
        yield _idle(("logger",), "in a test")
    if options.val.val_freq != type(options.val).model_fields["val_freq"].default:
        yield _idle(("val", "val_freq"), "in a test")
    if options.path.resume_state is not None:
        yield _idle(("path", "resume_state"), "in a test")


def _loader(s: Sections) -> Iterator[Problem]:
    for phase, item in s.evaluated.items():
        given = {**{k: getattr(item, k) for k in item.model_fields_set}, **item.options}
        signature = s.context.catalog.get("dataset", item.type)
        required = {a.name for a in signature.arguments if a.required} if signature else set()
        for key, idle_values in _TRAIN_ONLY.items():
            if key in given and given[key] not in idle_values and key not in required:
                yield _idle(("datasets", phase, key), "in a dataset that is evaluated")
    train = s.datasets.get("train")
    if train is None or s.mode == "test":
        return
    place: Place = ("datasets", "train")
    if train.num_prefetch_queue is not None and train.prefetch_mode != "cpu":
        yield _idle((*place, "num_prefetch_queue"), "without prefetch_mode: cpu")
    if "color_jitter_shift" in train.options and not train.options.get("color_jitter_prob"):
        yield _idle((*place, "color_jitter_shift"), "without color_jitter_prob")
    if train.options.get("queue_size"):
        yield _idle((*place, "queue_size"), "in srkit: every sample of a batch has a degradation of its own")
    for key, needed in (
        ("lq_dropout_holes", "lq_dropout_prob"),
        ("lq_dropout_size", "lq_dropout_prob"),
        ("lq_jpeg_quality", "lq_jpeg_prob"),
        ("gt_size_step", "gt_size_max"),
    ):
        if key in train.options and not train.options.get(needed):
            yield _idle((*place, key), f"without {needed}")
    changes = ("brightness", "contrast", "saturation", "hue")
    if "color_change_prob" in train.options and not any(train.options.get(key) for key in changes):
        yield _idle((*place, "color_change_prob"), f"without {', '.join(changes)}")
    if "crop_type" in train.options and not train.options.get("gt_size"):
        yield _idle((*place, "crop_type"), "without gt_size")
    if "dataroot_lq" in train.options and train.options["dataroot_lq"] and "lq_resize" in train.options:
        yield _idle((*place, "lq_resize"), "with dataroot_lq, which brings lq pictures")


def _schedule(train: TrainSection) -> Iterator[Problem]:
    if train.warmup_iter >= train.total_iter:
        yield Problem(
            ("train", "warmup_iter"), f"{train.warmup_iter:,} never ends before total_iter {train.total_iter:,}"
        )
    if isinstance(train.scheduler, MultiStepOptions):
        late = [m for m in train.scheduler.milestones if m >= train.total_iter]
        if late:
            text = f"{', '.join(map(str, late))} not reached before total_iter {train.total_iter:,}"
            yield Problem(("train", "scheduler", "milestones"), text)
