"""Generator and discriminator trained by the real command: phases, turns, resuming, ranks, and the weights between two."""

import itertools
import json
import shutil

import pytest
import torch
from tiny import end_state, equal, in_process, measured, on_two_ranks, options, run, write_options

from srkit.options import load_options
from srkit.tools.__main__ import main as tools
from srkit.train import main as train


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


RANDOM_TURNS = {
    "model_type": "SRGANModel",
    "network_g": {"type": "SRResNet", "num_feat": 4, "num_block": 1},
    "train__net_d_init_iters": 2,
    "train__net_d_iters": 2,
    "train__accum_iter": 2,
    "train__gan_opt__real_label_range": [0.7, 1.0],
    "train__gan_opt__fake_label_range": [0.0, 0.3],
    "train__gan_opt__start_iter": 4,
}


def test_soft_labels_accumulated_batches_and_batch_norm_go_on_where_they_were(tiny, gan):
    assert in_process(tiny, gan(name="whole", **RANDOM_TURNS)) == 0
    for total in (5, 12):
        data = gan(name="parts", train__total_iter=total, logger__save_checkpoint_freq=100, **RANDOM_TURNS)
        assert in_process(tiny, data, *(["--auto_resume"] if total > 5 else [])) == 0
    whole, parts = (end_state(tiny / f"experiments/{name}", 12) for name in ("whole", "parts"))
    assert equal(whole[0], parts[0])
    assert equal(whole[1]["optimizers"], parts[1]["optimizers"])
    assert equal(whole[2], parts[2])


def test_two_ranks_validate_what_is_saved(tiny, gan):
    """Batch norm's statistics differ from rank to rank until they are shared, and each rank validates a half."""
    data = gan(name="two", train__total_iter=4, val__val_freq=4, **RANDOM_TURNS)
    done = on_two_ranks("-opt", write_options(tiny, data), cwd=tiny)
    assert done.returncode == 0, done.stdout + done.stderr
    weights = str(tiny / "experiments/two/models/net_g_4.pth")
    assert measured(tiny, network_g=None, path__pretrain_network_g=weights) == 0
    tested = json.loads((tiny / "results/tested/metrics.json").read_text())["sets"]["val"]["methods"]["tested"]
    lines = map(json.loads, (tiny / "experiments/two/records.jsonl").read_text().splitlines())
    assert [r for r in lines if r["kind"] == "validation"][-1]["psnr"] == tested["psnr"]["mean"]


def test_a_network_not_taken_from_the_checkpoint_starts_from_its_pretrained_file(tiny, gan):
    in_process(tiny, gan(name="first", train__total_iter=4))
    in_process(tiny, options(tiny, name="other", manual_seed=3, train__total_iter=2))
    data = gan(name="second", train__total_iter=5, train__optim_g__lr=1e-12,
        path__resume_state=str(tiny / "experiments/first/training_states/iter_4"),
        path__ignore_resume_networks=["network_g"],
        path__pretrain_network_g=str(tiny / "experiments/other/models/net_g_2.pth"), path__param_key_g="params",
    )  # fmt: skip
    assert in_process(tiny, data) == 0
    given = torch.load(tiny / "experiments/other/models/net_g_2.pth", weights_only=True)["params"]
    state = end_state(tiny / "experiments/second", 5)[0]
    for key, value in given.items():  # one step of a rate of 1e-12 moves nothing
        torch.testing.assert_close(state["net_g"][key], value, rtol=0, atol=1e-8)


def test_a_run_that_ignored_a_network_of_a_named_checkpoint_goes_on_with_its_own(tiny, gan):
    in_process(tiny, gan(name="first", train__total_iter=2))
    given = {
        "path__resume_state": str(tiny / "experiments/first/training_states/iter_2"),
        "path__ignore_resume_networks": ["network_g"],
        "logger__save_checkpoint_freq": 100,
    }
    assert in_process(tiny, gan(name="whole", train__total_iter=6, **given)) == 0
    for total, flags in ((4, []), (6, ["--auto_resume"])):
        assert in_process(tiny, gan(name="parts", train__total_iter=total, **given), *flags) == 0
    whole, parts = (end_state(tiny / f"experiments/{name}", 6)[0] for name in ("whole", "parts"))
    assert equal(whole, parts)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_networks_play_their_turns_as_plain_ones_do(tiny, gan):
    # Not Adam: a relativistic loss does not change with the last bias, and Adam makes a whole step of such a gradient's rounding.
    same = {"train__total_iter": 2, "train__optim_d": {"type": "SGD", "lr": 0.1}}
    for name, is_compiled in (("plain", False), ("compiled", True)):
        assert in_process(tiny, gan(name=name, train__compile=is_compiled, **same)) == 0
    plain, compiled = (records(tiny, name) for name in ("plain", "compiled"))
    for ours, theirs in zip(plain, compiled, strict=True):
        losses = [k for k in ours if k.startswith(("l_", "out_"))]
        assert [theirs[k] for k in losses] == pytest.approx([ours[k] for k in losses], rel=1e-4)


