"""Which networks play and in which turns. The trainer knows turns; it does not know what they teach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from srkit.engine.transfer import Batch
from srkit.errors import RefusedError
from srkit.imaging.edges import canny
from srkit.registry import RECIPES


@dataclass(frozen=True)
class WeightedLoss:
    """A loss, how much it counts, in which iterations (from `start`, before `stop`), and with which form of gt it compares."""

    loss: Any
    weight: float = 1.0
    start: int = 0
    stop: int | None = None
    target: str = "gt"

    def is_on(self, iteration: int) -> bool:
        return self.start <= iteration and (self.stop is None or iteration < self.stop)


@dataclass(frozen=True, kw_only=True)
class RecipeParts:
    """What an option file gives to its recipe.

    Args:
        networks: Networks under their option names, wrapped for training.
        losses: Image losses `(sr, gt) -> scalar, or scalars by name`, under their option names.
        adversarial: Loss on the discriminator's logits.
        feature_matching: Loss on the discriminator's feature maps.
        net_d_iters: The generator learns in every so manieth iteration.
        net_d_init_iters: Iterations in which the discriminator learns alone.
        autocast: Context in which networks run; losses run outside it, in fp32.
        mixed_scales: Batches have different scales, and the generator is told which.
    """

    networks: Mapping[str, nn.Module]
    losses: Mapping[str, WeightedLoss]
    adversarial: WeightedLoss | None = None
    feature_matching: WeightedLoss | None = None
    net_d_iters: int = 1
    net_d_init_iters: int = 0
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    mixed_scales: bool = False


@dataclass
class Scene:
    """One micro-batch in play: the same for every turn of an iteration.

    Args:
        sr: Output of the recipe's `restore`, fp32, with its graph.
        shared: What one turn made and another may use.
    """

    batch: Batch
    sr: Tensor
    iteration: int
    shared: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Turn:
    """One network's share of an iteration.

    `terms(scene)` returns named, weighted scalars. The sum of those with a graph is differentiated with respect to the
    parameters of `network` alone; the others are only logged. The turn plays in every `every`-th iteration from
    `start_iteration` on.
    """

    name: str
    network: str
    terms: Callable[[Scene], Mapping[str, Tensor]]
    every: int = 1
    start_iteration: int = 0
    stop_iteration: int | None = None

    def is_due(self, iteration: int) -> bool:
        started = iteration >= self.start_iteration
        stopped = self.stop_iteration is not None and iteration >= self.stop_iteration
        return started and not stopped and (iteration + 1) % self.every == 0


@dataclass
class Recipe:
    """Base of all recipes: networks under their option names, and the turns they play in order.

    `weighted` are all losses of the training, which may begin and end; who builds a recipe fills them in.
    """

    networks: Mapping[str, nn.Module]
    mixed_scales: bool = False
    turns: Sequence[Turn] = field(default=(), init=False)
    weighted: Sequence[WeightedLoss] = field(default=(), init=False)

    def restore(self, batch: Batch) -> Tensor:
        """lq -> sr in the network's own intensities, (B, C, *S)."""
        told = {"scale": batch.gt.shape[2] // batch.lq.shape[2]} if self.mixed_scales else {}
        sr: Tensor = self.networks["network_g"](batch.lq, **told)
        return sr

    @staticmethod
    def shown_like(gt: Tensor) -> Tensor:
        """A picture as the discriminator is shown them, from gt (B, C, *S); only its shape counts."""
        return gt

    def turns_at(self, iteration: int) -> list[Turn]:
        return [turn for turn in self.turns if turn.is_due(iteration)]

    def phase_at(self, iteration: int) -> tuple[object, ...]:
        """Equal for two iterations that do the same: the same turns by the same losses."""
        return (
            *(turn.name for turn in self.turns_at(iteration)),
            *(item.is_on(iteration) for item in self.weighted),
        )


@RECIPES.register()
class Supervised(Recipe):
    """One network, losses that compare its output with the target."""

    def __init__(self, parts: RecipeParts) -> None:
        super().__init__(parts.networks, parts.mixed_scales)
        if parts.adversarial or parts.feature_matching:
            raise RefusedError(
                "train.gan_opt and feature_matching_opt need a discriminator: model_type SRGANModel or ESRGANModel, network_d"
            )
        self.losses = parts.losses
        self.turns = (Turn("g", "network_g", self._terms),)

    def _terms(self, scene: Scene) -> dict[str, Tensor]:
        return image_terms(self.losses, scene, "l_")


class Duel:
    """The turns of a discriminator and of the generator it judges.

    The discriminator sees a fake and a real picture once each in an iteration. Both turns use those two outputs, because
    all networks are updated together after the last turn. Logged beside the losses: the mean logits out_d_real and
    out_d_fake.

    Args:
        pictures: What the discriminator is shown of a scene: fake (with a graph to the generator) and real.
        own_terms: The generator's terms that need no discriminator.
    """

    def __init__(
        self,
        parts: RecipeParts,
        pictures: Callable[[Scene], tuple[Tensor, Tensor]],
        own_terms: Callable[[Scene], dict[str, Tensor]],
    ) -> None:
        if parts.adversarial is None or "network_d" not in parts.networks:
            raise RefusedError("an adversarial training needs both network_d and train.gan_opt")
        self.discriminator = parts.networks["network_d"]
        self.adversarial, self.feature_matching = parts.adversarial, parts.feature_matching
        self.autocast = parts.autocast
        self.pictures, self.own_terms = pictures, own_terms
        self.turns = (
            Turn("d", "network_d", self._discriminator_terms, stop_iteration=parts.adversarial.stop),
            Turn(
                "g",
                "network_g",
                self._generator_terms,
                every=parts.net_d_iters,
                start_iteration=parts.net_d_init_iters,
            ),
        )

    def _discriminator_terms(self, scene: Scene) -> dict[str, Tensor]:
        fake, real = self._judged(scene)
        terms = self.adversarial.loss.discriminator(fake.logits, real.logits)
        with torch.no_grad():
            outputs = {"out_d_real": real.logits.mean(), "out_d_fake": fake.logits.mean()}
        return {**{f"l_d_{name}": value for name, value in terms.items()}, **outputs}

    def _generator_terms(self, scene: Scene) -> dict[str, Tensor]:
        terms = self.own_terms(scene)
        if self.adversarial.is_on(scene.iteration):
            fake, real = self._judged(scene)
            # real carries a graph, but only to the discriminator's parameters, which this turn leaves alone
            terms["l_g_gan"] = self.adversarial.weight * self.adversarial.loss.generator(fake.logits, real.logits)
        if self.feature_matching and self.feature_matching.is_on(scene.iteration):
            fake, real = self._judged(scene)
            terms["l_g_fm"] = self.feature_matching.weight * self.feature_matching.loss(
                fake.maps, [level.detach() for level in real.maps]
            )
        return terms

    def _judged(self, scene: Scene) -> tuple[Judgement, Judgement]:
        """What the discriminator says of fake and real."""
        if "judged" not in scene.shared:
            fake, real = self.pictures(scene)
            scene.shared["judged"] = self._judge(fake), self._judge(real)
        judged: tuple[Judgement, Judgement] = scene.shared["judged"]
        return judged

    def _judge(self, picture: Tensor) -> Judgement:
        with self.autocast():
            if self.feature_matching is None:
                return Judgement(self.discriminator(picture).float(), [])
            logits, maps = self.discriminator(picture, return_features=True)
        return Judgement(logits.float(), [level.float() for level in maps])


@RECIPES.register()
class Adversarial(Recipe):
    """A generator against a discriminator that tells its pictures from real ones.

    Source: Ledig et al. 2017, arXiv:1609.04802; turn options as in BasicSR's SRGANModel and ESRGANModel.
    """

    def __init__(self, parts: RecipeParts) -> None:
        super().__init__(parts.networks, parts.mixed_scales)
        self.losses = parts.losses
        self.duel = Duel(parts, self._pictures, lambda scene: image_terms(self.losses, scene, "l_g_"))
        self.turns = self.duel.turns

    def _pictures(self, scene: Scene) -> tuple[Tensor, Tensor]:
        return scene.sr, scene.batch.target(self.duel.adversarial.target)


@RECIPES.register()
class EdgeAdversarial(Recipe):
    """An edge predictor `lq -> edge map` against a discriminator that tells its maps from the Canny maps of gt.

    The discriminator is shown gt and a map, four channels, so that it can judge whether the map belongs to the picture.
    Image losses are optional; they compare the predicted map with the Canny map.

    Source: Nazeri et al. 2019, arXiv:1909.05305, section 3.1 (hinge loss and feature matching).
    """

    def __init__(self, parts: RecipeParts) -> None:
        super().__init__(parts.networks, parts.mixed_scales)
        self.losses = parts.losses
        self.turns = Duel(parts, self._pictures, self._map_terms).turns

    @staticmethod
    def shown_like(gt: Tensor) -> Tensor:
        return torch.cat([gt, gt[:, :1]], dim=1)

    def _pictures(self, scene: Scene) -> tuple[Tensor, Tensor]:
        gt = scene.batch.gt
        return torch.cat([gt, scene.sr], dim=1), torch.cat([gt, self._target(scene)], dim=1)

    def _map_terms(self, scene: Scene) -> dict[str, Tensor]:
        if not self.losses:
            return {}
        return image_terms(self.losses, replace(scene, batch=replace(scene.batch, gt=self._target(scene))), "l_g_")

    @staticmethod
    def _target(scene: Scene) -> Tensor:
        """Canny edges of gt, (B, 1, H, W)."""
        if "edges" not in scene.shared:
            scene.shared["edges"] = canny(scene.batch.gt)
        edges: Tensor = scene.shared["edges"]
        return edges


@dataclass(frozen=True)
class Judgement:
    """What a discriminator says of pictures: logits of any shape, and its feature maps where they are used."""

    logits: Tensor
    maps: list[Tensor]


def image_terms(losses: Mapping[str, WeightedLoss], scene: Scene, prefix: str) -> dict[str, Tensor]:
    """The image losses that are on, weighted, under their log names."""
    active = {name: item for name, item in losses.items() if item.is_on(scene.iteration)}
    terms = {}
    for name, item in active.items():
        for label, value in _labelled(name, item.loss(scene.sr, scene.batch.target(item.target))):
            terms[prefix + label] = item.weight * value
    return terms


def _labelled(name: str, value: Tensor | Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Log names of one loss's values; `perceptual_opt` has the family's own, percep and style."""
    if isinstance(value, Mapping):
        yield from ((label if name == "perceptual" else f"{name}_{label}", part) for label, part in value.items())
    else:
        yield name, value


def in_full_precision(turn: Turn, scene: Scene) -> Mapping[str, Tensor]:
    """The turn's terms outside autocast; networks inside a turn re-enter it."""
    with torch.autocast(scene.sr.device.type, enabled=False):
        return turn.terms(scene)
