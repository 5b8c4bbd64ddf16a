"""Many processes: the same numbers as one, one writer, exact resuming, and bad starts that end with a message."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from ranks import ONE_THREAD, free_port, meeting, on_ranks, trained_by
from tiny import ROOT, end_state, equal, in_process, options, write_options
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from srkit.engine.distributed import Group, _agree, _Place, _refuse_bad_places, join_group
from srkit.engine.sync_batchnorm import SharedBatchNorm, share_batchnorm
from srkit.errors import PeerLostError, RefusedError
from srkit.imaging.files import read_image


def losses(experiment) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (experiment / "records.jsonl").read_text().splitlines()]
    trained = [line for line in lines if line["kind"] == "train"]
    return {name: [line[name] for line in trained] for name in trained[0] if name.startswith(("l_", "out_"))}


def assert_same_curves(folder, one: str, many: str, abs_: float = 1e-7) -> None:
    ours, theirs = losses(folder / f"experiments/{many}"), losses(folder / f"experiments/{one}")
    assert ours.keys() == theirs.keys()
    for name, curve in theirs.items():
        assert ours[name] == pytest.approx(curve, rel=1e-5, abs=abs_), name


def assert_same_weights(folder, one: str, many: str, iteration: int) -> None:
    a, b = (end_state(folder / f"experiments/{name}", iteration)[0] for name in (one, many))
    for network in a:
        for key, value in a[network].items():
            torch.testing.assert_close(b[network][key], value, rtol=1e-5, atol=1e-6)


# Training


@pytest.mark.parametrize("world", [2, 4])
def test_the_loss_curve_of_many_ranks_is_that_of_one_with_their_batches_together(tiny, world):
    in_process(tiny, options(tiny, name="one", datasets__train__batch_size_per_gpu=4))
    data = options(tiny, name="many", datasets__train__batch_size_per_gpu=4 // world)
    trained_by(world, tiny, write_options(tiny, data, "many.yml"))
    assert_same_curves(tiny, "one", "many")
    assert_same_weights(tiny, "one", "many", 12)


def test_only_rank_0_writes_into_the_experiment_and_it_writes_every_record_once(tiny):
    def work() -> int:
        from srkit.train import main

        def watch(event: str, arguments: tuple) -> None:
            if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
                opened.append(str(arguments[0]))

        opened: list[str] = []
        sys.addaudithook(watch)
        code = main(["-opt", str(file), "--launcher", "pytorch"])
        inside = [path for path in opened if str(tiny / "experiments") in path]
        assert bool(inside) == (os.environ["RANK"] == "0"), inside
        return code

    file = write_options(tiny, options(tiny))
    done = on_ranks(tiny, 2, work)
    assert [code for code, _ in done] == [0, 0], done
    assert done[1][1] == ""
    lines = map(json.loads, (tiny / "experiments/tiny/records.jsonl").read_text().splitlines())
    assert [r["iteration"] for r in lines if r["kind"] == "train"] == list(range(1, 13))


def test_the_log_states_the_batch_of_all_ranks_the_rate_and_the_seeds(tiny):
    data = options(tiny, train__total_iter=1, train__accum_iter=3)
    trained_by(2, tiny, write_options(tiny, data))
    log = next((tiny / "experiments/tiny").glob("train_*.log")).read_text()
    assert "2 x 2 process(es) x 3 accumulated = 12 samples an iteration" in log
    assert "Adam, lr 0.001, as written: not multiplied by the number of processes" in log
    assert "seed        3 for first weights, order and crops; 3 to 4, by rank, for dropout" in log
    assert "2 processes on 1 machine(s), each CPU" in log


def test_two_ranks_resume_to_the_bit_and_one_goes_on_with_the_same_samples(tiny):
    def file(name: str, total: int, **more):
        return write_options(tiny, options(tiny, name=name, train__total_iter=total, **more), f"{name}.yml")

    trained_by(2, tiny, file("whole", 8))
    trained_by(2, tiny, file("parts", 4))
    other = tiny / "experiments/other"
    subprocess.run(["cp", "-r", tiny / "experiments/parts", other], check=True)
    trained_by(2, tiny, file("parts", 8), "--auto_resume")
    whole, parts = (end_state(tiny / f"experiments/{name}", 8) for name in ("whole", "parts"))
    assert equal(whole[0], parts[0])
    assert equal(whole[1]["optimizers"], parts[1]["optimizers"])
    assert equal(whole[2], parts[2])
    assert losses(tiny / "experiments/whole") == losses(tiny / "experiments/parts")
    second = [torch.load(tiny / f"experiments/{n}/training_states/iter_8/rng_rank1.pt", weights_only=True) for n in ("whole", "parts")]  # fmt: skip
    assert equal(*second)

    in_process(tiny, options(tiny, name="other", train__total_iter=8, datasets__train__batch_size_per_gpu=4), "--auto_resume")  # fmt: skip
    assert_same_curves(tiny, "whole", "other")
    assert_same_weights(tiny, "whole", "other", 8)


def test_a_signal_to_one_rank_ends_all_with_its_code_at_one_saved_iteration(tiny, monkeypatch):
    file = write_options(tiny, options(tiny, train__total_iter=30))

    def work() -> int:
        from srkit.train import main

        if os.environ["RANK"] == "1":
            os.environ["SRKIT_FAULT"] = "train.step:3:usr1"
        return main(["-opt", str(file), "--launcher", "pytorch"])

    done = on_ranks(tiny, 2, work)
    assert [code for code, _ in done] == [75, 75], done
    assert "stopped by SIGUSR1 at iteration 10 of 30; everything is saved" in done[0][1]
    assert (tiny / "experiments/tiny/training_states/iter_10/manifest.json").exists()


def test_gradients_are_sent_once_an_iteration_however_many_batches_are_accumulated(tiny):
    def work() -> int:
        from srkit.train import main

        def counting(group, network):
            wrapped = wrap(group, network)
            wrapped.register_comm_hook(None, count)
            return wrapped

        def count(state, bucket):
            sent.append(bucket.index())
            return allreduce_hook(state, bucket)

        sent: list[int] = []
        wrap, Group.wrap = Group.wrap, counting
        code = main(["-opt", str(file), "--launcher", "pytorch"])
        assert sent == [0, 0, 0], sent  # three iterations of three batches; all gradients fit into one message
        return code

    file = write_options(tiny, options(tiny, train__total_iter=3, train__accum_iter=3))
    done = on_ranks(tiny, 2, work)
    assert [code for code, _ in done] == [0, 0], done


# Batch normalisation and relativistic means


# Adam would make steps of full length out of the rounding of gradients that are zero: those of a bias before batch
# normalisation, and of the discriminator's last bias under a relativistic loss, which only knows differences of logits.
PLAIN = {"train__optim_g": {"type": "SGD", "lr": 0.02}, "train__optim_d": {"type": "SGD", "lr": 0.02}}


def test_batch_normalisation_over_ranks_equals_that_of_the_whole_batch_with_its_gradients(tmp_path):
    """Ranks of 2 and 3 samples against torch's own on 5."""
    torch.manual_seed(0)
    whole, target = torch.randn(5, 3, 4, 4) * 3 + 1, torch.randn(5, 3, 4, 4)
    torch_s = nn.BatchNorm2d(3)
    nn.init.uniform_(torch_s.weight), nn.init.uniform_(torch_s.bias)
    ours = nn.Sequential(nn.BatchNorm2d(3))
    ours[0].load_state_dict(torch_s.state_dict())
    x = whole.clone().requires_grad_()
    expected = torch_s(x)
    ((expected - target) ** 2).sum().backward()

    def work() -> None:
        part = slice(0, 2) if os.environ["RANK"] == "0" else slice(2, 5)
        join_group("pytorch", 0, backend=None, port=None, timeout_s=30)
        assert share_batchnorm(ours) == 1
        mine = whole[part].clone().requires_grad_()
        out = ours(mine)
        ((out - target[part]) ** 2).sum().backward()
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(out, expected[part], **close)
        torch.testing.assert_close(mine.grad, x.grad[part], **close)
        for key, value in torch_s.state_dict().items():
            torch.testing.assert_close(ours[0].state_dict()[key], value, **close)
        torch.distributed.all_reduce(ours[0].weight.grad)
        torch.testing.assert_close(ours[0].weight.grad, torch_s.weight.grad, **close)

    done = on_ranks(tmp_path, 2, work)
    assert [code for code, _ in done] == [0, 0], done


