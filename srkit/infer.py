"""`python srkit/infer.py -m MODEL -i INPUT -o OUT`: enlarges pictures, folders, slides and volumes with a trained model."""

from __future__ import annotations

import os
import sys

if not __package__:  # started as a file: import srkit from this checkout, not its insides
    _here = os.path.dirname(os.path.realpath(__file__))
    _root = os.path.dirname(_here)
    sys.path[:] = [_root] + [p for p in sys.path if os.path.realpath(p) not in (_here, _root)]

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from srkit.commands import examples, guarded
from srkit.errors import ExitCode
from srkit.inference.settings import (
    FileSettings,
    ModelSettings,
    PictureSettings,
    RunSettings,
    SlideSettings,
    VolumeSettings,
    arch_options_of,
    bytes_of,
    sides_of,
    spacing_of,
    suffix_of,
    template_of,
    tile_of,
)

_FORMATS = {"png": ".png", "jpg": ".jpg", "tif": ".tif", "webp": ".webp"}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="srkit-infer",
        description="Enlarge pictures, whole slides and volumes with a trained model.",
        epilog=examples("infer"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-m", "--model", type=Path, required=True, help="model file: .pth, .safetensors or .onnx")
    add("-i", "--input", type=Path, nargs="+", required=True, metavar="INPUT", help="files and folders")
    add("-o", "--out", required=True, help="folder of the results; a file when there is one input file")
    add("--recursive", action="store_true", help="take the files of all folders below too; the results lie alike")
    names = parser.add_mutually_exclusive_group()
    names.add_argument(
        "--suffix",
        type=_as("a word without slashes", suffix_of),
        default="_sr",
        help="put behind the name of each input (default: _sr)",
    )
    names.add_argument(
        "--template", type=_as("a name", template_of), help="name by fields: '{stem}_{model}_x{scale}{ext}'"
    )
    add("--overwrite", action="store_true", help="replace results that exist; a folder's are skipped as done otherwise")
    _add_model(parser.add_argument_group("the model"))
    _add_run(parser.add_argument_group("how it runs"))
    _add_pictures(parser.add_argument_group("pictures"))
    _add_slides(parser.add_argument_group("whole slides"))
    _add_volumes(parser.add_argument_group("volumes"))
    return parser.parse_args(argv)


def _add_model(group: Any) -> None:
    group.add_argument("--weights", choices=("params", "params_ema"), help="default: params_ema where the file has it")
    group.add_argument("--arch", help="network of a file that does not say it, such as RRDBNet")
    group.add_argument(
        "--arch_opt", nargs="+", default=[], metavar="KEY=VALUE", help="its options: num_block=23 num_feat=64"
    )
    group.add_argument(
        "--scale", type=_as("4, or 1,3,1", _factors), help="enlargement, for a file that does not say it"
    )
    group.add_argument("--color", choices=("rgb", "y", "y_full"), help="what its pictures were read as, likewise")
    group.add_argument(
        "--intensity",
        choices=("percentiles", "zscore", "easysr_g1", "easysr_g2"),
        help="how its volumes were normalised, likewise",
    )
    group.add_argument(
        "--imports", nargs="+", default=[], metavar="FILE", help="modules or .py files that define networks"
    )


def _add_run(group: Any) -> None:
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    group.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default="fp32", help="of the network's arithmetic"
    )
    group.add_argument("--ensemble", action="store_true", help="mean over 8 flips and turns: better, 8 times slower")
    group.add_argument(
        "--confidence",
        type=Path,
        metavar="FILE",
        help="of `srkit calibrate`: write a map of how far the truth may be from each result, which is then the --ensemble one",
    )
    group.add_argument(
        "--tile", type=_as("auto, none, N or N,M[,K]", tile_of), default="auto", help="lq pixels a tile sees"
    )
    group.add_argument(
        "--overlap", type=_as("N or N,M[,K]", sides_of), help="lq pixels (default: as far as the network looks)"
    )
    group.add_argument(
        "--memory",
        type=_as("a size such as 4GB", bytes_of),
        help="bound for --tile auto (default: half of what is free)",
    )
    group.add_argument("--tile_batch", type=_as("a number from 1", _count), help="tiles that run at once")
    group.add_argument("--blend", choices=("auto", "crop", "fade"), default="auto", help="how tiles become one picture")
    group.add_argument(
        "--launcher", choices=("none", "pytorch", "slurm"), default="none", help="who started the processes"
    )
    group.add_argument("--local_rank", type=int, default=0, help="accepted for old launchers; the environment decides")


