"""`srkit doctor`: what is wrong with this installation and machine, and what to do. Exits 9 when something is wrong.

Nothing heavy is imported at the top: this command has to run where torch or OpenCV cannot be imported.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from srkit.disk import free_disk_bytes, nearest_existing
from srkit.errors import ExitCode

_LEAST_PYTHON = (3, 11)
_LEAST_TORCH = (2, 10)
_LEAST_SHM = 1 << 30
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - looked at, not written to
_LEAST_DISK = 2 << 30
_DRIVER = Path("/proc/driver/nvidia/version")
_OPTIONAL = {  # package -> what it is for, and how it is installed
    "nibabel": ("volumes", "pip install nibabel"),
    "openslide-python": ("whole slides", "pip install openslide-python openslide-bin"),
    "lmdb": ("LMDB folders", "pip install lmdb"),
    "spandrel": ("networks of others", "pip install spandrel"),
    "onnxruntime": ("export", "pip install onnx onnxscript onnxruntime"),
}


@dataclass(frozen=True)
class Finding:
    """One line: `ok` and `note` are for information, `wrong` makes the command end with 9; `remedy` says what to do."""

    level: Literal["ok", "note", "wrong"]
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level:<6}{self.text}" + (f"\n      -> {self.remedy}" if self.remedy else "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-opt", metavar="FILE", help="option file of a training: measures its loader and its step")
    parser.add_argument("--force_yml", nargs="+", default=[], metavar="KEY=VALUE", help="changes to that file")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the three measurements (default 5)")
    parser.add_argument("--experiments_root", default="experiments", help="folder whose disk is looked at")
    parser.add_argument("--cache_dir", help="the same for decoded pictures (default: $SRKIT_CACHE or ~/.cache/srkit)")


def run(flags: argparse.Namespace) -> ExitCode:
    installed = {
        d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions() if d.metadata["Name"]
    }
    cache = flags.cache_dir or os.environ.get("SRKIT_CACHE") or "~/.cache/srkit"
    findings = [
        of_python(sys.version_info[:3]),
        *of_torch(installed, imported),
        *of_torchvision(installed, imported, importlib.metadata.requires),
        *of_opencv(installed, imported),
        *of_optional(installed),
        of_shared_memory(_SHARED_MEMORY),
        of_disk("experiments", Path(flags.experiments_root)),
        of_disk("cache", Path(cache).expanduser()),
    ]
    for finding in findings:
        print(finding)
    wrong = sum(finding.level == "wrong" for finding in findings)
    print(f"{wrong} thing{'s' * (wrong != 1)} wrong" if wrong else "nothing wrong was found")
    if flags.opt:
        print(speed_report(flags.opt, flags.force_yml, flags.seconds))
    return ExitCode.INCOMPLETE if wrong else ExitCode.OK


def imported(name: str) -> Any:
    """The module, or the text of what its import raised."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - a broken torchvision raises RuntimeError, a broken cv2 ImportError
        return f"{type(error).__name__}: {error}"


def of_python(version: Sequence[int]) -> Finding:
    text = f"Python {'.'.join(map(str, version))} on {platform.platform()}"
    if tuple(version[:2]) < _LEAST_PYTHON:
        return Finding("wrong", text, "srkit needs Python 3.11 or newer: make a new environment with it")
    return Finding("ok", text)


def of_torch(installed: Mapping[str, str], load: Callable[[str], Any]) -> list[Finding]:
    """Version, build and GPU. A CUDA build without a visible GPU trains on the CPU, and seldom on purpose."""
    if "torch" not in installed:
        return [Finding("wrong", "torch is not installed", "pip install -r requirements.txt")]
    torch = load("torch")
    if isinstance(torch, str):
        return [Finding("wrong", f"torch {installed['torch']} cannot be imported ({torch})", "install it again")]
    version, build = str(torch.__version__), torch.version.cuda
    name = f"torch {version}, built for {f'CUDA {build}' if build else 'the CPU alone'}"
    if _numbers(version) < _LEAST_TORCH:
        return [
            Finding(
                "wrong", name, "srkit needs torch 2.10 or newer (older ones read files unsafely): pip install -U torch"
            )
        ]
    findings = [Finding("ok", f"{name}, {torch.get_num_threads()} threads")]
    if not build:
        return findings
    if not torch.cuda.is_available():
        return [*findings, _no_gpu()]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        text = f"GPU {index}: {torch.cuda.get_device_name(index)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        taken = free < total / 2
        findings.append(
            Finding("note" if taken else "ok", text, "another process uses it: see nvidia-smi" if taken else "")
        )
    return findings


