"""What `srkit new` writes, as templates: code and test of each kind of part, and an option file that trains with it."""

from __future__ import annotations

CODE = {
    "arch": '''"""$name: a network of my own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srkit.registry import ARCHS


@ARCHS.register()
class $name(nn.Module):
    """Convolutions, a pixel shuffle, and nearest-neighbour enlargement that they correct.

    Args:
        num_in_ch: Channels of the pictures: 3 (RGB) or 1 (luma).
        num_feat: Feature channels.
        num_block: Convolutions between the first and the last.
        upscale: Enlargement per axis; filled from the option file's scale.

    Shape: (B, num_in_ch, H, W) -> (B, num_in_ch, H * upscale, W * upscale), intensities from 0 to 1.
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 16, num_block: int = 2, upscale: int = 2) -> None:
        super().__init__()
        self.upscale = upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.body = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1) for _ in range(num_block))
        self.conv_last = nn.Conv2d(num_feat, num_in_ch * upscale**2, 3, padding=1)

    def forward(self, lq: Tensor) -> Tensor:
        x = torch.relu(self.conv_first(lq))
        for conv in self.body:
            x = x + torch.relu(conv(x))
        change = nn.functional.pixel_shuffle(self.conv_last(x), self.upscale)
        return nn.functional.interpolate(lq, scale_factor=self.upscale, mode="nearest") + change
''',
    "dataset": '''"""$name: a data set of my own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np

from srkit.data.sample import Sample
from srkit.errors import DataError
from srkit.imaging.files import IMAGE_SUFFIXES, read_image
from srkit.imaging.resize import imresize, mod_crop
from srkit.registry import DATASETS


@DATASETS.register()
class $name:
    """Pictures of a folder, and lq made from them by the antialiased bicubic.

    Args:
        scale: gt size / lq size for height and width; filled from the option file's scale.
        dataroot_gt: Folder of high-resolution pictures.
        gt_size: Side of the training crop in gt pixels, a multiple of the scale.

    Raises: DataError for a folder without pictures.
    """

    def __init__(self, *, scale: tuple[int, ...], dataroot_gt: str, gt_size: int = 48) -> None:
        self.scale, self.gt_size = scale, gt_size
        self.files = sorted(p for p in Path(dataroot_gt).glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not self.files:
            raise DataError(f"$name: no pictures in {dataroot_gt}")

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int, rng: np.random.Generator | None) -> Sample:
        """A crop drawn by `rng`, or the whole picture (None). Arrays are (H, W, C) in the file's integers."""
        path = self.files[index]
        gt = mod_crop(read_image(path), self.scale)
        if gt.shape[2] == 1:
            gt = np.repeat(gt, 3, axis=2)
        if rng is not None:  # every draw comes from rng: workers and a resumed run then see the same crops
            top, left = (int(rng.integers(0, n - self.gt_size + 1)) for n in gt.shape[:2])
            gt = gt[top : top + self.gt_size, left : left + self.gt_size]
        gt = np.ascontiguousarray(gt)
        lq = imresize(gt, [Fraction(1, s) for s in self.scale])
        white = 255.0 if gt.dtype == np.uint8 else 65535.0
        return Sample({"lq": lq, "gt": gt}, path.stem, {"lq": str(path), "gt": str(path)}, white)
''',
    "loss": '''"""$name: a loss of my own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from srkit.registry import LOSSES


@LOSSES.register()
class $name(nn.Module):
    """Mean absolute error in which rows and columns of strong change in gt count more.

    Args:
        weight: How much more, per unit of change between neighbours (intensities span 0 to 1); 0 is L1.

    Shape: `sr` and `gt` (B, C, H, W), equal. Returns a scalar.
    """

    def __init__(self, *, weight: float = 2.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        down = (gt[..., 1:, :] - gt[..., :-1, :]).abs()
        right = (gt[..., 1:] - gt[..., :-1]).abs()
        change = nn.functional.pad(down, (0, 0, 0, 1)) + nn.functional.pad(right, (0, 1))
        return torch.mean((1 + self.weight * change) * (sr - gt).abs())
''',
    "metric": '''"""$name: a metric of my own."""

from __future__ import annotations

from typing import Literal

import numpy as np

from srkit.registry import METRICS


@METRICS.register()
class $name:
    """Share of the values that are wrong by more than a limit.

    Args:
        limit: As a part of the intensity range.

    Shape: `sr` and `gt` (H, W, C) float64, equal, prepared by the protocol (colour, rounding, border).
    """

    better: Literal["higher", "lower"] = "lower"

    def __init__(self, *, limit: float = 0.02) -> None:
        self.limit = limit

    def __call__(self, sr: np.ndarray, gt: np.ndarray, data_range: float) -> float:
        return float((np.abs(sr - gt) > self.limit * data_range).mean())
''',
    "recipe": '''"""$name: which networks learn from what, in a way of my own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from srkit.engine.recipes import Recipe, RecipeParts, Scene, Turn, image_terms
from srkit.registry import RECIPES

_CONSISTENCY_WEIGHT = 0.1


@RECIPES.register()
class $name(Recipe):
    """The image losses of the option file, and beside them: sr, reduced by block means, should be what gt is reduced so.

    A recipe names its turns; each turn differentiates its own terms with respect to its own network.
    """

    def __init__(self, parts: RecipeParts) -> None:
        super().__init__(parts.networks, parts.mixed_scales)
        self.losses = parts.losses
        self.turns = (Turn("g", "network_g", self._terms),)

    def _terms(self, scene: Scene) -> dict[str, Tensor]:
        terms = image_terms(self.losses, scene, "l_")
        scale = scene.batch.gt.shape[-1] // scene.batch.lq.shape[-1]
        small, wanted = (F.avg_pool2d(picture, scale) for picture in (scene.sr, scene.batch.gt))
        return {**terms, "l_consistency": _CONSISTENCY_WEIGHT * F.l1_loss(small, wanted)}
''',
}