def test_a_loss_is_logged_as_the_mean_of_the_iterations_it_counted_in(tiny, gan):
    """With net_d_iters 2 the generator learns in iterations 2 and 4 of 4; one line sums up all four."""
    same = {"train__net_d_iters": 2, "train__total_iter": 4}
    in_process(tiny, gan(name="each", **same))
    in_process(tiny, gan(name="together", logger__print_freq=4, **same))
    each, (together,) = records(tiny, "each"), records(tiny, "together")
    for name, iterations in (("l_g_pix", (1, 3)), ("l_d_real", (0, 1, 2, 3))):
        assert together[name] == pytest.approx(sum(each[k][name] for k in iterations) / len(iterations), rel=1e-5)


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


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"gan_type": "lsgan", "detach_mean": True}, "detach_mean: has no effect without relativistic: true"),
        ({"gan_type": "hinge", "real_label_val": 0.9}, "real_label_val: has no effect with gan_type hinge"),
        ({"gan_type": "wgan", "fake_label_val": 0.1}, "fake_label_val: has no effect with gan_type wgan"),
    ],
)
def test_an_option_of_the_adversarial_loss_without_effect_is_warned_about(tiny, gan, given, warning):
    for model_type, expected in (("SRGANModel", 1), ("ESRGANModel", 0 if "detach_mean" in given else 1)):
        data = gan(model_type=model_type, train__gan_opt={"type": "GANLoss", **given})
        found = load_options(write_options(tiny, data), mode="train").warnings
        assert sum(f"train.gan_opt.{warning}" in line for line in found) == expected


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


def test_a_phase_that_goes_on_needs_no_pretrained_file_any_more(tiny, gan):
    in_process(tiny, options(tiny, name="elsewhere", train__total_iter=1))
    given = tiny / "given.pth"
    (tiny / "experiments/elsewhere/models/net_g_1.pth").rename(given)
    files = [write_options(tiny, options(tiny, name="psnr", train__total_iter=1), "psnr.yml")]
    for total, flags in ((1, []), (2, ["--auto_resume"])):
        second = gan(name="gan", train__total_iter=total, path__pretrain_network_g=str(given))
        files[1:] = [write_options(tiny, second, "gan.yml")]
        assert train(["-opt", *map(str, files), *flags]) == 0
        given.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("weights", "network", "message"),
    [
        ("net_g_13.pth", {}, "net_g_13.pth: no such file"),  # 12 iterations, saved at 4, 8 and 12
        ("net_g_latest.pth", {"network_g__num_block": 2}, "does not fit EDSR:\n  4 missing: body.1.conv1.weight"),
        ("net_d_latest.pth", {}, "net_d_latest.pth: no such file"),
    ],
)
def test_a_file_that_the_first_phase_will_not_write_or_that_will_not_fit_is_said_before_it_trains(
    tiny, gan, capsys, weights, network, message
):
    psnr = write_options(tiny, options(tiny, name="psnr"), "psnr.yml")
    path = str(tiny / f"experiments/psnr/models/{weights}")
    second = write_options(tiny, gan(name="gan", path__pretrain_network_g=path, **network), "gan.yml")
    assert train(["-opt", str(psnr), str(second)]) == 2
    assert message in capsys.readouterr().err
    assert not (tiny / "experiments").exists()


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
            {"train__net_d_iters": 2, "train__gan_opt__stop_iter": 3},
            "train.gan_opt.stop_iter: found 3, where network_d stops; net_d_iters 2 would leave iterations in which no",
        ),
        (
            {"train__net_d_init_iters": 4, "train__gan_opt__stop_iter": 3},
            "train.gan_opt.stop_iter: found 3, where network_d stops; net_d_init_iters 4 would leave iterations",
        ),
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
            {"train__perceptual_opt": {
                "type": "PerceptualLoss", "weights": "random", "layer_weights": {"conv1_1": 1}, "range_norm": True}},
            "PerceptualLoss (perceptual) with range_norm takes pictures from -1 to 1",
        ),
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


def test_networks_of_equal_shapes_and_other_options_are_not_interpolated(tiny, two_models, capsys):
    in_process(tiny, options(tiny, name="other", network_g__res_scale=0.5, train__total_iter=2))
    other = tiny / "experiments/other/models/net_g_2.pth"
    capsys.readouterr()
    assert tools(["interpolate", str(two_models[0]), str(other), "--out", str(tiny / "mixed")]) == 2
    assert "network option res_scale is 1" in capsys.readouterr().err
    assert not (tiny / "mixed").exists()


def test_networks_that_only_began_otherwise_are_interpolated(tiny):
    for name, init in (("psnr", "torch"), ("gan", "kaiming")):
        network = {"type": "RRDBNet", "num_feat": 4, "num_block": 1, "num_grow_ch": 2, "init": init}
        in_process(tiny, options(tiny, name=name, train__total_iter=1, network_g=network))
    files = [str(tiny / f"experiments/{name}/models/net_g_1.pth") for name in ("psnr", "gan")]
    assert tools(["interpolate", *files, "--out", str(tiny / "mixed")]) == 0


def test_networks_that_do_not_match_are_not_interpolated(tiny, two_models, capsys):
    in_process(tiny, options(tiny, name="other", network_g__num_block=2, train__total_iter=2))
    other = tiny / "experiments/other/models/net_g_2.pth"
    capsys.readouterr()
    assert tools(["interpolate", str(two_models[0]), str(other), "--out", str(tiny / "mixed")]) == 2
    assert "has body.1.conv1.weight" in capsys.readouterr().err
    assert tools(["interpolate", *map(str, two_models), "--alpha", "1.5", "--out", str(tiny / "mixed")]) == 2
    assert "--alpha: found [1.5], expected numbers from 0 to 1" in capsys.readouterr().err
    assert not (tiny / "mixed").exists()
