"""Rank and world size of this process, from the environment variables of its launcher.

torchrun (and ``python -m torch.distributed.launch``) takes precedence: some sites start it once per node with mpirun or
srun, and then the outer launcher's variables count nodes. OpenMPI, Slurm, Flux, and the launchers that set PMI's
variables (MPICH, Intel MPI, Cray PALS) follow in this order, because those named first may set the variables of the
later ones, too. Variables of other launchers that state more than one process are an error; ignored, they would make N
runs of one.

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

from tape.errors import ConfigError, quoted

_DEFAULT_PORT = 29500


@dataclass(frozen=True)
class _Variables:
    """The variables of a launcher that sets no address.

    Attributes:
        launcher: its name, for messages.
        rank, world_size: variables of these numbers.
        local_rank, local_size: variables of the rank on its machine and of the number of processes there; the first
            that is set counts.
    """

    launcher: str
    rank: str
    world_size: str
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...] = ()


_OPENMPI = _Variables(
    "OpenMPI",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    ("OMPI_COMM_WORLD_LOCAL_RANK",),
    ("OMPI_COMM_WORLD_LOCAL_SIZE",),
)
_FLUX = _Variables("Flux", "FLUX_TASK_RANK", "FLUX_JOB_SIZE", ("FLUX_TASK_LOCAL_ID",))
_PMI = _Variables(
    "an MPI launcher (PMI)",
    "PMI_RANK",
    "PMI_SIZE",
    ("MPI_LOCALRANKID", "PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
    ("MPI_LOCALNRANKS", "PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
)
# Numbers of processes and ranks that are not read in all combinations, or not at all.
_SIZES = (
    "WORLD_SIZE",
    "FLUX_JOB_SIZE",
    "JSM_NAMESPACE_SIZE",
    "MPI_LOCALNRANKS",
    "MV2_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
    "PALS_LOCAL_SIZE",
    "PMI_LOCAL_SIZE",
    "PMI_SIZE",
)
_RANKS = (
    "RANK",
    "ALPS_APP_PE",
    "FLUX_TASK_RANK",
    "JSM_NAMESPACE_RANK",
    "MV2_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_RANK",
    "PALS_RANKID",
    "PMIX_RANK",
    "PMI_RANK",
)


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
    if _OPENMPI.world_size in environment:
        return _checked(_from_variables(environment, _OPENMPI))
    if _slurm_tasks(environment) > 1:
        return _checked(_from_slurm(environment))
    for variables in (_FLUX, _PMI):
        if variables.world_size in environment and variables.rank in environment:
            return _checked(_from_variables(environment, variables))
    _refuse_unread(environment, _SIZES, _RANKS)
    return Launch()


def read_torchrun(environment: Mapping[str, str], default_local_rank: int = 0) -> Launch:
    """As :func:`read_launch`, for torchrun alone: tasks of mpirun and srun are independent processes.

    Args:
        environment: the variables.
        default_local_rank: local rank if LOCAL_RANK is not set, and of a single process.
    """
    if _number(environment, "WORLD_SIZE", 1) == 1:
        _refuse_unread(environment, (), ("RANK",))
        return Launch(local_rank=default_local_rank)
    return _checked(_from_torchrun(environment, default_local_rank))


def independent_processes(environment: Mapping[str, str]) -> int:
    """The number of processes that a launcher other than torchrun started with this one; 1 without one."""
    found = [_slurm_tasks(environment)]
    for variables in (_OPENMPI, _FLUX, _PMI):
        found.append(_number(environment, variables.world_size, 1))
    return max(found)


def check_address(environment: Mapping[str, str]) -> None:
    """Check the form of ``MASTER_ADDR`` and ``MASTER_PORT``, where they are set.

    Raises:
        ConfigError: the first is not a host, or the second not the number of a port.
    """
    address = environment.get("MASTER_ADDR", "")
    is_ipv6 = address.count(":") > 1 and not any(character in address for character in "/[]")
    if not is_ipv6 and any(character in address for character in ":/[]"):
        match = re.fullmatch(r"(?:\w+://)?(?:\[([^\[\]]+)\]|([^:/\[\]]+))(?::(\d+))?/?", address)
        host = (match[1] or match[2]) if match else "<host of rank 0>"
        port = f", and the port as MASTER_PORT={match[3]}" if match and match[3] else ""
        raise ConfigError(
            f"MASTER_ADDR={address} is not a host: give its name or address alone, MASTER_ADDR={host}{port}"
        )
    if "MASTER_PORT" in environment and not 0 < _number(environment, "MASTER_PORT") < 1 << 16:
        raise ConfigError(f"MASTER_PORT={environment['MASTER_PORT']} must be from 1 to 65535")


def _refuse_unread(environment: Mapping[str, str], sizes: tuple[str, ...], ranks: tuple[str, ...]) -> None:
    """Refuse variables that state more than one process; the caller takes this one for a single process."""
    for names, least in ((sizes, 2), (ranks, 1)):
        for name in names:
            if environment.get(name) and _number(environment, name) >= least:
                raise ConfigError(
                    f"{name}={environment[name]} is set, so this is one of several processes, but the variables of "
                    "torchrun, OpenMPI, Slurm, Flux or PMI are incomplete: start with torchrun, or export RANK, "
                    "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT to each process; for a single process, unset "
                    f"{name}"
                )


def _from_torchrun(environment: Mapping[str, str], default_local_rank: int = 0) -> Launch:
    rank, world_size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    local_rank = _number(environment, "LOCAL_RANK", default_local_rank)
    return Launch(rank, world_size, local_rank, "env://", "torchrun", environment.get("MASTER_ADDR", ""))


def _from_variables(environment: Mapping[str, str], variables: _Variables) -> Launch:
    world = _number(environment, variables.world_size)
    if world == 1 and "MASTER_ADDR" not in environment:
        return Launch(_number(environment, variables.rank), launcher=variables.launcher)  # which needs no address
    local_size = _first_number(environment, variables.local_size)
    one_machine = local_size == world or environment.get("FLUX_JOB_NNODES") == "1"
    address = environment.get("MASTER_ADDR") or ("127.0.0.1" if one_machine else None)
    if address is None:
        remedy = "add -x" if variables is _OPENMPI else "export"
        raise ConfigError(
            f"{variables.launcher} started {world} processes, perhaps on several machines, and MASTER_ADDR is not set: "
            f"{remedy} MASTER_ADDR=<host of rank 0>"
        )
    local_rank = _first_number(environment, (*variables.local_rank, "LOCAL_RANK"))
    if local_rank is None and world > 1:
        raise ConfigError(
            f"{variables.launcher} set no local rank ({' or '.join(variables.local_rank)}): export LOCAL_RANK, the "
            "number of the process on its machine, to each process"
        )
    rank = _number(environment, variables.rank)
    rendezvous = _init_method(environment, address, _DEFAULT_PORT)
    return Launch(rank, world, local_rank or 0, rendezvous, variables.launcher)


def _first_number(environment: Mapping[str, str], names: tuple[str, ...]) -> int | None:
    return next((_number(environment, name) for name in names if name in environment), None)


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
    check_address(environment)
    host = f"[{address}]" if ":" in address else address  # of IPv6
    return f"tcp://{host}:{_number(environment, 'MASTER_PORT', port)}"


def _first_host(nodes: str) -> str:
    """First host of a Slurm node list: ``node[03-05,9],other`` -> ``node03``."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return match[1] + (match[2] or "") if match else ""


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, default)
    try:
        return int(text)  # type: ignore[arg-type]  # None is refused as other text is
    except (TypeError, ValueError):
        raise ConfigError(f"environment variable {name} must be an integer, not {quoted(text)}") from None


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.rank < launch.world_size:
        raise ConfigError(
            f"{launch.launcher} set rank {launch.rank} for {launch.world_size} processes; it must be from 0 to"
            f" {launch.world_size - 1}"
        )
    if launch.local_rank < 0:
        raise ConfigError(f"{launch.launcher} set local rank {launch.local_rank}; it must be 0 or more")
    return launch
