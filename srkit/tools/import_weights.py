"""`srkit import`: weights that other projects saved, as model files of srkit that say which network they hold."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from srkit import build
from srkit.engine.checkpoint import load_tensors
from srkit.engine.model_file import ModelFile, ModelInfo, load_weights, read_model, write_model
from srkit.engine.transfer import Normalization
from srkit.errors import RefusedError, StorageError, WeightsError
from srkit.foreign.weights import KINDS, faces, find
from srkit.foreign.weights.edge_informed import with_edge
from srkit.foreign.weights.found import Content, Found, State, color_of, content_of
from srkit.foreign.weights.spectral import with_parametrizations
from srkit.options import NetworkOptions
from srkit.options.catalog import Context, make_catalog
from srkit.options.problems import Places
from srkit.options.reader import read_value
from srkit.options.section import problems_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="what another project saved: .pth, .pth.tar, .ml, .safetensors")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="new model file; the discriminator of a file that holds two networks goes beside it as NAME_d.pth",
    )
    parser.add_argument("--from", dest="kind", choices=KINDS, help="whose file it is; default: found from its keys")
    parser.add_argument(
        "--scale",
        type=scale_of,
        help="enlargement, where the file does not tell it: 4, or 1,3,1 for one number per axis",
    )
    parser.add_argument(
        "--arch",
        nargs="+",
        default=[],
        metavar=("TYPE", "KEY=VALUE"),
        help="KEY=VALUE: options that the file does not tell; with a TYPE before them the file holds weights of that "
        "network under its own keys, as BasicSR's files do",
    )
    parser.add_argument(
        "--edge", type=Path, help="edge network to go inside: EdgeModel_gen.pth, or srkit's own EdgeGenerator"
    )
    parser.add_argument(
        "--spectral_norm",
        choices=("hooks", "parametrizations"),
        default="hooks",
        help="names of spectrally normalised layers in the new file; parametrizations are for other programs, though srkit reads an EdgeGenerator's",
    )


def run(flags: argparse.Namespace) -> None:
    networks = networks_in(flags.file, flags.kind, flags.arch)
    if flags.edge:
        networks = [with_edge(networks[0], edge_network(flags.edge)), *networks[1:]]
    elif networks[0].arch == "EdgeSRGAN":
        raise WeightsError(
            f"{flags.file}: is a generator that is guided by an edge network; give that by --edge EdgeModel_gen.pth. To "
            f"start a training from the generator alone, name the file as it is: path.pretrain_parts: {{generator: {flags.file}}}"
        )
    files = [flags.out, flags.out.with_name(f"{flags.out.stem}_d{flags.out.suffix}")][: len(networks)]
    if taken := [str(file) for file in files if file.exists()]:
        raise RefusedError(f"{', '.join(taken)} exists; remove it or give another name")
    given = dict(option(word) for word in flags.arch if "=" in word)
    whole = [decided(network, flags.scale, given if network is networks[0] else {}) for network in networks]
    ready = [built(flags.file, network) for network in whole]  # all, before the first is written
    for file, (params, averaged, info) in zip(files, ready, strict=True):
        if flags.spectral_norm == "parametrizations":
            params = with_parametrizations(params)
        write(file, params, averaged, info)


def networks_in(file: Path, kind: str | None, arch: Sequence[str]) -> list[Found]:
    """What the file holds: found from its keys, or said by `arch`. Raises WeightsError, RefusedError."""
    content = content_of(file, load(file))
    if "srkit" in content.values:
        raise WeightsError(f"{file}: is a model file of srkit already")
    types = [word for word in arch if "=" not in word]
    if not types:
        return find(content, kind)
    if len(types) > 1 or kind:
        also = f"--from {kind}" if kind else f"also {types[1]}"
        raise RefusedError(f"--arch: found the type {types[0]}, {also}; expected one type and no --from")
    return [described(content, types[0])]


def load(file: Path) -> Any:
    """Tensors and plain values of any of these files; never code."""
    if file.suffix == ".safetensors":
        return read_model(file).state
    return faces.tensors(file) if faces.is_pickled_module(file) else load_tensors(file)


def described(content: Content, arch: str) -> Found:
    """Weights under the arch's own keys."""
    both = "params" in content.states and "params_ema" in content.states
    return Found(
        arch=arch,
        parts={"": content.main},
        averaged=content.states["params_ema"] if both else {},
        origin=f"{content.path.name}, described as {arch}",
    )


