"""What a GAN iteration costs: srkit's trainer against a loop in the field's order, interleaved in one process.

    python scripts/benchmark_gan.py [--network_d VGGAdaptiveDiscriminator] [--plain] [--perceptual random] [--out x.json]

srkit shows the discriminator sr and gt once each and uses both outputs in both turns. BasicSR's ESRGANModel asks it five
times (SRGANModel with --plain: three). Both sides begin with the same weights and take the same resident batches; each
pair times `chunk` iterations of both, in turn, and compares the mean losses of these.

Under batch norm every forward has the statistics of its own batch, so both train alike up to rounding. Under spectral norm
every forward brings the norm nearer, so five forwards see other kernels than two. BasicSR lets no gradient through the
relativistic means in the discriminator's turn, and lets it through in the generator's; srkit has one switch for both.
--detach_mean (default) is BasicSR's form for the discriminator, and both sides then take it for the generator as well;
with --no-detach_mean the generator's turn is BasicSR's, and the discriminator learns by another gradient here than there.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from srkit.engine.experiment import environment
from srkit.engine.recipes import Adversarial, Scene, image_terms
from srkit.engine.trainer import Trainer
from srkit.engine.transfer import Batch
from srkit.imaging.files import write_image
from srkit.imaging.resize import imresize
from srkit.options import load_options
from srkit.tools.benchmarking.stages import timed
from srkit.tools.measuring import trial

SCALE = 4
RESIDENT = 8  # different batches, in turn


def write_pairs(folder: Path, scale: int) -> None:
    """Sixteen pairs of noise, gt of 256 pixels."""
    draw = np.random.default_rng(0)
    for index in range(16):
        gt = draw.integers(0, 256, (256, 256, 3)).astype(np.uint8)
        write_image(folder / f"gt/{index}.png", gt)
        write_image(folder / f"lq/{index}.png", imresize(gt, Fraction(1, scale)))


def make_run(folder: Path, flags: argparse.Namespace) -> Path:
    """Synthetic pairs and an option file for a GAN training on them that never validates or saves."""
    write_pairs(folder, SCALE)
    network_d: dict[str, object] = {"type": flags.network_d}
    if flags.network_d == "VGGAdaptiveDiscriminator":
        network_d["channels"] = [flags.feat_d * step for step in (1, 1, 2, 2, 4, 4, 8, 8)]
    else:
        network_d["num_feat"] = flags.feat_d
    adam = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.99]}
    train = {
        "total_iter": 10**9, "ema_decay": 0, "precision": flags.precision, "optim_g": adam, "optim_d": adam,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 1e-2},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 5e-3, "detach_mean": flags.detach_mean},
    }  # fmt: skip
    if flags.perceptual == "random":
        train["perceptual_opt"] = {"type": "PerceptualLoss", "weights": "random", "layer_weights": {"conv5_4": 1}}
    content = {
        "name": "gan", "model_type": "SRGANModel" if flags.plain else "ESRGANModel", "scale": SCALE, "num_gpu": "auto",
        "datasets": {"train": {
            "type": "PairedImageDataset", "dataroot_gt": f"{folder}/gt", "dataroot_lq": f"{folder}/lq",
            "gt_size": flags.gt_size, "batch_size_per_gpu": flags.batch, "num_worker_per_gpu": 0}},
        "network_g": {
            "type": "RRDBNet", "num_feat": flags.feat, "num_block": flags.block, "num_grow_ch": flags.growth},
        "network_d": network_d,
        "path": {"experiments_root": f"{folder}/experiments"},
        "train": train,
        "logger": {"print_freq": 10**9, "save_checkpoint_freq": 10**9, "use_tb_logger": False},
    }  # fmt: skip
    path = folder / "gan.yml"
    path.write_text(yaml.safe_dump(content))
    return path


class FieldLoop:
    """The iteration of BasicSR 1.4.2's ESRGANModel and SRGANModel, with the trainer's own losses, precision and optimizer.

    Every use of the discriminator is a forward of its own, and its losses on gt and on sr are differentiated apart.
    """

    def __init__(self, trainer: Trainer, batches: Iterator[Batch]) -> None:
        assert isinstance(trainer.recipe, Adversarial)
        self.networks = {name: copy.deepcopy(network) for name, network in trainer.networks.items()}
        self.optimizers = {
            name: torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.9, 0.99), fused=True)
            for name, network in self.networks.items()
        }
        self.losses, self.gan = trainer.recipe.losses, trainer.recipe.duel.adversarial
        self.autocast = trainer.precision.autocast
        self.batches = batches
        self.sums: dict[str, Tensor] = {}

    def step(self) -> None:
        batch, loss, judged = next(self.batches), self.gan.loss, self.networks["network_d"]
        judged.requires_grad_(False)
        self.optimizers["network_g"].zero_grad(set_to_none=True)
        sr = self._run("network_g", batch.lq)
        terms = image_terms(self.losses, Scene(batch, sr, 0), "l_g_")
        real = self._judge(batch.gt).detach() if loss.relativistic else None
        fake = self._judge(sr)
        terms["l_g_gan"] = self.gan.weight * loss.generator(fake, fake if real is None else real)
        torch.stack(list(terms.values())).sum().backward()
        self.optimizers["network_g"].step()

        judged.requires_grad_(True)
        self.optimizers["network_d"].zero_grad(set_to_none=True)
        beside = self._judge(sr).detach() if loss.relativistic else None
        real = self._judge(batch.gt)
        terms["l_d_real"] = loss.discriminator(real.detach() if beside is None else beside, real)["real"]
        terms["l_d_real"].backward()
        fake = self._judge(sr.detach())
        terms["l_d_fake"] = loss.discriminator(fake, real.detach())["fake"]
        terms["l_d_fake"].backward()
        self.optimizers["network_d"].step()
        terms |= {"out_d_real": real.mean(), "out_d_fake": fake.mean()}
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()

    def means(self, count: int) -> dict[str, float]:
        """Losses of the last `count` iterations, all since the last call."""
        means = {name: value.item() / count for name, value in self.sums.items()}
        self.sums = {}
        return means

    def _run(self, name: str, pictures: Tensor) -> Tensor:
        with self.autocast():
            return self.networks[name](pictures).float()

    def _judge(self, pictures: Tensor) -> Tensor:
        return self._run("network_d", pictures)


class Counter:
    """Counts the forwards of a network."""

    def __init__(self, network: nn.Module) -> None:
        self.count = 0
        network.register_forward_hook(self._seen)

    def _seen(self, *_: object) -> None:
        self.count += 1


def measure(folder: Path, flags: argparse.Namespace) -> dict[str, object]:
    with trial(load_options(make_run(folder, flags), mode="train")) as (_, trainer):
        return compare(trainer, flags)


def compare(trainer: Trainer, flags: argparse.Namespace) -> dict[str, object]:
    """Both loops in turn on the same resident batches."""
    resident = list(itertools.islice(trainer.batches, RESIDENT))
    trainer.batches.close()
    trainer.batches = (batch for batch in itertools.cycle(resident))
    field = FieldLoop(trainer, itertools.cycle(resident))
    forwards = {"srkit": Counter(trainer.networks["network_d"]), "field": Counter(field.networks["network_d"])}
    times: dict[str, list[tuple[float, float]]] = {"srkit": [], "field": []}
    losses: dict[str, list[Mapping[str, float]]] = {"srkit": [], "field": []}
    for _ in range(flags.pairs):
        times["field"].append(timed(field.step, flags.chunk, trainer.group.device))
        times["srkit"].append(timed(trainer.train_step, flags.chunk, trainer.group.device))
        losses["field"].append(field.means(flags.chunk))
        losses["srkit"].append(trainer.meter.read(trainer.group)[0])
    iterations = flags.pairs * flags.chunk
    together = list(zip(times["srkit"], times["field"], strict=True))
    return {
        "what": f"RRDBNet {flags.feat}/{flags.block}/{flags.growth} x{SCALE}, {flags.network_d} {flags.feat_d}, "
        f"{'plain' if flags.plain else 'relativistic'}, perceptual {flags.perceptual}, batch {flags.batch}, "
        f"gt {flags.gt_size}, {flags.precision}, detach_mean {flags.detach_mean}",
        "iterations": iterations,
        "forwards_of_d_per_iteration": {name: counter.count / iterations for name, counter in forwards.items()},
        "median_s": {name: statistics.median(wall for wall, _ in pairs) for name, pairs in times.items()},
        "median_cpu_s": {name: statistics.median(cpu for _, cpu in pairs) for name, pairs in times.items()},
        "ratio_wall": statistics.median(ours[0] / theirs[0] for ours, theirs in together),
        "ratio_cpu": statistics.median(ours[1] / theirs[1] for ours, theirs in together),
        "losses": {name: differences(losses, name) for name in losses["field"][0]},
        "environment": environment(),
    }


def differences(losses: Mapping[str, list[Mapping[str, float]]], name: str) -> dict[str, float]:
    """How far apart the two sides' values of one loss are: in the first chunk, and at most; and how large it is."""
    apart = [abs(ours[name] - theirs[name]) for ours, theirs in zip(losses["srkit"], losses["field"], strict=True)]
    size = statistics.fmean(abs(theirs[name]) for theirs in losses["field"])
    return {"mean_size": size, "first": apart[0], "largest": max(apart)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"feat": 32, "block": 4, "growth": 16, "feat_d": 32, "batch": 8, "gt_size": 96, "pairs": 50, "chunk": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--network_d", choices=("VGGAdaptiveDiscriminator", "UNetDiscriminatorSN"), default="VGGAdaptiveDiscriminator"
    )
    parser.add_argument("--plain", action="store_true", help="SRGAN's loss in place of the relativistic one")
    parser.add_argument("--detach_mean", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--perceptual", choices=("none", "random"), default="none")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        text = json.dumps(measure(Path(temporary), flags), indent=1)
    print(text)
    if flags.out:
        flags.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
