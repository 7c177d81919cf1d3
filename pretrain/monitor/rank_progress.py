"""The progress of this rank, as heartbeats that other ranks can compare with theirs."""

from __future__ import annotations

import os
from dataclasses import replace

from pretrain.parallel.collective_counts import Count
from pretrain.trace import SpanTimeout, Trace
from tape.runtime.process_identity import identify

from .heartbeats import FailureReport, Heartbeat
from .procfs import AwakeClock, MainThread, ProcessActivity

_INSPECT_AFTER = 1.0  # seconds without progress


class RankProgress:
    """Makes this rank's heartbeats. Not thread-safe.

    Args:
        rank: this rank.
        trace: spans of its main thread.
        collectives: functions that count the started collectives of each process group, by name of the group.
        clock: measures durations.
        waits_are_idle: whether a main thread that waits for other ranks uses no CPU, as on gloo. A thread that waits
            for a GPU spins, so waiting cannot be distinguished from computing.
    """

    def __init__(
        self, rank: int, trace: Trace, collectives: dict[str, Count], clock: AwakeClock, waits_are_idle: bool = True
    ) -> None:
        self._trace, self._collectives, self._clock = trace, collectives, clock
        self._main = MainThread()
        self._activity = ProcessActivity(self._main)
        self._waits_are_idle = waits_are_idle
        process = identify(os.getpid())
        self._last = Heartbeat(rank, machine=process.machine, process=process.number, started=process.started)
        self._progress_count = -1
        self._progressed_at = self._worked_at = self._computed_at = clock.now()

    @property
    def last(self) -> Heartbeat:
        """The most recent heartbeat."""
        return self._last

    def heartbeat(self, failure: str | None, report: FailureReport | None = None) -> Heartbeat:
        """Make the next heartbeat, with a failure of this rank or a failure report about another one, if any."""
        now, position = self._clock.now(), self._trace.position
        heartbeat = replace(
            self._last,
            count=self._last.count + 1,
            span=position.name,
            timeout=position.timeout,
            communicating=position.communicating,
            collectives={name: count() for name, count in self._collectives.items()},
            sent={str(rank): number for rank, number in self._trace.sent.copy().items()},
            received={str(rank): number for rank, number in self._trace.received.copy().items()},
            failure=failure,
            report=report,
        )
        self._last = self._inspected(self._timed(heartbeat, position.progress, now), now)
        return self._last

    def _timed(self, heartbeat: Heartbeat, progress_count: int, now: float) -> Heartbeat:
        """Add the time since this rank last made progress."""
        before = self._last
        progressed = progress_count != self._progress_count or any(
            getattr(heartbeat, name) != getattr(before, name) for name in ("collectives", "sent", "received")
        )
        if self._main.computed(now) and self._waits_are_idle:
            self._computed_at = now
        if progressed:
            self._progress_count, self._progressed_at, self._worked_at = progress_count, now, now
        waiting = now - max(self._progressed_at, self._computed_at)
        return replace(
            heartbeat, seconds=now - self._progressed_at, waiting=waiting, idle=0.0, place="", in_collective=False
        )

    def _inspected(self, heartbeat: Heartbeat, now: float) -> Heartbeat:
        """Without progress for a second, add where the main thread is and how long the process has been idle."""
        if heartbeat.seconds < _INSPECT_AFTER:
            return heartbeat
        place = self._main.place()
        # New shapes may be compiled after the first steps, too.
        may_work = heartbeat.timeout is SpanTimeout.BUSY or place.compiling
        if self._activity.waits_for_storage() or (may_work and self._activity.worked(now)):
            self._worked_at = now
        in_collective = place.in_collective and self._waits_are_idle
        return replace(heartbeat, idle=now - self._worked_at, place=place.text, in_collective=in_collective)
