"""What a user gets wrong: one message that names place and remedy, a code that is not 0, nothing lost or half-written."""

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch
from tiny import ROOT, command, in_process, measured, options, pictures, run, write_options

from srkit.imaging.files import read_image, write_image


def refused(tiny, capsys, said, *flags, code=2, **changes):
    """Runs the training; checks code and message, and that no experiment was begun."""
    assert in_process(tiny, options(tiny, **changes), *flags) == code
    err = capsys.readouterr().err
    assert re.search(said, err, re.DOTALL), err
    assert "Traceback" not in err
    if code == 2:
        assert not list((tiny / "experiments").glob("tiny/training_states/iter_*")), "something was trained"


def test_an_option_mistake_is_reported_before_torch_is_imported(tiny):
    path = write_options(tiny, options(tiny, network_g__num_blocks=3, train__total_iters=3))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['train', '-opt', {str(path)!r}]\n"
    code += "from srkit.train import main; code = main(); print('torch' in sys.modules, 'numpy' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.strip() == "False False"
    assert re.search(r"line \d+, network_g\.num_blocks: .*did you mean 'num_block'", done.stderr)
    assert re.search(r"line \d+, train\.total_iters: .*did you mean 'total_iter'", done.stderr)


def test_a_missing_folder(tiny, capsys):
    refused(tiny, capsys, r"datasets\.train: dataroot_gt.*nowhere", datasets__train__dataroot_gt=str(tiny / "nowhere"))


def test_a_pair_of_empty_folders(tiny, capsys):
    for name in ("gt", "lq"):
        (tiny / "empty" / name).mkdir(parents=True)
    roots = {f"datasets__train__dataroot_{n}": str(tiny / "empty" / n) for n in ("gt", "lq")}
    refused(tiny, capsys, r"dataroot_gt: no pictures .* directly in .*; it is empty", **roots)


def test_a_missing_partner(tiny, capsys):
    (tiny / "data/lq/p2.png").unlink()
    refused(tiny, capsys, r"1 of 4 files in \S+ have no partner in \S+ \(first: p2\.png\)")


@pytest.mark.parametrize("content", [b"", b"I am text", None], ids=["zero bytes", "text", "truncated"])
def test_a_file_that_is_no_picture(tiny, capsys, content):
    file = tiny / "data/gt/p1.png"
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    refused(tiny, capsys, r"gt/p1\.png")


