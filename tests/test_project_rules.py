"""Rules of the whole tree, read from its source: layers, forbidden calls, file names, the exit-code table."""

import ast
import re
import sys
from pathlib import Path

import pytest

from srkit.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "srkit"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (  # lowest first; a part may import from its own layer's package and from below
    {"errors", "registry", "models", "disk"},
    {"foreign"},
    {"options"},
    {"imaging"},
    {"archs", "losses", "metrics", "data"},
    {"engine"},
    {"build", "trial", "assemble", "rebuild", "train_run", "test_run", "report", "inference", "demo", "commands"},
    {"train", "test", "infer", "tools"},
)


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def level(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def imports(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ([f"srkit.{alias.name}" for alias in node.names] if node.module == "srkit" else [node.module])


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down_only(path):
    here = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for module in imports(path):
        if not module.startswith("srkit.") or module == "srkit.__version__":
            continue
        other = part_of(module)
        below = level(other) < level(here)
        beside = other == here or (level(other) == level(here) and level(here) in (0, 6))
        assert below or beside, f"{path.name} ({here}) imports {module}"


@pytest.mark.parametrize(
    "folder", ["options", "registry.py", "errors.py", "commands.py", "train.py", "test.py", "infer.py"]
)
def test_what_reads_options_imports_no_heavy_package_at_the_top(folder):
    paths = sorted((PACKAGE / folder).rglob("*.py")) if (PACKAGE / folder).is_dir() else [PACKAGE / folder]
    for path in paths:
        for node in ast.parse(path.read_text()).body:
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not {n.split(".")[0] for n in names} & {"torch", "numpy", "cv2", "skimage"}, path


FORBIDDEN = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "yaml.unsafe_load_all",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_runs_text_or_files_as_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        assert name not in FORBIDDEN, f"{path}:{node.lineno}"
        assert not name.endswith((".extractall", ".unpack_archive")), f"{path}:{node.lineno}"  # names may lead anywhere
        assert keywords.get("shell", False) is False, f"{path}:{node.lineno}"
        assert keywords.get("allow_pickle", False) is False, f"{path}:{node.lineno}"
        assert keywords.get("weights_only", True) is True, f"{path}:{node.lineno}"
        if name == "torch.load":
            assert keywords.get("weights_only") is True, f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_that_runs_what_it_reads_is_imported(path):
    assert not {name.split(".")[0] for name in imports(path)} & UNSAFE_MODULES


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_except_hides_what_happened(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}:{node.lineno}"
            assert not all(isinstance(s, ast.Pass) for s in node.body), f"{path}:{node.lineno}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            broad = {"Exception", "BaseException", "RuntimeError"}
            assert not {ast.unparse(a) for a in node.args} & broad, f"{path}:{node.lineno}"


def test_modules_beside_the_entry_points_shadow_nothing():
    names = {p.stem for p in PACKAGE.glob("*.py")} | {p.name for p in PACKAGE.iterdir() if p.is_dir()}
    dependencies = {"torch", "numpy", "cv2", "yaml", "pydantic", "tqdm", "skimage", "nibabel", "torchio", "PIL"}
    assert not names & (set(sys.stdlib_module_names) | dependencies) - {
        "test"
    }  # test.py: the entry file cures its own path


def test_every_exit_code_is_documented():
    table = (ROOT / "docs/exit_codes.md").read_text()
    documented = {int(n) for n in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert documented == {int(code) for code in ExitCode}


def test_every_test_that_the_page_on_reliability_names_exists():
    page = (ROOT / "docs/reliability.md").read_text()
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 36
    defined = {
        n
        for p in (ROOT / "tests").glob("test_*.py")
        for n in re.findall(r"^def (test_\w+)", p.read_text(), re.MULTILINE)
    }
    for number, row in rows:
        named = set(re.findall(r"`(test_\w+)`", row))
        assert named, f"row {number} names no test"
        assert named <= defined, f"row {number}: {named - defined}"


def test_the_lock_of_the_tests_names_no_place_and_fits_the_requirements():
    lines = (ROOT / "tests/requirements-lock.txt").read_text().splitlines()
    locked = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    assert all(re.fullmatch(r"[a-z0-9._-]+==[a-z0-9.+!]+", f"{name}=={version}") for name, version in locked.items())
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, lowest = re.match(r"([\w-]+)>=([\d.]+)", line).groups()
            numbers = [[int(n) for n in text.split(".")[:2]] for text in (locked[name], f"{lowest}.0")]
            assert numbers[0] >= numbers[1], line


def test_options_scripts_and_data_folders_are_no_packages():
    for folder in ("options", "scripts", "datasets", "experiments"):
        assert not list((ROOT / folder).rglob("__init__.py"))
