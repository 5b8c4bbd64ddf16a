"""Generator and discriminator trained by the real command: phases, turns, resuming, ranks, and the weights between two."""

import itertools
import json

import pytest
import torch
from tiny import end_state, equal, in_process, on_two_ranks, options, run, write_options

from srkit.options import load_options
from srkit.tools.__main__ import main as tools

JUDGE = '''
import torch
from torch import Tensor, nn
from srkit.registry import ARCHS

@ARCHS.register()
class TinyJudge(nn.Module):
    """Two convolutions, perhaps with batch norm."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.last = nn.Conv2d(4, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))
'''


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    file = tmp_path_factory.mktemp("parts") / "tiny_judge.py"
    file.write_text(JUDGE)
    return file


@pytest.fixture
def gan(tiny, judge):
    """Options of a tiny adversarial training, whose judge lies in a file of its own."""

    def changed(**changes) -> dict:
        given = {
            "model_type": "ESRGANModel",
            "imports": [str(judge)],
            "network_d": {"type": "TinyJudge"},
            "train__optim_d": {"type": "Adam", "lr": 1e-3},
            "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
            **changes,
        }
        return options(tiny, **given)

    return changed


def refusal(tiny, capsys, data: dict) -> str:
    assert in_process(tiny, data) == 2
    return capsys.readouterr().err


