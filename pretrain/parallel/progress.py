"""How far this rank has come, in numbers that other ranks can compare with theirs.

Every group of ranks counts its exchanges, on gloo and on NCCL, when they begin: of two members the one with the lower
count is the one that the other waits for. The count of stages of a pipeline is that of operations instead, since they
send each other things in pairs, and not equally many each; those are counted one by one (pretrain.operations).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch.distributed as dist

from ..operations import Allowance, Operations
from .activity import AwakeClock, MainThread, ProcessActivity
from .heartbeats import Beat, Ending, start_of, this_machine
from .messages import MessageGroup
from .processes import DATA_AXIS, PIPELINE_AXIS, TENSOR_AXIS, Processes

Mark = Callable[[], int]
# A main thread that got on less than so long ago isn't looked at more closely.
_LOOK_AFTER = 1.0


class Progress:
    """Makes this rank's beats; used by one thread.

    Args:
        rank: this process.
        operations: what its main thread is doing.
        marks: counts of exchanges, by the name of the group.
        clock: by which it is told how long something takes.
        waits_show: whether a main thread that waits for other ranks uses no CPU: on gloo. One that waits for a GPU
            spins, and nothing can be said.
    """

    def __init__(
        self, rank: int, operations: Operations, marks: dict[str, Mark], clock: AwakeClock, waits_show: bool = True
    ) -> None:
        self._operations, self._marks, self._clock = operations, marks, clock
        self._main = MainThread()
        self._activity = ProcessActivity(self._main)
        self._waits_show = waits_show
        started = start_of(os.getpid()) or "" if os.path.exists("/proc/self/stat") else ""
        self._last = Beat(rank, machine=this_machine(), process=os.getpid(), started=started)
        self._moves = -1
        self._moved_at = self._worked_at = self._computed_at = clock.now()

    @property
    def last(self) -> Beat:
        return self._last

    def beat(self, failure: str | None, ending: Ending | None = None) -> Beat:
        """The next one, with what is to be said about the end of the run."""
        now, operation = self._clock.now(), self._operations.current
        beat = replace(
            self._last,
            count=self._last.count + 1,
            operation=operation.name,
            allowance=operation.allowance,
            exchanging=operation.exchanging,
            marks={name: mark() for name, mark in self._marks.items()},
            sent={str(rank): number for rank, number in self._operations.sent.copy().items()},
            wanted={str(rank): number for rank, number in self._operations.wanted.copy().items()},
            failure=failure,
            ending=ending,
        )
        self._last = self._looked_at(self._timed(beat, operation.moves, now), now)
        return self._last

    def _timed(self, beat: Beat, moves: int, now: float) -> Beat:
        """With the time since anything of it changed."""
        before = self._last
        got_on = moves != self._moves or any(
            getattr(beat, name) != getattr(before, name) for name in ("marks", "sent", "wanted")
        )
        if self._main.computed(now) and self._waits_show:
            self._computed_at = now
        if got_on:
            self._moves, self._moved_at, self._worked_at = moves, now, now
        waiting = now - max(self._moved_at, self._computed_at)
        return replace(beat, seconds=now - self._moved_at, waiting=waiting, quiet=0.0, place="", inside=False)

    def _looked_at(self, beat: Beat, now: float) -> Beat:
        if beat.seconds < _LOOK_AFTER:
            return beat
        place = self._main.place()
        # Compiling may come again, for other shapes than in the first steps.
        may_work = beat.allowance is Allowance.WORKING or place.compiling
        if self._activity.waits_for_storage() or (may_work and self._activity.worked(now)):
            self._worked_at = now
        inside = place.inside and self._waits_show
        return replace(beat, quiet=now - self._worked_at, place=place.text, inside=inside)


def marks_of(processes: Processes, ranks: MessageGroup, operations: Operations) -> dict[str, Mark]:
    """The counts of all groups of this rank that its main thread uses; a name is that of the same ranks everywhere."""
    groups: dict[str, Any] = {"world": dist.group.WORLD, "messages": ranks.group}
    mesh = processes.mesh
    for axis in (DATA_AXIS, TENSOR_AXIS):
        if mesh is not None and mesh[axis].size() > 1:
            group = mesh[axis].get_group()
            groups[f"{axis} of {_first(group)}"] = group
    staged = processes.pipeline_group if processes.dims.pipeline > 1 else None
    # An axis of all ranks has the group of the world. Any: torch's stubs don't know the method.
    marks: dict[str, Mark] = {
        name: group._get_sequence_number_for_group for name, group in groups.items() if group is not staged
    }
    if staged is not None:
        marks[f"{PIPELINE_AXIS} of {_first(staged)}"] = lambda: operations.current.number
    return marks


def _first(group: dist.ProcessGroup) -> int:
    return min(dist.get_process_group_ranks(group))
