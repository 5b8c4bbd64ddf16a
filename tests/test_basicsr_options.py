"""The option files that come with BasicSR 1.4.2, by their content: each loads, trains and measures with its keys as they are."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from shrunk import ITERATIONS, make_pictures, training_words, width_of

import srkit.test
import srkit.train
from srkit import build
from srkit.errors import OptionError
from srkit.options import Options, load_options

EDSR_M = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: %d, res_scale: 1, img_range: 255., rgb_mean: [0.4488, 0.4371, 0.4040]}"
EDSR_L = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 256, num_block: 32, upscale: %d, res_scale: 0.1, img_range: 255., rgb_mean: [0.4488, 0.4371, 0.4040]}"
RRDB = "{type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 23, num_grow_ch: 32}"
RRDB_SHORT = "{type: RRDBNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 23}"
MSRRESNET = "{type: MSRResNet, num_in_ch: 3, num_out_ch: 3, num_feat: 64, num_block: 16, upscale: 4}"

STEPS = "{type: MultiStepLR, milestones: [200000], gamma: 0.5}"
GAN_STEPS = "{type: MultiStepLR, milestones: [50000, 100000, 200000, 300000], gamma: 0.5}"
COSINE = "{type: CosineAnnealingRestartLR, periods: [250000, 250000, 250000, 250000], restart_weights: [1, 1, 1, 1], eta_min: !!float 1e-7}"


def pair(name: str, folder: str, scale: int) -> str:
    return (
        f"{{name: {name}, type: PairedImageDataset, dataroot_gt: datasets/{folder}/GTmod12, "
        f"dataroot_lq: datasets/{folder}/LRbicx{scale}, io_backend: {{type: disk}}}}"
    )


def training(
    name: str,
    network: str,
    schedule: str,
    *,
    model: str = "SRModel",
    scale: int = 4,
    seed: int = 0,
    gt_size: int = 128,
    listed: str = "",
    val: str = "Set5",
    more_val: str = "",
    discriminator: str = "",
    path: str = "pretrain_network_g: ~, strict_load_g: true",
    lr: str = "1e-4",
    total_iter: int = 300000,
    pixel_weight: str = "1.0",
    adversary: str = "",
    save_img: str = "false",
    more_metrics: str = "",
) -> str:
    return f"""\
name: {name}
model_type: {model}
scale: {scale}
num_gpu: 1
manual_seed: {seed}
datasets:
  train:
    name: DIV2K
    type: PairedImageDataset
    dataroot_gt: datasets/DIV2K/DIV2K_train_HR_sub
    dataroot_lq: datasets/DIV2K/DIV2K_train_LR_bicubic/X{scale}_sub
    {listed}
    filename_tmpl: '{{}}'
    io_backend: {{type: disk}}
    gt_size: {gt_size}
    use_hflip: true
    use_rot: true
    num_worker_per_gpu: 6
    batch_size_per_gpu: 16
    dataset_enlarge_ratio: 100
    prefetch_mode: ~
  val: {pair(val, val, scale)}
  {more_val}
network_g: {network}
{discriminator}
path: {{{path}, resume_state: ~}}
train:
  ema_decay: 0.999
  optim_g: {{type: Adam, lr: !!float {lr}, weight_decay: 0, betas: [0.9, 0.99]}}
  scheduler: {schedule}
  total_iter: {total_iter}
  warmup_iter: -1
  pixel_opt: {{type: L1Loss, loss_weight: {pixel_weight}, reduction: mean}}
  {adversary}
val:
  val_freq: !!float 5e3
  save_img: {save_img}
  metrics:
    psnr: {{type: calculate_psnr, crop_border: {scale}, test_y_channel: false}}
    {more_metrics}
logger:
  print_freq: 100
  save_checkpoint_freq: !!float 5e3
  use_tb_logger: true
  wandb: {{project: ~, resume_id: ~}}
