"""The hang monitor: ends the run on all ranks when one of them dies, hangs or fails, and reports which one, and where.

Several times per second, every rank publishes a heartbeat (:mod:`.heartbeats`) with what its main thread is doing and
how far it has come (:mod:`.rank_progress`), and diagnoses those of the others (:mod:`.diagnosis`). The run ends if,
for any rank,

- the process has exited (detected immediately on the same machine);
- no heartbeat has arrived for the hang timeout: the process is frozen or dead, or its machine is unreachable;
- the main thread has made no progress for the hang timeout, while another rank has waited for it for as long.

None of this needs the main thread, which may be blocked in a collective forever. Time is measured only while a process
runs (:class:`.procfs.AwakeClock`), so a job may be suspended and continued later.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta

from pretrain import trace
from pretrain.parallel.collective_counts import collective_counts
from pretrain.parallel.context import ParallelContext
from pretrain.parallel.control_group import ControlGroup, is_broken, is_connection_error
from pretrain.parallel.heartbeat_store import open_heartbeat_store
from pretrain.trace import SpanTimeout
from tape.errors import ProteinLMError, print_error
from tape.runtime.launch import Launch
from tape.runtime.process_identity import this_machine

from .diagnosis import Diagnosis, RankStatus, diagnose, diagnose_hangs, diagnose_lost_ranks, find_reported_failure
from .heartbeats import FailureReport, Heartbeat, HeartbeatStore, has_ended, kill_processes
from .procfs import AwakeClock
from .rank_progress import RankProgress

_HEARTBEAT_SECONDS = 0.25
_RANKS_PER_SECOND = 64  # with more ranks, heartbeats become rarer, because each rank reads those of all others
_MINIMUM_HEARTBEATS = 4  # per timeout: in each of them, one rank writes and another one reads
_REQUEST_TIMEOUT = timedelta(seconds=5)
# A broken connection shows that a rank is lost; the heartbeat that is missing for this long shows which one.
_MISSING_AFTER_DISCONNECT = 4.0
# Time for the main thread to report by itself what the monitor has just learned from another rank.
_GRACE_SECONDS = 3.0
_EXIT_SECONDS = 30.0
_FINAL_REPORT_SECONDS = 2.0
# A longer gap between two readings, which happen several times per second, means that the process was suspended.
_SUSPENDED_SECONDS = 2.0


class LostRankError(ProteinLMError):
    """Another rank is lost or hangs."""


class Watchdog:
    """Monitors the other ranks from two threads.

    Args:
        rank, world_size: this process among all.
        progress: makes the heartbeats of this rank.
        clock: measures durations.
        store: the heartbeats of all ranks.
        timeout_seconds: hang timeout; 0: missing heartbeats and slow ranks do not end the run.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        progress: RankProgress,
        clock: AwakeClock,
        store: HeartbeatStore,
        timeout_seconds: float,
    ) -> None:
        self._rank = rank
        self._progress = progress
        self._clock = clock
        self._store = store
        self._interval = heartbeat_interval(world_size)
        self._timeout = effective_timeout(timeout_seconds, world_size)
        self._machine = this_machine()
        self._reads = 0
        self._no_answer = False
        self._failure: str | None = None
        self._report: FailureReport | None = None
        self._heartbeats = [Heartbeat(number) for number in range(world_size)]
        self._last_heard = [clock.now()] * world_size
        self._closed = threading.Event()
        self._written = threading.Event()
        self._store_in_use = threading.Lock()
        self._leaving = False
        self._has_reported = False

    def heartbeat(self) -> None:
        """Publish a heartbeat and read those of the others."""
        self._store.write(self._progress.heartbeat(self._failure, self._report))
        heartbeats = self._store.read()
        now = self._clock.now()
        for rank, heartbeat in enumerate(heartbeats):
            if heartbeat.count != self._heartbeats[rank].count:
                self._last_heard[rank] = now
            self._heartbeats[rank] = heartbeat
        self._reads += 1

    def start(self) -> None:
        for target in (self._exchange_heartbeats, self._monitor):
            threading.Thread(target=target, name="watchdog", daemon=True).start()
        atexit.register(self._stop_store_access)

    def close(self) -> None:
        """Stop monitoring, after all ranks have finished."""
        self._closed.set()

    def _stop_store_access(self) -> None:
        # a thread within the store's C++ code at interpreter exit would abort the process
        self._store_in_use.acquire(timeout=_REQUEST_TIMEOUT.total_seconds() + 1.0)

    def explain(self) -> Diagnosis | None:
        """After a broken connection, find the lost rank and what it was doing; None if there is none."""
        self._leaving = True
        timeout_seconds = max(_MISSING_AFTER_DISCONNECT, 3 * self._interval)
        deadline = time.monotonic() + 2 * timeout_seconds
        while time.monotonic() < deadline:
            others = [item for item in self._statuses() if item.heartbeat.rank != self._rank]
            diagnosis = find_reported_failure(self._all_heartbeats()) or diagnose_lost_ranks(
                others, self._machine, timeout_seconds
            )
            if diagnosis is not None:
                return self._with_final_reports(diagnosis)
            time.sleep(0.2)
        heartbeats = [
            replace(heartbeat, timeout=SpanTimeout.HANG, idle=heartbeat.seconds) for heartbeat in self._all_heartbeats()
        ]
        return diagnose_hangs(heartbeats, timeout_seconds)

    def announce(self, error: BaseException) -> None:
        """Announce that this rank is about to exit with an error."""
        self._leaving = True
        self._failure = f"{error}" if isinstance(error, ProteinLMError) else f"{type(error).__name__}: {error}"
        self._wait_until_written()
        if self._rank == 0:
            time.sleep(2 * self._interval)  # the store is in this process; the others need time to read it

    def _wait_until_written(self) -> None:
        """Wait until a heartbeat with the announcement has been written."""
        self._written.clear()
        self._written.wait(2 * self._interval + 1.0)

    def reports_failure(self, diagnosis: Diagnosis) -> bool:
        """Whether this rank prints why the run ends: the lowest live rank of each machine, if possible not a culprit.

        Machines write logs of their own. A failing rank 0 prints its error itself.
        """
        culprits = {heartbeat.rank for heartbeat in diagnosis.culprits}
        if self._has_reported or self._machine in diagnosis.reported_on:
            return False
        alive = self._alive_here()
        if diagnosis.failed and 0 in culprits & set(alive):
            return False
        return self._rank == min(set(alive) - culprits or alive, default=None)

    def is_lowest_here(self) -> bool:
        """Whether this is the lowest rank that is alive on its machine."""
        return self._rank == min(self._alive_here())

    def _alive_here(self) -> list[int]:
        """The ranks on this machine that are alive, with this one."""
        return [
            item.heartbeat.rank
            for item in self._statuses()
            if item.heartbeat.rank == self._rank or (item.heartbeat.machine == self._machine and self._is_alive(item))
        ]

    def _is_alive(self, item: RankStatus) -> bool:
        if item.heartbeat.rank == self._rank:
            return True
        return item.age < _MISSING_AFTER_DISCONNECT + self._interval and not has_ended(item.heartbeat, self._machine)

    def _with_final_reports(self, diagnosis: Diagnosis) -> Diagnosis:
        """Prefer the error that a process announced before it exited, in a heartbeat that may be unread yet."""
        if diagnosis.reported:
            return diagnosis
        read, deadline = self._reads, time.monotonic() + _FINAL_REPORT_SECONDS
        while self._reads < read + 2 and time.monotonic() < deadline and not diagnosis.failed:
            time.sleep(0.05)
        others = [
            item
            for item in self._statuses()
            if item.heartbeat.rank != self._rank and item.heartbeat.failure is not None
        ]
        last = diagnose_lost_ranks(others, self._machine, float("inf"))
        return find_reported_failure(self._all_heartbeats()) or last or diagnosis

    def _all_heartbeats(self) -> list[Heartbeat]:
        return [
            self._progress.last if rank == self._rank else heartbeat for rank, heartbeat in enumerate(self._heartbeats)
        ]

    def _statuses(self) -> list[RankStatus]:
        now = self._clock.now()
        return [
            RankStatus(heartbeat, now - at)
            for heartbeat, at in zip(self._all_heartbeats(), self._last_heard, strict=True)
        ]

    def _exchange_heartbeats(self) -> None:
        # The only thread that uses the store: a store that doesn't answer must not block any other. After the end of
        # the run was announced, the store may be unreachable, and further requests would only print warnings.
        while not self._closed.is_set() and not (self._no_answer and find_reported_failure(self._all_heartbeats())):
            announces = self._failure is not None or self._report is not None
            try:
                with self._store_in_use:
                    self._no_answer = True
                    self.heartbeat()
                    self._no_answer = False
                    if announces:
                        self._written.set()
            except RuntimeError as error:  # the other thread handles missing heartbeats
                if is_broken(error):
                    return  # torch would print a stack trace of each further request
            self._closed.wait(self._interval)

    def _monitor(self) -> None:
        leaving_since: float | None = None
        while not self._closed.wait(self._interval / 2):
            if self._leaving:  # the main thread is already exiting and gets some time for it
                leaving_since = leaving_since or time.monotonic()
                if time.monotonic() - leaving_since > _EXIT_SECONDS:
                    os._exit(1)
                continue
            diagnosis = diagnose(self._statuses(), self._rank, self._machine, self._timeout)
            if diagnosis is None:
                continue
            diagnosis = self._with_final_reports(diagnosis)
            if diagnosis.failed:
                time.sleep(_GRACE_SECONDS)  # the main thread may be about to report the same
            if not self._leaving and not self._closed.is_set():
                self._end(diagnosis)

    def _end(self, diagnosis: Diagnosis) -> None:
        """End this process whatever its main thread is doing, and kill processes that can't exit by themselves.

        One rank prints the reason and then publishes it, before any process is killed: a rank with a later diagnosis of
        its own would otherwise report the killed ranks as the cause.
        """
        reports, self._has_reported = (
            self.reports_failure(diagnosis),
            True,
        )  # keeps the main thread from reporting it again
        if reports:
            self._report_failure(diagnosis)
        elif not (diagnosis.reported or diagnosis.failed):
            self._await_report()
        if not diagnosis.failed:
            kill_processes(diagnosis.culprits, self._machine)
        if self._rank in {heartbeat.rank for heartbeat in diagnosis.culprits}:
            time.sleep(
                _GRACE_SECONDS
            )  # the others report the reason; if this process exited first, they would only see its exit
        os._exit(1)

    def _report_failure(self, diagnosis: Diagnosis) -> None:
        with suppress(OSError, ValueError, AttributeError):  # closed
            sys.stdout.flush()
        print_error(diagnosis.text)
        self._report = FailureReport(diagnosis.text, tuple(heartbeat.rank for heartbeat in diagnosis.culprits))
        self._wait_until_written()
        time.sleep(2 * self._interval)  # the others need time to read it while the store exists

    def _await_report(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS + 2 * self._interval
        while find_reported_failure(self._all_heartbeats()) is None and time.monotonic() < deadline:
            time.sleep(self._interval / 4)
        if self._rank == 0:
            time.sleep(2 * self._interval)  # the store is in this process


def heartbeat_interval(world_size: int) -> float:
    return max(_HEARTBEAT_SECONDS, world_size / _RANKS_PER_SECOND)


def effective_timeout(requested: float, world_size: int) -> float:
    """Hang timeout in seconds: as requested (0: infinite), but at least a few heartbeat intervals."""
    return max(requested, _MINIMUM_HEARTBEATS * heartbeat_interval(world_size)) if requested else float("inf")


@contextmanager
def watched(
    context: ParallelContext, launch: Launch, control_group: ControlGroup, timeout_seconds: float
) -> Iterator[None]:
    """Monitor all ranks while the context is entered.

    Args:
        context, launch: the parallel layout, and the address of rank 0.
        control_group: a control process group for the main thread.
        timeout_seconds: hang timeout; 0 disables it.

    Raises:
        LostRankError: instead of the connection error that the exit of another rank causes.
        SystemExit: with code 1, if another rank reports why the run ends.
    """
    world = context.dims.world_size
    if world == 1:
        yield
        return
    tcp_store = open_heartbeat_store(context, launch.host, control_group, _REQUEST_TIMEOUT)
    store = HeartbeatStore(context.rank, world, tcp_store)
    clock = AwakeClock(max(_SUSPENDED_SECONDS, 4 * heartbeat_interval(world)))
    collectives, waits_are_idle = collective_counts(context, control_group), context.device.type == "cpu"
    progress = RankProgress(context.rank, trace.PROCESS, collectives, clock, waits_are_idle)
    watchdog = Watchdog(context.rank, world, progress, clock, store, timeout_seconds)
    store.write(Heartbeat(context.rank))
    control_group.gather(None)  # from here on, the heartbeat of every rank can be read
    watchdog.heartbeat()
    watchdog.start()
    try:
        yield
        with trace.span("end of the run", SpanTimeout.COLLECTIVE):
            control_group.gather(None)
        watchdog.close()
        control_group.gather(None)  # no rank exits while another one still monitors it
    except Exception as error:
        _report_error(watchdog, context.rank, error)  # the monitor keeps running: it ends a process that hangs at exit
        raise


def _report_error(watchdog: Watchdog, rank: int, error: Exception) -> None:
    """Announce the ``error`` with which this rank exits, and make sure that one rank per machine prints the reason."""
    if is_connection_error(error):
        diagnosis = watchdog.explain()
        if diagnosis is None:
            return
        if watchdog.reports_failure(diagnosis):
            raise LostRankError(diagnosis.text) from error
        raise SystemExit(1) from error
    watchdog.announce(error)
    if rank == 0 or not isinstance(error, (ProteinLMError, OSError)):
        return  # rank 0 prints its own error; and for a bug, the traceback is wanted
    if not watchdog.is_lowest_here():
        raise SystemExit(1) from error  # another rank has the same error, or reads it from our heartbeat and prints it
    raise LostRankError(f"rank {rank}: {error}") from error
