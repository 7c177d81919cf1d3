"""Small messages between all ranks, on the CPU and beside the training's own traffic."""

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
    """All ranks of the run, as they talk about the run itself: signals, checkpoints, who failed.

    A group must be used by one thread only: messages of two threads would meet each other's.

    Attributes:
        rank, world_size: this process among all.
        group: torch's group; None: the default one, or nobody else.
    """

    rank: int = 0
    world_size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """The value of every rank, on every rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self.group)
        return values

    def largest(self, values: Sequence[int]) -> list[int]:
        """Element by element the largest of all ranks, on every rank."""
        if self.world_size == 1:
            return list(values)
        numbers = torch.tensor(list(values), dtype=torch.int64)
        dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group)
        return [int(number) for number in numbers]


def open_control_group(processes: ParallelContext, timeout: timedelta) -> ControlGroup:
    """A group of its own over gloo, which needs no GPU; called by all ranks in the same order.

    Args:
        processes: of the run.
        timeout: how long a message may take.
    """
    world = processes.dims.world_size
    group = dist.new_group(backend="gloo", timeout=timeout) if world > 1 else None
    return ControlGroup(processes.rank, world, group)