def records(tiny, name: str = "tiny") -> list[dict]:
    lines = (tiny / f"experiments/{name}/records.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == "train"]


def test_a_stopped_adversarial_training_ends_as_one_never_stopped(tiny, gan):
    assert in_process(tiny, gan(name="whole")) == 0
    for total in (4, 8, 12):
        data = gan(name="parts", train__total_iter=total, logger__save_checkpoint_freq=100)
        assert in_process(tiny, data, *(["--auto_resume"] if total > 4 else [])) == 0
    whole, parts = (end_state(tiny / f"experiments/{name}", 12) for name in ("whole", "parts"))
    assert equal(whole[0], parts[0])
    assert equal(whole[1]["optimizers"], parts[1]["optimizers"])
    assert set(whole[0]) == {"net_g", "net_g_ema", "net_d"}


def test_the_log_has_the_words_of_the_family(tiny, gan):
    in_process(tiny, gan(train__total_iter=2))
    assert {k for k in records(tiny)[0] if k.startswith(("l_", "out_"))} == {
        "l_g_pix",
        "l_g_gan",
        "l_d_real",
        "l_d_fake",
        "out_d_real",
        "out_d_fake",
    }


def test_the_discriminator_learns_alone_at_first_then_the_generator_every_second_time(tiny, gan):
    data = gan(train__net_d_init_iters=2, train__net_d_iters=2, train__total_iter=5, logger__save_checkpoint_freq=1,
        logger__keep_last=9,
    )  # fmt: skip
    in_process(tiny, data)
    states = [end_state(tiny / "experiments/tiny", k)[0] for k in range(1, 6)]
    moved = [not equal(a["net_g"], b["net_g"]) for a, b in itertools.pairwise(states)]
    assert moved == [False, False, True, False]  # iterations 2 to 5; the fourth is even and past the second
    assert all(not equal(a["net_d"], b["net_d"]) for a, b in itertools.pairwise(states))


def test_a_loss_counts_from_its_start_to_its_stop(tiny, gan):
    data = gan(train__total_iter=4, train__gan_opt__start_iter=2,
        train__losses={"tv": {"type": "WeightedTVLoss", "stop_iter": 1}},
    )  # fmt: skip
    in_process(tiny, data)
    lines = records(tiny)
    assert ["l_g_tv" in line for line in lines] == [True, False, False, False]
    assert ["l_g_gan" in line for line in lines] == [False, False, True, True]


def test_esrgan_is_relativistic_and_srgan_is_not(tiny, gan):
    for model_type, expected in (("ESRGANModel", True), ("SRGANModel", None)):
        path = write_options(tiny, gan(model_type=model_type))
        assert load_options(path, mode="train").train.gan_opt.options.get("relativistic") is expected


def test_phases_run_in_order_and_finished_ones_are_skipped(tiny, gan):
    psnr = write_options(tiny, options(tiny, name="psnr", train__total_iter=4), "psnr.yml")
    weights = str(tiny / "experiments/psnr/models/net_g_4.pth")
    second = gan(name="gan", train__total_iter=4, path__pretrain_network_g=weights)
    files = [psnr, write_options(tiny, second, "gan.yml")]
    code, out = run("-opt", *files, cwd=tiny)
    assert code == 0, out
    assert f"network_g starts from 'params_ema' of {weights}" in out
    before = (tiny / "experiments/gan/models/net_g_4.pth").stat().st_mtime_ns
    code, out = run("-opt", *files, "--auto_resume", cwd=tiny)
    assert code == 0, out
    assert "psnr is finished" in out
    assert "gan is finished" in out
    assert (tiny / "experiments/gan/models/net_g_4.pth").stat().st_mtime_ns == before


def test_what_a_later_phase_lacks_is_said_before_the_first_one_trains(tiny, gan):
    psnr = write_options(tiny, options(tiny, name="psnr"), "psnr.yml")
    missing = str(tiny / "experiments/pnsr/models/net_g_12.pth")
    second = write_options(tiny, gan(name="gan", path__pretrain_network_g=missing), "gan.yml")
    code, out = run("-opt", psnr, second, cwd=tiny)
    assert code == 2
    assert missing in out
    assert not (tiny / "experiments").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network_d": None}, "network_d: missing; model_type ESRGANModel needs a discriminator"),
        ({"train__gan_opt": None}, "train.gan_opt: missing; model_type ESRGANModel needs an adversarial loss"),
        ({"train__optim_d": None}, "train.optim_d: missing"),
        ({"model_type": "SRModel"}, "train.gan_opt: model_type SRModel has no discriminator"),
        ({"train__gan_opt": {"type": "L1Loss"}}, "train.gan_opt: L1Loss is a loss on pictures, expected one on logits"),
        ({"train__pixel_opt": {"type": "GANLoss"}}, "GANLoss is a loss on logits (gan_opt), expected one on pictures"),
        ({"train__net_d_init_iters": 12}, "train.net_d_init_iters: 12 never ends before total_iter 12"),
        (
            {"train__pixel_opt__start_iter": 5, "train__gan_opt__start_iter": 3},
            "no loss of network_g counts at iteration 0",
        ),
    ],
)
def test_parts_that_do_not_make_an_adversarial_training_are_refused(tiny, gan, capsys, changes, message):
    assert message in refusal(tiny, capsys, gan(**changes))
    assert not (tiny / "experiments").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network_d": {"type": "VGGStyleDiscriminator"}, "datasets__train__gt_size": 32},
            "network_d: VGGStyleDiscriminator",
        ),
        ({"network_d": {"type": "SNPatchDiscriminator"}}, "24"),
        ({"network_d__norm": True, "datasets__train__color": "y", "network_g__num_in_ch": 1, "network_g__num_out_ch": 1},
         "network_d: TinyJudge does not take the training pictures, 1x16x16"),
        ({"train__feature_matching_opt": {"type": "FeatureMatchingLoss"}}, "TinyJudge shows no feature maps"),
        ({"train__losses": {"s": {"type": "MSSSIMLoss"}}}, "train: MSSSIMLoss (s) on 3x16x16"),
        (
            {"train__losses": {"s": {"type": "SSIMLoss"}}, "datasets__train__mean": [0.5] * 3, "datasets__train__std": [0.5] * 3},
            "SSIMLoss (s) compares pictures from 0 to 1; remove datasets.train.mean and std",
        ),
    ],
)  # fmt: skip
def test_what_does_not_take_the_training_crops_is_refused_before_the_first_iteration(
    tiny, gan, capsys, changes, message
):
    assert message in refusal(tiny, capsys, gan(**changes))
    assert not (tiny / "experiments").exists()