def edge_network(file: Path) -> Found:
    """An edge network of edge-informed-sisr, or one that srkit trained."""
    content = content_of(file, load(file))
    if "srkit" not in content.values:
        return find(content, "edge-informed")[0]
    model = read_model(file)
    assert model.info is not None
    return Found(
        arch=model.info.arch,
        options=model.info.arch_options,
        scale=model.info.scale[0],
        parts={"": model.state},
        origin=model.info.origin or file.name,
    )


def scale_of(text: str) -> int | tuple[int, ...]:
    """One whole number, or one per axis with commas between them. Raises ValueError."""
    numbers = tuple(int(number) for number in text.split(","))
    return numbers if len(numbers) > 1 else numbers[0]


def option(word: str) -> tuple[str, Any]:
    """KEY=VALUE, the value by the rules of option files."""
    key, _, text = word.partition("=")
    return key, read_value(text)


def decided(network: Found, scale: int | tuple[int, ...] | None, given: Mapping[str, Any]) -> Found:
    """The network with nothing open: what the file tells, then what the user says, then what is assumed (and printed).

    Raises: RefusedError when the user contradicts the file, or the scale is nowhere to be had.
    """
    said = dict(given) if scale is None else {**given, "scale": scale}
    told = {**network.options, **({} if network.scale is None else {"scale": network.scale})}
    wrong = [
        f"{key} {value}, but the file says {told[key]}" for key, value in said.items() if told.get(key, value) != value
    ]
    if wrong:
        raise RefusedError(f"{network.origin}: found {'; '.join(wrong)}")
    assumed = {key: value for key, value in network.assumed.items() if key not in said}
    if assumed:
        text = ", ".join(f"{key} {value}" for key, value in assumed.items())
        print(f"the file does not tell all: taken as {text}; --scale and --arch KEY=VALUE say otherwise")
    options = {**told, **assumed, **said}
    if type(options.get("scale")) not in (int, tuple):
        found = options.get("scale", "none")
        raise RefusedError(
            f"{network.origin}: found {found} as the scale; give --scale, one whole number for both axes, or one per axis"
        )
    return replace(network, scale=options.pop("scale"), options=options, assumed={})


def built(source: Path, found: Found) -> tuple[dict[str, Tensor], dict[str, Tensor] | None, ModelInfo]:
    """Weights as the network itself names them, averaged ones where there are any, and what is known of them.

    Raises: RefusedError for options that do not fit the arch, WeightsError for weights that do not.
    """
    assert found.scale is not None
    scale = (found.scale, found.scale) if isinstance(found.scale, int) else found.scale
    arch, options = checked(found, scale)
    network = build.build_network(arch, options, scale)
    params = filled(network, source, found.parts)
    averaged = filled(network, source, {"": found.averaged}) if found.averaged else None
    channels = options.get("num_in_ch")
    info = ModelInfo(
        arch=arch,
        arch_options=build.full_arch_options(arch, options, scale),
        scale=scale,
        normalization=Normalization(),
        color="" if len(scale) == 3 else found.color if channels is None else color_of(channels),
        iteration=found.iteration,
        experiment=source.name.partition(".")[0],
        origin=found.origin,
        intensity=found.intensity,
    )
    return params, averaged, info


def write(file: Path, params: Mapping[str, Tensor], averaged: Mapping[str, Tensor] | None, info: ModelInfo) -> None:
    """Writes the model file and says so. Raises StorageError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{file.parent}: cannot be made ({error.strerror})") from error
    write_model(file, params, averaged, info)
    entries = f"{len(params)} entries{' and their averages' if averaged else ''}"
    scale = info.scale[0] if len(set(info.scale)) == 1 else list(info.scale)
    print(f"wrote {file}: {info.arch}, scale {scale}, {entries}; {info.origin}")


def checked(found: Found, scale: tuple[int, ...]) -> tuple[str, dict[str, Any]]:
    """Type and options as `network_g` would take them. Raises RefusedError with every mistake."""
    raw = {"type": found.arch, **found.options}
    try:
        section = NetworkOptions.model_validate(raw, context=Context(make_catalog(), scale))
    except ValidationError as error:
        lines = Places().sentences(problems_of(error, raw))
        raise RefusedError(f"{found.origin}: {found.arch} cannot be built: {'; '.join(lines)}") from None
    return section.type, section.options


def filled(network: nn.Module, source: Path, parts: Mapping[str, State]) -> dict[str, Tensor]:
    """A copy of the network's state after loading. Raises WeightsError when anything is missing or left over."""
    state: dict[str, Tensor] = {}
    for where, part in parts.items():
        own_name = getattr(network.get_submodule(where), "own_name", str)
        state |= {f"{where}.{own_name(key)}".lstrip("."): value for key, value in part.items()}
    load_weights(network, ModelFile(source, "weights", state, None))
    return {key: value.clone() for key, value in network.state_dict().items()}
