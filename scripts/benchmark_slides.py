"""What restoring a whole slide costs beside the network itself, on the same tiles, in one run.

    python scripts/benchmark_slides.py slide.svs -m histology-x2 --memory 1GB

The network's own time is taken around every call of it; the rest is reading, colours, rounding, encoding and writing. Both
are CPU time of the process, so that other work on the machine does not count, and wall time.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from srkit.engine.log import start_console
from srkit.inference.settings import ModelSettings, RunSettings, SlideSettings, bytes_of
from srkit.inference.slides import Slides
from srkit.inference.upscaler import load


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("-m", "--model", type=Path, default=Path("histology-x2"))
    parser.add_argument("--memory", type=bytes_of)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="auto")
    flags = parser.parse_args()
    start_console(is_main=True)
    run = RunSettings(device=flags.device, precision=flags.precision, memory_bytes=flags.memory)
    upscaler = load(ModelSettings(path=flags.model), run)
    network = upscaler.model.network
    spent = {"cpu": 0.0, "wall": 0.0}
    began: list[tuple[float, float]] = []

    def before(*_: object) -> None:
        began.append((time.process_time(), time.perf_counter()))

    def after(*_: object) -> None:
        cpu, wall = began.pop()
        spent["cpu"] += time.process_time() - cpu
        spent["wall"] += time.perf_counter() - wall

    network.register_forward_pre_hook(before)
    network.register_forward_hook(after)
    slides = Slides(upscaler, SlideSettings())
    with tempfile.TemporaryDirectory() as folder:
        cpu, wall = time.process_time(), time.perf_counter()
        pixels = slides.restore(flags.slide, Path(folder) / "out.tif", lambda done, total: None)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(
        "| megapixels written | whole, CPU s | network, CPU s | network / whole, CPU | wall s | network / whole, wall | peak MB |"
    )
    print("|---|---|---|---|---|---|---|")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {pixels / 1e6:.1f} | {cpu:.1f} | {spent['cpu']:.1f} | {spent['cpu'] / cpu:.3f} | {wall:.1f} | "
        f"{spent['wall'] / wall:.3f} | {peak:,.0f} |"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