def test_shared_batch_normalisation_alone_is_torch_s(tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    keys, given = list(network.state_dict()), torch.randn(2, 1, 6, 6)
    expected = network(given)
    weight = network[1].weight
    assert share_batchnorm(network) == 1
    assert isinstance(network[1], SharedBatchNorm)
    assert network[1].weight is weight
    assert list(network.state_dict()) == keys
    assert torch.equal(network(given), expected)


@pytest.mark.parametrize("world", [2, 4])
def test_with_sync_batchnorm_many_ranks_train_both_networks_as_one(tiny, gan, world):
    same = {"model_type": "SRGANModel", "train__total_iter": 4, "train__sync_batchnorm": True, **PLAIN}
    in_process(tiny, gan(name="one", datasets__train__batch_size_per_gpu=4, **same))
    data = gan(name="many", datasets__train__batch_size_per_gpu=4 // world, **same)
    trained_by(world, tiny, write_options(tiny, data, "many.yml"))
    # What is normalised has a mean 50 times its deviation, so that torch's own fp32 is 2e-6 off fp64 in a mean logit.
    assert_same_curves(tiny, "one", "many", abs_=1e-5)
    assert_same_weights(tiny, "one", "many", 4)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("world", [2, 4])
def test_with_global_mean_a_relativistic_training_on_many_ranks_is_that_on_one(tiny, gan, world, detach):
    same = {
        "network_d": {"type": "TinyJudge", "norm": False}, "train__total_iter": 4,
        "train__gan_opt__global_mean": True, "train__gan_opt__detach_mean": detach, **PLAIN,
    }  # fmt: skip
    in_process(tiny, gan(name="one", datasets__train__batch_size_per_gpu=4, **same))
    data = gan(name="many", datasets__train__batch_size_per_gpu=4 // world, **same)
    trained_by(world, tiny, write_options(tiny, data, "many.yml"))
    assert_same_curves(tiny, "one", "many")
    assert_same_weights(tiny, "one", "many", 4)


def test_without_global_mean_a_relativistic_loss_is_that_of_each_rank(tiny, gan):
    same = {"network_d": {"type": "TinyJudge", "norm": False}, "train__total_iter": 1}
    in_process(tiny, gan(name="one", datasets__train__batch_size_per_gpu=4, **same))
    trained_by(2, tiny, write_options(tiny, gan(name="many", **same), "many.yml"))
    one, many = (losses(tiny / f"experiments/{name}")["l_d_real"][0] for name in ("one", "many"))
    assert abs(one - many) > 1e-5 * abs(one)


# Test and inference


@pytest.mark.parametrize("world", [2, 4])
def test_a_test_on_many_ranks_measures_every_picture_once_with_the_values_of_one(tiny, world):
    """Three pictures: the second of two ranks has one, the fourth of four has none."""
    (tiny / "data/gt/p3.png").unlink()
    (tiny / "data/lq/p3.png").unlink()
    in_process(tiny, options(tiny, train__total_iter=2))
    weights = str(tiny / "experiments/tiny/models/net_g_2.pth")
    rows = {}
    for name in ("one", "many"):
        data = options(tiny, name=name, path__pretrain_network_g=weights, val__save_img=True)
        data = {k: v for k, v in data.items() if k not in ("train", "logger")}
        data["datasets"].pop("train")
        file = write_options(tiny, data, f"{name}.yml")

        def work(file=file) -> int:
            from srkit.test import main

            return main(["-opt", str(file), *(["--launcher", "pytorch"] if "RANK" in os.environ else [])])

        if name == "one":
            assert work() == 0
        else:
            done = on_ranks(tiny, world, work)
            assert [code for code, _ in done] == [0] * world, done
        with (tiny / f"results/{name}/metrics.csv").open() as table:
            rows[name] = [{**row, "model": row["model"].replace("many", "one")} for row in csv.DictReader(table)]
    key = [(r["image"], r["model"], r["metric"]) for r in rows["many"]]
    assert len(set(key)) == len(key)
    assert sorted(key) == sorted((r["image"], r["model"], r["metric"]) for r in rows["one"])
    values = {(r["image"], r["model"], r["metric"]): float(r["value"]) for r in rows["one"]}
    for row in rows["many"]:
        assert float(row["value"]) == pytest.approx(values[row["image"], row["model"], row["metric"]], abs=1e-6)
    for number in range(3):
        restored = [read_image(tiny / f"results/{n}/visualization/val/p{number}.png") for n in ("one", "many")]
        assert np.array_equal(*restored)


def test_four_ranks_restore_three_files_as_one_does(tiny):
    in_process(tiny, options(tiny, train__total_iter=2))
    (tiny / "data/lq/p3.png").unlink()

    def work(out: str = "many") -> int:
        from srkit.infer import main

        flags = ["--launcher", "pytorch"] if "RANK" in os.environ else []
        model = "experiments/tiny/models/net_g_2.pth"
        return main(["-m", model, "-i", "data/lq", "-o", out, "--device", "cpu", *flags])

    assert work("one") == 0
    done = on_ranks(tiny, 4, work)
    assert [code for code, _ in done] == [0] * 4, done
    assert "3 files: 3 done" in done[0][1]
    names = sorted(path.name for path in (tiny / "one").iterdir())
    assert sorted(path.name for path in (tiny / "many").iterdir()) == names
    assert len(names) == 3
    for name in names:
        assert np.array_equal(read_image(tiny / "one" / name), read_image(tiny / "many" / name))


# Bad starts


def test_a_port_in_use_ends_all_ranks_with_a_message(tiny):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        file = write_options(tiny, options(tiny, dist_params__join_timeout_s=3))

        def work() -> int:
            from srkit.train import main

            return main(["-opt", str(file), "--launcher", "pytorch"])

        began = time.monotonic()
        done = on_ranks(tiny, 2, work, lambda rank, world, _: meeting(rank, world, port))
    assert time.monotonic() - began < 30
    assert [code for code, _ in done] == [2, 8]
    assert f"port {port} of this machine is used by another program" in done[0][1]
    assert "set dist_params.port, or MASTER_PORT in the environment" in done[0][1]
    assert f"rank 1 waited 3 s at 127.0.0.1:{port}, and not all of the 2 processes came" in done[1][1]


def test_a_process_that_does_not_come_is_not_waited_for_longer_than_was_said(tiny, monkeypatch):
    for name, value in meeting(0, 2, free_port()).items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(PeerLostError, match=r"rank 0 waited 1 s at .* not all of the 2 processes came"):
        join_group("pytorch", 0, backend=None, port=None, timeout_s=1800, join_timeout_s=1)
    assert time.monotonic() - began < 20


def test_a_start_in_the_store_of_the_one_before_reads_nothing_that_is_left_there(tmp_path):
    """As torchrun has it after a restart."""
    server = torch.distributed.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    place = _Place("a", "cpu", "")
    for world in (3, 2):  # the second start is smaller, and each rank of it finds the signatures of the first
        before = server.get("srkit").decode() if world == 2 else ""

        def work(world=world, before=before) -> None:
            rank = int(os.environ["RANK"])
            time.sleep(0.2 * (rank == 0))  # the others come first, and find the old part
            client = torch.distributed.TCPStore("127.0.0.1", server.port, None, False)
            part, places = _agree(client, rank, world, place, time.monotonic() + 20)
            assert places == [place] * world
            part.set(f"rank_{rank}", str(world))
            assert [part.get(f"rank_{r}").decode() for r in range(world)] == [str(world)] * world
            assert client.get("srkit").decode() != before

        done = on_ranks(tmp_path, world, work)
        assert [code for code, _ in done] == [0] * world, done


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("a", "cuda", "0"), ("a", "cuda", "0")], r"2 processes on a would share 1 GPU\(s\) .*--nproc-per-node 1"),
        ([("a", "cuda", "0"), ("b", "cpu", "")], r"ranks 1 \(b\) see no GPU and the others do; .*num_gpu: 0"),
    ],
)  # fmt: skip
def test_a_gpu_that_is_not_there_is_said_with_the_number_that_are(places, message):
    with pytest.raises(RefusedError, match=message):
        _refuse_bad_places([_Place(*place) for place in places], is_shared_gpu_bad=True)


