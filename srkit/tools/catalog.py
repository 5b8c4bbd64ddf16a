"""Every command of srkit: where its code is, what it is for, and calls that show how it is used.

The calls expect the data of `srkit example-data` and what the quick start trains, so that they can be pasted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from srkit.commands import EXAMPLES

Task = Literal["prepare data", "train", "use", "look", "weights"]
TASKS: dict[Task, str] = {
    "prepare data": "Prepare data",
    "train": "Train",
    "use": "Use what was trained",
    "look": "Look at results",
    "weights": "Weights and options of others",
}

_QUICK = "options/train/edsr/quickstart_edsr_x2.yml"
_DATA = "datasets/quickstart"
_RUN = "experiments/quickstart_edsr_x2"


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        module: Its code. A tool has `add_arguments(parser)` and `run(flags)`; an entry point has `main(argv)`.
        text: One line for the overview.
        examples: One to three calls, without `srkit NAME` in front.
    """

    module: str
    task: Task
    text: str
    examples: tuple[str, ...]

    @property
    def is_entry_point(self) -> bool:
        return not self.module.startswith("srkit.tools.")


def _tool(module: str, task: Task, text: str, *examples: str) -> Command:
    return Command(f"srkit.tools.{module}", task, text, examples)


TOOLS: dict[str, Command] = {
    "example-data": _tool(
        "example_data", "prepare data", "make a small paired data set from scikit-image's pictures", "", _DATA
    ),
    "split": _tool(
        "split",
        "prepare data",
        "part pictures into train, val and test by group: slide, patient, person",
        f"{_DATA}/train/gt splits --key '^([^_]+)' --parts train=0.8 val=0.2",
        "mice folds --key '_([0-9]+)_' --folds 3",
    ),
    "check-split": _tool(
        "check_split",
        "prepare data",
        "groups, pictures and near copies that stand in two parts of a split",
        f"{_DATA}/train/gt {_DATA}/test/gt",
        f"splits/train.txt splits/val.txt --root {_DATA}/train/gt --table splits/split.csv",
    ),
    "check-pairs": _tool(
        "check_pairs",
        "prepare data",
        "pairs that are shifted against each other, or are no pairs",
        f"{_DATA}/train/gt {_DATA}/train/lq --scale 2",
        "DIV2K/DIV2K_train_HR DIV2K/DIV2K_train_LR_bicubic/X4 --scale 4 --filename_tmpl '{}x4'",
    ),
    "slice": _tool(
        "slicing",
        "prepare data",
        "cut pictures into tiles, lq and gt at once",
        f"{_DATA}/train/lq tiles_lq --size 120 --stride 60 --gt {_DATA}/train/gt tiles_gt --scale 2",
    ),
    "join": _tool("joining", "prepare data", "tiles put together again to pictures", "tiles_lq joined"),
    "lmdb": _tool(
        "make_lmdb",
        "prepare data",
        "a folder of pictures as an LMDB folder, as BasicSR keeps it",
        f"{_DATA}/train/gt gt.lmdb",
    ),
    "meta": _tool(
        "meta_info",
        "prepare data",
        "a list of the pictures in a folder, for meta_info_file",
        f"{_DATA}/train/gt large.txt --min_size 400 500",
    ),
    "degrade": _tool(
        "degrade",
        "prepare data",
        "what a training set makes of its pictures: a page of examples, or pairs to validate on",
        "-opt options/train/realesrgan/realesrnet_x4_quick.yml --out examples.png",
    ),
    "fit-niqe": _tool(
        "fit_niqe",
        "prepare data",
        "NIQE's model of good pictures, fitted to a folder of your own",
        f"{_DATA}/train/gt -o niqe.npz --patch 48",
    ),
    "thicken": _tool(
        "thicken",
        "prepare data",
        "volumes as a scanner with thicker slices sees them, to try networks where the truth is known",
        "datasets/mice/test datasets/mice_thick --scale 1,3,1",
    ),
    "plan": _tool(
        "plan",
        "train",
        "look at a folder of pictures, slides or volumes and write an option file for it, commented",
        _DATA,
        "photographs --scale 4 --kind natural --hours 8 --out plans/photographs",
        "mice --scale 1,3,1 --key '_tp3_([0-9]+)_'",
    ),
    "new": _tool(
        "new",
        "train",
        "a part of your own: network, data set, loss, metric or recipe, with a test and an option file that runs",
        "arch MyNet",
        "loss EdgeAwareLoss --out my_parts",
    ),
    "list": _tool("listing", "train", "what `type:` can name: archs, datasets, losses, metrics, recipes", "archs"),
    "schema": _tool(
        "schema",
        "train",
        "write what option files may hold: the JSON schema that editors use, and the page of all options",
        "",
        "options/srkit.schema.json",
        "docs/options.md",
    ),
    "check": _tool(
        "check",
        "train",
        "all that a start would refuse, without starting; what the sets hold, and what stands in two of them",
        _QUICK,
        f"{_QUICK} --key '^([^_]+)' --strict",
        "options/test/edsr/quickstart_edsr_x2.yml --mode test",
    ),
    "doctor": _tool(
        "doctor",
        "train",
        "what is wrong with this installation and machine; with -opt, whether loading or computing is the bottleneck",
        "",
        f"-opt {_QUICK}",
    ),
    "benchmark": _tool(
        "benchmark",
        "train",
        "what training, loading, evaluation and inference cost here: by stage, beside a bare loop, in words",
        f"train -opt {_QUICK} --seconds 20",
        f"data -opt {_QUICK} --workers 0 2",
        "infer -opt options/test/edsr/quickstart_edsr_x2.yml --tiles 0 128 64",
    ),
    "train": Command("srkit.train", "train", "train what option files describe", EXAMPLES["train"]),
    "test": Command("srkit.test", "use", "measure trained networks beside interpolation", EXAMPLES["test"]),
    "infer": Command("srkit.infer", "use", "enlarge pictures, slides and volumes", EXAMPLES["infer"]),
    "demo": _tool(
        "demo",
        "use",
        "a page in your browser that enlarges the picture, slide or volume dropped on it",
        "",
        f"-m {_RUN}/models/net_g_latest.pth",
        f"-m {_RUN}/models/net_g_1000.pth {_RUN}/models/net_g_latest.pth --port 7860 --no-open",
    ),
    "export": _tool(
        "export",
        "use",
        "a trained network for other programs: ONNX, TorchScript, safetensors, BasicSR",
        f"-m {_RUN}/models/net_g_latest.pth -o quickstart.onnx",
    ),
    "calibrate": _tool(
        "calibrate",
        "use",
        "how far to trust a network's pixels: fits and checks, group by group, what infer --confidence draws",
        f"-m {_RUN}/models/net_g_latest.pth -opt options/test/edsr/quickstart_edsr_x2.yml",
    ),
    "interpolate": _tool(
        "interpolate",
        "use",
        "networks between two trained ones, from PSNR to GAN",
        f"{_RUN}/models/net_g_1000.pth {_RUN}/models/net_g_6000.pth --alpha 0.5 --out between",
    ),
    "compare": _tool(
        "compare",
        "look",
        "one picture: lq, bicubic, sr and gt side by side",
        f"{_DATA}/test/lq/chelsea.png results/enlarged/chelsea_sr.png {_DATA}/test/gt/chelsea.png chelsea.png "
        "--crop 60 90 80 120",
    ),
    "report": _tool(
        "report",
        "look",
        "a test's results as one HTML page: tables, spread, pictures with a slider, training curves",
        "results/quickstart_edsr_x2",
        f"results/quickstart_edsr_x2 --experiment {_RUN}",
    ),
    "paired": _tool(
        "paired",
        "look",
        "models against each other and against interpolation, picture by picture, with intervals and a test",
        "results/quickstart_edsr_x2",
        "results/quickstart_edsr_x2 results/other_model",
    ),
    "figure": _tool(
        "figure",
        "look",
        "for a paper: boxes marked in a picture, and what every method makes of them",
        "results/quickstart_edsr_x2 held_out chelsea -o chelsea.pdf --box 60 140 64 64 --box 100 200 64 64",
    ),
    "audit": _tool(
        "audit",
        "look",
        "what a network invents or loses in stained tissue: nuclei of sr against those of gt, beside bicubic",
        "-i results/restored -gt datasets/BreCaHAD/test --bicubic 2 --diameter_px 24 -o results/audit",
        "-i results/restored -gt slides/hr -lq slides/lr --mpp 0.25 --key '^([^_]+)_' -o results/audit",
    ),
    "compare-runs": _tool(
        "compare_runs",
        "look",
        "two trainings: options that differ, where their curves part, what they reached",
        f"{_RUN} experiments/quickstart_edsr_x2_wide",
        f"{_RUN} experiments/quickstart_edsr_x2_wide --out curves.png",
    ),
    "import": _tool(
        "import_weights",
        "weights",
        "weights that other projects saved, as model files of srkit",
        "edsr_r16f64_x2.pt -o edsr_x2.pth --from torch_sr",
    ),
    "import-options": _tool(
        "import_options",
        "weights",
        "enhanced-srgan's hyper-parameters (JSON) as option files of its two phases",
        "hyperparameters.json -o options_of_theirs --data-root datasets",
    ),
}  # fmt: skip
"""By name on the command line, in the order of the overview."""
