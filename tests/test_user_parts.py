"""Parts in a file outside the package: the README's example as it stands there, and mistakes in using it."""

import re
import sys

import pytest
from tiny import ROOT, in_process, options

from srkit.registry import LOSSES


def readme_example() -> str:
    return re.search(r"```python\n(# my_parts\.py.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]


@pytest.fixture(autouse=True)
def _forget_parts():
    """One process imports a module once and registers a name once; each test begins without the others' files."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    for module in ("my_parts", "my_all"):
        sys.modules.pop(module, None)
    LOSSES._classes.pop("HuberLoss", None)


def test_the_example_of_the_readme_trains(tiny):
    (tiny / "my_parts.py").write_text(readme_example())
    loss = {"type": "HuberLoss", "delta": 0.02, "loss_weight": 1.0}
    assert in_process(tiny, options(tiny, imports=["my_parts.py"], train__pixel_opt=loss)) == 0


def test_options_of_a_users_part_are_checked_like_srkits_own(tiny, capsys):
    (tiny / "my_parts.py").write_text(readme_example())
    loss = {"type": "HuberLoss", "detla": 0.02}
    assert in_process(tiny, options(tiny, imports=["my_parts.py"], train__pixel_opt=loss)) == 2
    assert re.search(r"train\.pixel_opt\.detla: .*did you mean 'delta'", capsys.readouterr().err)


def test_a_misspelt_type_of_a_users_part_names_the_nearest(tiny, capsys):
    (tiny / "my_parts.py").write_text(readme_example())
    assert in_process(tiny, options(tiny, imports=["my_parts.py"], train__pixel_opt={"type": "HubberLoss"})) == 2
    assert "did you mean 'HuberLoss'" in capsys.readouterr().err


def test_arch_dataset_and_metric_of_a_user_train_and_validate_together(tiny):
    (tiny / "my_all.py").write_text(
        "import numpy as np\nfrom torch import nn\nfrom srkit.data import Sample\n"
        "from srkit.registry import ARCHS, DATASETS, METRICS\n\n\n"
        "@ARCHS.register()\nclass OneConv(nn.Module):\n"
        "    def __init__(self, *, upscale: int, width: int = 3) -> None:\n        super().__init__()\n"
        "        self.net = nn.Sequential(nn.Conv2d(3, 3 * upscale**2, width, padding=width // 2), nn.PixelShuffle(upscale))\n\n"
        "    def forward(self, x):\n        return self.net(x)\n\n\n"
        "@DATASETS.register()\nclass Ramps:\n"
        "    def __init__(self, *, scale: tuple[int, ...], count: int) -> None:\n        self.count = count\n\n"
        "    def __len__(self):\n        return self.count\n\n"
        "    def sample(self, index, rng):\n        gt = np.full((16, 16, 3), 40 + index, np.uint8)\n"
        "        return Sample({'lq': gt[::2, ::2].copy(), 'gt': gt}, f'r{index}', {}, 255.0)\n\n\n"
        "@METRICS.register()\nclass MaxError:\n    better = 'lower'\n\n"
        "    def __call__(self, sr, gt, data_range):\n        return float(np.abs(sr - gt).max())\n"
    )
    data = options(tiny, imports=["my_all.py"], network_g={"type": "OneConv", "width": 5})
    data["datasets"] = {
        "train": {"type": "Ramps", "count": 8, "batch_size_per_gpu": 2},
        "val": {"type": "Ramps", "count": 2},
    }
    data["val"]["metrics"] = {"worst": {"type": "MaxError"}}
    assert in_process(tiny, data) == 0
    log = next((tiny / "experiments/tiny").glob("train_*.log")).read_text()
    assert re.search(r"# worst: [\d.]+\tBest: ", log)
