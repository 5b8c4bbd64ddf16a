"""`srkit import-options`: enhanced-srgan's hyper-parameters as the two option files of its phases."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srkit.data.pairing import list_pictures
from srkit.errors import OptionError, RefusedError, did_you_mean
from srkit.foreign.torch_sr_options import gan_phase, psnr_phase, read_hyperparameters
from srkit.options.writer import to_yaml
from srkit.tools.writing import write_new


@dataclass(frozen=True)
class Half:
    """The training or the validation pictures of a set.

    Args:
        gt: Their folder below the set's.
        count: How many there are.
        lq: Folder of their partners by scale; where it has none, lq is made from gt.
        template: Name of lq from the name of gt.
    """

    gt: str
    count: int
    lq: Mapping[int, str]
    template: str = "{}"


_DIV2K = {half: {s: f"DIV2K_{half}_LR_bicubic/X{s}" for s in (2, 3, 4, 8)} for half in ("train", "valid")}
_SMALL = {s: f"LRbicx{s}" for s in (2, 3, 4)}
SETS: Mapping[str, tuple[str, Mapping[str, Half]]] = {
    "div2k": (
        "DIV2K",
        {
            "train": Half("DIV2K_train_HR", 800, _DIV2K["train"], "{{}}x{scale}"),
            "val": Half("DIV2K_valid_HR", 100, _DIV2K["valid"], "{{}}x{scale}"),
        },
    ),
    "bsds500": ("BSR/BSDS500/data/images", {"train": Half("train", 200, {}), "val": Half("val", 100, {})}),
    "set5": ("Set5", {"val": Half("GTmod12", 5, _SMALL)}),
    "set14": ("Set14", {"val": Half("GTmod12", 14, _SMALL)}),
}
"""Name in the hyper-parameters -> folder below the data root, and the set's halves."""

_BENCHMARK = (
    "bsds500's val pictures are the benchmark BSD100: weights chosen by them make its figures worthless; "
    "another set under val_datasets, such as div2k, does not"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="hyper-parameters of enhanced-srgan, JSON")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the two new option files")
    parser.add_argument("--data-root", type=Path, default=Path("datasets"), help="folder of all sets")
    parser.add_argument(
        "--set",
        dest="sets",
        nargs="+",
        default=[],
        metavar="NAME=FOLDER",
        help=f"folder of a set ({', '.join(SETS)}), laid out as it is distributed; NAME.train or NAME.val: of the "
        "pictures themselves, from which lq is then made",
    )