def _no_gpu() -> Finding:
    text = "no GPU is visible: training would run on the CPU"
    if (hidden := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return Finding(
            "wrong", text, f"CUDA_VISIBLE_DEVICES is '{hidden}': unset it, or name a GPU that nvidia-smi lists"
        )
    if _DRIVER.exists():
        driver = _DRIVER.read_text().partition("\n")[0]
        return Finding(
            "wrong", f"{text}, but a driver is there ({driver})", "it is older than this torch needs: renew it"
        )
    return Finding("note", text, "in a container: was it started with --gpus all? On a machine without GPU all is well")


def of_torchvision(
    installed: Mapping[str, str], load: Callable[[str], Any], requires: Callable[[str], Sequence[str] | None]
) -> list[Finding]:
    """Perceptual losses need it. Of another torch than the one here it cannot be imported, or dies at its first operation."""
    if "torchvision" not in installed:
        return [Finding("note", "torchvision is not installed: perceptual losses need it", "pip install torchvision")]
    name, torch_version = f"torchvision {installed['torchvision']}", installed.get("torch", "")
    remedy = f"install the one of torch {torch_version}: pip install -U torch torchvision, both in one command"
    wish = next((r for r in requires("torchvision") or () if re.match(r"torch\b(?![-_])", r)), "")
    for sign, version in re.findall(r"(==|>=)\s*([\d.]+)", wish.partition(";")[0]):
        have, want = _numbers(torch_version, 3), _numbers(version, 3)
        if torch_version and (have != want if sign == "==" else have < want):
            return [Finding("wrong", f"{name} is for torch {sign} {version}, torch is {torch_version}", remedy)]
    module = load("torchvision")
    if isinstance(module, str):
        return [Finding("wrong", f"{name} cannot be imported ({module})", remedy)]
    return [Finding("ok", name)]


def of_opencv(installed: Mapping[str, str], load: Callable[[str], Any]) -> list[Finding]:
    """All builds of OpenCV share one folder, cv2: of two, the later one overwrote the first, and removing one removes both."""
    builds = [name for name in installed if name.startswith("opencv-") and "python" in name]
    named = " and ".join(f"{name} {installed[name]}" for name in sorted(builds))
    cure = f"pip uninstall -y {' '.join(sorted(builds))} && pip install opencv-python-headless"
    if len(builds) > 1:
        return [Finding("wrong", f"{named} are installed, which overwrite each other", cure)]
    module = load("cv2")
    if isinstance(module, str) and not builds:
        return [Finding("wrong", "OpenCV is not installed", "pip install opencv-python-headless")]
    if isinstance(module, str):
        return [Finding("wrong", f"{named} cannot be imported ({module})", cure)]
    if not hasattr(module, "imdecode"):
        return [Finding("wrong", f"{named or 'cv2'} is a torso without imdecode, left by removing another build", cure)]
    if not builds:
        return [Finding("note", f"cv2 {module.__version__} is here, but pip does not know which package brought it")]
    return [Finding("ok", named)]


def of_optional(installed: Mapping[str, str]) -> list[Finding]:
    """One line for what is there and one for what is not; nothing of it is wrong."""
    there = [f"{name} {installed[name]}" for name in _OPTIONAL if name in installed]
    absent = [f"{name} ({use}: {how})" for name, (use, how) in _OPTIONAL.items() if name not in installed]
    lines = [Finding("ok", f"optional packages: {', '.join(there)}")] if there else []
    return lines + (
        [Finding("note", f"not installed, needed only for their purpose: {', '.join(absent)}")] if absent else []
    )


def of_shared_memory(folder: Path) -> Finding:
    """Loader workers hand their batches over in it; containers often have 64 MB."""
    if not folder.is_dir():
        return Finding("ok", f"{folder} does not exist on this system, workers use another way")
    total = shutil.disk_usage(folder).total
    text = f"{folder} has {total / 2**20:,.0f} MiB for what loader workers hand over"
    if total >= _LEAST_SHM:
        return Finding("ok", text)
    return Finding(
        "wrong", text, "start the container with --shm-size=2g (or --ipc=host), or set num_worker_per_gpu: 0"
    )


def of_disk(name: str, folder: Path) -> Finding:
    """Room and permission where a folder is, or will be made."""
    place, free = nearest_existing(folder), free_disk_bytes(folder)
    text = f"{name} folder {folder}: {free / 1e9:,.1f} GB free"
    if not os.access(place, os.W_OK):
        return Finding(
            "wrong", f"{text}, but {place} cannot be written", "choose another folder or change its permissions"
        )
    if free < _LEAST_DISK:
        return Finding("wrong", text, "make room, or choose a folder on another disk")
    return Finding("ok", text)


def speed_report(file: str, force: Sequence[str], seconds: float) -> str:
    """Loader, step and both of a training, in numbers and words. Raises what a start raises."""
    from srkit.options import load_options

    options = load_options(file, mode="train", force=force)
    from srkit.tools.measuring import measure_speed

    speed = measure_speed(options, seconds)
    assert options.train is not None
    total_h = options.train.total_iter * speed.both_s / 3600
    return (
        f"{file}, seconds per iteration:\n"
        f"  loader alone  {speed.loader_s:.4f}\n"
        f"  step alone    {speed.step_s:.4f}\n"
        f"  together      {speed.both_s:.4f}, {options.train.total_iter:,} iterations in {total_h:.2g} hours without validation\n"
        f"{speed.verdict(options.datasets['train'].num_worker_per_gpu)}"
    )


def _numbers(version: str, count: int = 2) -> tuple[int, ...]:
    """ "2.15.0+cu128" -> (2, 15); missing ones are 0."""
    found = [int(n) for n in re.findall(r"\d+", version.partition("+")[0])][:count]
    return (*found, *[0] * (count - len(found)))
