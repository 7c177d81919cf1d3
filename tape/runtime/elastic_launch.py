"""Starting the processes of ``tape-train-distributed``, as torchrun would.

torch is imported in :func:`launch` only, since command lines are parsed without it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from tape.errors import ConfigError, ProteinLMError
from tape.interrupts import Terminated

from .launch import Launch
from .rendezvous import explain_failed_store, find_endpoint

_JOIN_SECONDS = 900  # how long the machines wait for each other


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
    from torch.distributed import DistError
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
        rdzv_configs={"rank": plan.node_rank, "timeout": _JOIN_SECONDS},
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
    except DistError as error:
        raise explain_failed_store(error, endpoint, machine, _JOIN_SECONDS) from None
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
