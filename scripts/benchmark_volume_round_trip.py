"""What `srkit infer` does to places and values of volumes, with a network that only repeats voxels.

    python scripts/benchmark_volume_round_trip.py

Twenty scans with random oblique affines, stored as float32, int16 with a slope, and uint16, go through the command. The
block of voxels that one voxel became must have its centre where that voxel's was, by the sform and by the qform, and every
one of them its value, in the file's units. The expected places are computed here from the input's header alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from srkit.engine.model_file import ModelInfo, write_model
from srkit.engine.transfer import Normalization
from srkit.infer import main as infer
from srkit.registry import ARCHS

SCALE = (1, 3, 1)
SHAPE = (20, 9, 16)
STORED = ("float32", "int16 with a slope of 0.37", "uint16")


@ARCHS.register()
class Repeat(nn.Module):
    """Every voxel `scale` times: its result is known without running it."""

    receptive_radius_px = 0

    def __init__(self, scale: tuple[int, ...] = SCALE) -> None:
        super().__init__()
        self.scale = tuple(scale)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, lq: Tensor) -> Tensor:
        for axis, factor in enumerate(self.scale):
            lq = lq.repeat_interleave(factor, dim=2 + axis)
        return lq


def made_scan(seed: int, stored: str) -> nibabel.Nifti1Image:
    """A scan of noise, at a random angle within a few decimetres of the origin, 0.05 to 2 mm between voxels."""
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.05, 0.4, 3) * (1, 3, 1) * rng.choice([1, 2])
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=rng).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    if stored == "float32":
        image = nibabel.Nifti1Image(rng.gamma(2, 9000, SHAPE).astype(np.float32), affine)
    elif stored == "uint16":
        image = nibabel.Nifti1Image(rng.integers(0, 60000, SHAPE).astype(np.uint16), affine)
    else:
        image = nibabel.Nifti1Image(rng.integers(-3000, 30000, SHAPE).astype(np.int16), affine)
        image.header.set_slope_inter(0.37, -12.0)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    return image


def errors(before: Path, after: Path) -> dict[str, float]:
    """Largest distances in mm and largest difference of values, absolute and over the file's range."""
    old, new = nibabel.load(before), nibabel.load(after)
    found = {}
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1).reshape(-1, 3)
    for form in ("sform", "qform"):
        was, now = (getattr(image, f"get_{form}")() for image in (old, new))
        # The centre of the block of an even or odd number of voxels, in the result's indices.
        centre = index * SCALE + (np.array(SCALE) - 1) / 2
        found[f"{form} mm"] = float(
            np.linalg.norm(
                nibabel.affines.apply_affine(was, index) - nibabel.affines.apply_affine(now, centre), axis=1
            ).max()
        )
    values = np.asanyarray(old.dataobj, np.float64)
    wanted = values
    for axis, factor in enumerate(SCALE):
        wanted = wanted.repeat(factor, axis)
    found["value"] = float(np.abs(np.asanyarray(new.dataobj, np.float64) - wanted).max())
    found["of range"] = found["value"] / float(np.ptp(values))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=20)
    flags = parser.parse_args()
    worst: dict[tuple[str, str], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        info = ModelInfo("Repeat", {}, SCALE, Normalization(), "", 0, "round trip", "", "percentiles")
        write_model(folder / "repeat.pth", Repeat().state_dict(), None, info)
        for seed in range(flags.scans):
            stored = STORED[seed % len(STORED)]
            before = folder / f"{seed}.nii.gz"
            nibabel.save(made_scan(seed, stored), before)
            for dtype in ("float32", "input"):
                after = folder / f"{seed}_{dtype}.nii.gz"
                words = [
                    "-m",
                    folder / "repeat.pth",
                    "-i",
                    before,
                    "-o",
                    after,
                    "--axis",
                    1,
                    "--dtype",
                    dtype,
                    "--no_preview",
                ]
                if infer([str(word) for word in words]) != 0:
                    return 1
                key = (stored, dtype)
                old = worst.get(key, {})
                worst[key] = {k: max(v, old.get(k, 0.0)) for k, v in errors(before, after).items()}
    print(f"\nlargest over {flags.scans} scans\n")
    print(
        "| stored as | --dtype | sform, mm | qform, mm | values, units of the file | of its range |\n|---|---|---|---|---|---|"
    )
    for (stored, dtype), e in worst.items():
        print(
            f"| {stored} | {dtype} | {e['sform mm']:.1e} | {e['qform mm']:.1e} | {e['value']:.1e} | {e['of range']:.1e} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
