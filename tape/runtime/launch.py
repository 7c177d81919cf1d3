"""Which process this is, from what the launcher left in the environment: torchrun, OpenMPI or Slurm, or none.

torchrun (and ``python -m torch.distributed.launch``) comes first: sites start it through mpirun or srun, once a node,
and then the outer launcher's numbers count nodes.

srun tells its tasks of their step (``SLURM_STEP_NUM_TASKS``). Where a container or a wrapper lets only the job's
variables through, ``SLURM_NTASKS`` counts, if something says that this is a task: a batch script of a job of 8 tasks is
one process, and has ``SLURM_NTASKS=8``, ``SLURM_PROCID=0`` and ``SLURM_LOCALID=0`` as well. It is a task when its rank
is not 0, when its step has a number, or when ``MASTER_ADDR`` says where several meet.
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
    """This process among ``world_size``.

    Attributes:
        rank, local_rank: over all machines, and on this one.
        rendezvous: where they meet, as torch.distributed's ``init_method``.
        launcher: who started it.
        address: of rank 0's machine, where ``rendezvous`` doesn't say it.
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
    """Find rank and world size.

    Raises:
        ConfigError: a variable isn't a number, or nothing says where several processes meet.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _checked(_from_torchrun(environment))
    if "OMPI_COMM_WORLD_SIZE" in environment:
        return _checked(_from_openmpi(environment))
    if _slurm_tasks(environment) > 1:
        return _checked(_from_slurm(environment))
    return Launch()


def _from_torchrun(environment: Mapping[str, str]) -> Launch:
    rank, local = _number(environment, "RANK"), _number(environment, "LOCAL_RANK", 0)
    return Launch(
        rank, _number(environment, "WORLD_SIZE"), local, "env://", "torchrun", environment.get("MASTER_ADDR", "")
    )


def _from_openmpi(environment: Mapping[str, str]) -> Launch:
    world = _number(environment, "OMPI_COMM_WORLD_SIZE")
    one_machine = _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE", 0) == world
    address = environment.get("MASTER_ADDR") or ("127.0.0.1" if one_machine else None)
    if address is None:
        raise ConfigError("mpirun started processes on several machines: give it -x MASTER_ADDR=<host of rank 0>")
    rank = _number(environment, "OMPI_COMM_WORLD_RANK")
    local = _number(environment, "OMPI_COMM_WORLD_LOCAL_RANK", 0)
    return Launch(rank, world, local, _meeting_point(environment, address, _DEFAULT_PORT), "OpenMPI")


def _slurm_tasks(environment: Mapping[str, str]) -> int:
    """Processes of the run that this one belongs to; 1 for a batch script's own, and without Slurm."""
    if "SLURM_STEP_NUM_TASKS" in environment:
        return _number(environment, "SLURM_STEP_NUM_TASKS")
    if "SLURM_PROCID" not in environment or "SLURM_NTASKS" not in environment:
        return 1
    step = environment.get("SLURM_STEP_ID") or environment.get("SLURM_STEPID") or ""
    meets = "SLURM_LOCALID" in environment and environment.get("MASTER_ADDR") and step != "batch"
    is_task = _number(environment, "SLURM_PROCID") > 0 or step.isdigit() or meets
    return _number(environment, "SLURM_NTASKS") if is_task else 1


def _from_slurm(environment: Mapping[str, str]) -> Launch:
    address = environment.get("MASTER_ADDR") or _first_host(environment.get("SLURM_STEP_NODELIST", ""))
    if not address:
        # Without the step's variables rank 0 may be taken for a batch script: to guess its address here would not do.
        raise ConfigError(
            f"srun started {_slurm_tasks(environment)} processes, but says neither SLURM_STEP_NODELIST nor MASTER_ADDR "
            "here: export MASTER_ADDR=<host of rank 0> to all of them"
        )
    port = _DEFAULT_PORT + _number(environment, "SLURM_JOB_ID", 0) % 1000  # jobs on one node must not meet
    world, local = _slurm_tasks(environment), _number(environment, "SLURM_LOCALID", 0)
    rendezvous = _meeting_point(environment, address, port)
    return Launch(_number(environment, "SLURM_PROCID"), world, local, rendezvous, "Slurm")


def _meeting_point(environment: Mapping[str, str], address: str, port: int) -> str:
    return f"tcp://{address}:{_number(environment, 'MASTER_PORT', port)}"


def _first_host(nodes: str) -> str:
    """First name of Slurm's list: ``node[03-05,9],other`` -> ``node03``."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return match[1] + (match[2] or "") if match else ""


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, None if default is None else str(default))
    if text is None or not text.strip().lstrip("-").isdigit():
        raise ConfigError(f"environment variable {name} should be a number, not {text!r}")
    return int(text)


def _checked(launch: Launch) -> Launch:
    if not 0 <= launch.rank < launch.world_size:
        raise ConfigError(f"{launch.launcher}: rank {launch.rank} of {launch.world_size} processes")
    return launch
