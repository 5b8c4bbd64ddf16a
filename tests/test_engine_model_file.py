"""Model files: what they carry, what they refuse, whose files they read."""

import pytest
import torch
from torch import nn

from srkit.engine.model_file import ModelInfo, load_weights, read_model, write_model
from srkit.engine.transfer import Normalization
from srkit.errors import WeightsError

INFO = ModelInfo("EDSR", {"num_feat": 8}, (2, 2), Normalization((0.5,), (0.25,)), "rgb", 7, "run")


def net(features=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, features, 3), nn.Conv2d(features, 3, 3))


def test_a_model_file_says_what_it_holds_and_prefers_averaged_weights(tmp_path):
    raw, averaged = net().state_dict(), {k: v + 1 for k, v in net().state_dict().items()}
    write_model(tmp_path / "m.pth", raw, averaged, INFO)
    model = read_model(tmp_path / "m.pth")
    assert model.key == "params_ema"
    assert torch.equal(model.state["0.bias"], averaged["0.bias"])
    assert model.info == INFO
    assert read_model(tmp_path / "m.pth", "params").key == "params"


def test_without_averaging_only_params_is_written(tmp_path):
    write_model(tmp_path / "m.pth", net().state_dict(), None, INFO)
    assert set(torch.load(tmp_path / "m.pth", weights_only=True)) == {"params", "srkit"}
    with pytest.raises(WeightsError, match=r"no weights under 'params_ema'; found params"):
        read_model(tmp_path / "m.pth", "params_ema")


@pytest.mark.parametrize("wrap", [lambda s: {"params": s}, lambda s: {"state_dict": s}, lambda s: s])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_foreign_files_load(tmp_path, wrap, prefix):
    torch.save(wrap({prefix + k: v for k, v in net().state_dict().items()}), tmp_path / "m.pth")
    model = read_model(tmp_path / "m.pth")
    other = net()
    nn.init.zeros_(other[0].bias)
    assert load_weights(other, model) == []
    assert torch.equal(other[0].bias, net()[0].bias)
    assert model.info is None


def test_a_training_state_is_not_a_model_file(tmp_path):
    torch.save({"epoch": 1, "iter": 5000, "optimizers": [], "schedulers": []}, tmp_path / "5000.state")
    with pytest.raises(WeightsError, match=r"training state, not a model file"):
        read_model(tmp_path / "5000.state")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = net().state_dict()
    state["1.bias"][0] = float("nan")
    torch.save({"params": state}, tmp_path / "m.pth")
    with pytest.raises(WeightsError, match=r"not finite in 1\.bias"):
        read_model(tmp_path / "m.pth")


def test_misfits_are_listed_together(tmp_path):
    state = net(5).state_dict()
    state["extra"] = torch.zeros(1)
    del state["1.bias"]
    torch.save({"params": state}, tmp_path / "m.pth")
    with pytest.raises(
        WeightsError, match=r"(?s)1 missing: 1\.bias.*1 unexpected: extra.*of another shape: 0\.weight \(5, 3"
    ):
        load_weights(net(), read_model(tmp_path / "m.pth"))


def test_not_strict_takes_what_fits_and_says_what_did_not_but_never_nothing(tmp_path):
    state = net().state_dict()
    state["extra"] = torch.zeros(1)
    torch.save({"params": state}, tmp_path / "m.pth")
    assert load_weights(net(), read_model(tmp_path / "m.pth"), strict=False) == ["1 unexpected: extra"]
    torch.save({"params": {"other": torch.zeros(2)}}, tmp_path / "n.pth")
    with pytest.raises(WeightsError, match="no key fits at all"):
        load_weights(net(), read_model(tmp_path / "n.pth"), strict=False)
