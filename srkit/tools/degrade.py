"""`srkit degrade`: what the training set of an option file makes of its pictures: a page of examples, or fixed pairs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import torch

from srkit import build
from srkit.data.loader import collate
from srkit.data.order import sample_rng
from srkit.engine.transfer import Normalization, to_device
from srkit.errors import RefusedError
from srkit.imaging.colour import quantize
from srkit.imaging.files import write_image
from srkit.imaging.resize import nearest_upscale
from srkit.options import load_options
from srkit.tools.writing import new_folder

_LINE_PX, _TEXT_PX, _GAP_PX = 18, 400, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-opt", required=True, help="option file of a training")
    parser.add_argument(
        "--force_yml",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other pictures by the same dice: datasets:train:dataroot_gt=FOLDER",
    )
    parser.add_argument("--count", type=int, default=8, help="pictures")
    parser.add_argument("--out", help="page of gt, lq enlarged by repeating pixels, and what was drawn")
    parser.add_argument("--pairs", help="new folder for gt/ and lq/ of PNG pictures, to validate or test on")


def run(flags: argparse.Namespace) -> None:
    if flags.out is None and flags.pairs is None:
        raise RefusedError("srkit degrade: nothing to write; give --out page.png, --pairs folder, or both")
    if flags.count < 1:
        raise RefusedError(f"--count: found {flags.count}, expected at least 1")
    rows = []
    with nullcontext() if flags.pairs is None else new_folder(Path(flags.pairs)) as folder:
        for number, (name, gt, lq, lines) in enumerate(examples(flags.opt, flags.count, flags.force_yml)):
            if folder is not None:
                for role, picture in (("gt", gt), ("lq", lq)):
                    write_image(folder / role / f"{number:04d}_{name}.png", picture)
            rows.append(row(gt, lq, lines))
    if flags.out is not None:
        write_image(flags.out, page(rows))
    print(f"{len(rows)} pictures degraded; wrote {' and '.join(filter(None, (flags.out, flags.pairs)))}")


def examples(
    file: str, count: int, force: Sequence[str] = ()
) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[str]]]:
    """Name, gt, lq ((H, W, 3) uint8) and the drawn values of the samples of epoch 0, in the list's order, on the CPU."""
    options = load_options(file, mode="train", force=force)
    if len(options.scale) != 2:
        raise RefusedError(f"{file}: trains on volumes, of which no page of pictures can be made")
    dataset = build.build_dataset(options.datasets["train"], options.scale)
    for k in range(count):
        epoch, index = divmod(k, len(dataset))
        sample = dataset.sample(index, sample_rng(options.manual_seed, epoch, index))
        batch = to_device(collate([sample]), torch.device("cpu"), Normalization(), build.finish_of(dataset))
        gt, lq = (
            np.ascontiguousarray(quantize(image[0].movedim(0, -1).numpy(), np.uint8, 255))
            for image in (batch.gt, batch.lq)
        )
        yield sample.name, gt, lq, sample.draw.lines() if hasattr(sample.draw, "lines") else []


def row(gt: np.ndarray, lq: np.ndarray, lines: list[str]) -> np.ndarray:
    """gt, lq at gt's size, and the lines of text beside them."""
    enlarged = nearest_upscale(lq, [g // n for g, n in zip(gt.shape[:2], lq.shape)])
    height = max(gt.shape[0], _LINE_PX * (len(lines) + 1))
    text = np.full((height, _TEXT_PX, 3), 255, np.uint8)
    for number, line in enumerate(lines, 1):
        cv2.putText(text, line, (2, number * _LINE_PX), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    columns = []
    for picture in (gt, enlarged):
        canvas = np.full((height, picture.shape[1] + _GAP_PX, 3), 255, np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture  # a grey picture fills all three channels
        columns.append(canvas)
    return np.hstack([*columns, text])


def page(rows: list[np.ndarray]) -> np.ndarray:
    """The rows below each other."""
    gap = np.full((_GAP_PX, rows[0].shape[1], 3), 255, np.uint8)
    return np.vstack([part for one in rows for part in (one, gap)][:-1])
