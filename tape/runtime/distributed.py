"""Data-parallel finetuning: the process group, and the collectives it needs.

``torchrun`` and ``tape-train-distributed`` set RANK, WORLD_SIZE and LOCAL_RANK. Without these variables there is one
process, and every collective below returns its input.
"""

from __future__ import annotations

import logging
import os
import socket
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

from tape.errors import ConfigError, ProteinLMError

from .cpu import configure_cpu
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
    if device.type == "cpu":
        configure_cpu()
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
