"""Component signatures are the schema: read from source, or from imported classes, to the same effect."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest
from test_options_samples import TRAIN, changed, load, refusal

from srkit.errors import RefusedError
from srkit.options.live import live_signature
from srkit.options.signatures import PACKAGE_ROOTS, REGISTRIES, describe_arguments, scan

SOURCE = '''
import typing
from collections.abc import Sequence
from typing import Literal, Optional

from srkit import registry
from srkit.registry import ARCHS

Side = Literal["left", "right"]


class Base:
    def __init__(self, *, depth: int, side: Side = "left") -> None: ...


@registry.ARCHS.register()
class Child(Base):
    pass


@ARCHS.register()
class Everything:
    """One of each.

    Args:
        a: A number
            on two lines.
        b (float): Another.

    Shape: none.
    """

    def __init__(
        self,
        a: int,
        b: float = -1.5,
        *,
        c: str | None = None,
        d: bool = True,
        e: Literal["x", 2] = "x",
        f: "list[int] | int" = 3,
        g: tuple[float, ...] = (1.0, 2.0),
        h: typing.Tuple[int, float] = (1, 2.0),
        i: Sequence[float] = (),
        j: dict[str, int] | None = None,
        k: Optional[int] = None,
        l: typing.Union[int, str] = 1,
        m: float = 10 * 3,
    ) -> None: ...


class NotRegistered:
    def __init__(self, z: int) -> None: ...
'''


@pytest.fixture
def fake(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "nets.py").write_text(SOURCE)
    return scan([tmp_path / "package"])["arch"]


def test_every_kind_of_annotation_and_default_is_read_without_importing(fake):
    read = {a.name: (a.annotation, a.required, a.default) for a in fake["Everything"].arguments}
    assert read == {
        "a": (int, True, ...),
        "b": (float, False, -1.5),
        "c": (str | None, False, None),
        "d": (bool, False, True),
        "e": (Literal["x", 2], False, "x"),
        "f": (list[int] | int, False, 3),
        "g": (tuple[float, ...], False, (1.0, 2.0)),
        "h": (tuple[int, float], False, (1, 2.0)),
        "i": (Sequence[float], False, ()),
        "j": (dict[str, int] | None, False, None),
        "k": (int | None, False, None),
        "l": (int | str, False, 1),
        "m": (float, False, ...),
    }


def test_only_registered_classes_are_found(fake):
    assert sorted(fake) == ["Child", "Everything"]


def test_a_class_without_constructor_takes_its_base_classes(fake):
    assert [(a.name, a.annotation, a.required) for a in fake["Child"].arguments] == [
        ("depth", int, True),
        ("side", Literal["left", "right"], False),
    ]


def test_argument_descriptions_come_from_the_docstring(fake):
    assert [a.description for a in fake["Everything"].arguments[:3]] == ["A number on two lines.", "Another.", ""]
    assert describe_arguments("No arguments here.") == {}


@pytest.mark.parametrize(
    ("argument", "trouble"),
    [
        ("a: Tensor", "its type 'Tensor' cannot be written in an option file"),
        ("a", "it has no type annotation"),
        ("**rest: int", "it would swallow typing slips"),
        ("type: str", "the key 'type' names the class itself"),
    ],
)
def test_a_constructor_that_no_file_can_serve_is_refused_by_name_and_place(tmp_path, argument, trouble):
    (tmp_path / "nets.py").write_text(
        f"from srkit.registry import ARCHS\n@ARCHS.register()\nclass Odd:\n    def __init__(self, {argument}): ...\n"
    )
    report = refusal(tmp_path, changed("type: EDSR", "type: Odd"), roots=[*PACKAGE_ROOTS, tmp_path / "nets.py"])
    assert (
        f"Odd ({tmp_path / 'nets.py'}:3) cannot be configured: argument '{argument.split(':')[0]}': {trouble}" in report
    )


def test_a_name_registered_twice_names_both_places(tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("from srkit.registry import ARCHS\n@ARCHS.register()\nclass Twin: ...\n")
    with pytest.raises(RefusedError, match=r"a\.py:3 and .*b\.py:3"):
        scan([tmp_path])


@pytest.mark.parametrize("kind", ["arch", "dataset", "loss", "metric"])
def test_source_and_imported_class_give_the_same_signature_for_every_component(kind):
    package = {"arch": "archs", "dataset": "data", "loss": "losses", "metric": "metrics"}[kind]
    importlib.import_module(f"srkit.{package}")
    registry = next(r for r in REGISTRIES.values() if r.kind == kind)
    names = scan()[kind]
    assert names
    for name, static in names.items():
        live = live_signature(kind, registry.get(name))
        assert [(a.name, a.annotation, a.required, a.description) for a in live.arguments] == [
            (a.name, a.annotation, a.required, a.description) for a in static.arguments
        ]
        for ours, theirs in zip(static.arguments, live.arguments):
            assert not ours.trouble, f"{name}.{ours.name}: {ours.trouble}"
            assert ours.default is ... or ours.default == theirs.default


USER_NET = '''
from srkit.registry import ARCHS


@ARCHS.register()
class {name}:
    """A user's network."""

    def __init__(self, *, width: int, upscale: int, taps: tuple[float, ...] = (1.0,), mode: str | int = "a") -> None:
        self.width = width
