"""Several processes that train together over gloo, forked from this one: they need no second import of torch. No tests."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer step imports it: once here, and not once in every fork

import srkit.train_run  # noqa: F401 - for the same reason

ONE_THREAD = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def meeting(rank: int, world: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def on_ranks(
    folder: Path, world: int, work: Callable[[], int | None], told: Callable[[int, int, int], dict] = meeting
) -> list[tuple[int, str]]:
    """Exit code and what was printed, of each rank. `work` runs in all of them; its environment is `told`."""
    port = free_port()
    fork = multiprocessing.get_context("fork")
    logs = [folder / f"rank{rank}.log" for rank in range(world)]
    children = [
        fork.Process(target=_child, args=(logs[rank], {**ONE_THREAD, **told(rank, world, port)}, work))
        for rank in range(world)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    late = [child for child in children if child.exitcode is None]
    for child in late:
        child.kill()
        child.join()
    shown = [log.read_text() for log in logs]
    assert not late, "hangs after 60 s:\n" + "\n".join(shown)
    return [(child.exitcode, text) for child, text in zip(children, shown, strict=True)]


def _child(log: Path, environment: dict[str, str], work: Callable[[], int | None]) -> None:
    code = 99
    try:
        os.environ.update(environment)
        sys.stdout = sys.stderr = log.open("w", buffering=1)
        code = int(work() or 0)
        if code == 0 and torch.distributed.is_initialized():
            torch.distributed.barrier()  # nobody leaves while others still talk
    except BaseException:  # noqa: BLE001 - shown by the test
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def trained_by(world: int, folder: Path, file: Path, *flags: str) -> None:
    """srkit/train.py on so many ranks; all must end well."""
    from srkit.train import main

    done = on_ranks(folder, world, lambda: main(["-opt", str(file), "--launcher", "pytorch", *flags]))
    assert [code for code, _ in done] == [0] * world, "\n".join(text for _, text in done)