def test_two_ranks_train_both_networks_as_one_with_twice_the_batch(tiny, gan):
    """Without batch norm and relativistic means, every loss is a mean over samples."""
    same = {"model_type": "SRGANModel", "network_d": {"type": "TinyJudge", "norm": False}, "train__total_iter": 4}
    in_process(tiny, gan(name="one", datasets__train__batch_size_per_gpu=4, **same))
    done = on_two_ranks("-opt", write_options(tiny, gan(name="two", **same), "two.yml"), cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (end_state(tiny / f"experiments/{n}", 4)[0] for n in ("one", "two"))
    for network in ("net_g", "net_d"):
        for key, value in one[network].items():
            torch.testing.assert_close(two[network][key], value, rtol=1e-5, atol=1e-6)


def test_accumulated_batches_equal_one_large_batch(tiny, gan):
    same = {"model_type": "SRGANModel", "network_d": {"type": "TinyJudge", "norm": False}, "train__total_iter": 3}
    in_process(tiny, gan(name="large", datasets__train__batch_size_per_gpu=4, **same))
    in_process(tiny, gan(name="accumulated", train__accum_iter=2, **same))
    large, small = (end_state(tiny / f"experiments/{n}", 3)[0] for n in ("large", "accumulated"))
    for network in ("net_g", "net_d"):
        for key, value in large[network].items():
            torch.testing.assert_close(small[network][key], value, rtol=1e-5, atol=1e-6)


@pytest.fixture
def two_models(tiny):
    for seed, name in enumerate(("first", "second")):
        in_process(tiny, options(tiny, name=name, manual_seed=seed, train__total_iter=2))
    return [tiny / f"experiments/{name}/models/net_g_2.pth" for name in ("first", "second")]


def test_interpolation_ends_in_the_two_networks_and_is_linear_between(tiny, two_models):
    assert tools(["interpolate", *map(str, two_models), "--alpha", "0", "0.25", "1", "--out", str(tiny / "mixed")]) == 0
    first, second, start, quarter, end = (
        torch.load(path, weights_only=True)
        for path in (*two_models, *(tiny / f"mixed/net_g_2_alpha_{a}.pth" for a in ("0", "0.25", "1")))
    )
    for key in ("params", "params_ema"):
        assert equal(start[key], first[key])
        assert equal(end[key], second[key])
        for name, value in quarter[key].items():
            torch.testing.assert_close(value, 0.75 * first[key][name] + 0.25 * second[key][name])
    assert quarter["srkit"]["origin"] == "(1 - 0.25) x net_g_2.pth + 0.25 x net_g_2.pth"


def test_the_strip_shows_bicubic_and_each_network(tiny, two_models):
    lq = tiny / "data/lq/p0.png"
    flags = ["--alpha", "0", "1", "--out", str(tiny / "mixed"), "--lq", str(lq)]
    assert tools(["interpolate", *map(str, two_models), *flags]) == 0
    from srkit.imaging.files import read_image

    assert read_image(tiny / "mixed/p0_strip.png").shape == (48 + 22, 3 * 48 + 2 * 4, 3)


def test_networks_that_do_not_match_are_not_interpolated(tiny, two_models, capsys):
    in_process(tiny, options(tiny, name="other", network_g__num_block=2, train__total_iter=2))
    other = tiny / "experiments/other/models/net_g_2.pth"
    capsys.readouterr()
    assert tools(["interpolate", str(two_models[0]), str(other), "--out", str(tiny / "mixed")]) == 2
    assert "has body.1.conv1.weight" in capsys.readouterr().err
    assert tools(["interpolate", *map(str, two_models), "--alpha", "1.5", "--out", str(tiny / "mixed")]) == 2
    assert "--alpha: found [1.5], expected numbers from 0 to 1" in capsys.readouterr().err
    assert not (tiny / "mixed").exists()
