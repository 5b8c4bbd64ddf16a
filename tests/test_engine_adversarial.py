"""The adversarial recipe: shared forward passes change nothing, each turn teaches its own network, turns come when due."""

from __future__ import annotations

import copy
from collections.abc import Generator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srkit.engine.distributed import Group
from srkit.engine.optim import OptimizerStep
from srkit.engine.precision import Precision
from srkit.engine.recipes import Adversarial, RecipeParts, Scene, Supervised, WeightedLoss, in_full_precision
from srkit.engine.schedules import constant
from srkit.engine.trainer import Trainer
from srkit.engine.transfer import Batch
from srkit.errors import RefusedError
from srkit.losses import FeatureMatchingLoss, GANLoss, L1Loss, PerceptualLoss

CPU = torch.device("cpu")
WEIGHTS = {"pix": 0.01, "gan": 0.005, "fm": 0.3}


class Restorer(nn.Module):
    """A generator that keeps the size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(6, 3, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Judge(nn.Module):
    """A discriminator with batch norm, in whose training mode real and restored pictures must not be mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 4, stride=2, padding=1)
        self.second = nn.Sequential(nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU(0.2))
        self.last = nn.Linear(6, 1)
        self.calls: list[torch.dtype] = []

    def forward(self, x: Tensor, return_features: bool = False):
        maps = [F.leaky_relu(self.first(x), 0.2)]
        maps.append(self.second(maps[0]))
        self.calls.append(maps[0].dtype)
        logits = self.last(maps[1].mean((2, 3)))
        return (logits, maps) if return_features else logits


def batches(seed: int = 0) -> Generator[Batch]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield Batch(torch.rand(3, 3, 8, 8, generator=draw), torch.rand(3, 3, 8, 8, generator=draw), {}, [])


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"network_g": Restorer(), "network_d": Judge()}


def recipe(players: Mapping[str, nn.Module], *, loss: GANLoss | None = None, fm: bool = False, **more) -> Adversarial:
    parts = {
        "losses": {"pix": WeightedLoss(L1Loss(), WEIGHTS["pix"])},
        "adversarial": WeightedLoss(loss or GANLoss(), WEIGHTS["gan"]),
        "feature_matching": WeightedLoss(FeatureMatchingLoss(), WEIGHTS["fm"]) if fm else None,
        **more,
    }
    return Adversarial(RecipeParts(networks=players, **parts))


def trainer(play: Adversarial, players: Mapping[str, nn.Module], accum_iter: int = 1) -> Trainer:
    """A trainer of which only train_step is used."""
    optimizers = {name: OptimizerStep("Adam", {"lr": 1e-3}, net, constant(1e-3), None) for name, net in players.items()}
    unused = dict.fromkeys(("ema", "log", "validation", "saver", "stop"))
    return Trainer(
        networks=players, recipe=play, optimizers=optimizers, precision=Precision("fp32", CPU), batches=batches(),
        group=Group(0, 1, CPU), total_iter=100, samples_per_iteration=3, epoch_length=3, accum_iter=accum_iter, **unused,
    )  # fmt: skip


def scene(players: Mapping[str, nn.Module], iteration: int = 0) -> Scene:
    batch = next(batches())
    return Scene(batch, players["network_g"](batch.lq), iteration)


def straightforward(
    players: Mapping[str, nn.Module], relativistic: bool, fm: bool, iterations: int
) -> list[dict[str, float]]:
    """The textbook loop: G learns with D frozen and steps, then D learns from the same sr, detached; every pass anew."""
    g, d = players["network_g"], players["network_d"]
    optim_g, optim_d = (torch.optim.Adam(net.parameters(), lr=1e-3) for net in (g, d))
    feed, history = batches(), []

    def bce(x: Tensor, y: float) -> Tensor:
        return F.binary_cross_entropy_with_logits(x, torch.full_like(x, y))

    for _ in range(iterations):
        batch = next(feed)
        d.requires_grad_(False)
        sr = g(batch.lq)
        (fake, fake_maps), (real, real_maps) = d(sr, True), d(batch.gt, True)
        gan = bce(fake, 1.0)
        if relativistic:
            gan = (bce(real.detach() - fake.mean(), 0.0) + bce(fake - real.detach().mean(), 1.0)) / 2
        terms = {"l_g_pix": WEIGHTS["pix"] * (sr - batch.gt).abs().mean(), "l_g_gan": WEIGHTS["gan"] * gan}
        if fm:
            terms["l_g_fm"] = WEIGHTS["fm"] * sum(
                (a - b).abs().mean() for a, b in zip(fake_maps, real_maps, strict=True)
            )
        optim_g.zero_grad()
        sum(terms.values()).backward()
        optim_g.step()

        d.requires_grad_(True)
        fake, real = d(sr.detach()), d(batch.gt)
        terms["l_d_real"], terms["l_d_fake"] = bce(real, 1.0), bce(fake, 0.0)
        if relativistic:
            terms["l_d_real"] = bce(real - fake.mean(), 1.0) / 2
            terms["l_d_fake"] = bce(fake - real.mean(), 0.0) / 2
        optim_d.zero_grad()
        (terms["l_d_real"] + terms["l_d_fake"]).backward()
        optim_d.step()
        terms["out_d_real"], terms["out_d_fake"] = real.mean(), fake.mean()
        history.append({name: value.item() for name, value in terms.items()})
    return history


