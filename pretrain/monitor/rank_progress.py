"""The progress of this rank, as heartbeats that other ranks can compare with theirs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from pretrain.trace import Allowance, Operations

from .heartbeats import FailureReport, Heartbeat, start_of, this_machine
from .procfs import AwakeClock, MainThread, ProcessActivity

Mark = Callable[[], int]
# A main thread that got on less than so long ago isn't looked at more closely.
_LOOK_AFTER = 1.0


class RankProgress:
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
        self._last = Heartbeat(rank, machine=this_machine(), process=os.getpid(), started=started)
        self._moves = -1
        self._moved_at = self._worked_at = self._computed_at = clock.now()

    @property
    def last(self) -> Heartbeat:
        return self._last

    def beat(self, failure: str | None, ending: FailureReport | None = None) -> Heartbeat:
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

    def _timed(self, beat: Heartbeat, moves: int, now: float) -> Heartbeat:
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

    def _looked_at(self, beat: Heartbeat, now: float) -> Heartbeat:
        if beat.seconds < _LOOK_AFTER:
            return beat
        place = self._main.place()
        # Compiling may come again, for other shapes than in the first steps.
        may_work = beat.allowance is Allowance.WORKING or place.compiling
        if self._activity.waits_for_storage() or (may_work and self._activity.worked(now)):
            self._worked_at = now
        inside = place.inside and self._waits_show
        return replace(beat, quiet=now - self._worked_at, place=place.text, inside=inside)
