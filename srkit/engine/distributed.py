"""Who is here: rank, world size, device. Everything that differs between one process and many asks this object."""

from __future__ import annotations

import gc
import json
import os
import socket
import subprocess
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from queue import Empty, Queue
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from srkit.errors import PeerLostError, RefusedError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among its peers; a single process is a group of one and needs no launcher."""

    rank: int
    world_size: int
    device: torch.device
    machines: int = 1
    timeout_s: float = 1800.0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as peers train it: gradients averaged over ranks. Buffers are the caller's to `broadcast`.

        DDP would spread buffers before a forward pass: what is then averaged, validated and saved are each rank's own.
        """
        if not self.is_distributed:
            return network
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the name that torch 2.15 would rather have is not in 2.10
            return nn.parallel.DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    @staticmethod
    def is_wrapped(network: nn.Module) -> TypeGuard[nn.parallel.DistributedDataParallel]:
        """Whether `wrap` put it into DDP, which then averages gradients by itself."""
        return isinstance(network, nn.parallel.DistributedDataParallel)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors by their means over ranks, in one message."""
        flat = self.mean(torch.cat([tensor.flatten() for tensor in tensors]))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Replaces tensors by rank 0's, in one message for each type."""
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors:
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for alike in kinds.values():
            flat = torch.cat([tensor.flatten() for tensor in alike])
            self._call(partial(torch.distributed.broadcast, flat, 0))
            for tensor, part in zip(alike, flat.split([tensor.numel() for tensor in alike]), strict=True):
                tensor.copy_(part.view_as(tensor))

    @contextmanager
    def no_sync(self, networks: Iterable[nn.Module], keep_local: bool) -> Iterator[None]:
        """Context in which wrapped networks keep their gradients local when asked (all but the last micro-batch)."""
        with ExitStack() as stack:
            for network in networks:
                if keep_local and self.is_wrapped(network):
                    stack.enter_context(network.no_sync())
            yield

    def mean(self, values: Tensor) -> Tensor:
        """Average of a tensor over ranks."""
        if self.is_distributed:
            self._call(lambda: torch.distributed.all_reduce(values))
            values = values / self.world_size
        return values

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in rank order, on every rank."""
        if not self.is_distributed:
            return [value]
        out: list[Any] = [None] * self.world_size
        self._call(lambda: torch.distributed.all_gather_object(out, value))
        return out

    def any(self, flag: bool) -> bool:
        """True on every rank when true on one."""
        return any(self.gather(flag)) if self.is_distributed else flag

    def barrier(self) -> None:
        self.gather(None)

    @cached_property
    def pairs(self) -> Any:
        """What `send` and `receive` go through: gloo, for NCCL carries no CPU memory. Ranks make it together, when first asked."""
        made: list[Any] = []
        wait = timedelta(seconds=self.timeout_s)  # torch would give a new group its own default
        self._call(lambda: made.append(torch.distributed.new_group(backend="gloo", timeout=wait)))
        return made[0]

    def send(self, values: Tensor, to: int) -> None:
        """Gives a tensor in CPU memory to one rank, which calls `receive`; every rank must have asked for `pairs` before."""
        self._call(partial(torch.distributed.send, values, to, group=self.pairs))

    def receive(self, values: Tensor, source: int) -> None:
        """Fills a tensor in CPU memory with what one rank sends, which has its shape and type."""
        self._call(partial(torch.distributed.recv, values, source, group=self.pairs))

    def close(self) -> None:
        """Leaves the group together; after an error there may be nobody left to wait for, so do not call it then."""
        if self.is_distributed:
            gc.collect()  # wrapped networks hold the group; gloo aborts when it goes while they still live,
            self.barrier()  # or when one side tears down while the other still talks
            torch.distributed.destroy_process_group()

    @staticmethod
    def _call(collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:  # what torch.distributed raises for a dead or silent peer
            reason = str(error).partition("\n")[0].partition(". ")[0]  # gloo adds advice of its own, and wishes luck
            raise PeerLostError(
                f"a process of the group died or stopped answering ({reason}); start all of them again with --auto_resume"
            ) from error


def choose_device(num_gpu: int | str, local_rank: int) -> tuple[torch.device, str | None]:
    """Device of this process and, when the wish could not be granted, one line that says so.

    Args:
        num_gpu: 0 means CPU, "auto" whatever is there, n at least one GPU.
        local_rank: Number of this process on its machine; picks the GPU.
    """
    if num_gpu == 0:
        return torch.device("cpu"), None
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank % torch.cuda.device_count()), None
    note = None if num_gpu == "auto" else f"num_gpu: {num_gpu} but no GPU is visible; running on the CPU"
    return torch.device("cpu"), note


def join_group(
    launcher: Literal["none", "pytorch", "slurm"],
    num_gpu: int | str,
    *,
    backend: str | None,
    port: int | None,
    timeout_s: float,
    join_timeout_s: float = 60.0,
) -> tuple[Group, str | None]:
    """Joins the process group that the launcher describes in the environment.

    Args:
        port: Where rank 0 listens under SLURM; None is a number that follows from the job's.
        timeout_s: Seconds after which a peer that does not answer is given up.
        join_timeout_s: Seconds in which all processes must have come.

    Raises: RefusedError when the launcher's variables are absent, the port is taken, or processes would share a GPU or
        differ in their device; PeerLostError when some do not come.
    """
    if launcher == "none":
        _refuse_many_alone()
        device, note = choose_device(num_gpu, 0)
        if isinstance(num_gpu, int) and num_gpu > 1 and device.type == "cuda":
            note = (
                f"num_gpu: {num_gpu}, but this one process uses one GPU and batches of batch_size_per_gpu; for all of them: "
                f"torchrun --nproc-per-node {num_gpu} srkit/train.py -opt x.yml --launcher pytorch"
            )
        return Group(0, 1, device), note
    if launcher == "slurm":
        _slurm_environment(port)
    missing = [v for v in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if v not in os.environ]
    if missing:
        raise RefusedError(
            f"--launcher {launcher}: {', '.join(missing)} not set in the environment; start with "
            "'torchrun --nproc-per-node N srkit/train.py -opt x.yml --launcher pytorch'"
        )
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device, note = choose_device(num_gpu, int(os.environ.get("LOCAL_RANK", "0")))
    if world == 1:
        return Group(0, 1, device), note
    backend = backend if backend and device.type == "cuda" else ("nccl" if device.type == "cuda" else "gloo")
    store, places = _meet(rank, world, device, join_timeout_s)
    _refuse_bad_places(places, is_shared_gpu_bad=backend == "nccl")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store.set_timeout(timedelta(seconds=timeout_s))
    Group._call(
        partial(
            torch.distributed.init_process_group,
            backend,
            store=store,
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=timeout_s),
        )
    )
    machines = len({place.host for place in places})
    return Group(rank, world, device, machines=machines, timeout_s=timeout_s), note


class _Place(NamedTuple):
    """Where a process runs; `gpu` is empty on the CPU."""

    host: str
    device: str
    gpu: str


def _meet(
    rank: int, world: int, device: torch.device, timeout_s: float
) -> tuple[torch.distributed.Store, list[_Place]]:
    """Waits for all processes, through plain sockets: a bad start is said before the devices begin to talk.

    Returns: The store in which they met, and the place of every rank.
    """
    at = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    gpu = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
    own = _Place(socket.gethostname(), device.type, gpu)

    def meet() -> tuple[torch.distributed.Store, list[_Place]]:
        store, _, _ = next(torch.distributed.rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
        return _agree(store, rank, world, own, time.monotonic() + timeout_s)

    try:
        return _within(timeout_s + 1, meet)
    except (RuntimeError, TimeoutError) as error:  # what torch.distributed raises, DistError among it
        if "EADDRINUSE" in str(error):
            raise RefusedError(
                f"port {os.environ['MASTER_PORT']} of this machine is used by another program, so the {world} processes "
                "cannot meet there; set dist_params.port, or MASTER_PORT in the environment, to a free one"
            ) from error
        raise PeerLostError(
            f"rank {rank} waited {timeout_s:g} s at {at}, and not all of the {world} processes came "
            f"({str(error).splitlines()[0]}); look for the first one that failed, and whether {at} can be reached from "
            "every machine. If they start slowly, raise dist_params.join_timeout_s"
        ) from error


def _agree(
    store: torch.distributed.Store, rank: int, world: int, own: _Place, deadline: float
) -> tuple[torch.distributed.Store, list[_Place]]:
    """The part of the store that belongs to this start alone, and every rank's place. Raises TimeoutError.

    torchrun lets processes that it starts again meet in the store of the start before, where the addresses of dead ones
    still stand. So rank 0 names a new part, the others sign there, and it says whose signatures it has read.
    """

    def is_there(key: str) -> bool:
        if time.monotonic() > deadline:
            raise TimeoutError("some did not sign")
        time.sleep(0.02)
        return bool(store.check([key]))

    mine = uuid.uuid4().hex
    signature = [mine, *own]
    while True:
        while rank > 0 and not is_there("srkit"):
            pass
        part = store.get("srkit").decode() if rank else mine
        store.set(f"{part}/{rank}", json.dumps(signature))
        if rank == 0:
            store.set("srkit", mine)
            for other in range(world):
                while not is_there(f"{part}/{other}"):
                    pass
            signed = [json.loads(store.get(f"{part}/{other}")) for other in range(world)]
            store.set(f"{part}/all", json.dumps(signed))
        if is_there(f"{part}/all"):
            signed = json.loads(store.get(f"{part}/all"))
            if signed[rank] == signature:  # else the part is of the start before
                return torch.distributed.PrefixStore(part, store), [_Place(*place) for _, *place in signed]


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises. TimeoutError after so many seconds: torch waits for ever at a port where a program
    listens that is not torch."""
    done: Queue[tuple[T | None, BaseException | None]] = Queue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            done.put((None, error))

    threading.Thread(target=run, daemon=True, name="srkit-join").start()
    try:
        result, error = done.get(timeout=seconds)
    except Empty:
        raise TimeoutError("no answer") from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def _refuse_bad_places(places: Sequence[_Place], *, is_shared_gpu_bad: bool) -> None:
    """Every rank sees the same places, so all of them refuse."""
    if len({place.device for place in places}) > 1:
        alone = [f"{rank} ({place.host})" for rank, place in enumerate(places) if place.device == "cpu"]
        raise RefusedError(
            f"ranks {', '.join(alone)} see no GPU and the others do; make one visible to each process "
            "(CUDA_VISIBLE_DEVICES, or SLURM's --gpus-per-task), or set num_gpu: 0 to train all on CPUs"
        )
    taken: dict[tuple[str, str], int] = {}
    for rank, place in enumerate(places):
        other = taken.setdefault((place.host, place.gpu), rank)
        if place.gpu and other != rank and is_shared_gpu_bad:
            count = sum(place.host == p.host for p in places)
            gpus = len({p.gpu for p in places if p.host == place.host})
            raise RefusedError(
                f"{count} processes on {place.host} would share {gpus} GPU(s) (ranks {other} and {rank} the same one), and "
                f"each needs its own; start {gpus} there (torchrun --nproc-per-node {gpus}), or make more visible "
                "(CUDA_VISIBLE_DEVICES)"
            )


