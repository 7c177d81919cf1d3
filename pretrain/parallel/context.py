"""The device mesh of a run, its process groups, and the all-reduces over them."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from tape.runtime.distributed import join_process_group
from tape.runtime.launch import Launch

from .parallel_dims import ParallelDims

PIPELINE_AXIS, DATA_AXIS, TENSOR_AXIS = "pipeline", "data", "tensor"

Value = TypeVar("Value")


# The buffer size has an older name in torch; either one enables the flight recorder.
_FLIGHT_RECORDER_NAMES = frozenset({"TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"})
_FLIGHT_RECORDER_ENTRIES = "2000"


@dataclass(frozen=True)
class ParallelConfig:
    """Settings of the distributed run.

    Attributes:
        backend: nccl or gloo; None chooses by device.
        timeout_minutes: timeout of a collective; the longest wait is for one rank to hash a large checkpoint.
        hang_timeout: seconds without heartbeat or progress after which a rank counts as hung and the run ends; 0
            disables hang detection.
        pipeline_schedule: 1f1b or gpipe.
        recompute: activation checkpointing: none, selective (core attention) or full (transformer blocks).
        compile: whether to compile transformer blocks with torch.compile.
        attention_backend: how packed rows compute attention: auto, flash or padded.
    """

    backend: str | None = None
    timeout_minutes: float = 30.0
    hang_timeout: float = 45.0
    pipeline_schedule: str = "1f1b"
    recompute: str = "none"
    compile: bool = False
    attention_backend: str = "auto"

    @property
    def timeout(self) -> timedelta:
        return timedelta(minutes=self.timeout_minutes)


@dataclass(frozen=True)
class ParallelContext:
    """The device mesh, this process's coordinates in it, and its device. ``mesh`` is None for a single process."""

    dims: ParallelDims
    rank: int
    device: torch.device
    mesh: DeviceMesh | None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes records."""
        return self.rank == 0

    @property
    def stage(self) -> int:
        """Index of this rank's pipeline stage, from 0."""
        return self.dims.coordinates(self.rank)[0]

    @property
    def data_rank(self) -> int:
        """Index of this rank's replica of the model, from 0."""
        return self.dims.coordinates(self.rank)[1]

    @property
    def tensor_rank(self) -> int:
        """Index of this rank's tensor-parallel shard, from 0."""
        return self.dims.coordinates(self.rank)[2]

    @property
    def is_first_stage(self) -> bool:
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        return self.stage == self.dims.pipeline - 1

    @property
    def tensor_mesh(self) -> DeviceMesh:
        """The tensor-parallel ranks of this stage and replica."""
        return self._axis(TENSOR_AXIS)

    @property
    def data_mesh(self) -> DeviceMesh:
        """The ranks that hold the same shards, one per replica of the model."""
        return self._axis(DATA_AXIS)

    @property
    def pipeline_group(self) -> dist.ProcessGroup:
        """The pipeline stages of this replica, one rank per stage."""
        return self._axis(PIPELINE_AXIS).get_group()

    def all_reduce_over_data(self, values: Tensor) -> Tensor:
        """Sum in place over the replicas of the model."""
        return self._sum(values, DATA_AXIS) if self.dims.data > 1 else values

    def all_reduce_over_tensor(self, values: Tensor) -> Tensor:
        """Sum in place over the tensor-parallel ranks."""
        return self._sum(values, TENSOR_AXIS) if self.dims.tensor > 1 else values

    def all_reduce_over_pipeline(self, values: Tensor) -> Tensor:
        """Sum in place over the pipeline stages."""
        return self._sum(values, PIPELINE_AXIS) if self.dims.pipeline > 1 else values

    def all_reduce_losses(self, values: Tensor) -> Tensor:
        """Sum in place over all ranks that computed losses of different tokens; the other ranks pass zeros."""
        if self.dims.sequence_parallel_enabled:
            self.all_reduce_over_tensor(values)
        return self.all_reduce_over_pipeline(self.all_reduce_over_data(values))

    def start_all_reduce_over_data(self, values: Tensor) -> Any:
        """Start an asynchronous in-place sum over the replicas of the model; the result has ``wait()``."""
        return dist.all_reduce(values, group=self.data_mesh.get_group(), async_op=True)

    def _axis(self, name: str) -> DeviceMesh:
        assert self.mesh is not None, "a single process has no mesh"
        return self.mesh[name]

    def _sum(self, values: Tensor, axis: str) -> Tensor:
        dist.all_reduce(values, group=self._axis(axis).get_group())
        return values

    def gather(self, value: Value) -> list[Value]:
        """All-gather a picklable value: the values of all ranks, in the order of the ranks."""
        if self.mesh is None:
            return [value]
        values: list[Any] = [None] * self.dims.world_size
        dist.all_gather_object(values, value)
        return values


def choose_backend(requested: str | None, device: torch.device) -> tuple[str, str | None]:
    """The backend for the device, and a notice if it is not the requested one."""
    natural = "nccl" if device.type == "cuda" else "gloo"
    if requested == "nccl" and natural == "gloo":
        return "gloo", "--distributed-backend nccl needs CUDA, which is not available: using gloo"
    return requested or natural, None


def enable_flight_recorder(environment: MutableMapping[str, str]) -> None:
    """Make NCCL record its last collectives and dump them when one times out. Variables already set are kept.

    The watchdog of NCCL's process groups aborts a collective after its timeout in any case. It also detects hangs that
    :mod:`pretrain.monitor` does not: of a GPU whose main thread runs ahead.
    """
    if not _FLIGHT_RECORDER_NAMES & environment.keys():
        environment["TORCH_FR_BUFFER_SIZE"] = _FLIGHT_RECORDER_ENTRIES
    environment.setdefault("TORCH_NCCL_DUMP_ON_TIMEOUT", "1")


@contextmanager
def open_parallel_context(
    dims: ParallelDims, launch: Launch, backend: str, device: torch.device, timeout: timedelta
) -> Iterator[ParallelContext]:
    """Create the process groups and the device mesh, and destroy them on exit; a single process has none.

    On NCCL, torch's flight recorder is enabled unless the environment configures it: when a collective times out, each
    rank dumps its recent collectives to the file ``TORCH_FR_DUMP_TEMP_FILE`` (default
    ``~/.cache/torch/comm_lib_trace_rank_<rank>``).

    Args:
        dims: the parallel dimensions.
        launch: this process's rank, the world size and the rendezvous address.
        backend: nccl or gloo.
        device: device of this process.
        timeout: timeout of a collective, and, up to ten minutes, of the rendezvous.

    Raises:
        RendezvousError: the processes can't find each other. Names MASTER_ADDR and MASTER_PORT.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dims.world_size == 1:
        yield ParallelContext(dims, 0, device, None)
        return
    if backend == "nccl":
        enable_flight_recorder(os.environ)
    join_process_group(backend, launch, timeout, device if backend == "nccl" else None)
    try:
        names = (PIPELINE_AXIS, DATA_AXIS, TENSOR_AXIS)
        mesh = init_device_mesh(device.type, (dims.pipeline, dims.data, dims.tensor), mesh_dim_names=names)
        yield ParallelContext(dims, launch.rank, device, mesh)
    finally:
        dist.destroy_process_group()