def png_bomb(path, side=20_000):
    """A grey PNG of side x side zeros, a few hundred kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def test_a_decompression_bomb_is_refused_from_its_header(tiny, capsys):
    png_bomb(tiny / "data/gt/p1.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tiny, capsys, r"gt/p1\.png: 20000 x 20000 = 400,000,000 pixels, above the limit of 100,000,000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_an_lq_of_the_wrong_size(tiny, capsys):
    write_image(tiny / "data/lq/p1.png", np.zeros((30, 24, 3), np.uint8))
    refused(tiny, capsys, r"gt/p1\.png is 48x48, expected 48x60 \(lq \S+ 24x30\)")


def test_a_validation_lq_too_small_for_its_gt(tiny, capsys):
    shutil.copytree(tiny / "data", tiny / "val")
    write_image(tiny / "val/lq/p0.png", np.zeros((20, 24, 3), np.uint8))
    roots = {f"datasets__val__dataroot_{n}": str(tiny / "val" / n) for n in ("gt", "lq")}
    refused(tiny, capsys, r"datasets\.val: .*gt/p0\.png is 48x48, expected 48x40 \(lq \S+ 24x20\)", **roots)


def test_a_picture_smaller_than_the_crop(tiny, capsys):
    refused(tiny, capsys, r"4 lq pictures are smaller than the crop of 32x32 .* 24x24", datasets__train__gt_size=64)


def test_fewer_pictures_than_a_batch(tiny, capsys):
    refused(
        tiny, capsys, r"4 pictures x dataset_enlarge_ratio 1 are fewer than one batch of 8",
        datasets__train__batch_size_per_gpu=8, datasets__train__dataset_enlarge_ratio=1,
    )  # fmt: skip


def test_a_schedule_that_ends_before_the_training(tiny, capsys):
    schedule = {"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1, 1]}
    refused(tiny, capsys, r"train\.scheduler\.periods.*total_iter", train__scheduler=schedule)


def test_a_gt_size_that_is_no_multiple_of_the_scale(tiny, capsys):
    refused(tiny, capsys, r"datasets\.train\.gt_size.*14.*16", datasets__train__gt_size=15)


class Evil:
    def __reduce__(self):
        return (os.system, ("touch sentinel",))


def test_a_pretrain_file_with_code_in_it(tiny, capsys):
    torch.save({"params": Evil()}, tiny / "evil.pth")
    refused(tiny, capsys, r"evil\.pth.*could run code", path__pretrain_network_g=str(tiny / "evil.pth"))
    assert not (tiny / "sentinel").exists()


def test_a_pretrain_file_without_the_wanted_key(tiny, capsys):
    torch.save({"params": {"conv_first.weight": torch.zeros(1)}}, tiny / "m.pth")
    change = {"path__pretrain_network_g": str(tiny / "m.pth"), "path__param_key_g": "params_ema"}
    refused(tiny, capsys, r"no weights under 'params_ema'; found params", **change)


def test_a_pretrain_file_of_another_network_leaves_the_old_experiment_in_place(tiny, capsys):
    in_process(tiny, options(tiny, name="old", network_g__num_feat=6))
    in_process(tiny, options(tiny))
    weights = str(tiny / "experiments/old/models/net_g_latest.pth")
    assert in_process(tiny, options(tiny, path__pretrain_network_g=weights)) == 2
    assert "of another shape: conv_first.weight" in capsys.readouterr().err
    assert (tiny / "experiments/tiny/training_states/iter_12").is_dir()
    assert not list((tiny / "experiments").glob("tiny_archived_*"))


def test_a_model_file_given_as_resume_state(tiny, capsys):
    in_process(tiny, options(tiny))
    state = str(tiny / "experiments/tiny/models/net_g_12.pth")
    assert in_process(tiny, options(tiny, path__resume_state=state)) == 2
    assert re.search(r"resume_state.*is a file.*pretrain_network_g", capsys.readouterr().err)


def test_a_resume_state_in_basicsr_spelling_is_found(tiny, capsys):
    in_process(tiny, options(tiny, train__total_iter=4))
    state = str(tiny / "experiments/tiny/training_states/4.state")
    assert in_process(tiny, options(tiny, path__resume_state=state)) == 0
    assert "from iteration 4" in capsys.readouterr().out


def test_an_experiments_folder_that_cannot_be_written(tiny, capsys):
    (tiny / "experiments").write_text("a file where a folder should be")
    assert in_process(tiny, options(tiny)) == 2
    assert re.search(r"experiments/tiny: cannot be written.*experiments_root", capsys.readouterr().err)


def test_a_second_process_on_the_same_experiment(tiny):
    path = write_options(tiny, options(tiny, train__total_iter=10**6, logger__print_freq=1))
    first = command("-opt", path, cwd=tiny)
    records = tiny / "experiments/tiny/records.jsonl"
    while first.poll() is None and not records.exists():
        pass
    code, out = run("-opt", path, cwd=tiny)
    first.terminate()
    first.communicate(timeout=60)
    assert code == 7, out
    assert re.search(rf"in use by process {first.pid} on ", out)
    assert first.returncode == 143  # the first one was not disturbed


def test_a_full_disk_while_saving_goes_on_and_tries_again(tiny):
    path = write_options(tiny, options(tiny))
    code, out = run("-opt", path, cwd=tiny, env={"SRKIT_FAULT": "save.before_manifest:1:full"})
    assert code == 0, out
    assert re.search(
        r"iter_4 could not be written \(No space left on device.*MB free.*the next save tries again \(1 of 3\)", out
    )
    states = tiny / "experiments/tiny/training_states"
    assert sorted(p.name for p in states.iterdir()) == ["iter_12", "iter_8", "latest.json"]


def test_files_that_cannot_grow_end_with_the_storage_code_and_keep_the_old_checkpoint(tiny):
    """RLIMIT_FSIZE stands for a full disk: writes fail with EFBIG."""
    in_process(tiny, options(tiny, train__total_iter=4))
    path = write_options(tiny, options(tiny))
    limited = f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); sys.path.insert(0, {str(ROOT)!r})\n"
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
    limited += f"from srkit.train import main; sys.exit(main(['-opt', {str(path)!r}, '--auto_resume']))"
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, cwd=tiny)
    assert done.returncode == 6, done.stdout + done.stderr
    assert re.search(r"checkpoint .* could not be written .*older checkpoints are untouched", done.stderr)
    states = tiny / "experiments/tiny/training_states"
    assert (states / "iter_4").is_dir()
    assert not list(states.glob(".tmp-*"))
    assert in_process(tiny, options(tiny), "--auto_resume") == 0


def test_a_nan_loss_is_skipped_counted_and_given_up_after_enough_in_a_row(tiny, capsys):
    loss = tiny / "my_losses.py"
    loss.write_text(
        "import torch\nfrom torch import nn\nfrom srkit.registry import LOSSES\n\n\n"
        "@LOSSES.register()\nclass SometimesNan(nn.Module):\n"
        '    """L1 that is NaN from one call on, for a while."""\n\n'
        "    def __init__(self, *, first: int = 3, count: int = 2) -> None:\n"
        "        super().__init__()\n        self.calls, self.first, self.count = 0, first, count\n\n"
        "    def forward(self, sr, gt):\n        self.calls += 1\n"
        "        bad = self.first <= self.calls < self.first + self.count\n"
        "        return (sr - gt).abs().mean() * (float('nan') if bad else 1.0)\n"
    )
    changes = {"imports": [str(loss)], "train__pixel_opt": {"type": "SometimesNan"}, "train__max_nonfinite": 4}
    assert in_process(tiny, options(tiny, **changes)) == 0
    records = [json.loads(line) for line in (tiny / "experiments/tiny/records.jsonl").read_text().splitlines()]
    train = [r for r in records if r["kind"] == "train"]
    assert [r["iteration"] for r in train if r["l_pix"] is None] == [3, 4]
    assert train[-1]["skipped"] == 2
    changes["train__pixel_opt"] = {"type": "SometimesNan", "first": 6, "count": 100}
    assert in_process(tiny, options(tiny, **changes)) == 3
    assert "4 updates in a row had a non-finite loss or gradient" in capsys.readouterr().err
    for file in (tiny / "experiments/tiny").rglob("*.pth"):
        content = torch.load(file, weights_only=True)
        assert all(t.isfinite().all() for key in ("params", "params_ema") for t in content[key].values())


def test_a_sixteen_bit_picture_is_kept_in_sixteen_bits(tiny):
    for name, size in (("gt", 48), ("lq", 24)):
        for index in range(4):
            deep = np.random.default_rng(index).integers(0, 65536, (size, size, 3)).astype(np.uint16)
            write_image(tiny / f"data/{name}/p{index}.png", deep)
    assert in_process(tiny, options(tiny, val__save_img=True)) == 0
    assert read_image(tiny / "experiments/tiny/visualization/val/p0/p0_12.png").dtype == np.uint16


def test_mixed_bit_depths_are_refused(tiny, capsys):
    write_image(tiny / "data/gt/p1.png", np.zeros((48, 48, 3), np.uint16))
    refused(tiny, capsys, r"one bit depth is needed, found 7 of 8 bit .*; 1 of 16 bit \(\S+/gt/p1\.png\)")


def test_a_force_yml_key_that_does_not_exist(tiny, capsys):
    path = write_options(tiny, options(tiny))
    from srkit.train import main

    assert main(["-opt", str(path), "--force_yml", "train:ema_decai=0.9", "train:total_iter=__import__('os')"]) == 2
    err = capsys.readouterr().err
    assert "did you mean 'ema_decay'" in err
    assert "__import__" in err  # shown as the text it is


def test_a_dead_loader_worker_ends_with_its_code_and_saves_first(tiny):
    from pathlib import Path

    path = write_options(
        tiny,
        options(
            tiny,
            train__total_iter=10**6,
            val__val_freq=10**6,
            logger__save_checkpoint_freq=10**6,
            datasets__train__num_worker_per_gpu=2,
        ),
    )
    process = command("-opt", path, cwd=tiny)
    records = tiny / "experiments/tiny/records.jsonl"
    while process.poll() is None and not (records.exists() and '"kind": "train"' in records.read_text()):
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [c for c in children if b"train.py" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(int(workers[0]), 9)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 4, out
    assert re.search(rf"loader worker died: \d \(pid {workers[0]}", out)
    assert re.search(r"iteration [\d,]+ was saved before giving up", out)


def test_running_out_of_memory_gives_advice_in_numbers_and_saves_first(tiny, capsys):
    loss = tiny / "greedy_loss.py"
    loss.write_text(
        "import torch\nfrom torch import nn\nfrom srkit.registry import LOSSES\n\n\n"
        "@LOSSES.register()\nclass GreedyLoss(nn.Module):\n"
        '    """L1 that once wants too much."""\n\n'
        "    def __init__(self) -> None:\n        super().__init__()\n        self.calls = 0\n\n"
        "    def forward(self, sr, gt):\n        self.calls += 1\n        if self.calls == 6:\n"
        "            raise torch.OutOfMemoryError('CUDA out of memory')\n        return (sr - gt).abs().mean()\n"
    )
    changes = {"imports": [str(loss)], "train__pixel_opt": {"type": "GreedyLoss"}}
    assert in_process(tiny, options(tiny, **changes)) == 5
    assert "batch_size_per_gpu to 1 (now 2) with train.accum_iter 2" in capsys.readouterr().err
    assert (tiny / "experiments/tiny/training_states/iter_5").is_dir()


def test_a_test_of_another_network_than_the_file_holds(tiny, capsys):
    in_process(tiny, options(tiny))
    assert measured(tiny, network_g__num_feat=8) == 2
    assert "network_g.num_feat: 8 in the option file, 4 in the model file" in capsys.readouterr().err


def test_a_results_folder_that_cannot_be_made(tiny, capsys):
    in_process(tiny, options(tiny))
    (tiny / "results").write_text("a file where the folder should be")
    assert measured(tiny) == 6
    assert re.search(r"results.tested: cannot be written \(.*path\.results_root", capsys.readouterr().err)


def test_names_that_would_write_elsewhere(tiny, capsys):
    refused(tiny, capsys, r"name: .*letters", name="../elsewhere")
    pictures(tiny / "outside")
    (tiny / "list.txt").write_text("../outside/gt/p0.png\n")
    refused(tiny, capsys, r"\.\./outside", datasets__train__meta_info_file=str(tiny / "list.txt"))