def test_processes_with_a_gpu_each_or_none_may_begin():
    _refuse_bad_places([_Place(*p) for p in (("a", "cuda", "0"), ("b", "cuda", "0"))], is_shared_gpu_bad=True)
    _refuse_bad_places([_Place("a", "cpu", "")] * 3, is_shared_gpu_bad=True)


def test_more_ranks_than_samples_are_refused_by_all(tiny):
    file = write_options(tiny, options(tiny, datasets__train__dataset_enlarge_ratio=1))

    def work() -> int:
        from srkit.train import main

        return main(["-opt", str(file), "--launcher", "pytorch"])

    done = on_ranks(tiny, 4, work)
    assert [code for code, _ in done] == [2] * 4
    assert "fewer than one batch of 8 (2 for each of 4 processes)" in done[0][1]
    assert not (tiny / "experiments").exists()


@pytest.mark.parametrize(
    ("told", "launcher"),
    [({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "pytorch"), ({"SLURM_STEP_NUM_TASKS": "2"}, "slurm")],
)
def test_many_processes_that_were_not_told_of_each_other_are_refused(tiny, monkeypatch, capsys, told, launcher):
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert in_process(tiny, options(tiny)) == 2
    assert (
        f"2 processes were started, but each was told to work alone; add --launcher {launcher}"
        in capsys.readouterr().err
    )


# SLURM


def slurm(rank: int, world: int, port: int) -> dict[str, str]:
    return {
        "SLURM_PROCID": str(rank), "SLURM_NTASKS": str(world), "SLURM_LOCALID": str(rank), "SLURM_NODELIST": "n[1-4]",
        "SLURM_STEP_NODELIST": "n[3-4]", "SLURM_JOB_ID": str(port),
    }  # fmt: skip


def commands(folder, **scripts: str) -> None:
    """Programs of these names."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text("#!/usr/bin/env bash\n" + text)
        (folder / name).chmod(0o755)


def test_slurm_s_variables_make_a_group_that_meets_at_its_step_s_first_machine(tmp_path, monkeypatch):
    commands(tmp_path / "bin", scontrol='[[ "$*" == "show hostnames n[3-4]" ]] && printf "localhost\\nn4\\n"\n')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def work() -> None:
        group, _ = join_group("slurm", 0, backend=None, port=None, timeout_s=30)
        assert group.gather(group.rank) == [0, 1]
        number = int(os.environ["SLURM_JOB_ID"])
        assert os.environ["MASTER_PORT"] == str(20000 + number % 10000)

    done = on_ranks(tmp_path, 2, work, slurm)
    assert [code for code, _ in done] == [0, 0], done


def test_a_failing_scontrol_is_said_with_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "environ", {**os.environ, **slurm(0, 2, 1), "PATH": str(tmp_path)})
    with pytest.raises(RefusedError, match=r"'scontrol show hostnames n\[3-4\]' failed .*; set MASTER_ADDR"):
        join_group("slurm", 0, backend=None, port=None, timeout_s=30)


@pytest.mark.parametrize(("end", "requeued"), [(75, True), (0, False), (2, False)])
def test_the_slurm_example_passes_usr1_on_and_queues_the_job_again(tmp_path, end, requeued):
    """`srun` of this test writes that it runs, then waits for the signal (75) or ends."""
    waiting = f'trap "sleep 0.3; exit {end}" USR1; touch running; while true; do sleep 0.05; done\n'
    commands(
        tmp_path / "bin",
        srun='echo "$@" > srun.txt\n' + (waiting if end == 75 else f"touch running; exit {end}\n"),
        scontrol='echo "$@" > scontrol.txt\n',
    )
    process = subprocess.Popen(
        ["bash", str(ROOT / "scripts/slurm_train.sbatch"), "x.yml", "--time_limit", "9m"],
        cwd=tmp_path, env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for _ in range(200):
        if (tmp_path / "running").exists():
            break
        time.sleep(0.05)
    if end == 75:
        process.send_signal(signal.SIGUSR1)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == end, out
    assert f"srkit ended with code {end}" in out
    flags = (tmp_path / "srun.txt").read_text().split()
    assert flags[:3] == ["--kill-on-bad-exit=1", "python", "srkit/train.py"]
    assert flags[-4:] == ["-opt", "x.yml", "--time_limit", "9m"]
    assert (tmp_path / "scontrol.txt").exists() == requeued
    if requeued:
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"


# scripts/dist_train.sh


def launched(folder, *arguments, **environment) -> subprocess.Popen:
    told = {**os.environ, **ONE_THREAD, "PYTHON": sys.executable, **environment}
    return subprocess.Popen(
        ["bash", str(ROOT / "scripts/dist_train.sh"), *map(str, arguments)],
        cwd=folder, env=told, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_two_machines_start_again_after_a_rank_has_died_and_end_as_if_nothing_had_been(tiny):
    """Two launchers, each with a process of its own, on this machine."""
    file = write_options(tiny, options(tiny, name="whole", train__total_iter=8), "whole.yml")
    trained_by(2, tiny, file)
    part = tiny / "killer.py"
    part.write_text(KILLER)
    file = write_options(tiny, options(tiny, name="died", train__total_iter=8, imports=[str(part)]), "died.yml")
    told = {"NNODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "MAX_RESTARTS": "1"}
    machines = [launched(tiny, 1, "-opt", file, **told) for _ in range(2)]
    outs = [machine.communicate(timeout=150)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(outs)
    assert (tiny / "died_once").exists()
    assert "from iteration 4" in "".join(outs)
    whole, died = (end_state(tiny / f"experiments/{name}", 8) for name in ("whole", "died"))
    assert all(equal(a, b) for a, b in zip(whole, died, strict=True))


KILLER = '''
"""Ends rank 1 after six iterations, as a kill would, the first time."""
import os
from pathlib import Path
from srkit.engine.trainer import Trainer

step = Trainer.train_step

def mortal(trainer):
    if trainer.iteration == 6 and trainer.group.rank == 1 and not Path("died_once").exists():
        Path("died_once").touch()
        os._exit(86)
    step(trainer)

Trainer.train_step = mortal
'''


def test_torchrun_is_left_the_message_that_it_ends_with(tiny, monkeypatch):
    from srkit.train import main

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tiny / "error.json"))
    assert main(["-opt", str(tiny / "none.yml")]) == 2
    message = json.loads((tiny / "error.json").read_text())["message"]
    assert message.startswith("srkit: error: ")
    assert "none.yml" in message
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tiny / "error.json"))
    assert message in ChildFailedError("train.py", {0: failure}).format_msg()


@pytest.mark.parametrize("wrong", ["", "-opt", "0", "two"])
def test_dist_train_says_what_its_first_word_must_be(tmp_path, wrong):
    process = launched(tmp_path, *([wrong] if wrong else []))
    assert "expected the number of processes on this machine" in process.communicate(timeout=30)[0]
    assert process.returncode == 2