@pytest.mark.parametrize("relativistic", [False, True])
@pytest.mark.parametrize("fm", [False, True])
def test_shared_forward_passes_train_as_the_textbook_loop_does(relativistic, fm):
    ours = networks()
    theirs, start = copy.deepcopy(ours), copy.deepcopy(ours)
    train = trainer(recipe(ours, loss=GANLoss(relativistic=relativistic), fm=fm), ours)
    wanted = straightforward(theirs, relativistic, fm, iterations=3)
    for expected in wanted:
        train.train_step()
        assert train.meter.read(train.group)[0] == pytest.approx(expected, rel=1e-5)
    for name in ours:
        pairs = zip(ours[name].parameters(), theirs[name].parameters(), start[name].parameters(), strict=True)
        for mine, textbook, before in pairs:
            torch.testing.assert_close(mine, textbook, rtol=1e-5, atol=1e-6)
            assert (mine - before).abs().max() > 1e-4  # three updates of about 1e-3 each


def test_the_discriminator_looks_once_at_sr_and_once_at_gt():
    players = networks()
    trainer(recipe(players), players).train_step()
    assert len(players["network_d"].calls) == 2


@pytest.mark.parametrize("relativistic", [False, True])
def test_a_turn_leaves_the_other_networks_gradients_alone(relativistic):
    players = networks()
    play, precision = recipe(players, loss=GANLoss(relativistic=relativistic), fm=True), Precision("fp32", CPU)
    now = scene(players)
    for turn, other in zip(play.turns, reversed(play.turns), strict=True):
        before = [None if p.grad is None else p.grad.clone() for p in players[other.network].parameters()]
        total = sum(term for term in in_full_precision(turn, now).values() if term.requires_grad)
        precision.backward(total, list(players[turn.network].parameters()), retain_graph=True)
        assert all((p.grad != 0).any() for p in players[turn.network].parameters())
        for parameter, earlier in zip(players[other.network].parameters(), before, strict=True):
            assert parameter.grad is None if earlier is None else torch.equal(parameter.grad, earlier)


def test_the_generator_learns_from_each_of_its_terms():
    players = networks()
    percep = PerceptualLoss(layer_weights={"conv1_2": 1}, style_weight=1.0, weights="random")
    images = {"pix": WeightedLoss(L1Loss()), "perceptual": WeightedLoss(percep)}
    turn = next(t for t in recipe(players, fm=True, losses=images).turns if t.network == "network_g")
    terms = turn.terms(scene(players))
    assert set(terms) == {"l_g_pix", "l_g_percep", "l_g_style", "l_g_gan", "l_g_fm"}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(players["network_g"].parameters()), retain_graph=True)
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients), name


@pytest.mark.parametrize("relativistic", [False, True])
def test_what_is_said_of_gt_carries_no_gradient_in_the_generators_turn(relativistic):
    players = networks()
    now = scene(players)
    turn = next(t for t in recipe(players, loss=GANLoss(relativistic=relativistic), fm=True).turns if t.name == "g")
    total = sum(turn.terms(now).values())
    real = now.shared["judged"][1]
    assert all(g is None for g in torch.autograd.grad(total, [real.logits, *real.maps], allow_unused=True))


def changed(play: Adversarial, players: Mapping[str, nn.Module], iterations: int) -> str:
    """Which networks each iteration changed, such as "d dg"."""
    train, story = trainer(play, players), []
    for _ in range(iterations):
        before = {name: copy.deepcopy(net.state_dict()) for name, net in players.items()}
        train.train_step()
        story.append(
            "".join(
                name[-1]
                for name in ("network_d", "network_g")
                if any(not torch.equal(p, before[name][key]) for key, p in players[name].named_parameters())
            )
        )
    return " ".join(story)


