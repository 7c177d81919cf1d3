"""Rank and world size from every launcher."""

from __future__ import annotations

import re

import pytest

from pretrain.parallel import ParallelDims
from pretrain.parallel.context import choose_backend
from tape.errors import ConfigError
from tape.runtime.distributed import choose_device
from tape.runtime.launch import Launch, check_address, independent_processes, read_launch, read_torchrun

OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}
SLURM = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node[03-05,9],other",
    "SLURM_JOB_ID": "1234567",
}


def test_without_a_launcher_there_is_one_process() -> None:
    assert read_launch({}) == Launch()
    # an sbatch script without srun has these too, and is one process
    assert read_launch({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == Launch()


def test_torchrun_takes_precedence_over_slurm_and_openmpi() -> None:
    environment = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    expected = Launch(1, 2, 1, "env://", "torchrun")
    assert read_launch(environment) == expected
    assert read_launch({**OPENMPI, **SLURM, **environment}) == expected


def test_finetuning_reads_only_the_variables_of_torchrun() -> None:
    assert read_torchrun({**OPENMPI, **SLURM}, default_local_rank=1) == Launch(local_rank=1)
    environment = {"RANK": "1", "WORLD_SIZE": "2"}
    assert read_torchrun(environment, default_local_rank=1) == Launch(1, 2, 1, "env://", "torchrun")
    with pytest.raises(ConfigError, match="RANK must be an integer, not None"):
        read_torchrun({"WORLD_SIZE": "2"})


def test_ranks_are_read_from_openmpi() -> None:
    environment = {**OPENMPI, "MASTER_ADDR": "host", "MASTER_PORT": "1"}
    assert read_launch(environment) == Launch(3, 4, 1, "tcp://host:1", "OpenMPI")
    one_machine = {**OPENMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
    assert read_launch(one_machine).rendezvous == "tcp://127.0.0.1:29500"
    with pytest.raises(ConfigError, match="MASTER_ADDR"):
        read_launch(OPENMPI)


def test_ranks_are_read_from_slurm() -> None:
    assert read_launch(SLURM) == Launch(5, 8, 1, "tcp://node03:30067", "Slurm")
    assert read_launch({**SLURM, "SLURM_STEP_NODELIST": "alone"}).rendezvous == "tcp://alone:30067"


def test_slurm_tasks_without_step_variables_get_ranks_or_an_error() -> None:
    """Tasks in a container that passes only the job's variables never become independent runs without an error."""
    tasks = [{"SLURM_NTASKS": "2", "SLURM_NODELIST": "n1", "SLURM_PROCID": r, "SLURM_LOCALID": r} for r in "01"]
    found = [read_launch({**task, "MASTER_ADDR": "n1", "MASTER_PORT": "7"}) for task in tasks]
    assert found == [Launch(rank, 2, rank, "tcp://n1:7", "Slurm") for rank in (0, 1)]
    with pytest.raises(ConfigError, match="srun started 2 processes.*export MASTER_ADDR"):
        read_launch(tasks[1])
    with pytest.raises(ConfigError, match="export MASTER_ADDR"):  # it is a task, since its step has a number
        read_launch({**tasks[0], "SLURM_STEP_ID": "0"})
    assert read_launch({**tasks[0], "SLURM_NTASKS": "1", "MASTER_ADDR": "n1"}) == Launch()


def test_a_process_of_a_batch_script_without_srun_is_a_single_process() -> None:
    script = {
        "SLURM_NTASKS": "8",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_JOB_ID": "1",
        "SLURM_NODELIST": "n",
    }
    assert read_launch(script) == Launch()
    assert read_launch({**script, "SLURM_STEP_ID": "batch", "MASTER_ADDR": "n"}) == Launch()
    assert read_launch({**script, "SLURM_STEP_NUM_TASKS": "1", "MASTER_ADDR": "n"}) == Launch()  # srun --ntasks 1


MPICH = {"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2"}
PALS = {"PMI_RANK": "3", "PMI_SIZE": "4", "PALS_RANKID": "3", "PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "2"}
FLUX = {"FLUX_TASK_RANK": "3", "FLUX_JOB_SIZE": "4", "FLUX_TASK_LOCAL_ID": "1", "FLUX_JOB_NNODES": "2"}


@pytest.mark.parametrize("environment", [MPICH, PALS, FLUX], ids=["MPICH and Intel MPI", "PALS", "Flux"])
def test_launchers_of_clusters(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="started 4 processes, perhaps on several machines, .*export MASTER_ADDR="):
        read_launch(environment)
    launch = read_launch({**environment, "MASTER_ADDR": "host", "MASTER_PORT": "1"})
    assert (launch.rank, launch.world_size, launch.local_rank, launch.rendezvous) == (3, 4, 1, "tcp://host:1")


@pytest.mark.parametrize(
    "environment", [{**MPICH, "MPI_LOCALNRANKS": "4"}, {**FLUX, "FLUX_JOB_NNODES": "1"}], ids=["MPICH", "Flux"]
)
def test_processes_of_one_machine_need_no_address(environment: dict[str, str]) -> None:
    assert read_launch(environment).rendezvous == "tcp://127.0.0.1:29500"


def test_the_local_rank_may_come_from_the_user() -> None:
    environment = {"PMI_RANK": "3", "PMI_SIZE": "4", "MASTER_ADDR": "host"}
    with pytest.raises(ConfigError, match="MPI_LOCALRANKID or .*export LOCAL_RANK"):
        read_launch(environment)
    assert read_launch({**environment, "LOCAL_RANK": "1"}).local_rank == 1


def test_srun_comes_before_the_variables_of_its_pmi() -> None:
    assert read_launch({**SLURM, "PMI_RANK": "5", "PMI_SIZE": "8"}).launcher == "Slurm"


@pytest.mark.parametrize(
    "environment", [{"PMI_RANK": "0", "PMI_SIZE": "1"}, {"FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1"}]
)
def test_one_process_of_a_cluster_launcher_is_alone(environment: dict[str, str]) -> None:
    for address in ({}, {"MASTER_ADDR": "host"}):
        launch = read_launch({**environment, **address})
        assert (launch.rank, launch.world_size, launch.local_rank) == (0, 1, 0)


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"PMI_SIZE": "2"},
        {"PALS_RANKID": "1"},
        {"PMIX_RANK": "1"},
        {"ALPS_APP_PE": "1"},
        {"MV2_COMM_WORLD_RANK": "0", "MV2_COMM_WORLD_SIZE": "2"},
        {"JSM_NAMESPACE_RANK": "0", "JSM_NAMESPACE_SIZE": "2"},
        {"FLUX_JOB_SIZE": "2"},
    ],
    ids=str,
)
def test_several_processes_that_cannot_be_told_apart_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"=[12] is set, so this is one of several processes.*start with torchrun"):
        read_launch(environment)