'''


@pytest.fixture
def user_net(tmp_path, request):
    """A user's file with an arch of a name of its own; registries and modules outlive a test."""
    name = f"Net{abs(hash(request.node.name)) % 10**8}"
    file = tmp_path / f"user_{name.lower()}.py"
    file.write_text(USER_NET.format(name=name))
    registry = REGISTRIES["ARCHS"]
    yield name, file
    registry._classes.pop(name, None)
    sys.modules.pop(file.stem, None)
    if str(tmp_path) in sys.path:
        sys.path.remove(str(tmp_path))


def test_a_users_file_beside_the_option_file_is_imported_and_checked_like_our_own(tmp_path, user_net):
    name, file = user_net
    text = TRAIN.replace("type: EDSR\n  num_feat: 16", f"type: {name}\n  width: 8") + f"imports: [{file.name}]\n"
    options = load(tmp_path, text)
    assert options.network_g.type == name
    assert options.network_g.options == {"width": 8}
    assert options.imports == (file.name,)
    report = refusal(tmp_path, text.replace("width: 8", "widht: 8\n  taps: [a]\n  mode: [1]"))
    assert f"network_g.widht: {name} takes no such option; did you mean 'width'" in report
    assert "network_g.width: missing" in report
    assert "network_g.taps[0]: found 'a', expected a number" in report
    assert "network_g.mode: found [1], expected text or a whole number" in report


def test_a_module_name_is_imported_from_the_python_path(tmp_path, user_net, monkeypatch):
    name, file = user_net
    monkeypatch.syspath_prepend(str(tmp_path))
    text = TRAIN.replace("type: EDSR\n  num_feat: 16", f"type: {name}\n  width: 8") + f"imports: [{file.stem}]\n"
    assert load(tmp_path, text).network_g.type == name


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ("[no_such_lab]", "line 24, imports[0]: importing 'no_such_lab' failed: ModuleNotFoundError"),
        ("[no_such.py]", "line 24, imports[0]: no file "),
        ("[broken_part.py]", "imports[0]: importing 'broken_part.py' failed: ZeroDivisionError: division by zero ("),
        ("[json.py]", "cannot be imported: a module 'json' exists already"),
        ("[my-part.py]", "my-part.py cannot be imported: rename it"),
        ("a.py", "line 24, imports: found 'a.py', expected a list; write [a.py]"),
    ],
)
def test_a_failed_import_is_one_line_of_the_report(tmp_path, imports, expected):
    (tmp_path / "broken_part.py").write_text("x = 1 / 0\n")
    (tmp_path / "json.py").write_text("")
    (tmp_path / "my-part.py").write_text("")
    report = refusal(tmp_path, TRAIN + f"imports: {imports}\n")
    assert expected in report
    assert "1 problem\n" in report


def test_after_a_failed_import_unknown_names_are_not_reported_as_well(tmp_path):
    report = refusal(tmp_path, changed("type: EDSR", "type: LabNet") + "imports: [no_such_lab]\n")
    assert "LabNet" not in report


def test_a_users_class_with_the_name_of_ours_is_refused(tmp_path):
    (tmp_path / "clash_part.py").write_text(
        "from srkit.registry import LOSSES\n@LOSSES.register()\nclass L1Loss:\n    def __init__(self) -> None: ...\n"
    )
    (tmp_path / "o.yml").write_text(TRAIN + "imports: [clash_part.py]\n")
    code = f"from srkit.options import load_options; load_options({str(tmp_path / 'o.yml')!r}, mode='train')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "loss 'L1Loss' of clash_part is also srkit's own" in run.stderr


def test_classes_registered_by_the_calling_script_are_known(tmp_path, user_net):
    name, file = user_net
    sys.path.append(str(file.parent))
    importlib.import_module(file.stem)
    text = TRAIN.replace("type: EDSR\n  num_feat: 16", f"type: {name}\n  width: 8")
    assert load(tmp_path, text).network_g.type == name


def test_lmdb_is_refused_for_a_dataset_that_cannot_read_it(tmp_path):
    (tmp_path / "sets.py").write_text(
        textwrap.dedent(
            """
            from srkit.registry import DATASETS
            @DATASETS.register()
            class Plain:
                def __init__(self, *, dataroot_gt: str) -> None: ...
            """
        )
    )
    roots = [*PACKAGE_ROOTS, Path(tmp_path / "sets.py")]
    text = changed("    name: set5\n    type: PairedImageDataset", "    io_backend: {type: %s}\n    type: Plain")
    assert load(tmp_path, text % "disk", roots=roots).datasets["val"].options == {"dataroot_gt": "data/set5"}
    assert "datasets.val.io_backend.type: Plain reads plain files only" in refusal(tmp_path, text % "lmdb", roots=roots)