_TEST_HEAD = '''"""Of $name. Run: python -m pytest $out/test_$file.py"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

'''

TESTS = {
    "arch": _TEST_HEAD
    + """import pytest
import torch
from $file import $name


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_it_enlarges_any_size_by_its_scale(upscale):
    assert $name(upscale=upscale)(torch.rand(1, 3, 9, 14)).shape == (1, 3, 9 * upscale, 14 * upscale)


def test_every_weight_learns():
    network = $name()
    network(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
""",
    "dataset": _TEST_HEAD
    + """import numpy as np
import pytest
from $file import $name

from srkit.errors import DataError
from srkit.imaging.files import write_image


@pytest.fixture
def pictures(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(2):
        write_image(tmp_path / f"{number}.png", draw.integers(0, 256, (40, 50, 3)).astype(np.uint8))
    return tmp_path


def test_a_training_sample_is_a_crop_whose_lq_is_smaller_by_the_scale(pictures):
    sample = $name(scale=(2, 2), dataroot_gt=str(pictures), gt_size=16).sample(0, np.random.default_rng(0))
    assert sample.images["gt"].shape == (16, 16, 3)
    assert sample.images["lq"].shape == (8, 8, 3)


def test_equal_draws_give_equal_crops(pictures):
    data = $name(scale=(2, 2), dataroot_gt=str(pictures), gt_size=16)
    first, again = (data.sample(1, np.random.default_rng(7)).images["gt"] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no pictures"):
        $name(scale=(2, 2), dataroot_gt=str(tmp_path))
""",
    "loss": _TEST_HEAD
    + """import pytest
import torch
from $file import $name


def test_equal_pictures_cost_nothing():
    picture = torch.rand(1, 3, 8, 8)
    assert $name()(picture, picture) == 0


def test_where_gt_is_flat_it_is_the_mean_absolute_error():
    gt = torch.full((1, 3, 8, 8), 0.5)
    assert $name()(gt + 0.1, gt).item() == pytest.approx(0.1, rel=1e-5)


def test_it_teaches_the_generator():
    sr = torch.rand(1, 3, 8, 8, requires_grad=True)
    $name()(sr, torch.rand(1, 3, 8, 8)).backward()
    assert sr.grad.isfinite().all() and sr.grad.abs().sum() > 0
""",
    "metric": _TEST_HEAD
    + """import numpy as np
from $file import $name


def test_equal_pictures_have_no_wrong_value():
    picture = np.random.default_rng(0).random((8, 8, 3)) * 255
    assert $name()(picture, picture, 255.0) == 0


def test_a_quarter_of_the_values_wrong_is_a_quarter():
    gt = np.zeros((8, 8, 1))
    sr = gt.copy()
    sr[:4, :4] = 100
    assert $name(limit=0.02)(sr, gt, 255.0) == 0.25
""",
    "recipe": _TEST_HEAD
    + """import pytest
import torch
from $file import $name

from srkit.engine.recipes import RecipeParts, Scene
from srkit.engine.transfer import Batch


def test_a_constant_error_of_a_tenth_costs_a_tenth_of_it():
    recipe = $name(RecipeParts(networks={"network_g": torch.nn.Identity()}, losses={}))
    gt = torch.full((1, 3, 8, 8), 0.5)
    batch = Batch(lq=gt[..., ::2, ::2], gt=gt, extras={}, names=["a"])
    (turn,) = recipe.turns_at(0)
    terms = turn.terms(Scene(batch, gt + 0.1, iteration=0))
    assert terms["l_consistency"].item() == pytest.approx(0.1 * 0.1, rel=1e-5)
""",
}

OPTIONS = """\
# A short training with $name. Data: srkit example-data
#   srkit train -opt $out/$file.yml
name: try_$file
model_type: $model_type
scale: 2
imports: [$file.py] # a file beside this one; importing runs its code
manual_seed: 0

datasets:
  train:
    type: $train_type
    dataroot_gt: datasets/quickstart/train/gt
    gt_size: 48
    batch_size_per_gpu: 8
    dataset_enlarge_ratio: 100
  val:
    name: held_out
    type: PairedImageDataset
    dataroot_gt: datasets/quickstart/test/gt

network_g:
$network

train:
  total_iter: 500
  optim_g: {type: Adam, lr: 1e-3, betas: [0.9, 0.99]}
  pixel_opt: $loss

val:
  val_freq: 250
  metrics:
    psnr: {type: PSNR}
$metric
logger:
  print_freq: 50
  save_checkpoint_freq: 250
"""

YAML_OF = {
    "default": {
        "model_type": "SRModel",
        "train_type": "PairedImageDataset",
        "network": "  type: EDSR\n  num_feat: 16\n  num_block: 4",
        "loss": "{type: L1Loss}",
        "metric": "",
    },
    "arch": {"network": "  type: $name\n  num_feat: 16\n  num_block: 2"},
    "dataset": {"train_type": "$name"},
    "loss": {"loss": "{type: $name, weight: 2.0, loss_weight: 1.0}"},
    "metric": {"metric": "    mine: {type: $name, limit: 0.02}\n"},
    "recipe": {"model_type": "$name"},
}
"""What stands in the option file instead of the default, by kind."""
