"""The processes that finetune together: who this one is, and the few sums and exchanges they need.

``torchrun`` (or ``tape-train-distributed``) sets RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from tape.errors import ConfigError, ProteinLMError

Value = TypeVar("Value")


@dataclass(frozen=True)
class DistributedContext:
    """This process among those that train together.

    Attributes:
        rank: over all machines; only rank 0 writes files (defect 12).
        world_size: number of processes.
        local_rank: on this machine.
        device: where this process computes.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")

    @property
    def is_writer(self) -> bool:
        return self.rank == 0

    @property
    def is_distributed(self) -> bool:
        return self.world_size > 1


def _device(no_cuda: bool, local_rank: int) -> torch.device:
    if no_cuda or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU: there are {torch.cuda.device_count()}."
            " Start fewer processes, or give --no_cuda"
        )
    return torch.device("cuda", local_rank)


def _environment_number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name, default))
    except ValueError:
        raise ConfigError(f"environment variable {name} is {os.environ[name]!r}, not a number") from None


@contextmanager
def training_processes(no_cuda: bool = False, local_rank: int = -1) -> Iterator[DistributedContext]:
    """Join the processes that were started together, and part from them at the end.

    Args:
        no_cuda: compute on the CPU even where there is a GPU.
        local_rank: ``--local_rank``, which old launchers give instead of the environment variable; -1 when not given.
    """
    world_size = _environment_number("WORLD_SIZE", 1)
    if world_size == 1:
        yield DistributedContext(device=_device(no_cuda, max(local_rank, 0)))
        return
    local = _environment_number("LOCAL_RANK", max(local_rank, 0))
    device = _device(no_cuda, local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _join("nccl" if device.type == "cuda" else "gloo")
    try:
        yield DistributedContext(torch.distributed.get_rank(), world_size, local, device)
    finally:
        torch.distributed.destroy_process_group()


def _join(backend: str) -> None:
    """Make the process group, under a name of its own for each time that these processes join.

    The launcher's store outlives a group, and torch gives every first group the same name: a second command of one
    program would now and then read the addresses that the first had left there, and wait for them in vain.
    """
    store, rank, world_size = next(torch.distributed.rendezvous("env://"))
    times = store.add(f"proteinlm/joined/{rank}", 1)
    store = torch.distributed.PrefixStore(f"proteinlm/{times}", store)
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)


def sum_over_ranks(values: Sequence[float], ranks: DistributedContext) -> list[float]:
    """Each value summed over all ranks, in float64."""
    if not ranks.is_distributed:
        return list(values)
    total = torch.tensor(list(values), dtype=torch.float64, device=ranks.device)
    torch.distributed.all_reduce(total)
    return [float(value) for value in total.tolist()]


def gather_lists(values: list[Value], ranks: DistributedContext) -> list[Value]:
    """The lists of all ranks, one after another, on every rank."""
    if not ranks.is_distributed:
        return values
    parts: list[Any] = [None] * ranks.world_size
    torch.distributed.all_gather_object(parts, values)
    return [value for part in parts for value in part]


def from_writer(value: Value, ranks: DistributedContext) -> Value:
    """Rank 0's value, on every rank."""
    if not ranks.is_distributed:
        return value
    box: list[Any] = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    received: Value = box[0]
    return received


def share_buffers(model: nn.Module, ranks: DistributedContext) -> None:
    """Give every rank rank 0's buffers, which are those that are saved.

    DistributedDataParallel copies them only as a training step begins. Without this, each rank would validate with the
    running batch statistics of its own last step.
    """
    if not ranks.is_distributed:
        return
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)


def wait_for_all(ranks: DistributedContext) -> None:
    """Return when every rank has come here."""
    if ranks.is_distributed:
        from_writer(None, ranks)


def _run_worker(worker: Callable[..., None], *arguments: object) -> None:
    """A process's whole life: what it raises is shown here, since the launcher's own account is silenced."""
    try:
        worker(*arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(1)


@dataclass(frozen=True)
class LaunchPlan:
    """How many processes to start, on how many machines.

    Attributes:
        nnodes: machines; the command is given on each.
        node_rank: this machine, from 0.
        nproc_per_node: processes on each machine.
        master_addr, master_port: where the first machine listens.
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
            raise ConfigError(f"--node_rank must lie in 0 to {self.nnodes - 1}, not {self.node_rank}")


def launch(plan: LaunchPlan, worker: Callable[..., None], *arguments: object) -> None:
    """Run ``worker(*arguments)`` in every process of the plan, as ``torchrun`` would, and wait for them.

    The processes import the caller's main module again, so that tasks and models registered there are known to them.

    Args:
        plan: what to start.
        worker: an importable function.
        arguments: picklable.

    Raises:
        ProteinLMError: a process failed; its own message stands above.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # Each process would otherwise start a thread for every core.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // plan.nproc_per_node)))
    config = LaunchConfig(
        min_nodes=plan.nnodes,
        max_nodes=plan.nnodes,
        nproc_per_node=plan.nproc_per_node,
        run_id="proteinlm",
        rdzv_backend="static",
        rdzv_endpoint=f"{plan.master_addr}:{plan.master_port}",
        rdzv_configs={"rank": plan.node_rank, "timeout": 900},
        max_restarts=0,
        monitor_interval=0.2,
        start_method="spawn",
    )
    # A process that ends with a status has said why; the launcher would add its own traceback.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        elastic_launch(config, _run_worker)(worker, *arguments)
    except ChildFailedError as error:
        failed = sorted(error.failures)
        raise ProteinLMError(f"training process {failed[0] if failed else '?'} failed; its message is above") from None