def _refuse_many_alone() -> None:
    """RefusedError when a launcher started several processes that were not told so: all would do the whole work."""
    if "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        count, name = os.environ["WORLD_SIZE"], "pytorch"
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        count, name = os.environ["SLURM_STEP_NUM_TASKS"], "slurm"
    else:
        return
    raise RefusedError(f"{count} processes were started, but each was told to work alone; add --launcher {name}")


def _slurm_environment(port: int | None) -> None:
    """Translates SLURM's variables into torch's. Raises RefusedError outside a SLURM job step."""
    needed = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NODELIST")
    missing = [v for v in needed if v not in os.environ]
    if missing:
        raise RefusedError(f"--launcher slurm: {', '.join(missing)} not set; start with srun inside a SLURM job")
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ["SLURM_LOCALID"]
    if "MASTER_ADDR" not in os.environ:
        nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ["SLURM_NODELIST"])  # a step may use some of the job's
        try:
            hosts = subprocess.run(
                ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True, timeout=60
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise RefusedError(
                f"--launcher slurm: 'scontrol show hostnames {nodes}' failed ({error}); set MASTER_ADDR to the name of the "
                "job's first machine"
            ) from error
        os.environ["MASTER_ADDR"] = hosts.stdout.split()[0]
    if port is None:  # two jobs on one machine must not meet at the same port
        port = 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10000
    os.environ.setdefault("MASTER_PORT", str(port))
