"""The control process group: small collectives on the CPU, separate from those of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from .context import ParallelContext

Value = TypeVar("Value")


@dataclass(frozen=True)
class ControlGroup:
    """A gloo process group of all ranks for the control of the run: signals, checkpoints, failures.

    A group must be used by a single thread, since collectives of two threads could be matched with each other.

    Attributes:
        rank, world_size: this process among all.
        group: the process group; None for a single process.
    """

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """All-gather a value: those of all ranks, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def max(self, values: Sequence[int]) -> list[int]:
        """All-reduce integers by their elementwise maximum."""
        if self.world_size == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group)
        return [int(number) for number in numbers]


def open_control_group(context: ParallelContext, timeout: timedelta) -> ControlGroup:
    """Create a control group over gloo, which needs no GPU; called by all ranks in the same order.

    Args:
        context: the parallel layout.
        timeout: timeout of a collective.
    """
    world = context.dims.world_size
    group = dist.new_group(backend="gloo", timeout=timeout) if world > 1 else None
    return ControlGroup(context.rank, world, group)


def is_connection_error(error: Exception) -> bool:
    """Whether a collective failed because another rank is lost."""
    words = ("gloo", "Connection closed", "Connection reset", "Connection refused", "Broken pipe", "imed out")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )


def is_broken(error: Exception) -> bool:
    """Whether the connection to a store is lost for good, unlike after a request that timed out."""
    words = ("Broken pipe", "Connection reset", "Connection closed", "remote peer")
    return isinstance(error, dist.DistNetworkError) and any(word in str(error) for word in words)
