"""Data-parallel finetuning: the process group, the collectives it needs, and the launcher of its processes.

``torchrun`` and ``tape-train-distributed`` set RANK, WORLD_SIZE and LOCAL_RANK. Without these variables there is one
process, and every collective below returns its input.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch

# Functions of this module have the default process group as a default argument. Imported later, as by
# DistributedDataParallel, they would keep the group and its threads alive beyond destroy_process_group, until a thread
# that needs the interpreter's lock at exit aborts the process ("terminate called without an active exception").
import torch.distributed.nn
from torch import nn

from tape.errors import ConfigError, ProteinLMError, Terminated

from .launch import Launch, independent_processes, read_torchrun
from .launcher_monitor import end_with_launcher
from .rendezvous import (
    JOIN_SECONDS,
    explain_failed_connection,
    explain_failed_store,
    find_endpoint,
    serves_store,
    wait_for_server,
)

Value = TypeVar("Value")

_LAUNCH_SECONDS = 900  # how long the machines of tape-train-distributed wait for each other

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DistributedContext:
    """This process's place in the process group, and its device.

    Attributes:
        rank: number of this process over all machines.
        world_size: number of processes.
        local_rank: number of this process on its machine.
        device: where this process computes.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def is_main(self) -> bool:
        """True for rank 0, the only process that writes files (bug 12 in docs/compatibility.md)."""
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1


def choose_device(local_rank: int, no_cuda: bool = False) -> torch.device:
    """The GPU of a process, or the CPU without CUDA or with ``no_cuda``.

    Raises:
        ConfigError: the machine has fewer GPUs than processes.
    """
    if no_cuda or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}."
            " Start fewer processes, or set CUDA_VISIBLE_DEVICES= to compute on the CPU"
        )
    return torch.device("cuda", local_rank)


@contextmanager
def distributed_context(no_cuda: bool = False, local_rank: int = -1) -> Iterator[DistributedContext]:
    """Initialize the process group on entry and destroy it on exit.

    Args:
        no_cuda: compute on the CPU even if there is a GPU.
        local_rank: ``--local_rank``, which old launchers pass instead of LOCAL_RANK; -1 if not given.

    Raises:
        ConfigError: a variable of the launcher is not a number, or the machine has fewer GPUs than processes.
    """
    launch = read_torchrun(os.environ, default_local_rank=max(local_rank, 0))
    device = choose_device(launch.local_rank, no_cuda)
    if launch.world_size == 1:
        others = independent_processes(os.environ)
        if others > 1:
            logger.warning("each of the %d processes started is a run of its own; for one run, use torchrun", others)
        with end_with_launcher(os.environ):
            yield DistributedContext(device=device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with end_with_launcher(os.environ):
        join_process_group("nccl" if device.type == "cuda" else "gloo", launch)
        try:
            yield DistributedContext(torch.distributed.get_rank(), launch.world_size, launch.local_rank, device)
        finally:
            torch.distributed.destroy_process_group()


def join_process_group(
    backend: str, launch: Launch, timeout: timedelta | None = None, device: torch.device | None = None
) -> None:
    """Initialize the default process group, under a store prefix that no earlier group of this program has used.

    The launcher's store outlives a process group, and torch gives every first group the same name. With a shared
    prefix, a second command of one program would sometimes read the addresses that the first one left in the store, and
    hang.

    Args:
        backend: nccl or gloo.
        launch: this process.
        timeout: timeout of a collective; None for torch's default. Processes wait for each other at most as long, and
            at most ten minutes.
        device: GPU to bind NCCL to.

    Raises:
        RendezvousError: the processes can't find each other. Names MASTER_ADDR and MASTER_PORT.
    """
    endpoint = find_endpoint(launch, os.environ)
    seconds = min(JOIN_SECONDS, timeout.total_seconds() if timeout is not None else JOIN_SECONDS)
    if endpoint is not None and not serves_store(launch, os.environ):
        wait_for_server(endpoint, launch, seconds)
    try:
        store, rank, world_size = next(
            torch.distributed.rendezvous(
                launch.rendezvous, launch.rank, launch.world_size, timeout=timedelta(seconds=seconds)
            )
        )
        count = store.add(f"proteinlm/joined/{rank}", 1)
    except torch.distributed.DistError as error:
        raise explain_failed_store(error, endpoint, launch, seconds) from error
    store = torch.distributed.PrefixStore(f"proteinlm/{count}", store)
    try:
        torch.distributed.init_process_group(
            backend, store=store, rank=rank, world_size=world_size, timeout=timeout, device_id=device
        )
    except RuntimeError as error:
        raise explain_failed_connection(error, launch) from error


def all_reduce_sum(values: Sequence[float], context: DistributedContext) -> list[float]:
    """Sum each value over all ranks, in float64."""
    if not context.is_distributed:
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64, device=context.device)
    torch.distributed.all_reduce(total)
    return [float(value) for value in total.tolist()]


def all_gather_lists(values: list[Value], context: DistributedContext) -> list[Value]:
    """Concatenate the lists of all ranks, in the order of the ranks, on every rank."""
    if not context.is_distributed:
        return values
    gathered: list[Any] = [None] * context.world_size
    torch.distributed.all_gather_object(gathered, values)
    return [value for part in gathered for value in part]


