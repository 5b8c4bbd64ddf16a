"""`type: spandrel/NAME`: which of spandrel's networks train, that its loader reads what they learned, and fine-tuning."""

from __future__ import annotations

import re
import sys

import pytest
import torch
import yaml
from test_options_samples import TRAIN, load, refusal
from tiny import ROOT, in_process, measured, options

from srkit import build
from srkit.engine.model_file import load_weights, read_model
from srkit.errors import RefusedError, WeightsError
from srkit.foreign import spandrel_archs
from srkit.foreign.spandrel_archs import NOT_TRAINABLE, SpandrelNetwork, exported, find
from srkit.options.json_schema import build_schema
from srkit.registry import ARCHS

needs_spandrel = pytest.mark.usefixtures("_spandrel")


@pytest.fixture(scope="module")
def _spandrel():
    pytest.importorskip("spandrel", reason="spandrel is not installed: pip install 'srkit[community]'")


# Name -> scale and options that make it small.
SMALL: dict[str, tuple[int, dict]] = yaml.safe_load("""
ATD: [2, {embed_dim: 8, depths: [2], num_heads: [2], num_tokens: 4, reducted_dim: 2, upsampler: pixelshuffle}]
CRAFT: [2, {embed_dim: 12, depths: [1], num_heads: [2]}]
Compact: [2, {num_feat: 4, num_conv: 1}]
DAT: [2, {embed_dim: 16, depth: [2], num_heads: [2], img_size: 16}]
DCTLSA: [2, {nf: 10}]
DITN: [2, {dim: 8, ITL_blocks: 1, SAL_blocks: 1}]
DRCT: [2, {embed_dim: 12, depths: [1], num_heads: [2], window_size: 4, gc: 4, upsampler: pixelshuffle}]
DRUNet: [1, {in_nc: 4, out_nc: 3, nc: [4, 4, 8, 8], nb: 2}]
DnCNN: [1, {in_nc: 3, out_nc: 3, nc: 4, nb: 4}]
ESRGAN: [2, {num_filters: 4, num_blocks: 2}]
FBCNN: [1, {nc: [4, 4, 4, 512], nb: 2}]
FDAT: [2, {embed_dim: 8, num_groups: 1, depth_per_group: 1, num_heads: 1, mid_dim: 4}]
FFTformer: [1, {dim: 8, num_blocks: [1, 1, 1], num_refinement_blocks: 1}]
GRL: [2, {embed_dim: 8, depths: [1, 1], num_heads_window: [1, 1], num_heads_stripe: [1, 1], window_size: 32, stripe_size: [64, 64], stripe_shift: true, anchor_window_down_factor: 4, upsampler: pixelshuffle}]
HAT: [2, {embed_dim: 12, depths: [1], num_heads: [2], window_size: 4, compress_ratio: 2, squeeze_factor: 2, num_feat: 4}]
HVICIDNet: [1, {channels: [8, 8, 16, 16], heads: [1, 2, 2, 2]}]
IPT: [2, {scale: [2], n_feats: 4, patch_size: 12, num_layers: 1}]
KBNet_l: [1, {num_blocks: [1, 1, 1, 1], num_refinement_blocks: 1}]
KBNet_s: [1, {width: 8, middle_blk_num: 1, enc_blk_nums: [1, 1, 1, 1], dec_blk_nums: [1, 1, 1, 1]}]
MMRealSR: [4, {num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, num_grow_ch: 4}]
MixDehazeNet: [1, {embed_dims: [8, 16, 16, 16, 8], depths: [1, 1, 1, 1, 1]}]
MoESR: [2, {dim: 8, n_blocks: 1, n_block: 1, upsample_dim: 4}]
MoSR: [2, {n_block: 1, dim: 8}]
NAFNet: [1, {width: 4, enc_blk_nums: [1], dec_blk_nums: [1]}]
OmniSR: [2, {num_feat: 16}]
PLKSR: [2, {dim: 16, n_blocks: 1}]
RCAN: [2, {n_resgroups: 1, n_resblocks: 1, n_feats: 16, norm: False}]
RGT: [2, {embed_dim: 8, depth: [1], num_heads: [2], img_size: 16}]
RealPLKSR: [2, {dim: 16, n_blocks: 1}]
RestoreFormer: [1, {n_embed: 8, ch_mult: [1, 1, 1, 1, 1, 1], num_res_blocks: 1, embed_dim: 64, z_channels: 64}]
RetinexFormer: [1, {n_feat: 8, stage: 1}]
SAFMN: [2, {dim: 8, n_blocks: 1}]
SAFMNBCIE: [1, {dim: 8, n_blocks: 1, num_layers: 1}]
SCUNet: [1, {config: [1, 1, 1, 1, 1, 1, 1]}]
SPAN: [2, {num_in_ch: 3, num_out_ch: 3, feature_channels: 8}]
SeemoRe: [2, {num_experts: 2, num_layers: 1, embedding_dim: 8}]
SwiftSRGAN: [2, {num_channels: 4, num_blocks: 1}]
Swin2SR: [2, {embed_dim: 8, depths: [1], num_heads: [2], window_size: 4, img_size: 16, upsampler: pixelshuffle}]
SwinIR: [2, {embed_dim: 8, depths: [1], num_heads: [2], window_size: 4, img_size: 16, upsampler: pixelshuffle}]
Uformer: [1, {embed_dim: 4, depths: [1, 1, 1, 1, 1, 1, 1, 1, 1], num_heads: [1, 1, 1, 1, 1, 1, 1, 1, 1], img_size: 128}]
UpCunet2x: [2, {}]
UpCunet2x_fast: [2, {}]
UpCunet3x: [3, {}]
UpCunet4x: [4, {}]
""")

