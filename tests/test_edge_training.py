"""Edge-guided systems in the engine: the edge predictor's recipe, tiles with a guide, and the commands from end to end."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import in_process, measured, options, write_options
from torch import Tensor, nn

from srkit.archs.edge_informed import EdgeInformedSR
from srkit.archs.edge_srgan import EdgeSRGAN
from srkit.archs.spectral_discriminators import SNPatchDiscriminator
from srkit.engine.precision import Precision
from srkit.engine.recipes import EdgeAdversarial, RecipeParts, Scene, WeightedLoss
from srkit.engine.restorer import Restorer
from srkit.engine.transfer import Batch, Normalization
from srkit.errors import OptionError, OutOfMemoryError, RefusedError
from srkit.imaging.edges import canny
from srkit.imaging.tiles import tiled
from srkit.losses import FeatureMatchingLoss, GANLoss, L1Loss
from srkit.options import load_options

CPU = torch.device("cpu")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# The recipe


class Mapper(nn.Module):
    """An edge predictor of one weight: half of lq's brightness, enlarged."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))

    def forward(self, lq: Tensor) -> Tensor:
        return nn.functional.interpolate(lq.mean(1, keepdim=True), scale_factor=2) * self.factor


class Watched(SNPatchDiscriminator):
    """Remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, return_features: bool = False):
        self.shown.append(x.detach())
        return super().forward(x, return_features)


def edge_recipe(**changes) -> EdgeAdversarial:
    torch.manual_seed(0)
    parts = RecipeParts(
        networks={"network_g": Mapper(), "network_d": Watched()},
        losses={},
        adversarial=WeightedLoss(GANLoss(gan_type="hinge")),
        feature_matching=WeightedLoss(FeatureMatchingLoss(), 10.0),
    )
    return EdgeAdversarial(replace(parts, **changes))


def scene_of(recipe: EdgeAdversarial) -> Scene:
    batch = Batch(noise(2, 3, 16, 16), nn.functional.interpolate(noise(2, 3, 8, 8, seed=1), scale_factor=4), {}, [])
    return Scene(batch, recipe.restore(batch), 0)


def test_the_discriminator_is_shown_gt_with_the_predicted_map_and_with_cannys_once_each():
    recipe = edge_recipe()
    scene = scene_of(recipe)
    for turn in recipe.turns_at(0):
        turn.terms(scene)
    fake, real = recipe.networks["network_d"].shown
    assert torch.equal(fake, torch.cat([scene.batch.gt, scene.sr.detach()], 1))
    assert torch.equal(real, torch.cat([scene.batch.gt, canny(scene.batch.gt)], 1))
    assert canny(scene.batch.gt).any()


def test_terms_are_hinge_and_weighted_feature_matching():
    recipe = edge_recipe()
    judge, scene = recipe.networks["network_d"].eval(), scene_of(recipe)  # in training its singular vectors would move
    d, g = (turn.terms(scene) for turn in recipe.turns)
    gt = scene.batch.gt
    fake, fake_maps = judge(torch.cat([gt, scene.sr], 1), return_features=True)
    real, real_maps = judge(torch.cat([gt, canny(gt)], 1), return_features=True)
    assert d["l_d_real"].item() == pytest.approx(torch.relu(1 - real).mean().item(), rel=1e-5)
    assert d["l_d_fake"].item() == pytest.approx(torch.relu(1 + fake).mean().item(), rel=1e-5)
    assert g["l_g_gan"].item() == pytest.approx(-fake.mean().item(), rel=1e-5)
    matched = sum((a - b).abs().mean() for a, b in zip(fake_maps, real_maps))
    assert len(fake_maps) == 5
    assert g["l_g_fm"].item() == pytest.approx(10 * matched.item(), rel=1e-5)


@pytest.mark.parametrize("gan_type", ["hinge", "vanilla", "lsgan"])
def test_each_turn_teaches_its_own_network(gan_type):
    recipe = edge_recipe(adversarial=WeightedLoss(GANLoss(gan_type=gan_type)))
    scene = scene_of(recipe)
    for turn in recipe.turns:
        learner = recipe.networks[turn.network]
        other = next(net for net in recipe.networks.values() if net is not learner)
        before = [p.grad for p in other.parameters()]
        total = sum(term for term in turn.terms(scene).values() if term.requires_grad)
        total.backward(inputs=list(learner.parameters()), retain_graph=True)
        assert all(p.grad.isfinite().all() and p.grad.any() for p in learner.parameters())
        assert all(a is b for a, b in zip(before, (p.grad for p in other.parameters())))


def test_image_losses_compare_the_map_with_cannys():
    recipe = edge_recipe(losses={"pix": WeightedLoss(L1Loss(), 3.0)})
    scene = scene_of(recipe)
    value = recipe.turns[1].terms(scene)["l_g_pix"].item()
    assert value == pytest.approx(3 * (scene.sr - canny(scene.batch.gt)).abs().mean().item(), rel=1e-5)


def test_without_a_discriminator_it_is_refused():
    with pytest.raises(RefusedError, match=r"needs both network_d and train\.gan_opt"):
        edge_recipe(adversarial=None)


# Tiles with a guide


def test_a_map_of_the_outputs_size_is_cut_with_the_tiles_for_each_axis():
    lq, guide = noise(1, 3, 20, 21), noise(1, 1, 20, 63)
    out = tiled(
        lambda a, b: b * nn.functional.interpolate(a, scale_factor=(1, 3)),
        lq, scale=(1, 3), tile=(8, 9), overlap=(2, 1), extras=[guide],
    )  # fmt: skip
    assert torch.equal(out, guide * nn.functional.interpolate(lq, scale_factor=(1, 3)))


def test_a_map_that_fits_neither_lq_nor_the_output_is_refused():
    with pytest.raises(RefusedError, match=r"a map of \(41, 40\) fits neither lq of \(20, 20\)"):
        tiled(
            lambda a, b: a, noise(1, 1, 20, 20), scale=(2, 2), tile=(8, 8), overlap=(1, 1), extras=[noise(1, 1, 41, 40)]
        )


def restorer(network: nn.Module, scale: int, **tiles) -> Restorer:
    return Restorer(
        network,
        normalization=Normalization(),
        scale=(scale, scale),
        device=CPU,
        precision=Precision("fp32", CPU),
        **tiles,
    )


def edge_srgan(scale: int) -> EdgeSRGAN:
    """With a random edge network whose map covers the range, and batch normalisation off its start."""
    torch.manual_seed(0)
    net = EdgeSRGAN(4, 4, scale, edge_num_feat=4, edge_num_block=1)
    nn.init.normal_(net.edge.conv_last.weight, 0, 0.3)
    net.train()(noise(2, 3, 20, 20))
    return net.eval()


def lq_picture(height: int, width: int) -> np.ndarray:
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3)).astype(np.uint8)
    return np.repeat(np.repeat(coarse, 5, 0), 5, 1)[:height, :width].copy()


@pytest.mark.parametrize(("scale", "size"), [(4, (50, 97)), (2, (75, 51))])
def test_edge_srgan_in_tiles_equals_the_whole_everywhere(scale, size):
    net, image = edge_srgan(scale), lq_picture(*size)
    reach = net.receptive_radius_px
    whole = restorer(net, scale)(image, 255)
    tiles = restorer(net, scale, tile=(2 * reach + 11, 2 * reach + 7), overlap=(reach, reach))(image, 255)
    assert np.abs(tiles - whole).max() < 1e-5
    assert np.abs(np.rint(tiles * 255) - np.rint(whole * 255)).max() <= 1


def test_without_the_guide_its_tiles_would_differ_by_many_grey_levels():
    class Unguided(nn.Module):
        def __init__(self, net: EdgeSRGAN) -> None:
            super().__init__()
            self.net = net

        def forward(self, lq: Tensor) -> Tensor:
            return self.net(lq)

    net, image = edge_srgan(4), lq_picture(50, 97)
    reach = net.receptive_radius_px
    whole = restorer(net, 4)(image, 255)
    tiles = restorer(Unguided(net), 4, tile=(45, 45), overlap=(reach, reach))(image, 255)
    assert np.abs(tiles - whole).max() > 3 / 255


def test_the_guide_is_made_once_from_what_the_network_sees():
    net, calls = edge_srgan(2), []
    net.edge.register_forward_pre_hook(lambda _, given: calls.append(given[0].shape))
    restorer(net, 2, tile=(40, 40), overlap=(17, 17))(lq_picture(60, 50), 255)
    assert calls == [(1, 3, 60, 50)]


def test_out_of_memory_in_the_guide_says_that_tiles_do_not_help():
    net = edge_srgan(2)

    def fail(lq: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no")

    net.guide = fail
    with pytest.raises(
        OutOfMemoryError, match=r"EdgeSRGAN made the guide of a whole picture of 60x50 .*tiles cannot replace"
    ):
        restorer(net, 2, tile=(40, 40), overlap=(17, 17))(lq_picture(60, 50), 255)


def test_tiling_a_network_that_normalises_over_the_picture_is_warned_about(caplog):
    restorer(EdgeInformedSR(2, 1, 2), 2, tile=(32, 32), overlap=(8, 8))
    assert "EdgeInformedSR looks at a whole picture at once: its tiles differ from it" in caplog.text


# The commands


def edge_options(tmp, **changes) -> dict:
    """A tiny training of an edge predictor."""
    given = {
        "model_type": "EdgeAdversarial",
        "network_g": {"type": "EdgeGenerator", "num_feat": 2, "num_block": 1},
        "network_d": {"type": "SNPatchDiscriminator", "num_in_ch": 4, "num_feat": 2},
        "datasets__train__gt_size": 24,
        "train__optim_g": {"type": "Adam", "lr": 1e-4, "betas": [0.0, 0.9]},
        "train__optim_d": {"type": "Adam", "lr": 1e-4, "betas": [0.0, 0.9]},
        "train__gan_opt": {"type": "GANLoss", "gan_type": "hinge"},
        "train__feature_matching_opt": {"type": "FeatureMatchingLoss", "loss_weight": 10},
        "train__pixel_opt": None,
        "train__total_iter": 4,
        "val__metrics": None,
        "val__val_freq": 2,
        **changes,
    }
    return options(tmp, **given)


def records(tmp, name: str = "tiny") -> list[dict]:
    return [json.loads(line) for line in (tmp / f"experiments/{name}/records.jsonl").read_text().splitlines()]


def test_edge_training_then_generator_training_then_a_tiled_test(tiny, capsys):
    assert in_process(tiny, edge_options(tiny, name="edges")) == 0
    lines = records(tiny, "edges")
    train = next(line for line in lines if line["kind"] == "train")
    assert {"l_d_real", "l_d_fake", "l_g_gan", "l_g_fm"} <= set(train)
    last = [line for line in lines if line["kind"] == "validation"][-1]
    assert all(0 <= last[key] <= 1 for key in ("edge_f1", "edge_precision", "edge_recall"))
    weights = tiny / "experiments/edges/models/net_g_4.pth"
    guided = options(
        tiny,
        network_g={"type": "EdgeSRGAN", "num_feat": 2, "num_block": 4, "edge_num_feat": 2, "edge_num_block": 1},
        path__pretrain_parts={"edge": str(weights)},
    )
    assert in_process(tiny, guided) == 0
    out = capsys.readouterr().out
    assert f"network_g.edge starts from 'params_ema' of {weights}" in out
    assert "stay random" not in out
    edges = torch.load(weights, weights_only=True)["params_ema"]
    trained = torch.load(tiny / "experiments/tiny/models/net_g_12.pth", weights_only=True)
    for key in ("params", "params_ema"):
        assert all(torch.equal(trained[key][f"edge.{name}"], value) for name, value in edges.items())
    assert measured(tiny, network_g=None) == 0
    assert measured(tiny, network_g=None, val__tile=39, val__tile_overlap=18, name="tiles") == 0
    whole, tiles = ((tiny / f"results/{n}/metrics.csv").read_text().replace(n, "x") for n in ("tested", "tiles"))
    assert whole == tiles


def test_an_edge_predictor_is_tested_against_cannys_edges(tiny):
    assert in_process(tiny, edge_options(tiny, train__total_iter=2)) == 0
    weights = str(tiny / "experiments/tiny/models/net_g_2.pth")
    changes = {"model_type": "EdgeAdversarial", "val__metrics": None, "network_g": None, "val__save_img": True}
    assert measured(tiny, path__pretrain_network_g=weights, **changes) == 0
    table = (tiny / "results/tested/table.md").read_text()
    assert all(name in table for name in ("edge_f1", "edge_precision", "edge_recall", "bicubic-matlab"))
    assert (tiny / "results/tested/visualization/val/p0.png").exists()


def test_a_frozen_edge_network_without_weights_is_warned_about(tiny, capsys):
    data = options(
        tiny, network_g={"type": "EdgeSRGAN", "num_feat": 2, "num_block": 1, "edge_num_feat": 1, "edge_num_block": 1},
        train__total_iter=1, datasets__val=None,
    )  # fmt: skip
    assert in_process(tiny, data) == 0
    assert "are not trained and stay random; give their weights by path.pretrain_parts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path__pretrain_parts": {"egde": "x.pth"}},
            "path.pretrain_parts: EdgeSRGAN has no part 'egde'; did you mean 'edge'?",
        ),
        (
            {"datasets__train__mean": [0.5], "datasets__train__std": [0.5]},
            "EdgeSRGAN finds edges in pictures from 0 to 1",
        ),
    ],
)
def test_misuse_of_an_edge_guided_network_is_refused(tiny, capsys, changes, message):
    small = {"type": "EdgeSRGAN", "num_feat": 2, "num_block": 1, "edge_num_feat": 1, "edge_num_block": 1}
    assert in_process(tiny, options(tiny, network_g=small, **changes)) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_d__num_in_ch": 3}, r"network_d\.num_in_ch: found 3, expected 4"),
        ({"network_d": {"type": "SNPatchDiscriminator"}}, r"network_d\.num_in_ch: found 3, expected 4"),
        ({"network_d": None}, r"network_d: missing; model_type EdgeAdversarial needs a discriminator"),
        (
            {"train__gan_opt__start_iter": 2, "train__feature_matching_opt": None},
            r"no loss of network_g counts at iteration 0",
        ),
        ({"val__protocol": "natural-y-v1"}, r"val\.protocol: found natural-y-v1, which measures pictures"),
        (
            {
                "datasets__train": {
                    "type": "RealESRGANDataset",
                    "dataroot_gt": "gt",
                    "gt_size": 24,
                    "batch_size_per_gpu": 2,
                    "gt_usm": True,
                },
                "train__losses": {"map": {"type": "L1Loss", "target": "gt_usm"}},
            },
            r"train\.losses\.map\.target: found 'gt_usm', but edge maps are compared; remove it",
        ),
        ({"val__metrics": {"psnr": {"type": "PSNR"}}}, r"val\.metrics\.psnr: PSNR measures pictures, not edge maps"),
        ({"model_type": "SRGANModel", "train__pixel_opt": {"type": "L1Loss"}}, "write model_type: EdgeAdversarial"),
    ],
)
def test_an_edge_training_that_cannot_work_is_refused_when_read(tmp_path, changes, message):
    with pytest.raises(OptionError, match=message):
        load_options(write_options(tmp_path, edge_options(tmp_path, **changes)), mode="train")