def run(flags: argparse.Namespace) -> None:
    data = read_hyperparameters(flags.file)
    folders = dict(folder_of(word) for word in flags.sets)
    require_known(flags.file, data)
    name = flags.file.stem
    files = {phase: flags.out / f"{name}_{phase}.yml" for phase in ("psnr", "gan")}
    lists = {phase: flags.out / f"{name}_{phase}_train.txt" for phase in files}
    if taken := [str(path) for path in (*files.values(), *lists.values()) if path.exists()]:
        raise RefusedError(f"{', '.join(taken)} exists; remove it or give another folder")
    written: dict[Path, str] = {}
    for phase, group in (("psnr", data["pretraining"]), ("gan", data["training"])):
        parts = [located(flags, folders, data["scale_factor"], item, "train") for item in group["train_datasets"]]
        val = [located(flags, folders, data["scale_factor"], item, "val") for item in group["val_datasets"]]
        counted = sum(SETS[item][1]["train"].count for item in group["train_datasets"])
        if not (epoch := counted // data["batch_size"]):
            raise RefusedError(f"{flags.file}: batch_size {data['batch_size']} is more than the {counted} pictures")
        train = parts[0]
        if len(parts) > 1:
            train = mixed(parts, lists[phase])
            written[lists[phase]] = listing(parts)
        if phase == "psnr":
            options = psnr_phase(data, f"{name}_psnr", epoch, train, val)
        else:
            start = f"experiments/{name}_psnr/models/net_g_latest.pth"
            options = gan_phase(data, f"{name}_gan", epoch, train, val, start)
        written[files[phase]] = f"# ESRGAN, made by `srkit import-options` from {flags.file.name}\n{to_yaml(options)}"
        total = options["train"]["total_iter"]
        print(
            f"{files[phase]}: {total:,} iterations, {group['num_epoch']:,} epochs of {counted} pictures // batch "
            f"{data['batch_size']} = {epoch}; train.total_iter changes it"
        )
        if "bsds500" in group["val_datasets"]:
            print(f"warning: {files[phase]}: {_BENCHMARK}")
    for path, text in written.items():
        write_new(path, text)
    print(f"python srkit/train.py -opt {files['psnr']} {files['gan']}")


def folder_of(word: str) -> tuple[str, Path]:
    """NAME=FOLDER or NAME.train=FOLDER. Raises RefusedError."""
    name, equals, folder = word.partition("=")
    known = [*SETS, *(f"{item}.{half}" for item, (_, halves) in SETS.items() for half in halves)]
    if not (equals and folder):
        raise RefusedError(f"--set: found '{word}', expected NAME=FOLDER")
    if name not in known:
        raise RefusedError(f"--set: found '{name}'{did_you_mean(name, known)}")
    return name, Path(folder)


def require_known(file: Path, data: Mapping[str, Any]) -> None:
    """OptionError naming every set that is unknown or has no such half."""
    problems = []
    for phase in ("pretraining", "training"):
        for half in ("train", "val"):
            key = f"{phase}.{half}_datasets"
            usable = [name for name, (_, halves) in SETS.items() if half in halves]
            wrong = [name for name in data[phase][f"{half}_datasets"] if name not in usable]
            problems += [f"{key}: found {name!r}{did_you_mean(str(name), usable)}" for name in wrong]
    if problems:
        raise OptionError(str(file), problems)


def located(flags: argparse.Namespace, folders: Mapping[str, Path], scale: int, name: str, half: str) -> dict[str, Any]:
    """Where a half of a set lies, as options of PairedImageDataset."""
    own = folders.get(f"{name}.{half}")
    if own is not None:
        return {"name": f"{name}_{half}", "dataroot_gt": str(own)}
    below, halves = SETS[name]
    root, pictures = folders.get(name, flags.data_root / below), halves[half]
    section = {"name": f"{name}_{half}", "dataroot_gt": str(root / pictures.gt)}
    if scale in pictures.lq:
        section["dataroot_lq"] = str(root / pictures.lq[scale])
        if pictures.template != "{}":
            section["filename_tmpl"] = pictures.template.format(scale=scale)
    return section


def mixed(parts: Sequence[Mapping[str, Any]], list_file: Path) -> dict[str, Any]:
    """Several sets as one, by a list of their pictures; lq is made, for not all sets have it."""
    names = [part["name"] for part in parts]
    print(f"{list_file}: pictures of {' and '.join(names)}; lq is made from gt")
    return {"name": "_".join(names), "dataroot_gt": str(common_root(parts)), "meta_info_file": str(list_file)}


def listing(parts: Sequence[Mapping[str, Any]]) -> str:
    """The pictures of all sets, a line each. Raises RefusedError when a folder has none."""
    lines = []
    for part in parts:
        folder = Path(part["dataroot_gt"]).absolute()
        names = list_pictures(str(folder))
        if not names:
            raise RefusedError(
                f"{folder}: no pictures, and a mixture of sets needs their names; --set gives another folder"
            )
        below = folder.relative_to(common_root(parts)).as_posix()
        lines += [f"{below}/{name}\n" for name in names]
    return "".join(lines)


def common_root(parts: Sequence[Mapping[str, Any]]) -> Path:
    """The folder above those of all sets."""
    return Path(os.path.commonpath([Path(part["dataroot_gt"]).absolute() for part in parts]))