# Parameters that the network's own forward pass does not use (or, of SPAN, computes from the others).
UNUSED = {
    "FDAT": r"groups\.\d+\.blocks\.\d+\.inter\.",
    "FFTformer": r"reduce_chan_level2\.",
    "HVICIDNet": r"I_LCA\d\.",
    "RestoreFormer": r"attn(_1|\.\d)\.norm2\.",
    "SPAN": r"\.eval_conv\.",
    "SwiftSRGAN": r"\.act\.",
}


def small(name: str) -> tuple[SpandrelNetwork, int]:
    scale, given = SMALL[name]
    torch.manual_seed(0)
    return build.build_network(f"spandrel/{name}", given, (scale, scale)), scale


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


@needs_spandrel
def test_every_network_of_spandrel_is_tried_or_stands_among_those_that_cannot_be_trained():
    assert set(SMALL) | set(NOT_TRAINABLE) == set(exported())
    assert not set(SMALL) & set(NOT_TRAINABLE)


@needs_spandrel
@pytest.mark.parametrize("name", sorted(SMALL))
def test_one_step_gives_every_parameter_a_finite_gradient_and_spandrel_loads_what_is_saved(name, tmp_path):
    import spandrel

    network, scale = small(name)
    sr = network(picture(2, 3, 16, 16))
    assert sr.shape == (2, 3, 16 * scale, 16 * scale)
    (sr - picture(*sr.shape)).abs().mean().backward()
    for key, parameter in network.net.named_parameters():
        if parameter.requires_grad and not re.search(UNUSED.get(name, "$^"), key):
            assert parameter.grad is not None, key
        assert parameter.grad is None or parameter.grad.isfinite().all(), key

    torch.save({"params": network.state_dict()}, tmp_path / "net.pth")
    loaded = spandrel.ModelLoader().load_from_file(tmp_path / "net.pth")
    assert type(loaded.model) is network.network_class
    assert loaded.scale == scale
    lq = picture(1, 3, 13, 18)  # sizes that some take only extended
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(lq).clamp(0, 1), loaded(lq), rtol=0, atol=1e-5)


@needs_spandrel
@pytest.mark.parametrize("name", ["DRUNet", "IPT", "SeemoRe"])
def test_pictures_of_a_batch_do_not_mix(name):
    network, _ = small(name)
    network.eval()
    lq = picture(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network(lq), torch.cat([network(lq[:1]), network(lq[1:])]), rtol=0, atol=1e-5)


@needs_spandrel
@pytest.mark.parametrize(
    ("name", "given"), [("ESRGAN", {"shuffle_factor": 2, "in_nc": 12}), ("SwinIR", {"start_unshuffle": 2})]
)
def test_the_scale_is_that_from_lq_to_sr_in_networks_that_shrink_the_picture_first(name, given):
    network = build.build_network(f"spandrel/{name}", {**SMALL[name][1], **given}, (2, 2))
    assert network(picture(1, 3, 16, 16)).shape == (1, 3, 32, 32)


@needs_spandrel
def test_a_network_is_trained_tested_and_fine_tuned(tiny):
    network = {"type": "spandrel/SAFMN", "dim": 8, "n_blocks": 1}
    assert in_process(tiny, options(tiny, network_g=network)) == 0
    weights = tiny / "experiments/tiny/models/net_g_12.pth"
    assert measured(tiny, network_g=None) == 0
    changes = {"name": "tuned", "path__pretrain_network_g": str(weights), "train__total_iter": 1}
    assert in_process(tiny, options(tiny, network_g=network, **changes)) == 0
    import spandrel

    loaded = spandrel.ModelLoader().load_from_file(weights)
    assert (loaded.architecture.id, loaded.scale) == ("SAFMN", 2)