@pytest.mark.parametrize(
    ("options", "story"),
    [
        ({}, "dg dg dg dg"),
        ({"net_d_iters": 2}, "d dg d dg"),
        ({"net_d_init_iters": 2}, "d d dg dg"),
        ({"net_d_iters": 2, "net_d_init_iters": 2}, "d d d dg"),
        # Before gan_opt's start the discriminator gets ready; from its stop on it has nothing to do.
        ({"adversarial": WeightedLoss(GANLoss(), 1.0, start=1, stop=3)}, "dg dg dg g"),
    ],
)
def test_networks_learn_when_it_is_their_turn(options, story):
    players = networks()
    assert changed(recipe(players, **options), players, 4) == story


def test_losses_count_from_their_start_and_before_their_stop():
    players = networks()
    play = recipe(
        players,
        adversarial=WeightedLoss(GANLoss(), 1.0, start=2, stop=4),
        feature_matching=WeightedLoss(FeatureMatchingLoss(), 1.0, start=1),
        losses={"pix": WeightedLoss(L1Loss(), 1.0, stop=3), "late": WeightedLoss(L1Loss(), 1.0, start=3)},
    )
    found = []
    for iteration in range(5):
        turns = {turn.name: turn for turn in play.turns_at(iteration)}
        found.append((sorted(turns), sorted(turns["g"].terms(scene(players, iteration)))))
    assert found == [
        (["d", "g"], ["l_g_pix"]),
        (["d", "g"], ["l_g_fm", "l_g_pix"]),
        (["d", "g"], ["l_g_fm", "l_g_gan", "l_g_pix"]),
        (["d", "g"], ["l_g_fm", "l_g_gan", "l_g_late"]),
        (["g"], ["l_g_fm", "l_g_late"]),
    ]


def test_accumulated_batches_train_as_one_where_losses_are_means_over_pictures():
    """Plain cross-entropy and L1, and a discriminator without batch statistics."""

    def single() -> Generator[Batch]:
        for whole in batches():
            yield from (Batch(whole.lq[i : i + 1], whole.gt[i : i + 1], {}, []) for i in range(3))

    one = networks()
    one["network_d"].second[1] = nn.Identity()
    three = copy.deepcopy(one)
    whole, parts = trainer(recipe(one), one), trainer(recipe(three), three, accum_iter=3)
    parts.batches = single()
    for _ in range(2):
        whole.train_step()
        parts.train_step()
    assert parts.meter.read(parts.group)[0] == pytest.approx(whole.meter.read(whole.group)[0], rel=1e-5)
    for name in one:
        for mine, other in zip(one[name].parameters(), three[name].parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_a_skipped_update_leaves_batch_norms_statistics_as_they_were():
    players = networks()
    train, feed = trainer(recipe(players), players), batches()
    good, other = next(feed), next(feed)
    bad = Batch(good.lq, good.gt * torch.inf, {}, [])
    train.batches = iter([good, bad, other])  # type: ignore[assignment]
    norm, means = players["network_d"].second[1], []
    for _ in range(3):
        train.train_step()
        means.append((norm.running_mean.clone(), norm.running_var.clone()))
    assert train.meter.skipped() == 1
    assert all(torch.equal(a, b) for a, b in zip(means[0], means[1], strict=True))
    assert all(b.isfinite().all() and not torch.equal(a, b) for a, b in zip(means[1], means[2], strict=True))


def test_networks_run_in_half_precision_and_losses_in_full():
    players = networks()
    precision = Precision("bf16", CPU)
    play = recipe(players, fm=True, autocast=precision.autocast)
    now = scene(players)
    with precision.autocast():
        terms = in_full_precision(play.turns[0], now)
    assert players["network_d"].calls == [torch.bfloat16] * 2
    fake, real = now.shared["judged"]
    assert {t.dtype for t in (fake.logits, real.logits, *fake.maps, *real.maps, *terms.values())} == {torch.float32}


@pytest.mark.parametrize("missing", ["network_d", "gan_opt"])
def test_an_adversarial_recipe_without_its_parts_is_refused(missing):
    players = networks()
    more = {"adversarial": None} if missing == "gan_opt" else {}
    if missing == "network_d":
        del players["network_d"]
    with pytest.raises(RefusedError, match=r"both network_d and train\.gan_opt"):
        recipe(players, **more)


def test_a_supervised_recipe_with_an_adversarial_loss_is_refused():
    parts = RecipeParts(networks=networks(), losses={}, adversarial=WeightedLoss(GANLoss()))
    with pytest.raises(RefusedError, match="need a discriminator"):
        Supervised(parts)