def _add_pictures(group: Any) -> None:
    group.add_argument("--format", choices=tuple(_FORMATS), help="of the results (default: as the input, PNG for JPEG)")
    group.add_argument(
        "--quality",
        type=_as("1 to 100", _quality),
        help="of JPEG (default 95, in slides 90) and WebP (default: no loss)",
    )
    group.add_argument(
        "--max_pixels", type=_as("a number from 1", _count), default=100_000_000, help="refuse larger pictures"
    )


def _add_slides(group: Any) -> None:
    length = _as("microns above 0", _length)
    group.add_argument("--mpp", type=length, help="microns per pixel to read at (default: the finest level)")
    group.add_argument("--slide_mpp", type=length, help="microns per pixel of slides that do not say it")
    group.add_argument(
        "--compression",
        choices=("jpeg", "deflate"),
        default="jpeg",
        help="of the results' tiles; deflate loses nothing",
    )
    group.add_argument("--ome", action="store_true", help="write OME-TIFF (OpenSlide sees its finest level alone)")
    group.add_argument(
        "--everything", action="store_true", help="restore the background too (default: enlarged by bicubic)"
    )


def _add_volumes(group: Any) -> None:
    group.add_argument(
        "--axis", type=int, choices=(0, 1, 2), help="voxel axis to enlarge (default: that of the thick slices)"
    )
    group.add_argument("--dtype", default="float32", help="of the results' numbers: float32, input, int16, ...")
    group.add_argument("--volume", type=int, help="which volume of a 4D file, from 0")
    group.add_argument(
        "--spacing", type=_as("I,J,K in mm", spacing_of), help="true distance of voxels, for a header that is wrong"
    )
    group.add_argument("--repair_nan", action="store_true", help="put 0 where a file holds NaN instead of refusing it")
    group.add_argument(
        "--target_spacing",
        type=_as("millimetres above 0", _length),
        help="resample the result to cubes of this side",
    )
    group.add_argument(
        "--bias_correct", action="store_true", help="take out slow changes of brightness first (N4; SimpleITK)"
    )
    group.add_argument(
        "--register", type=Path, metavar="REF", help="lay the result on this volume, on its grid (SimpleITK)"
    )
    group.add_argument("--transform", choices=("rigid", "affine"), default="rigid", help="what --register may do")
    group.add_argument("--gt", type=Path, help="the truth, for the picture of the difference")
    group.add_argument("--no_preview", action="store_true", help="write no picture of the middle slices")


def _as(expected: str, read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A type of argparse whose message says what was expected."""

    def convert(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            reason = f" ({error})" if read is template_of else ""
            raise argparse.ArgumentTypeError(f"found '{text}', expected {expected}{reason}") from None

    return convert


def _factors(text: str) -> tuple[int, ...]:
    factors = sides_of(text)
    if min(factors) < 1:
        raise ValueError(text)
    return factors


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _quality(text: str) -> int:
    number = _count(text)
    if number > 100:
        raise ValueError(text)
    return number


def _length(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Runs the command; every foreseen error becomes one message and its exit code."""

    def work() -> ExitCode:
        flags = arguments(argv)
        model = ModelSettings(
            path=flags.model,
            weights=flags.weights,
            arch=flags.arch,
            arch_options=arch_options_of(flags.arch_opt),
            scale=flags.scale,
            color=flags.color,
            intensity=flags.intensity,
            imports=tuple(flags.imports),
        )
        run = RunSettings(
            device=flags.device,
            precision=flags.precision,
            ensemble=flags.ensemble,
            confidence=flags.confidence,
            tile=flags.tile,
            overlap=flags.overlap,
            blend=flags.blend,
            batch=flags.tile_batch,
            memory_bytes=flags.memory,
        )
        files = FileSettings(
            inputs=tuple(flags.input),
            out=Path(flags.out),
            out_is_folder=flags.out.endswith(("/", os.sep)),
            recursive=flags.recursive,
            suffix=flags.suffix,
            template=flags.template,
            overwrite=flags.overwrite,
        )
        pictures = PictureSettings(
            format=_FORMATS.get(flags.format), quality=flags.quality, max_pixels=flags.max_pixels
        )
        slides = SlideSettings(
            mpp=flags.mpp,
            slide_mpp=flags.slide_mpp,
            compression=flags.compression,
            quality=flags.quality or 90,
            ome=flags.ome,
            everything=flags.everything,
        )
        volumes = VolumeSettings(
            axis=flags.axis,
            dtype=flags.dtype,
            volume=flags.volume,
            spacing_mm=flags.spacing,
            repair_nan=flags.repair_nan,
            target_spacing_mm=flags.target_spacing,
            bias_correct=flags.bias_correct,
            register=flags.register,
            transform=flags.transform,
            gt=flags.gt,
            preview=not flags.no_preview,
        )
        from srkit.inference.run import infer  # torch is imported only for a command line without mistakes

        return infer(model, run, files, pictures, slides, volumes, flags.launcher)

    return guarded(work)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