@needs_spandrel
def test_weights_of_another_spelling_are_translated():
    """ESRGAN's files have two spellings of keys; BasicSR's is not the one spandrel's network has."""
    from srkit.archs.edsr import EDSR  # noqa: F401 - fills the registry

    network, _ = small("ESRGAN")
    old = network.state_dict()
    new = {}
    for key, value in old.items():
        body = re.fullmatch(r"model\.1\.sub\.(\d)\.RDB(\d)\.conv(\d)\.0\.(\w+)", key)
        plain = {
            "model.0": "conv_first",
            "model.1.sub.2": "conv_body",
            "model.3": "conv_up1",
            "model.5": "conv_hr",
            "model.7": "conv_last",
        }
        layer, _, kind = key.rpartition(".")
        new["body.{}.rdb{}.conv{}.{}".format(*body.groups()) if body else f"{plain[layer]}.{kind}"] = value
    translated, note = network.translated(new)
    assert translated.keys() == old.keys()
    assert all(torch.equal(translated[key], old[key]) for key in old)
    assert "scale 2, network_g: {type: spandrel/ESRGAN, num_filters: 4, num_blocks: 2}" in note


@needs_spandrel
def test_weights_that_do_not_fit_say_which_options_they_were_made_with(tmp_path):
    torch.save({"params": small("RCAN")[0].state_dict()}, tmp_path / "rcan.pth")
    other = build.build_network("spandrel/RCAN", {**SMALL["RCAN"][1], "n_resblocks": 2}, (2, 2))
    with pytest.raises(WeightsError, match=r"scale 2, network_g: \{type: spandrel/RCAN, .*n_resblocks: 1.*norm: false"):
        load_weights(other, read_model(tmp_path / "rcan.pth"))


@needs_spandrel
def test_safetensors_files_are_read(tmp_path):
    from safetensors.torch import save_file

    network, _ = small("Compact")
    save_file(network.state_dict(), tmp_path / "compact.safetensors")
    other, _ = small("Compact")
    torch.nn.init.zeros_(next(other.parameters()))
    assert load_weights(other, read_model(tmp_path / "compact.safetensors")) == []
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_model(tmp_path / "bad.safetensors")


@needs_spandrel
def test_options_are_checked_against_the_constructor(tmp_path):
    text = TRAIN.replace("type: EDSR\n  num_feat: 16\n  upscale: 2", "type: spandrel/RCAN\n  n_feats: 16")
    chosen = load(tmp_path, text).network_g
    assert (chosen.type, chosen.options) == ("spandrel/RCAN", {"n_feats": 16})
    report = refusal(tmp_path, text.replace("n_feats: 16", "n_feat: 16\n  conv: x\n  norm: 3\n  scale: 7"))
    assert "network_g.n_feat: spandrel/RCAN takes no such option; did you mean 'n_feats'" in report
    assert "network_g.conv: spandrel/RCAN takes no such option" in report  # a function; no file can say it
    assert "network_g.norm: found 3, expected true or false" in report
    assert "network_g.scale: found 7, but the top-level scale is 2" in report
    report = refusal(tmp_path, TRAIN.replace("type: EDSR", "type: spandrel/RCAM"))
    assert "network_g.type: spandrel has no network 'RCAM'; did you mean 'RCAN'" in report


@needs_spandrel
@pytest.mark.parametrize("name", sorted(NOT_TRAINABLE))
def test_networks_that_cannot_be_trained_say_why(name):
    with pytest.raises(RefusedError, match=re.escape(NOT_TRAINABLE[name])):
        ARCHS.get(f"spandrel/{name}")


@needs_spandrel
def test_the_page_of_architectures_lists_every_one_with_what_was_found():
    page = (ROOT / "docs/architectures.md").read_text()
    rows = dict(re.findall(r"^\| `spandrel/(\w+)` \|.*\| (yes|no)\b[^|]*\|$", page, re.MULTILINE))
    assert rows == {name: "no" if name in NOT_TRAINABLE else "yes" for name in exported()}


def test_the_json_schema_lets_editors_pass_the_type():
    jsonschema = pytest.importorskip("jsonschema")
    document = {**yaml.safe_load(TRAIN), "network_g": {"type": "spandrel/RCAN", "n_feats": 16}}
    document["train"]["optim_g"]["lr"] = 1e-4
    validator = jsonschema.Draft7Validator(build_schema())
    assert list(validator.iter_errors(document)) == []
    document["network_g"]["type"] = "spandrle/RCAN"
    assert list(validator.iter_errors(document))


def test_without_spandrel_the_type_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    spandrel_archs.exported.cache_clear()
    with pytest.raises(RefusedError, match=r"needs the package spandrel .*pip install 'srkit\[community\]'"):
        find("RCAN")
    spandrel_archs.exported.cache_clear()
