"""Mistakes that no single option shows: values that do not fit each other, and sections a run cannot do without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from srkit.options.aliases import canonical
from srkit.options.components import DatasetOptions, LossOptions
from srkit.options.problems import Place, Problem
from srkit.options.sections import Sections, raw_value
from srkit.options.training import CosineRestartOptions, MultiStepOptions, SGDOptions, TrainSection


def check(sections: Sections) -> list[Problem]:
    """All mistakes found across the valid sections."""
    problems = [*_needed(sections), *_evaluation(sections)]
    for phase, item in sections.datasets.items():
        problems += _dataset(("datasets", phase), item, sections)
    if sections.train is not None:
        problems += [*_schedule(sections.train), *_training(sections.train), *_adversaries(sections.train, sections)]
        problems += _targets(sections.train, sections)
        problems += _cuda_graph(sections.train, sections)
    problems += _edge_maps(sections)
    return problems


def _needed(s: Sections) -> Iterator[Problem]:
    """Sections that the mode needs."""
    if s.mode == "train":
        for place, why in (
            (("datasets", "train"), "training needs a dataset"),
            (("network_g",), "training needs a network"),
            (("train",), "training needs total_iter, optim_g and a loss such as pixel_opt"),
        ):
            if not s.given(place):
                yield Problem(place, f"missing; {why}")
        needs_image_loss = canonical("recipe", str(s.raw.get("model_type"))) != "EdgeAdversarial"
        if s.train is not None and not s.train.image_losses() and needs_image_loss:
            yield Problem(("train",), "no loss is given; add pixel_opt: {type: L1Loss}")
        if "train" in s.datasets and not s.given(("datasets", "train", "batch_size_per_gpu")):
            yield Problem(("datasets", "train", "batch_size_per_gpu"), "missing; it has no default in training")
    else:
        raw = s.raw.get("datasets")
        if not isinstance(raw, dict) or not any(str(key).startswith(("val", "test")) for key in raw):
            yield Problem(("datasets",), "a test needs at least one dataset; add datasets.test_1")
        if s.path is not None and s.path.pretrain_network_g is None:
            yield Problem(("path", "pretrain_network_g"), "missing; name the model file to test")


def _evaluation(s: Sections) -> Iterator[Problem]:
    if s.val is not None and s.val.protocol is not None and s.val.metrics:
        yield Problem(("val", "protocol"), "found beside metrics; a protocol brings its own, so give one of the two")
    if s.val is not None and s.scale is not None:
        axes = len(s.scale)
        for key, value in (("tile", s.val.tile), ("tile_overlap", s.val.tile_overlap)):
            if isinstance(value, tuple) and len(value) != axes:
                yield Problem(("val", key), f"found {len(value)} values, expected one per axis of scale, {axes}")
        tile, overlap = (_per_axis(v, axes) for v in (s.val.tile, s.val.tile_overlap))
        if tile and overlap and any(t <= 2 * o for t, o in zip(tile, overlap, strict=False)):
            yield Problem(
                ("val", "tile"), f"found {s.val.tile}, expected more than two overlaps of {s.val.tile_overlap}"
            )
    for phase, item in s.evaluated.items():
        if item.options.get("on_error") == "skip":
            text = "found 'skip', expected 'raise'; a mean over fewer pictures would be another number"
            yield Problem(("datasets", phase, "on_error"), text)
        if item.options.get("scale_augment"):
            text = "found in a dataset that is evaluated; pictures there keep their size, so remove it"
            yield Problem(("datasets", phase, "scale_augment"), text)
    names = {phase: item.name or phase for phase, item in s.evaluated.items()}
    for name, count in Counter(names.values()).items():
        if count > 1:
            phases = [phase for phase, other in names.items() if other == name]
            text = f"'{name}' names {' and '.join(f'datasets.{p}' for p in phases)}; their results would mix"
            yield Problem(("datasets", phases[-1], "name"), text)


def _dataset(place: Place, item: DatasetOptions, s: Sections) -> Iterator[Problem]:
    if (item.mean is None) != (item.std is None):
        missing = "std" if item.std is None else "mean"
        yield Problem((*place, "mean" if missing == "std" else "std"), f"found without {missing}; give both or neither")
    elif item.mean is not None and item.std is not None and len(item.mean) != len(item.std):
        yield Problem((*place, "std"), f"found {len(item.std)} values, but mean has {len(item.mean)}")
    gt_size = item.options.get("gt_size")
    if gt_size is not None and s.scale is not None:
        for scale in [s.scale] if item.scales is None else [(n,) * len(s.scale) for n in item.scales]:
            yield from _crop((*place, "gt_size"), gt_size, scale)
    if item.scales is not None and s.scale is not None:
        yield from _scales((*place, "scales"), item, s.scale)
    signature = s.context.catalog.get("dataset", item.type)
    if item.io_backend and item.io_backend.type != "disk" and signature and "io_backend" not in signature.names:
        yield Problem((*place, "io_backend", "type"), f"{item.type} reads plain files only; write disk")


def _scales(place: Place, item: DatasetOptions, scale: tuple[int, ...]) -> Iterator[Problem]:
    found = list(item.scales or ())
    if not found or len(set(found)) < len(found):
        yield Problem(place, f"found {found}, expected different scales")
    elif place[1] == "train" and (len(set(scale)) > 1 or scale[0] not in found):
        yield Problem(place, f"found {found} without the top-level scale {scale[0]}, which the network is built for")
    lq = item.options.get("dataroot_lq")
    if lq is not None and "{scale}" not in f"{lq} {item.options.get('filename_tmpl', '')}":
        yield Problem(place, f"found with dataroot_lq '{lq}'; write {{scale}} where a folder or name holds the number")


def _crop(place: Place, gt_size: object, scale: tuple[int, ...]) -> Iterator[Problem]:
    sides = gt_size if isinstance(gt_size, (list, tuple)) else (gt_size,) * len(scale)
    if len(sides) != len(scale):
        yield Problem(place, f"found {len(sides)} values, expected one per axis of scale, {len(scale)}")
        return
    for side, factor in dict.fromkeys(zip(sides, scale)):
        if not isinstance(side, int):
            continue
        if side < 1:
            yield Problem(place, f"found {side}, expected a whole number above 0")
        elif side % factor:
            below = side // factor * factor
            near = f"{below} and {below + factor} are" if below else f"{factor} is"
            yield Problem(place, f"{side} is not a multiple of scale {factor}; {near}")


def _schedule(train: TrainSection) -> Iterator[Problem]:
    place, item = ("train", "scheduler"), train.scheduler
    if isinstance(item, CosineRestartOptions):
        if len(item.restart_weights) != len(item.periods):
            yield _weights(place, len(item.restart_weights), "period", len(item.periods))
        total = sum(item.periods)
        if total < train.total_iter:
            text = (
                f"the periods add up to {total:,}, below total_iter {train.total_iter:,}; lengthen them or train less"
            )
            yield Problem((*place, "periods"), text)
    elif isinstance(item, MultiStepOptions):
        for key, steps in (("milestones", item.milestones), ("restarts", item.restarts)):
            if list(steps) != sorted(set(steps)):
                yield Problem((*place, key), f"found {list(steps)}, expected ascending iterations")
        if len(item.restart_weights) != len(item.restarts):
            yield _weights(place, len(item.restart_weights), "restart", len(item.restarts))


def _per_axis(value: int | tuple[int, ...] | None, axes: int) -> tuple[int, ...]:
    return () if value is None else (value,) * axes if isinstance(value, int) else tuple(value)


def _weights(place: Place, found: int, what: str, expected: int) -> Problem:
    return Problem((*place, "restart_weights"), f"found {found} value(s), expected one per {what}, {expected}")


def _training(train: TrainSection) -> Iterator[Problem]:
    if train.use_amp and train.precision == "fp32":
        yield Problem(("train", "use_amp"), "contradicts precision: fp32; give one of the two")
    for network, optimizer in train.optimizers().items():
        if isinstance(optimizer, SGDOptions) and optimizer.nesterov and optimizer.momentum == 0:
            yield Problem(("train", network.replace("network", "optim"), "nesterov"), "needs momentum above 0")
    for place, item in _losses(train):
        if item.options.get("reduction") == "none":
            yield Problem((*place, "reduction"), "found 'none'; a loss must be one number: mean or sum")
        if item.stop_iter is not None and item.stop_iter <= item.start_iter:
            yield Problem(
                (*place, "stop_iter"), f"found {item.stop_iter}, expected more than start_iter {item.start_iter}"
            )
    gap = _idle_iteration(train)
    if gap is not None and any(True for _ in _losses(train)):
        yield Problem(("train",), f"no loss of network_g counts at iteration {gap:,}; see start_iter and stop_iter")


def _losses(train: TrainSection) -> Iterator[tuple[Place, LossOptions]]:
    for key in ("pixel_opt", "perceptual_opt", "gan_opt", "feature_matching_opt"):
        if (item := getattr(train, key)) is not None:
            yield ("train", key), item
    for name, item in train.losses.items():
        yield ("train", "losses", name), item


def _targets(train: TrainSection, s: Sections) -> Iterator[Problem]:
    """A loss on the sharpened gt needs batches that hold it."""
    item = s.datasets.get("train")
    signature = s.context.catalog.get("dataset", item.type) if item else None
    if item is None or signature is None:
        return
    for place, loss in _losses(train):
        if loss.target == "gt_usm" and "gt_usm" not in signature.names:
            text = f"found 'gt_usm', which {item.type} does not make; write gt, or train on RealESRGANDataset"
            yield Problem((*place, "target"), text)
        elif loss.target == "gt_usm" and item.options.get("gt_usm") is False:
            yield Problem((*place, "target"), "found 'gt_usm', but datasets.train.gt_usm is false")


def _cuda_graph(train: TrainSection, s: Sections) -> Iterator[Problem]:
    """A CUDA graph does the same with other numbers: nothing may have another size, or depend on a value read back."""
    if not train.cuda_graph:
        return
    wish = "with train.cuda_graph"
    if train.precision == "fp16":
        yield Problem(
            ("train", "precision"), f"found 'fp16' {wish}, expected fp32 or bf16; its scaler reads values back"
        )
    for network, optimizer in train.optimizers().items():
        if optimizer.type not in ("Adam", "AdamW", "SGD"):
            text = f"found '{optimizer.type}' {wish}, expected Adam, AdamW or SGD"
            yield Problem(("train", network.replace("network", "optim"), "type"), text)
    if canonical("recipe", str(s.raw.get("model_type"))) == "EdgeAdversarial":
        yield Problem(
            ("train", "cuda_graph"), "found true, but Canny's edges are made by reading values back; remove it"
        )
    for place, loss in _losses(train):
        if loss.type == "EdgeLoss" and loss.options.get("method") == "canny":
            yield Problem((*place, "method"), f"found 'canny' {wish}, expected sobel; Canny's edges read values back")
    item = s.datasets.get("train")
    signature = s.context.catalog.get("dataset", item.type) if item else None
    if item is None or signature is None:
        return
    if item.scales is not None:
        yield Problem(
            ("datasets", "train", "scales"), f"found {list(item.scales)} {wish}, expected one scale; remove it"
        )
    defaults = {argument.name: argument.default for argument in signature.arguments}
    if largest := item.options.get("gt_size_max"):
        yield Problem(
            ("datasets", "train", "gt_size_max"), f"found {largest} {wish}, expected crops of one size; remove it"
        )
    if "gt_size" in defaults and item.options.get("gt_size", defaults["gt_size"]) is None:
        yield Problem(("datasets", "train", "gt_size"), f"missing {wish}, which needs crops of one size")


def _idle_iteration(train: TrainSection) -> int | None:
    """The first iteration in which nothing teaches the generator."""
    spans = sorted((item.start_iter, item.stop_iter or train.total_iter) for _, item in _losses(train))
    covered = train.net_d_init_iters
    for start, stop in spans:
        if start > covered:
            break
        covered = max(covered, stop)
    return covered if covered < train.total_iter else None


def _adversaries(train: TrainSection, s: Sections) -> Iterator[Problem]:
    """A discriminator, its loss, its optimizer and the recipe that plays it come together."""
    recipe = canonical("recipe", str(s.raw.get("model_type")))
    if recipe in ("Adversarial", "EdgeAdversarial"):
        for place, why in (
            (("network_d",), "a discriminator"),
            (("train", "gan_opt"), "an adversarial loss such as gan_opt: {type: GANLoss, gan_type: vanilla}"),
            (("train", "optim_d"), "an optimizer for network_d"),
        ):
            if not s.given(place) or raw_value(s.raw, place) is None:
                yield Problem(place, f"missing; model_type {s.raw.get('model_type')} needs {why}")
        if train.net_d_init_iters >= train.total_iter:
            text = f"{train.net_d_init_iters:,} never ends before total_iter {train.total_iter:,}"
            yield Problem(("train", "net_d_init_iters"), text)
        stop = train.gan_opt.stop_iter if train.gan_opt else None
        if stop is not None and stop < train.total_iter and (train.net_d_iters > 1 or train.net_d_init_iters > stop):
            key = "net_d_iters" if train.net_d_iters > 1 else "net_d_init_iters"
            text = (
                f"found {stop:,}, where network_d stops; {key} {getattr(train, key)} would leave iterations in which no "
                "network learns. Remove one of the two"
            )
            yield Problem(("train", "gan_opt", "stop_iter"), text)
    elif recipe == "Supervised":
        for place in (("network_d",), ("train", "gan_opt"), ("train", "feature_matching_opt"), ("train", "optim_d")):
            if s.given(place) and raw_value(s.raw, place) is not None:
                found = s.raw.get("model_type")
                yield Problem(
                    place, f"model_type {found} has no discriminator; write SRGANModel or ESRGANModel, or remove it"
                )


def _edge_maps(s: Sections) -> Iterator[Problem]:
    """What makes edge maps is trained and measured as such."""
    model_type = s.raw.get("model_type")
    if canonical("recipe", str(model_type)) != "EdgeAdversarial":
        if s.network_g is not None and s.network_g.type == "EdgeGenerator":
            yield Problem(("network_g", "type"), "EdgeGenerator makes edge maps; write model_type: EdgeAdversarial")
        return
    if s.network_d is not None and (signature := s.context.catalog.get("arch", s.network_d.type)):
        default = {argument.name: argument.default for argument in signature.arguments}.get("num_in_ch")
        if s.network_d.options.get("num_in_ch", default) == 3:
            yield Problem(("network_d", "num_in_ch"), "found 3, expected 4: it is shown gt and an edge map")
    for place, loss in _losses(s.train) if s.train is not None else ():
        if loss.target != "gt" and place[-1] not in ("gan_opt", "feature_matching_opt"):
            yield Problem((*place, "target"), f"found '{loss.target}', but edge maps are compared; remove it")
    if s.val is not None and s.val.protocol is not None:
        yield Problem(("val", "protocol"), f"found {s.val.protocol}, which measures pictures, not edge maps; remove it")
    for name, metric in s.val.metrics.items() if s.val is not None else ():
        if metric.type in ("PSNR", "SSIM", "MSSSIM", "MSE", "MAE"):
            text = f"{metric.type} measures pictures, not edge maps; write EdgeF1, EdgePrecision or EdgeRecall"
            yield Problem(("val", "metrics", name), text)
