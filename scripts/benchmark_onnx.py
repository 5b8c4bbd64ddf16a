"""What onnxruntime makes of exported networks on the CPU: largest difference from torch, and how fast it is beside it.

    OMP_NUM_THREADS=1 python scripts/benchmark_onnx.py natural-x2 mri-x3 --size 256

Both get the same noise, 0 to 1, in turns; times are medians of CPU time, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch
from torch import nn

from srkit.engine.onnx_model import OnnxNetwork
from srkit.inference.opening import open_model
from srkit.inference.settings import ModelSettings
from srkit.tools.__main__ import main as srkit_tools

_CPU = torch.device("cpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "models", nargs="+", type=Path, help="model files of srkit, or names of those that come with it"
    )
    parser.add_argument("--size", type=int, default=256, help="side of a picture in lq pixels; volumes have a quarter")
    parser.add_argument("--pairs", type=int, default=5)
    flags = parser.parse_args()
    print("| network | lq | largest difference | torch, CPU s | onnxruntime, CPU s | onnxruntime / torch |")
    print("|---|---|---|---|---|---|")
    for model in flags.models:
        print(_row(model, flags.size, flags.pairs), flush=True)
    return 0


def _row(model: Path, size: int, pairs: int) -> str:
    opened = open_model(ModelSettings(path=model), _CPU)
    axes = len(opened.scale)
    space = (size,) * 2 if axes == 2 else (size // 4,) * 3
    lq = torch.rand(1, (opened.channels or 3) if axes == 2 else 1, *space, generator=torch.Generator().manual_seed(0))
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        out = Path(folder) / "net.onnx"
        if code := srkit_tools(["export", "-m", str(model), "-o", str(out)]):
            raise SystemExit(code)
        theirs, own = OnnxNetwork(out, _CPU), opened.network.eval()
        difference = float((theirs(lq) - own(lq)).abs().max())  # the first calls, which also warm up
        times = [(_seconds(own, lq), _seconds(theirs, lq)) for _ in range(pairs)]
    torch_s, onnx_s = (statistics.median(column) for column in zip(*times))
    ratio = statistics.median(b / a for a, b in times)
    name = opened.info.arch if opened.info else type(own).__name__
    shape = " x ".join(map(str, space))
    return f"| {model.stem} ({name}) | {shape} | {difference:.1e} | {torch_s:.3f} | {onnx_s:.3f} | {ratio:.2f} |"


def _seconds(network: nn.Module, lq: torch.Tensor) -> float:
    began = time.process_time()
    network(lq)
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
