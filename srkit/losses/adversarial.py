"""What a discriminator is asked to say of real and restored pictures, and what the generator is asked to make it say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.errors import RefusedError
from srkit.losses.ranks import mean_over_ranks
from srkit.registry import LOSSES

Interval = tuple[float, float]


@LOSSES.register()
class GANLoss(nn.Module):
    """Adversarial loss on logits (no sigmoid before it); every value is a mean over all logits.

    With c the criterion, f and r the logits of restored and real pictures:

    - vanilla: binary cross-entropy with the label; lsgan: squared distance to the label;
    - hinge: D max(0, 1 - r) and max(0, 1 + f), G -f; wgan: D -r and f, G -f; wgan_softplus: D softplus(-r) and
      softplus(f), G softplus(-f). These three have no labels.

    `relativistic` judges each picture against the mean of the other kind: r - mean(f) and f - mean(r) take the places of
    r and f, the generator is taught on both, and each loss is the mean of its two parts. The mean is that of the micro-batch
    of one rank, or, with `global_mean`, of the micro-batches that all ranks have at the same time.

    Args:
        gan_type: The criterion.
        real_label_val: Label of real pictures.
        fake_label_val: Label of restored ones.
        real_label_range: Instead of real_label_val, in the discriminator's turn: drawn uniformly for each picture.
        fake_label_range: The same for restored pictures.
        relativistic: See above; on with model_type ESRGANModel.
        detach_mean: Keep the gradient off the relativistic means, in both turns. BasicSR does so in the discriminator's.

        global_mean: Take the relativistic means over all processes, as one process with their batches together would.

    Shape: logits (B, ...) of equal shape for both kinds, and with `global_mean` on all ranks.
    Raises: RefusedError for labels outside [0, 1] and for a relativistic loss that is undefined (wgan).
    Source: Goodfellow et al. 2014 (vanilla), Mao et al. 2017 (lsgan), Arjovsky et al. 2017 (wgan), Lim and Ye 2017
        (hinge), Jolicoeur-Martineau 2018, arXiv:1807.00734, section 3.3 (relativistic average).
    """

    compares = "adversarial"

    def __init__(
        self,
        *,
        gan_type: Literal["vanilla", "lsgan", "hinge", "wgan", "wgan_softplus"] = "vanilla",
        real_label_val: float = 1.0,
        fake_label_val: float = 0.0,
        real_label_range: tuple[float, float] | None = None,
        fake_label_range: tuple[float, float] | None = None,
        relativistic: bool = False,
        detach_mean: bool = False,
        global_mean: bool = False,
    ) -> None:
        super().__init__()
        self.gan_type, self.relativistic, self.detach_mean = gan_type, relativistic, detach_mean
        self.global_mean = global_mean
        self.labels = (float(fake_label_val), float(real_label_val))
        self.ranges: tuple[Interval | None, Interval | None] = (
            _interval(fake_label_range),
            _interval(real_label_range),
        )
        self._refuse_misfits()

    def _refuse_misfits(self) -> None:
        labels = [*self.labels, *(v for limits in self.ranges if limits for v in limits)]
        if not all(0 <= label <= 1 for label in labels):
            raise RefusedError(f"GANLoss: labels must lie in 0 to 1, found {labels}")
        if any(limits and limits[0] > limits[1] for limits in self.ranges):
            raise RefusedError("GANLoss: a label range goes from its lower to its upper end")
        if any(self.ranges) and self.gan_type not in ("vanilla", "lsgan"):
            raise RefusedError(f"GANLoss: gan_type {self.gan_type} has no labels, so no label ranges")
        if self.relativistic and self.gan_type.startswith("wgan"):
            raise RefusedError(
                f"GANLoss: gan_type {self.gan_type} has no relativistic form; use vanilla, lsgan or hinge"
            )

    def generator(self, fake: Tensor, real: Tensor) -> Tensor:
        """What the generator minimises; `real` matters to a relativistic loss alone, and gets no gradient."""
        if not self.relativistic:
            return self._wish(fake)
        real = real.detach()
        mean_fake, mean_real = self._means(fake, real)
        swapped = [
            self._criterion(real - mean_fake, False, soft=False),
            self._criterion(fake - mean_real, True, soft=False),
        ]
        return torch.stack(swapped).mean()

    def discriminator(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """What the discriminator minimises, the sum of "real" and "fake"."""
        if not self.relativistic:
            return {"real": self._criterion(real, True), "fake": self._criterion(fake, False)}
        mean_fake, mean_real = self._means(fake, real)
        return {
            "real": self._criterion(real - mean_fake, True) / 2,
            "fake": self._criterion(fake - mean_real, False) / 2,
        }

    def _means(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        means = torch.stack([fake.mean(), real.mean()])
        if self.detach_mean:
            means = means.detach()
        if self.global_mean:
            means = mean_over_ranks(means)
        return means[0], means[1]

    def _wish(self, fake: Tensor) -> Tensor:
        """That restored pictures are taken for real; hinge asks without its margin."""
        if self.gan_type == "hinge":
            return -fake.mean()
        return self._criterion(fake, True, soft=False)

    def _criterion(self, logits: Tensor, is_real: bool, *, soft: bool = True) -> Tensor:
        sign = 1.0 if is_real else -1.0
        match self.gan_type:
            case "vanilla":
                return F.binary_cross_entropy_with_logits(logits, self._label(logits, is_real, soft))
            case "lsgan":
                return F.mse_loss(logits, self._label(logits, is_real, soft))
            case "hinge":
                return F.relu(1 - sign * logits).mean()
            case "wgan":
                return -sign * logits.mean()
            case _:
                return F.softplus(-sign * logits).mean()

    def _label(self, logits: Tensor, is_real: bool, soft: bool) -> Tensor:
        limits = self.ranges[is_real]
        if limits is None or not soft:
            return torch.full_like(logits, self.labels[is_real])
        drawn = torch.empty(logits.shape[0], *[1] * (logits.ndim - 1), device=logits.device).uniform_(*limits)
        return drawn.expand_as(logits)


def _interval(values: Sequence[float] | None) -> Interval | None:
    return None if values is None else (float(values[0]), float(values[1]))


@LOSSES.register()
class FeatureMatchingLoss(nn.Module):
    """Sum over the discriminator's feature maps of the mean |fake map - real map|.

    Shape: two equally long lists of (B, C, *S). Returns a scalar.
    Source: Wang et al. 2018, arXiv:1711.11585, section 3.2.
    """

    compares = "features"

    def forward(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.l1_loss(a, b) for a, b in zip(fake, real, strict=True)]).sum()
