"""`srkit new`: what it writes passes its own tests and trains by the real command."""

import subprocess
import sys

import pytest
from tiny import ROOT, pictures

from srkit.engine.recipes import RECIPES
from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS
from srkit.tools.__main__ import main
from srkit.tools.new import snake
from srkit.train import main as train

NAMES = {"arch": "MyNet", "dataset": "MyFolder", "loss": "MyLoss", "metric": "MyMetric", "recipe": "MyRecipe"}
REGISTRIES = {"arch": ARCHS, "dataset": DATASETS, "loss": LOSSES, "metric": METRICS, "recipe": RECIPES}


@pytest.fixture
def parts(tiny):
    """All five kinds, and data where their option files expect it; what the process imported is forgotten afterwards."""
    for part in ("train", "test"):
        pictures(tiny / f"datasets/quickstart/{part}")
    for kind, name in NAMES.items():
        assert main(["new", kind, name]) == 0
    path = list(sys.path)
    yield tiny / "my_parts"
    sys.path[:] = path
    for kind, name in NAMES.items():
        sys.modules.pop(snake(name), None)
        REGISTRIES[kind]._classes.pop(name, None)


def test_what_is_written_passes_its_own_tests(parts):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(parts)],
        cwd=parts.parent, env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


@pytest.mark.parametrize("kind", NAMES)
def test_its_option_file_trains_by_the_real_command_without_a_warning(parts, kind, capsys):
    file = parts / f"{snake(NAMES[kind])}.yml"
    assert train(["-opt", str(file), "--force_yml", "train:total_iter=2", "logger:use_tb_logger=false"]) == 0
    assert "WARNING" not in capsys.readouterr().out
    assert (parts.parent / f"experiments/try_{snake(NAMES[kind])}/models/net_g_2.pth").exists()


def test_nothing_is_overwritten(parts, capsys):
    before = (parts / "my_net.py").read_text()
    (parts / "my_net.yml").unlink()
    assert main(["new", "arch", "MyNet"]) == 2
    assert "my_net.py" in capsys.readouterr().err
    assert (parts / "my_net.py").read_text() == before
    assert not (parts / "my_net.yml").exists()


@pytest.mark.parametrize(
    ("name", "text"), [("my_net", "a capital first"), ("EDSR", "srkit has EDSR among its own already")]
)
def test_names_that_cannot_be_registered_are_refused(tmp_path, capsys, name, text):
    assert main(["new", "arch", name, "--out", str(tmp_path / "p")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(("name", "file"), [("MyNet", "my_net"), ("MyEDSRNet", "my_edsr_net"), ("X2Net", "x2_net")])
def test_the_files_name_is_the_classes_in_snake_case(name, file):
    assert snake(name) == file
