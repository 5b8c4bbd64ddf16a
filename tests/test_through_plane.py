"""ThroughPlane: slices in, slices out; volumes through the same network from two directions; the way from one scan to its result."""

from __future__ import annotations

import csv
from itertools import permutations
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tiny as made
import torch
from networks import counts, picture, untaught
from torch import Tensor

import srkit.infer
import srkit.test
import srkit.train
from srkit.archs import ResnetGenerator, ThroughPlane
from srkit.archs import through_plane as through_plane_module
from srkit.errors import RefusedError
from srkit.imaging.slices import enlarge
from srkit.imaging.tiles import tiled
from srkit.imaging.volumes import write_volume
from srkit.tools.__main__ import main as tool

SCALES = [(3, 1, 1), (1, 3, 1), (1, 1, 3), (1, 1, 2)]


def taught(scale=(1, 1, 3), **options) -> ThroughPlane:
    """Small, with a last layer that is no longer zero."""
    torch.manual_seed(0)
    net = ThroughPlane(scale=scale, **{"num_feat": 4, "num_block": 1, **options})
    torch.nn.init.normal_(net.slices.conv_last.weight, std=0.1)
    return net.eval()


def by_slices(net: ThroughPlane, volume: Tensor, axis: int) -> Tensor:
    """(I, J, K), slice by slice through the network inside."""
    thick = net.axis
    done = []
    for piece in volume.unbind(axis):
        is_turned = thick - (axis < thick) == 1  # the thick axis is the second of the slice's two
        sr = net.slices((piece.T if is_turned else piece)[None, None])[0, 0]
        done.append(sr.T if is_turned else sr)
    return torch.stack(done, axis)


