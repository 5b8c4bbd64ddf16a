"""The small tools, as a user calls them."""

import pytest
from tiny import in_process, options, write_options

from srkit.tools.__main__ import main


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("archs", "EDSR"),
        ("datasets", "PairedImageDataset"),
        ("losses", "L1Loss"),
        ("metrics", "PSNR"),
        ("recipes", "Supervised"),
    ],
)
def test_list_prints_what_type_can_name(capsys, kind, name):
    assert main(["list", kind]) == 0
    out = capsys.readouterr().out
    assert f"\n{name}: " in "\n" + out
    assert "*args" not in out


def test_check_refuses_a_pretrained_file_that_is_not_there(tiny, capsys):
    path = write_options(tiny, options(tiny, path__pretrain_network_g="nowhere.pth"))
    assert main(["check", str(path)]) == 2
    assert "nowhere.pth: no such file" in capsys.readouterr().err


def test_check_of_a_test_file_compares_it_with_the_model(tiny, capsys):
    in_process(tiny, options(tiny))
    data = options(
        tiny, network_g__num_feat=8, path__pretrain_network_g=str(tiny / "experiments/tiny/models/net_g_12.pth")
    )
    data = {k: v for k, v in data.items() if k not in ("train", "logger")}
    data["datasets"].pop("train")
    assert main(["check", str(write_options(tiny, data)), "--mode", "test"]) == 2
    assert "network_g.num_feat: 8 in the option file, 4 in the model file" in capsys.readouterr().err