@pytest.mark.parametrize(
    "environment", [{"RANK": "0"}, {"WORLD_SIZE": "1"}, {"PMIX_RANK": "0"}, {"MPI_LOCALNRANKS": "1"}]
)
def test_variables_of_a_single_process_are_harmless(environment: dict[str, str]) -> None:
    assert read_launch(environment) == Launch()


def test_finetuning_does_not_ignore_half_of_torchruns_variables() -> None:
    with pytest.raises(ConfigError, match="RANK=1 is set"):
        read_torchrun({"RANK": "1"})


def test_processes_that_finetuning_takes_for_runs_of_their_own() -> None:
    assert independent_processes({}) == 1
    assert independent_processes(SLURM) == 8
    assert independent_processes(MPICH) == 4


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("tcp://node1:29500", "MASTER_ADDR=node1, and the port as MASTER_PORT=29500"),
        ("node1:29500", "MASTER_ADDR=node1, and the port as MASTER_PORT=29500"),
        ("tcp://node1", "MASTER_ADDR=node1"),
        ("[fe80::1]", "MASTER_ADDR=fe80::1"),
        ("tcp://[fe80::1]:7", "MASTER_ADDR=fe80::1, and the port as MASTER_PORT=7"),
        ("[fe80::1", "MASTER_ADDR=<host of rank 0>"),
    ],
)
def test_an_address_with_more_than_a_host_is_refused(address: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"MASTER_ADDR={re.escape(address)} is not a host: .*{re.escape(remedy)}$"):
        read_launch({**MPICH, "MASTER_ADDR": address})


@pytest.mark.parametrize("address", ["node1", "10.0.0.1", "fe80::1", "node-1.cluster.example.org"])
def test_names_and_addresses_of_hosts_are_allowed(address: str) -> None:
    check_address({"MASTER_ADDR": address, "MASTER_PORT": "29500"})


@pytest.mark.parametrize("address", ["fe80::1", "::1", "fe80::1%eth0"])
def test_an_ipv6_address_is_in_brackets_in_the_rendezvous(address: str) -> None:
    launch = read_launch({**MPICH, "MASTER_ADDR": address})
    assert launch.rendezvous == f"tcp://[{address}]:29500"
    assert launch.host == address


@pytest.mark.parametrize("value", ["four", "4.0"])
def test_a_number_of_processes_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"environment variable WORLD_SIZE must be an integer, not '{value}'"):
        read_launch({"WORLD_SIZE": value})


def test_a_negative_local_rank_is_refused() -> None:
    with pytest.raises(ConfigError, match="torchrun set local rank -1"):
        read_launch({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"})


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_must_be_a_port(port: str) -> None:
    with pytest.raises(ConfigError, match="MASTER_PORT"):
        check_address({"MASTER_ADDR": "node1", "MASTER_PORT": port})


@pytest.mark.parametrize("environment", [{"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_contradicting_variables_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        read_launch(environment)


def test_impossible_parallel_dimensions_are_refused() -> None:
    assert ParallelDims(8, 2).data == 4
    assert str(ParallelDims(8, 2)) == "8 processes = data 4 x tensor 2"
    for world, tensor in ((8, 3), (2, 4), (0, 1)):
        with pytest.raises(ConfigError):
            ParallelDims(world, tensor)


def test_backend_follows_the_device() -> None:
    import torch

    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert choose_backend(None, cpu) == ("gloo", None)
    assert choose_backend(None, gpu) == ("nccl", None)
    assert choose_backend("gloo", gpu) == ("gloo", None)
    backend, notice = choose_backend("nccl", cpu)
    assert backend == "gloo"
    assert notice is not None
    assert "CUDA" in notice


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(1) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="there are 2"):
        choose_device(2)
