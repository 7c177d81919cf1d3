"""Rank and world size of this process, from the environment variables of torchrun, OpenMPI or Slurm.

torchrun (and ``python -m torch.distributed.launch``) takes precedence: some sites start it once per node with mpirun or
srun, and then the outer launcher's variables count nodes.

srun sets ``SLURM_STEP_NUM_TASKS`` for the tasks of a step. Where a container or a wrapper passes only the variables of
the job, ``SLURM_NTASKS`` is the world size if this process is known to be a task. ``SLURM_NTASKS`` alone does not show
it: the batch script of a job of 8 tasks is a single process with ``SLURM_NTASKS=8``, ``SLURM_PROCID=0`` and
``SLURM_LOCALID=0``. A process is a task if its rank is not 0, if its step has a number, or if ``MASTER_ADDR`` is set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tape.errors import ConfigError

_DEFAULT_PORT = 29500


@dataclass(frozen=True)
class Launch:
    """How this process was launched.

    Attributes:
        rank: number of this process over all machines.
        world_size: number of processes.
        local_rank: number of this process on its machine.
        rendezvous: ``init_method`` of ``torch.distributed.init_process_group``.
        launcher: name of the program that started the process, for messages.
        address: host of rank 0, if ``rendezvous`` does not contain it.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    rendezvous: str = "env://"
    launcher: str = "none"
    address: str = ""

    @property
    def host(self) -> str:
        """Name or address of rank 0's machine."""
        return urlsplit(self.rendezvous).hostname or self.address or "127.0.0.1"


def read_launch(environment: Mapping[str, str]) -> Launch:
    """Read the variables of the launcher; without any, a single process.

    Raises:
        ConfigError: a variable is not a number, the rank is not below the world size, or the address of rank 0 is
            unknown.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _checked(_from_torchrun(environment))
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return _checked(_from_openmpi(environment))
    if _slurm_tasks(environment) > 1:
        return _checked(_from_slurm(environment))
    return Launch()


def read_torchrun(environment: Mapping[str, str], default_local_rank: int = 0) -> Launch:
    """As :func:`read_launch`, for torchrun alone: tasks of mpirun and srun are independent processes.

    Args:
        environment: the variables.
        default_local_rank: local rank if LOCAL_RANK is not set, and of a single process.
    """
    if _number(environment, "WORLD_SIZE", 1) == 1:
        return Launch(local_rank=default_local_rank)
    return _checked(_from_torchrun(environment, default_local_rank))


def _from_torchrun(environment: Mapping[str, str], default_local_rank: int = 0) -> Launch:
    rank, world_size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    local_rank = _number(environment, "LOCAL_RANK", default_local_rank)
    return Launch(rank, world_size, local_rank, "env://", "torchrun", environment.get("MASTER_ADDR", ""))


def _from_openmpi(environment: Mapping[str, str]) -> Launch:
    world = _number(environment, "OMPI_COMM_WORLD_SIZE")
    one_machine = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", 0) == world
    address = environment.get("MASTER_ADDR") or ("127.0.0.1" if one_machine else None)
    if address is None:
        raise ConfigError("mpirun started processes on several machines: add -x MASTER_ADDR=<host of rank 0>")
    rank = _number(environment, "OMPI_COMM_WORLD_RANK")
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK", 0)
    return Launch(rank, world, local, _init_method(environment, address, _DEFAULT_PORT), "OpenMPI")


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """Number of tasks that srun started together with this process; 1 for a batch script, and without Slurm."""
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _number(environment, "SLURM_STEP_NUM_TASKS")
    if "SLURM_PROCID" not in environment or "SLURM_NTASKS" not in environment:
        return 1
    step = environment.get("SLURM_STEP_ID") or environment.get("SLURM_STEPID") or ""
    has_master = "SLURM_LOCALID" in environment and environment.get("MASTER_ADDR") and step != "batch"
    is_task = _number(environment, "SLURM_PROCID") > 0 or step.isdigit() or has_master
    return _number(environment, "SLURM_NTASKS") if is_task else 1


def _from_slurm(environment: Mapping[str, str]) -> Launch:
    address = environment.get("MASTER_ADDR") or _first_host(environment.get("SLURM_STEP_NODELIST", ""))
    if not address:
        # The address can't be guessed: without the step's variables, rank 0 may take itself for a batch script.
        raise ConfigError(
            f"srun started {_slurm_tasks(environment)} processes, but neither SLURM_STEP_NODELIST nor MASTER_ADDR is "
            "set: export MASTER_ADDR=<host of rank 0> to all of them"
        )
    port = _DEFAULT_PORT + _number(environment, "SLURM_JOB_ID", 0) % 1000  # different ports for jobs on one node
    world, local = _slurm_tasks(environment), _number(environment, "SLURM_LOCALID", 0)
    rendezvous = _init_method(environment, address, port)
    return Launch(_number(environment, "SLURM_PROCID"), world, local, rendezvous, "Slurm")


def _init_method(environment: Mapping[str, str], address: str, port: int) -> str:
    return f"tcp://{address}:{_number(environment, 'MASTER_PORT', port)}"


def _first_host(nodes: str) -> str:
    """First host of a Slurm node list: ``node[03-05,9],other`` -> ``node03``."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return match[1] + (match[2] or "") if match else ""


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]  # None is refused as other text is
    except (TypeError, ValueError):
        raise ConfigError(f"environment variable {name} must be an integer, not {text!r}") from None


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.rank < launch.world_size:
        raise ConfigError(
            f"{launch.launcher} set rank {launch.rank} for {launch.world_size} processes; it must be from 0 to"
            f" {launch.world_size - 1}"
        )
    return launch