@pytest.mark.parametrize("scale", SCALES)
def test_untrained_it_is_linear_interpolation_along_the_thick_axis(scale):
    volume = np.random.default_rng(0).uniform(0, 1, (7, 6, 5)).astype(np.float32)
    with torch.no_grad():
        sr = ThroughPlane(num_feat=4, num_block=1, scale=scale)(torch.from_numpy(volume)[None, None])
    np.testing.assert_allclose(sr[0, 0].numpy(), enlarge(volume, scale, 1), atol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
def test_a_volume_is_the_mean_of_its_two_stacks_of_slices(scale):
    net, lq = taught(scale), picture(1, 1, 7, 6, 5)
    with torch.no_grad():
        one, other = (by_slices(net, lq[0, 0], axis) for axis in range(3) if axis != net.axis)
        assert not torch.allclose(one, other, atol=1e-4)
        torch.testing.assert_close(net(lq)[0, 0], (one + other) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_permuted_axes_permute_the_result(axes):
    lq, net = picture(2, 1, 7, 6, 5), taught()
    moved = taught(tuple((1, 1, 3)[axis] for axis in axes))
    order = (0, 1, *(axis + 2 for axis in axes))
    with torch.no_grad():
        torch.testing.assert_close(moved(lq.permute(order)), net(lq).permute(order), rtol=1e-5, atol=1e-6)


def test_slices_go_through_the_network_inside():
    net, slices = taught(), picture(3, 1, 5, 8)
    alone = ResnetGenerator(1, 1, 4, 1, (3, 1), "none", "linear")
    alone.load_state_dict({key.removeprefix("slices."): value for key, value in net.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(net(slices), alone(slices))
        assert net(slices).shape == (3, 1, 15, 8)


def test_it_has_the_weights_of_the_network_of_slices_and_no_others():
    def flat():
        return ResnetGenerator(1, 1, 8, 2, (6, 1), "none", "linear")

    assert counts(lambda: ThroughPlane(8, 2, (1, 1, 6))) == counts(flat)
    assert {f"slices.{key}" for key in flat().state_dict()} == set(ThroughPlane(8, 2, (1, 1, 6)).state_dict())


def test_how_many_slices_go_at_once_is_no_matter(monkeypatch):
    net, lq = taught(), picture(2, 1, 7, 6, 5)
    with torch.no_grad():
        whole = net(lq)
        monkeypatch.setattr(through_plane_module, "_PIXELS_AT_ONCE", 3 * 5 * 7 * 2)
        torch.testing.assert_close(net(lq), whole, rtol=1e-5, atol=1e-6)


def test_tiles_that_overlap_by_its_reach_equal_the_whole():
    net, lq = taught(), picture(1, 1, 16, 14, 13)
    overlap = (int(net.receptive_radius_px),) * 3
    with torch.no_grad():
        parts = tiled(net, lq, scale=(1, 1, 3), tile=(12, 11, 12), overlap=overlap)
        torch.testing.assert_close(parts, net(lq), rtol=1e-5, atol=1e-6)


def test_slices_teach_every_weight_of_it():
    net = taught().train()
    net(picture(2, 1, 5, 8)).square().mean().backward()
    assert untaught(net) == []


@pytest.mark.parametrize("scale", [(3, 1), (1, 1, 1), (2, 1, 3), (1, 1, 1, 3)])
def test_another_scale_is_refused(scale):
    with pytest.raises(RefusedError, match="above 1 for the thick axis alone"):
        ThroughPlane(scale=scale)


def test_an_input_that_is_neither_slice_nor_volume_is_refused():
    with pytest.raises(RefusedError, match=r"takes slices \(B, 1, H, W\) and volumes \(B, 1, I, J, K\)"):
        taught()(picture(1, 5, 8))


# From a scan to its result, by the real commands


def phantom(*shape: int) -> np.ndarray:
    """Smooth blobs in nothing."""
    coarse = np.random.default_rng(0).uniform(100, 1000, [n // 6 for n in shape]).astype(np.float32)
    volume = enlarge(coarse, [6, 6, 6], 3)
    volume[:4], volume[-4:] = 0, 0
    return volume


@pytest.fixture
def trained(tiny) -> Path:
    """Two iterations on one scan of thick slices, 0.2 x 0.2 x 0.8 mm; returns the model file."""
    affine = np.array([[-0.2, 0, 0, 5], [0, 0.2, 0, -3], [0, 0, 0.2, 1], [0, 0, 0, 1]])
    write_volume(tiny / "isotropic/rat_1.nii.gz", phantom(36, 30, 24), affine)
    assert tool(["thicken", "isotropic", "thick", "--scale", "1,1,4"]) == 0
    options = made.options(tiny, scale=[1, 1, 4], val=None, datasets__val=None, train__total_iter=2)
    options["datasets"]["train"] = {
        "type": "SelfSupervisedSlices", "dataroot_gt": "thick/rat_1.nii.gz", "gt_size": 16, "batch_size_per_gpu": 2,
        "dataset_enlarge_ratio": 100, "num_worker_per_gpu": 0, "cache_dir": str(tiny / "cache"),
    }  # fmt: skip
    options["network_g"] = {"type": "ThroughPlane", "num_feat": 4, "num_block": 1}
    assert srkit.train.main(["-opt", str(made.write_options(tiny, options))]) == 0
    return tiny / "experiments/tiny/models/net_g_latest.pth"


def test_a_scan_becomes_isotropic_at_its_place(trained, tiny):
    arguments = ["-m", str(trained), "-i", "thick/rat_1.nii.gz", "-o", "iso.nii.gz", "--device", "cpu"]
    assert srkit.infer.main(arguments) == 0
    result, scan = nibabel.load("iso.nii.gz"), nibabel.load("thick/rat_1.nii.gz")
    assert result.shape == (36, 30, 24)
    assert scan.shape == (36, 30, 6)
    np.testing.assert_allclose(
        result.affine, [[-0.2, 0, 0, 5], [0, 0.2, 0, -3], [0, 0, 0.2, 1], [0, 0, 0, 1]], atol=1e-6
    )
    linear = enlarge(scan.get_fdata(), (1, 1, 4), 1)
    assert np.abs(result.get_fdata() - linear).max() < 0.05 * 1000  # two iterations away from it


def test_it_is_measured_beside_interpolation_where_the_truth_is_known(trained, tiny):
    options = made.options(tiny, scale=[1, 1, 4], datasets={}, train=None, val={"protocol": "mri-volume-v1"})
    options["datasets"] = {"test": {"name": "rats", "type": "VolumeDataset", "dataroot_gt": "isotropic"}}
    del options["network_g"]
    options["path"]["pretrain_network_g"] = str(trained)
    assert srkit.test.main(["-opt", str(made.write_options(tiny, options, "test.yml"))]) == 0
    with (tiny / "results/tiny/metrics.csv").open() as file:
        psnr = {row["model"]: float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "psnr"}
    assert set(psnr) == {"nearest", "linear", "cubic", "tiny"}
    assert psnr["tiny"] == pytest.approx(psnr["linear"], abs=0.5)


def test_thicken_writes_what_a_scanner_with_thick_slices_sees(tiny):
    volume = np.random.default_rng(0).uniform(1, 2, (12, 12, 14)).astype(np.float32)
    write_volume(tiny / "in/a.b.nii", volume, np.diag([0.2, 0.2, 0.2, 1]))
    assert tool(["thicken", "in", "out", "--scale", "1,1,4", "--thickness", "0.5"]) == 0
    thick = nibabel.load("out/a.b.nii.gz")
    middle = volume[..., :12].reshape(12, 12, 3, 4)[..., 1:3]  # what a slice half as thick as four voxels covers
    np.testing.assert_allclose(thick.get_fdata(), middle.mean(axis=-1), rtol=1e-5)
    np.testing.assert_allclose(
        thick.affine, [[0.2, 0, 0, 0], [0, 0.2, 0, 0], [0, 0, 0.8, 0.3], [0, 0, 0, 1]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["in", "other", "--scale", "1,4"], "--scale: found '1,4', expected three whole numbers from 1, such as 1,1,4"),
        (["in", "other", "--scale", "1,1,20"], "a.nii: a volume of (12, 12, 12) is smaller than one block"),
        (["in", "in", "--scale", "1,1,4"], "in exists"),
        (["twice", "other", "--scale", "1,1,4"], "twice/a.nii and twice/a.nii.gz would be one file; rename one"),
        (["isotropic", "other", "--scale", "1,1,4"], "isotropic: no such folder"),
    ],
)
def test_thicken_refuses_what_it_cannot_write_and_leaves_nothing(tiny, capsys, words, text):
    for name in ("in/a.nii", "twice/a.nii", "twice/a.nii.gz"):
        write_volume(tiny / name, phantom(12, 12, 12), np.diag([0.2, 0.2, 0.2, 1]))
    assert tool(["thicken", *words]) == 2
    assert text in capsys.readouterr().err
    assert not (tiny / "other").exists()