dist_params: {{backend: nccl, port: 29500}}
"""


# The GAN files differ from each other in generator, model type and name alone.
GAN = {
    "total_iter": 400000,
    "val": "Set14",
    "discriminator": "network_d: {type: VGGStyleDiscriminator, num_in_ch: 3, num_feat: 64}",
    "pixel_weight": "!!float 1e-2",
    "save_img": "true",
    "adversary": """
  optim_d: {type: Adam, lr: !!float 1e-4, weight_decay: 0, betas: [0.9, 0.99]}
  perceptual_opt:
    type: PerceptualLoss
    layer_weights: {'conv5_4': 1}
    vgg_type: vgg19
    use_input_norm: true
    range_norm: false
    perceptual_weight: 1.0
    style_weight: 0
    criterion: l1
  gan_opt: {type: GANLoss, gan_type: vanilla, real_label_val: 1.0, fake_label_val: 0.0, loss_weight: !!float 5e-3}
  net_d_iters: 1
  net_d_init_iters: 0""",
}


def begins_at(experiment: str, iteration: int, strict: str = "true") -> str:
    return f"pretrain_network_g: experiments/{experiment}/models/net_g_{iteration}.pth, strict_load_g: {strict}"


M, L, PSNR = "201_EDSR_Mx2_f64b16", "204_EDSR_Lx2_f256b32", "051_RRDBNet_PSNR_x4_f64b23"
MSR_LIST = "meta_info_file: basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt"
MSR = {
    "lr": "2e-4", "total_iter": 1000000, "more_val": f"val_2: {pair('Set14', 'Set14', 4)}", "listed": MSR_LIST,
    "path": "pretrain_network_g: ~, param_key_g: params, strict_load_g: true",
}  # fmt: skip
TRAININGS = {
    "EDSR_Mx2": training(M, EDSR_M % 2, STEPS, scale=2, seed=10, gt_size=96),
    "EDSR_Lx2": training(L, EDSR_L % 2, STEPS, scale=2, seed=10, gt_size=96),
    "EDSR_Lx4": training(
        "206_EDSR_Lx4_f256b32", EDSR_L % 4, STEPS, seed=10, gt_size=192, path=begins_at(L, 300000, "false")
    ),
    "RRDBNet_PSNR_x4": training(PSNR, RRDB, COSINE, lr="2e-4", total_iter=1000000),
    "ESRGAN_x4": training(
        "052_ESRGAN_x4_f64b23", RRDB_SHORT, GAN_STEPS, model="ESRGANModel", path=begins_at(PSNR, 1000000), **GAN
    ),
    "MSRResNet_x4": training("001_MSRResNet_x4", MSRRESNET, COSINE, **MSR),
    "MSRGAN_x4": training(
        "004_MSRGAN_x4", MSRRESNET, GAN_STEPS, model="SRGANModel", path=begins_at("001_MSRResNet_x4", 1000000), **GAN
    ),
}


def measuring(
    name: str, network: str, weights: str, scale: int = 4, model: str = "SRModel", key: str = "", gt: bool = True
) -> str:
    """A test file; `gt` is false for those that end in _woGT."""
    metric = f"crop_border: {scale}, test_y_channel: false, better: higher}}"
    single = "{{name: {0}, type: SingleImageDataset, dataroot_lq: datasets/{0}/LRbicx4, io_backend: {{type: disk}}}}"
    div2k = (
        "{name: DIV2K100, type: PairedImageDataset, dataroot_gt: datasets/DIV2K/DIV2K_valid_HR, "
        f"dataroot_lq: datasets/DIV2K/DIV2K_valid_LR_bicubic/X{scale}, filename_tmpl: '{{}}x{scale}', io_backend: {{type: disk}}}}"
    )
    sets = [pair("Set5", "Set5", scale), pair("Set14", "Set14", scale), div2k]
    sets = sets if gt else [single.format("Set5"), single.format("Set14")]
    lines = [f"  test_{n}: {item}" for n, item in enumerate(sets, 1)]
    metrics = [f"    psnr: {{type: calculate_psnr, {metric}", f"    ssim: {{type: calculate_ssim, {metric}"]
    return "\n".join(
        [
            f"name: {name}\nmodel_type: {model}\nscale: {scale}\nnum_gpu: 1\nmanual_seed: 0\ndatasets:",
            *lines,
            f"network_g: {network}",
            f"path: {{pretrain_network_g: experiments/{weights}, {key}strict_load_g: true}}",
            "val:\n  save_img: true\n  suffix: ~",
            *(["  metrics:", *metrics] if gt else []),
        ]
    )


OFFICIAL = "pretrained_models/ESRGAN/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth"
MSR_FILE = "001_MSRResNet_x4/models/net_g_1000000.pth"
TESTS = {
    "EDSR_Mx2": measuring("EDSR_Mx2", EDSR_M % 2, "pretrained_models/EDSR/EDSR_Mx2-3ba7b086.pth", 2),
    "EDSR_Lx2": measuring(
        "EDSR_Lx2", EDSR_L % 2, "pretrained_models/EDSR/EDSR_Lx2-be38e77d.pth", 2, key="param_key_g: params_ema, "
    ),
    "EDSR_Lx4": measuring("EDSR_Lx4", EDSR_L % 4, "pretrained_models/EDSR/EDSR_Lx4-76ee1c8f.pth"),
    "RRDBNet_PSNR_x4": measuring("PSNR_SRx4", RRDB, "pretrained_models/ESRGAN/ESRGAN_PSNR_SRx4-150ff491.pth"),
    "ESRGAN_x4": measuring("ESRGAN_SRx4", RRDB, OFFICIAL, model="ESRGANModel"),
    "ESRGAN_x4_woGT": measuring("ESRGAN_SRx4", RRDB, OFFICIAL, model="ESRGANModel", gt=False),
    "MSRResNet_x4": measuring("001_MSRResNet_x4", MSRRESNET, MSR_FILE, key="param_key_g: params, "),
    "MSRResNet_x4_woGT": measuring("001_MSRResNet_x4", MSRRESNET, MSR_FILE, gt=False),
    "MSRGAN_x4": measuring(
        "004_MSRGAN_x4", MSRRESNET, "004_MSRGAN_x4/models/net_g_400000.pth", model="SRGANModel"
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SRKIT_CACHE", str(tmp_path / "cache"))


def load(folder: Path, text: str, mode) -> Options:
    (folder / "stock.yml").write_text(text)
    return load_options(folder / "stock.yml", mode=mode)


def write_weights(options: Options, scale: int | None = None) -> None:
    """A file as BasicSR writes it, with a small network, where the options look for one."""
    part, file = options.networks["network_g"], Path(options.path.pretrain_network_g)
    given = {key: value for key, value in part.options.items() if key != "upscale"}
    state = build.build_network(part.type, {**given, **width_of(part)}, (scale or options.scale[0],) * 2).state_dict()
    file.parent.mkdir(parents=True)
    torch.save({"params": state, "params_ema": state}, file)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_file_loads_and_trains(tiny, name):
    options = load(tiny, TRAININGS[name], "train")
    warned = ["line 26, path.param_key_g: has no effect without pretrain_network_g"] if name == "MSRResNet_x4" else []
    assert list(options.warnings) == warned
    make_pictures(options, tiny)
    if options.path.pretrain_network_g:
        write_weights(options, scale=2 if name == "EDSR_Lx4" else None)
    assert srkit.train.main(["-opt", "stock.yml", "--force_yml", *training_words(options)]) == 0
    assert (tiny / "experiments" / options.name / f"models/net_g_{ITERATIONS}.pth").exists()


@pytest.mark.parametrize("name", TESTS)
def test_a_test_file_loads_without_a_warning_and_measures_weights_that_basicsr_wrote(tiny, name):
    options = load(tiny, TESTS[name], "test")
    assert options.warnings == ()
    make_pictures(options, tiny)
    write_weights(options)
    words = [f"network_g:{key}={value}" for key, value in width_of(options.networks["network_g"]).items()]
    assert srkit.test.main(["-opt", "stock.yml", "--force_yml", "num_gpu=0", "val:pbar=false", *words]) == 0
    results = tiny / "results" / options.name
    assert {path.name for path in (results / "visualization").iterdir()} == {s.name for s in options.datasets.values()}
    with (results / "metrics.csv").open() as file:
        measured = {(row["set"], row["metric"]) for row in csv.DictReader(file) if row["model"] == options.name}
    with_gt = [] if name.endswith("woGT") else options.datasets.values()
    assert measured == {(item.name, metric) for item in with_gt for metric in ("psnr", "ssim")}


def test_niqe_of_the_msrresnet_file_is_refused_with_its_reason(tmp_path):
    text = training(
        "001_MSRResNet_x4",
        MSRRESNET,
        COSINE,
        more_metrics="niqe: {type: calculate_niqe, crop_border: 4, better: lower}",
        **MSR,
    )
    with pytest.raises(
        OptionError, match=r"1 problem\n.*val\.metrics\.niqe\.type: no metric is named 'calculate_niqe'; NIQE"
    ):
        load(tmp_path, text, "train")
