"""The pages under docs/: links lead somewhere, the page of options is what the code says, examples run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import ROOT

import srkit.build
import srkit.engine.recipes
import srkit.infer
import srkit.test
import srkit.tools.__main__
import srkit.train
from srkit.errors import OptionError
from srkit.options import load_options
from srkit.options.json_schema import build_schema
from srkit.tools.options_page import options_page

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "datasets/README.md", *DOCS.rglob("*.md")])
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
CODE = re.compile(r"^```.*?^```\s*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```\s*?$", re.MULTILINE | re.DOTALL)


# Links


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings: lower case, punctuation dropped, spaces as hyphens."""
    text = re.sub(r"^```.*?^```\s*?$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        base = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        name, number = base, 0
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.add(name)
    return found


@every_page
def test_every_relative_link_and_its_heading_exist(page):
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (heading and heading not in anchors(file)):
            wrong.append(target)
    assert wrong == []


def test_the_index_names_every_page():
    named = set(re.findall(r"\]\(([^)#\s]+)", (DOCS / "README.md").read_text()))
    files = {p.relative_to(DOCS).as_posix() for kind in ("md", "ipynb") for p in DOCS.rglob(f"*.{kind}")}
    assert files - named == {"README.md"}


@every_page
def test_option_files_and_scripts_that_a_page_names_exist(page):
    named = re.findall(r"(?:options|scripts|srkit|tests)/[\w./-]+\.(?:yml|py|json)\b", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


@every_page
def test_commands_that_a_page_calls_exist(page):
    code = "\n".join(CODE.findall(page.read_text())).replace("`", "\n")
    called = re.findall(r"^(?:\$ )?(?:python3? -m srkit\.tools|srkit) ([a-z][a-z-]+)", code, re.MULTILINE)
    assert set(called) - set(srkit.tools.__main__.TOOLS) == set()


# The page of options


def test_the_page_of_options_is_what_the_code_gives():
    """After a change of an option: `python -m srkit.tools schema` writes it anew."""
    assert (DOCS / "options.md").read_text() == options_page()


def test_every_key_of_the_schema_stands_on_the_page_with_a_meaning():
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .* \| (.*) \|$", options_page(), re.MULTILINE)
    assert [key for key, meaning in rows if not meaning.strip()] == []
    schema = build_schema()
    sections = [schema, *schema["$defs"].values()]
    keys = {key for part in sections for key in part.get("properties", {})} - {"type"}
    moved = set(re.findall(r"`(\w+)`", options_page().partition("## Other names")[2]))
    assert keys - {key for key, _ in rows} - moved == set()


def test_the_page_tells_type_default_and_bounds():
    page = options_page()
    assert "| `ema_decay` | number from 0 below 1 | `0.0` |" in page
    assert "| `total_iter` | whole number from 1 | **required** |" in page
    assert "| `precision` | `fp32`, `bf16`, `fp16`, or `~` | `~` |" in page
    assert "| `betas` | list of 2: number from 0 below 1 | `[0.9, 0.999]` |" in page
    assert "| `losses` | names, each with: a [loss](#losses) | `{}` |" in page


@pytest.mark.parametrize("ending", ["txt", "yml"])
def test_schema_refuses_a_file_of_another_kind(tmp_path, capsys, ending):
    assert srkit.tools.__main__.main(["schema", str(tmp_path / f"x.{ending}")]) == 2
    assert "expected a name that ends in .json" in capsys.readouterr().err


# Examples


ENTRIES = {
    "srkit/train.py": srkit.train.main,
    "srkit/test.py": srkit.test.main,
    "srkit/infer.py": srkit.infer.main,
    "srkit.tools": srkit.tools.__main__.main,
}
SHORT = (
    "train:total_iter=2",
    "val:val_freq=2",
    "logger:save_checkpoint_freq=2",
    "logger:use_tb_logger=false",
    "val:pbar=false",
)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the fenced blocks."""
    return BLOCK.findall((DOCS / page).read_text())


def carry_out(language: str, text: str) -> None:
    """A block whose first line is `# file: NAME` is written, `# run: ...` is run, and a command of `sh` is called here."""
    first, _, rest = text.partition("\n")
    if first.startswith("# file: "):
        Path(first.removeprefix("# file: ")).write_text(rest)
    elif first.startswith("# run: "):
        exec(compile(rest, first, "exec"), {})
    elif language == "sh":
        for line in text.splitlines():
            call(shlex.split(line, comments=True))


def call(words: list[str]) -> None:
    if not words:
        return
    program = words[2] if words[1] == "-m" else words[1]
    if program == "pytest":
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}.", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *words[1:], "-p", "no:cacheprovider"], check=True, env=environment)
        return
    rest = words[words.index(program) + 1 :]
    if program == "srkit/train.py":
        rest += ["--force_yml", *SHORT]
    assert ENTRIES[program](rest) == 0, words


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder with the shipped option files and small pictures where the examples expect theirs; what was registered
    and imported is forgotten afterwards."""
    from srkit.registry import ARCHS, DATASETS, LOSSES, METRICS, RECIPES

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "options").symlink_to(ROOT / "options")
    registries = (ARCHS, DATASETS, LOSSES, METRICS, RECIPES)
    before = [dict(registry._classes) for registry in registries]
    modules, path = set(sys.modules), list(sys.path)
    saved = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    for number, handler in saved.items():
        signal.signal(number, handler)
    sys.path[:] = path
    for registry, classes in zip(registries, before):
        registry._classes.clear()
        registry._classes.update(classes)
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("page", ["getting_started.md", "from_basicsr.md"])
def test_the_examples_of_a_page_run_in_their_order(workplace, page):
    for language, text in blocks(page):
        carry_out(language, text)


def test_the_parts_of_the_page_about_extending_train_together(workplace):
    for language, text in blocks("extending.md"):
        carry_out(language, text)
    saved = torch.load("experiments/mine/models/net_g_2.pth", weights_only=True)
    assert saved["srkit"]["arch"] == "ShuffleNet"
    assert saved["params"]["first.weight"].shape == (24, 3, 3, 3)  # num_feat of the option file
    log = next(Path("experiments/mine").glob("train_*.log")).read_text()
    assert "l_slope" in log
    assert "# worst: " in log


REFUSED = {
    "model_type: SwinIRModel": "model_type: found 'SwinIRModel', expected one of",
    "model_type: VideoRecurrentModel": "model_type: found 'VideoRecurrentModel', expected one of",
    "    type: REDSDataset": "datasets.train.type: no dataset is named 'REDSDataset'",
    "      type: memcached": "io_backend.type: found 'memcached', expected 'disk', 'lmdb', 'zip' or 'tar'",
    "      type: calculate_niqe": "srkit fit-niqe FOLDER -o model.npz",
    "      type: calculate_fid": "no metric is named 'calculate_fid'",
    "find_unused_parameters: true": "find_unused_parameters: unknown option",
    "  gp_opt: {type: GradientPenaltyLoss}": "train.gp_opt: unknown option",
    "      input_order: HWC": "PSNR takes no such option",
}
PLACE = {  # what stands in the page's file where the line above goes: it is replaced, or kept with the line after it
    "model_type: ": ("model_type: SRModel\n", False),
    "    type: ": ("    type: PairedImageDataset\n", False),
    "      type: memcached": ("      type: disk\n", False),
    "      type: calculate": ("      type: calculate_psnr\n", False),
    "find_unused": ("manual_seed: 0\n", True),
    "  gp_opt": ("\ntrain:\n", True),
    "      input_order": ("      crop_border: 2\n", True),
}


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line.split(":")[-1].strip(" {}"))
def test_what_the_page_about_basicsr_says_is_refused_is_refused(tmp_path, line):
    text = next(text for _, text in blocks("from_basicsr.md") if text.startswith("# file: edsr_x2.yml"))
    found, is_kept = next(PLACE[start] for start in PLACE if line.startswith(start))
    (tmp_path / "x.yml").write_text(text.replace(found, (found if is_kept else "") + line + "\n", 1))
    with pytest.raises(OptionError, match=re.escape(REFUSED[line])):
        load_options(tmp_path / "x.yml", mode="train")


@every_page
def test_values_on_the_pages_of_the_systems_are_those_of_the_benchmarks(page):
    """One home for a number: what a system's page repeats stands on the page of benchmarks."""
    if page.parent.name == "systems" or page.name in ("mri.md", "getting_started.md", "medical.md"):
        home = (DOCS / "benchmarks.md").read_text()
        named = re.findall(r"\b\d+\.\d{4}\b", re.sub(r"arXiv:\S+", "", page.read_text()))
        assert [value for value in named if value not in home] == []


# Notebooks


NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@every_notebook
def test_a_notebooks_code_runs_from_its_first_cell_to_its_last(tmp_path, path):
    pytest.importorskip("matplotlib")
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in cells(path, "code")))
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr


@every_notebook
def test_a_notebook_is_small_and_holds_the_output_of_a_whole_run_with_a_picture(path):
    assert path.stat().st_size < 300_000
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert "error" not in {output["output_type"] for output in outputs}
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1


@every_notebook
def test_links_of_a_notebook_exist(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    targets = re.findall(r"\]\(([^)#]+)\)", text)
    assert targets
    assert [target for target in targets if not (path.parent / target).exists()] == []
