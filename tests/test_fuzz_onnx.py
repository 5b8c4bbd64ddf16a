"""ONNX files from strangers, given to `srkit infer`: each makes the picture it should or ends with one message, whatever is in it.

Each runs in a fork, so that a crash of onnxruntime is seen as what it is.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hostile import Ending, in_fork
from infer_made import infer, made_archs, model_file, picture  # noqa: F401
from tiny import ROOT

import srkit.inference.run  # noqa: F401  (once, and not in each fork)
from srkit.engine.onnx_seal import KEY, sealed
from srkit.imaging.files import write_image
from srkit.tools.__main__ import main as tool

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'srkit[export]'")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'srkit[export]'")
pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install 'srkit[export]'")

helper, node, FLOAT = onnx.helper, onnx.helper.make_node, onnx.TensorProto.FLOAT
FOUR = ["b", 3, "h", "w"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """What `srkit export` writes of a small EDSR."""
    folder = tmp_path_factory.mktemp("exported")
    source = model_file(folder / "e.pth", "EDSR", num_feat=4, num_block=1)
    assert tool(["export", "-m", str(source), "-o", str(folder / "e.onnx")]) == 0
    return (folder / "e.onnx").read_bytes()


@pytest.fixture
def given(tmp_path):
    """A stranger's folder, and a picture."""
    folder = tmp_path / "given"
    folder.mkdir()
    write_image(tmp_path / "p.png", picture(8, 9, 3))
    return folder


def enlarged(folder: Path, content: bytes, *words: str) -> tuple[Ending, bytes]:
    """How the command ended, and the picture it wrote."""
    model, source, out = folder / "x.onnx", folder.parent / "p.png", folder.parent / "out" / "o.png"
    model.write_bytes(content)
    out.unlink(missing_ok=True)
    flags = ("--device", "cpu", *words)
    ending = in_fork(lambda: infer("-m", model, "-i", source, "-o", out, *flags), folder.parent / "said")
    assert ending.elapsed_s < 10, ending
    assert ending.added_mib < 500, ending
    assert "Traceback" not in ending.said, ending
    made = out.read_bytes() if out.exists() else b""
    assert (ending.code == 0) == bool(made), ending
    return ending, made


def message(ending: Ending) -> str:
    """The one that a refusal ends with."""
    assert ending.code in (2, 3, 5), ending  # refused, not finite, out of memory
    errors = [line for line in ending.said.splitlines() if line and " INFO: " not in line]
    assert len(errors) == 1, ending
    assert errors[0].startswith("srkit: error: "), ending
    return errors[0]


# Damage


def test_a_flipped_bit_of_an_exported_file_is_found_or_changes_nothing(exported, given):
    """Without the checksum, 17 of such 100 give another picture and say nothing."""
    ending, whole = enlarged(given, exported)
    assert ending.code == 0
    draw = random.Random(0)
    refused = 0
    for _ in range(100):
        place, bit = draw.randrange(len(exported)), draw.randrange(8)
        damaged = exported[:place] + bytes([exported[place] ^ 1 << bit]) + exported[place + 1 :]
        ending, made = enlarged(given, damaged)
        if ending.code == 0:
            assert made == whole, (place, bit)
            assert place >= len(exported) - len(sealed(b"")), (place, bit)
        else:
            refused += 1
            assert "x.onnx" in message(ending)
    assert refused >= 95