def broadcast_object(value: Value, context: DistributedContext) -> Value:
    """Rank 0's (picklable) value, on every rank."""
    if not context.is_distributed:
        return value
    values: list[Any] = [value]
    torch.distributed.broadcast_object_list(values, src=0)
    received: Value = values[0]
    return received


def broadcast_buffers(model: nn.Module, context: DistributedContext) -> None:
    """Copy rank 0's buffers, which are the ones that are saved, to every rank.

    DistributedDataParallel broadcasts buffers only at the start of a training step. Without this, each rank would
    validate with the running batch statistics of its own last step.
    """
    if not context.is_distributed:
        return
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)


def barrier(context: DistributedContext) -> None:
    """Block until every rank has called this function."""
    if context.is_distributed:
        broadcast_object(None, context)


def run_on_all_ranks(action: Callable[[], Value], context: DistributedContext) -> Value:
    """Run ``action`` on every rank; if it fails on one, rank 0 reports the error and all ranks end.

    Returns:
        The result on this rank.

    Raises:
        ProteinLMError, OSError: on rank 0, its own error or, with rank and host, that of the first rank that failed.
        SystemExit: with code 1, on the other ranks.
    """
    failure: ProteinLMError | OSError | None = None
    result: list[Value] = []
    try:
        result.append(action())
    except (ProteinLMError, OSError) as error:
        failure = error
    failures = all_gather_lists([None if failure is None else f"{socket.gethostname()}: {failure}"], context)
    if not any(failures):
        return result[0]
    if not context.is_main:
        raise SystemExit(1) from failure
    if failure is not None:
        raise failure
    rank, text = next((rank, text) for rank, text in enumerate(failures) if text is not None)
    raise ProteinLMError(f"rank {rank} on {text}")


def run_on_main_rank(action: Callable[[], object], context: DistributedContext) -> None:
    """Run ``action`` on rank 0 while the other ranks wait; errors as in :func:`run_on_all_ranks`."""
    run_on_all_ranks(action if context.is_main else lambda: None, context)


@dataclass(frozen=True)
class LaunchPlan:
    """How many processes to start, on how many machines.

    Attributes:
        nnodes: number of machines; the command is run on each of them.
        node_rank: number of this machine, from 0.
        nproc_per_node: processes per machine.
        master_addr, master_port: address at which the first machine listens.

    Raises:
        ConfigError: no process at all, or a ``node_rank`` out of range.
    """

    nnodes: int = 1
    node_rank: int = 0
    nproc_per_node: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = 29500

    def __post_init__(self) -> None:
        if self.nnodes < 1 or self.nproc_per_node < 1:
            raise ConfigError("--nnodes and --nproc_per_node must be at least 1")
        if not 0 <= self.node_rank < self.nnodes:
            raise ConfigError(f"--node_rank must be from 0 to {self.nnodes - 1}, not {self.node_rank}")


def launch(plan: LaunchPlan, worker: Callable[..., None], *arguments: object) -> None:
    """Run ``worker(*arguments)`` in every process of the plan, as ``torchrun`` would, and wait for them.

    The processes import the caller's main module again, so tasks and models registered there exist in them too.

    Args:
        plan: the processes to start.
        worker: an importable function.
        arguments: picklable arguments of ``worker``.

    Raises:
        ProteinLMError: a process failed; it has printed its own error.
        Terminated, KeyboardInterrupt: this process received SIGTERM or SIGINT, which the processes have received, too.
        RendezvousError: the machines can't find each other, or the port is in use.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Otherwise each process would start one thread per core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.nproc_per_node)))
    config = LaunchConfig(
        min_nodes=plan.nnodes,
        max_nodes=plan.nnodes,
        nproc_per_node=plan.nproc_per_node,
        run_id="proteinlm",
        rdzv_backend="static",
        rdzv_endpoint=f"{plan.master_addr}:{plan.master_port}",
        rdzv_configs={"rank": plan.node_rank, "timeout": _LAUNCH_SECONDS},
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
    )
    # A failed process has printed its error already; the launcher would add a traceback of its own.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    machine = Launch(plan.node_rank, plan.nnodes)
    endpoint = find_endpoint(machine, {"MASTER_ADDR": plan.master_addr, "MASTER_PORT": str(plan.master_port)})
    try:
        elastic_launch(config, _run_worker)(worker, *arguments)
    except torch.distributed.DistError as error:
        raise explain_failed_store(error, endpoint, machine, _LAUNCH_SECONDS) from None
    except ChildFailedError as error:
        failed = sorted(error.failures)
        raise ProteinLMError(f"training process {failed[0] if failed else '?'} failed; its message is above") from None
    except SignalException as error:  # the processes have received the signal and ended
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise Terminated(128 + error.sigval) from None


def _run_worker(worker: Callable[..., None], *arguments: object) -> None:
    """Entry point of a started process. Prints the traceback, since the launcher's report is suppressed."""
    try:
        worker(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
