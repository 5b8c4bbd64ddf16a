"""`srkit demo`: a local web page that enlarges what is dropped on it."""

from __future__ import annotations

import argparse
from pathlib import Path

from srkit.inference.settings import RunSettings, tile_of
from srkit.models import shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-m",
        "--model",
        type=Path,
        nargs="+",
        default=[Path(name) for name in shipped()],
        metavar="MODEL",
        help="model files to choose from (default: those that come with srkit)",
    )
    add("--host", default="127.0.0.1", help="address to listen at (default: 127.0.0.1, this machine alone)")
    add("--port", type=_port, default=0, help="port to listen at (default: a free one)")
    add("--max_upload_mb", type=_count, default=1000, help="refuse larger files (default: 1000)")
    add(
        "--max_pixels",
        type=_count,
        default=25_000_000,
        help="refuse larger pictures, regions and volumes (default: 25000000)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--tile", type=_tile, default="auto", help="auto, none, N or N,M[,K]: lq pixels a tile sees")
    add(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="start a browser (default: where there is a screen)",
    )


def run(flags: argparse.Namespace) -> None:
    from srkit.demo.server import DemoSettings, serve

    serve(
        DemoSettings(
            models=tuple(flags.model),
            host=flags.host,
            port=flags.port,
            max_upload_mb=flags.max_upload_mb,
            max_pixels=flags.max_pixels,
            run=RunSettings(device=flags.device, tile=flags.tile),
            opens=flags.open,
        )
    )


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"found '{text}', expected 1 to 65535, or 0 for a free port")
    return int(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected a whole number from 1")
    return int(text)


def _tile(text: str) -> object:
    try:
        return tile_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found '{text}', expected auto, none, N or N,M[,K]") from None