def test_a_flipped_bit_of_a_strangers_file_is_a_picture_or_one_message(exported, given):
    """Its weights have no checksum: they may be others."""
    content = exported[: -len(sealed(b""))]
    draw = random.Random(1)
    codes = []
    for _ in range(40):
        place, bit = draw.randrange(len(content)), draw.randrange(8)
        ending, _ = enlarged(given, content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        codes.append(ending.code)
        assert ending.code == 0 or "x.onnx" in message(ending)
    assert {0, 2} <= set(codes)


def test_an_onnx_file_cut_anywhere_is_refused_or_whole_but_for_its_checksum(exported, given):
    body = len(exported) - len(sealed(b""))
    _, whole = enlarged(given, exported)
    for length in (0, 1, 2, 100, body // 4, body // 2, body - 1000, body - 1, body + 1, len(exported) - 1):
        assert "x.onnx" in message(enlarged(given, exported[:length])[0])
    assert enlarged(given, exported[:body])[1] == whole


def test_a_text_file_is_no_network(given):
    assert "damaged, or no ONNX network that can be run" in message(enlarged(given, b"no network\n" * 1000)[0])


def test_a_file_that_another_program_changed_says_how_to_use_it_all_the_same(exported, given):
    model = onnx.load_from_string(exported)
    assert [entry.key for entry in model.metadata_props][-1] == KEY
    _, whole = enlarged(given, exported)
    model.producer_name = "another"
    assert f"remove '{KEY}' from its metadata" in message(enlarged(given, model.SerializeToString())[0])
    del model.metadata_props[-1]
    assert enlarged(given, model.SerializeToString())[1] == whole


WRONG = [
    None,
    -1,
    0,
    "",
    "x",
    [],
    {},
    [None],
    [-2, -2],
    [2, 2, 2],
    ["2", "2"],
    [0, 0],
    10**30,
    1.5,
    True,
    {"a": 1},
    [10**9] * 2,
]


def test_metadata_of_any_shape_are_taken_or_refused(exported, given):
    entries = {entry.key: entry.value for entry in onnx.load_from_string(exported).metadata_props}
    told = json.loads(entries["srkit"])

    def answered(block: dict) -> Ending:
        model = onnx.load_from_string(enlarging(2))
        helper.set_model_props(model, {"srkit": json.dumps(block)})
        return enlarged(given, model.SerializeToString())[0]

    assert answered(told).code == 0
    draw, codes = random.Random(0), []
    for name in sorted(told):
        for wrong in draw.sample(WRONG, 3):
            ending = answered({**told, name: wrong})
            assert ending.code == 0 or message(ending), (name, wrong)
            codes.append(ending.code)
    assert {0, 2} <= set(codes)


# Files outside


def graph(
    *nodes, constants=(), inputs=(("lq", FLOAT, FOUR),), outputs=(("sr", FLOAT, ["b", "c", "h2", "w2"]),), **more
) -> bytes:
    """A stranger's file."""
    sides = [[helper.make_tensor_value_info(*side) for side in given] for given in (inputs, outputs)]
    opsets = [helper.make_opsetid("", 20), *(helper.make_opsetid(d, 1) for d in more.pop("domains", ()))]
    made = helper.make_graph(list(nodes), "g", *sides, list(constants))
    return helper.make_model(made, opset_imports=opsets, ir_version=10, **more).SerializeToString()


def whole_numbers(name: str, *values: int):
    return helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)


def factors(name: str, *values: float):
    return helper.make_tensor(name, FLOAT, [len(values)], values)


def external(location: str, **facts: str):
    """A weight that lies in another file."""
    weight = onnx.TensorProto(name="k", data_type=FLOAT, dims=[1, 1, 1, 1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in {"location": location, "offset": "0", "length": "4", **facts}.items():
        weight.external_data.add(key=key, value=value)
    return weight


MULTIPLY = node("Mul", ["lq", "k"], ["sr"])


def as_weight(weight) -> bytes:
    return graph(MULTIPLY, constants=[weight])


def as_constant(weight) -> bytes:
    return graph(node("Constant", [], ["k"], value=weight), MULTIPLY)


def in_a_branch(weight) -> bytes:
    then = helper.make_graph(
        [node("Mul", ["lq", "k"], ["y"])], "t", [], [helper.make_tensor_value_info("y", FLOAT, None)], [weight]
    )
    other = helper.make_graph(
        [node("Identity", ["lq"], ["z"])], "e", [], [helper.make_tensor_value_info("z", FLOAT, None)]
    )
    yes = helper.make_tensor("c", onnx.TensorProto.BOOL, [], [True])
    return graph(node("Constant", [], ["c"], value=yes), node("If", ["c"], ["sr"], then_branch=then, else_branch=other))


@pytest.mark.parametrize("place", [as_weight, as_constant, in_a_branch])
def test_an_onnx_file_reads_no_file_outside_its_folder_and_no_memory(given, place):
    secret = given.parent / "secret"
    content = np.full(10, 0.25, np.float32).tobytes()
    for file in (secret, secret.with_name("inside"), given / "inside"):
        file.write_bytes(content)  # and none is read here: file systems note the time of the first reading only
    (given / "below").mkdir()
    (given / "link").symlink_to(secret)
    (given / "folder").symlink_to(given.parent)
    assert enlarged(given, place(external("inside")), "--scale", "1")[0].code == 0
    before = os.stat(secret).st_atime_ns
    held = np.full(4, 0.25, np.float32)  # in this process's memory, and so in the fork's
    locations = [
        "../secret", "below/../../secret", str(secret), "link", "folder/secret", f"file://{secret}", "/proc/self/environ",
        "/dev/zero", ".", "", "..", "a" * 5000, "absent",
    ]  # fmt: skip
    wrong = [external(location) for location in locations]
    wrong += [external("*/_ORT_MEM_ADDR_/*", offset=str(n)) for n in (held.ctypes.data, 0, 8, 2**62)]
    wrong += [external("inside", offset="-4"), external("inside", offset="40"), external("inside", length="1000000")]
    for weight in wrong:
        ending, _ = enlarged(given, place(weight), "--scale", "1")
        assert "x.onnx: damaged, or no ONNX network that can be run" in message(ending), weight.external_data[0].value[
            :100
        ]
    assert os.stat(secret).st_atime_ns == before


# Graphs

DOUBLED = node("Resize", ["lq", "", "s"], ["u"], mode="nearest")
TWICE = factors("s", 1, 1, 2, 2)
NOT_REGISTERED, NO_PICTURES, NO_NETWORK = (
    "is not a registered",
    "expected one batch of pictures or volumes in, one out",
    "this is no network that enlarges",
)


def part(axis: int, end: int) -> bytes:
    """The doubled picture twice along an axis, cut at `end`."""
    numbers = [whole_numbers("from", 0), whole_numbers("to", end), whole_numbers("axis", axis)]
    both = node("Concat", ["u", "u"], ["v"], axis=axis)
    return graph(DOUBLED, both, node("Slice", ["v", "from", "to", "axis"], ["sr"]), constants=[TWICE, *numbers])


def of_type(number: int) -> bytes:
    return graph(node("Identity", ["lq"], ["sr"]), inputs=[("lq", number, FOUR)], outputs=[("sr", number, FOUR)])


def cast_to(number: int) -> bytes:
    return graph(DOUBLED, node("Cast", ["u"], ["sr"], to=number), constants=[TWICE], outputs=[("sr", number, FOUR)])


def of_rank(axes: int) -> bytes:
    sides = ["b"] * axes
    return graph(node("Identity", ["lq"], ["sr"]), inputs=[("lq", FLOAT, sides)], outputs=[("sr", FLOAT, sides)])


def enlarging(factor: float) -> bytes:
    resize = node("Resize", ["lq", "", "s"], ["sr"], mode="nearest")
    return graph(resize, constants=[factors("s", 1, 1, factor, factor)])


def reshaped(operation: str) -> bytes:
    return graph(
        node(operation, ["lq", "axis"], ["sr"]), constants=[whole_numbers("axis", 0)], outputs=[("sr", FLOAT, None)]
    )


def changed_by(operation: str, value: float) -> bytes:
    return graph(DOUBLED, node(operation, ["u", "k"], ["sr"]), constants=[TWICE, factors("k", value)])


def filled(*sides: int) -> bytes:
    """Adds the sum of an array of that many ones."""
    ones = node("ConstantOfShape", ["n"], ["ones"], value=factors("v", 1))
    return graph(
        ones,
        node("ReduceSum", ["ones"], ["sum"], keepdims=1),
        node("Add", ["lq", "sum"], ["sr"]),
        constants=[whole_numbers("n", *sides)],
    )


def grown(operation: str, *numbers: int) -> bytes:
    return graph(node(operation, ["lq", "n"], ["sr"]), constants=[whole_numbers("n", *numbers)])


def declared(*sides: int) -> bytes:
    """A weight of that many values, of which the file has one."""
    return as_weight(onnx.TensorProto(name="k", data_type=FLOAT, dims=sides, raw_data=b"\0" * 4))


def calling_itself() -> bytes:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    endless = helper.make_function(
        "own", "Endless", ["x"], ["y"], [node("Endless", ["x"], ["y"], domain="own")], opsets
    )
    return graph(node("Endless", ["lq"], ["sr"], domain="own"), domains=["own"], functions=[endless])


HOSTILE = {
    "an operation of others": (lambda: graph(node("Evil", ["lq"], ["sr"], domain="evil"), domains=["evil"]), NOT_REGISTERED),
    "Python in an operation": (lambda: graph(node("PyOp", ["lq"], ["sr"], domain="ai.onnx.contrib"), domains=["ai.onnx.contrib"]), NOT_REGISTERED),
    "an operation of nobody": (lambda: graph(node("Nope", ["lq"], ["sr"])), "No Op registered for Nope"),
    "an operation that calls itself": (calling_itself, "damaged, or no ONNX"),
    "a circle": (lambda: graph(node("Add", ["lq", "y"], ["x"]), node("Identity", ["x"], ["y"]), node("Identity", ["y"], ["sr"])), "not acyclic"),
    "no input": (lambda: graph(node("Constant", [], ["sr"], value=factors("v", 1)), inputs=[]), NO_PICTURES),
    "two inputs": (lambda: graph(node("Add", ["lq", "n"], ["sr"]), inputs=[("lq", FLOAT, FOUR), ("n", FLOAT, FOUR)]), NO_PICTURES),
    "no output": (lambda: graph(node("Identity", ["lq"], ["x"]), outputs=[]), NO_PICTURES),
    "two outputs": (lambda: graph(node("Identity", ["lq"], ["sr"]), node("Identity", ["lq"], ["x"]), outputs=[("sr", FLOAT, FOUR), ("x", FLOAT, FOUR)]), NO_PICTURES),
    **{f"input of type {n}": (lambda n=n: of_type(n), NO_PICTURES) for n in (2, 6, 7, 8, 9, 11, 16)},
    **{f"output of type {n}": (lambda n=n: cast_to(n), NO_PICTURES) for n in (2, 6, 7, 8, 9, 16)},
    **{f"input of {n} axes": (lambda n=n: of_rank(n), NO_PICTURES) for n in (0, 1, 2, 3, 6)},
    "volumes": (lambda: of_rank(5), "takes data of 3 axes, found the scale [2, 2]"),
    **{f"enlarges by {n}": (lambda n=n: enlarging(n), "its scale (2, 2) wants (16, 18)") for n in (1, 3, 0.5, 0.01)},
    "an axis less": (lambda: reshaped("Squeeze"), NO_NETWORK),
    "an axis more": (lambda: reshaped("Unsqueeze"), NO_NETWORK),
    "a number": (lambda: graph(node("ReduceMean", ["lq"], ["sr"], keepdims=0), outputs=[("sr", FLOAT, None)]), NO_NETWORK),
    **{f"{n} channels": (lambda n=n: part(1, n), NO_NETWORK) for n in (0, 2, 4, 6)},
    **{f"{n} pictures of one": (lambda n=n: part(0, n), NO_NETWORK) for n in (0, 2)},
    "NaN": (lambda: changed_by("Mul", float("nan")), "864 of the 864 values it made are not finite"),
    "infinity": (lambda: changed_by("Add", float("inf")), "864 of the 864 values it made are not finite"),
    "minus infinity": (lambda: changed_by("Sub", float("inf")), "864 of the 864 values it made are not finite"),
    "ones for 4 TB": (lambda: filled(1, 1, 10**6, 10**6), "out of memory"),
    "ones of 2^62 a side": (lambda: filled(1, 1, 2**62, 2**62), "does not take a batch"),
    "ones of -1 a side": (lambda: filled(1, 1, -1, -1), "x.onnx"),
    "tiles for 800 TB": (lambda: grown("Tile", 1, 1, 10**6, 10**6), "does not take a batch"),
    "expands to 12 TB": (lambda: grown("Expand", 1, 3, 8 * 10**6, 9), "x.onnx"),
    "a border of a million": (lambda: grown("Pad", 0, 0, 0, 0, 0, 0, 10**6, 10**6), "out of memory"),
    "a border of 2^62": (lambda: grown("Pad", 0, 0, 0, 0, 0, 0, 2**62, 2**62), "does not take a batch"),
    "a million times as large": (lambda: enlarging(1e6), "out of memory"),
    **{f"{n} times as large": (lambda n=n: enlarging(n), "x.onnx") for n in (1e18, float("inf"), float("nan"), -2.0)},
    "a weight of 4 TB": (lambda: declared(1, 1, 10**6, 10**6), "damaged, or no ONNX"),
    "a weight of 2^64 values": (lambda: declared(2**32, 2**32, 1, 1), "damaged, or no ONNX"),
    "a weight of -1 values": (lambda: declared(-1, 1, 1, 1), "damaged, or no ONNX"),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_graph_ends_with_one_message(given, what):
    make, expected = HOSTILE[what]
    ending, _ = enlarged(given, make(), "--scale", "2")
    said = message(ending)
    assert expected in said
    assert "x.onnx" in said or "out of memory" in said


LITTLE_MEMORY = """
import sys
from srkit.engine import onnx_model
onnx_model.free_bytes = lambda device: 200 * 2**20
from srkit.infer import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("side", "code"), [(1024, 0), (16_384, 5)])
def test_a_graph_may_take_no_more_memory_than_is_free_when_it_is_opened(given, side, code):
    """A gigabyte, which most machines would give. In a new process: onnxruntime takes one limit for each."""
    model, source, out = given / "x.onnx", given.parent / "p.png", given.parent / "o.png"
    model.write_bytes(filled(1, 1, side, side))
    words = [
        sys.executable,
        "-c",
        LITTLE_MEMORY,
        "-m",
        model,
        "-i",
        source,
        "-o",
        out,
        "--device",
        "cpu",
        "--scale",
        "1",
    ]
    made = subprocess.run([*map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert made.returncode == code, made
    assert ("out of memory" in made.stderr) == (code == 5), made


def test_a_graph_of_20000_operations_is_run(given):
    names = ["u", *(f"x{k}" for k in range(19_998)), "sr"]
    chain = [node("Identity", [before], [after]) for before, after in pairwise(names)]
    assert enlarged(given, graph(DOUBLED, *chain, constants=[TWICE]), "--scale", "2")[0].code == 0
