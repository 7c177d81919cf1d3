"""Ends the run on all ranks when one of them dies, hangs or fails, and says which one and what it was doing.

Each rank tells the others several times a second what its main thread is doing (:mod:`.heartbeats`) and how far it has
come (:mod:`.progress`), and looks at what they say (:mod:`.verdicts`). A rank is given up when

- its process is gone (seen at once on the same machine);
- it hasn't been heard of for the patience given: frozen, dead, or its machine unreachable;
- its main thread hasn't got on for that long, while another one has waited for it for as long.

None of it needs the main thread, which may wait inside an exchange for ever. A job that is suspended and goes on later
finds everybody where they were: time is counted while a process runs (:class:`.activity.AwakeClock`).
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

import torch.distributed as dist

from pretrain.parallel.collective_counts import collective_counts
from pretrain.parallel.context import ParallelContext
from pretrain.parallel.control_group import ControlGroup
from pretrain.trace import Allowance, Operations
from tape.errors import ProteinLMError
from tape.runtime.launch import Launch

from .diagnosis import Diagnosis, RankStatus, diagnose, diagnose_hangs, diagnose_lost_ranks, find_reported_failure
from .heartbeats import FailureReport, Heartbeat, HeartbeatStore, has_ended, kill_all, this_machine
from .procfs import AwakeClock
from .rank_progress import RankProgress

_BEAT_SECONDS = 0.25
_RANKS_A_SECOND = 64  # from so many ranks on, beats become rarer: each rank reads all others'
_PATIENT_BEATS = 4  # a rank writes and another one reads in each of them
_MESSAGE_TIMEOUT = timedelta(seconds=5)
# A connection that broke says that somebody is gone; so long after it, silence says who.
_SILENCE_AFTER_A_BREAK = 4.0
# How long a main thread has to say itself what the watchdog has just heard from another rank.
_GRACE = 3.0
_END_AT_LAST = 30.0
_LAST_WORDS = 2.0
# Threads that look several times a second and find so much time gone were suspended.
_SUSPENDED = 2.0


class LostRankError(ProteinLMError):
    """Another rank is gone, or hangs."""


class Watchdog:
    """Watches the other ranks from two threads of its own.

    Args:
        rank, world_size: this process among all.
        progress: makes its beats.
        clock: that those are timed by.
        board: where beats are written.
        patience: seconds, some beats at least; 0: a silent or slow rank is never given up.
    """

    def __init__(
        self,
        rank: int,
        world_size: int,
        progress: RankProgress,
        clock: AwakeClock,
        board: HeartbeatStore,
        patience: float,
    ) -> None:
        self._rank = rank
        self._progress = progress
        self._clock = clock
        self._board = board
        self._pause = seconds_between_beats(world_size)
        self._patience = least_patience(patience, world_size)
        self._machine = this_machine()
        self._reads = 0
        self._unanswered = False
        self._failure: str | None = None
        self._ending: FailureReport | None = None
        self._beats = [Heartbeat(number) for number in range(world_size)]
        self._heard_at = [clock.now()] * world_size
        self._closed = threading.Event()
        self._told = threading.Event()
        self._store_in_use = threading.Lock()
        self._leaving = False
        self._said = False

    def beat(self) -> None:
        """Tell the others, and hear what they say."""
        self._board.write(self._progress.beat(self._failure, self._ending))
        beats = self._board.read()
        now = self._clock.now()
        for rank, beat in enumerate(beats):
            if beat.count != self._beats[rank].count:
                self._heard_at[rank] = now
            self._beats[rank] = beat
        self._reads += 1

    def start(self) -> None:
        for target in (self._talk, self._watch):
            threading.Thread(target=target, name="watchdog", daemon=True).start()
        atexit.register(self._fall_silent)

    def close(self) -> None:
        """All ranks are done: stop watching."""
        self._closed.set()

    def _fall_silent(self) -> None:
        # A thread that is in the store's C++ code when the interpreter ends would abort the process: keep it out.
        self._store_in_use.acquire(timeout=_MESSAGE_TIMEOUT.total_seconds() + 1.0)

    def explain(self) -> Diagnosis | None:
        """After a broken connection: who is gone, and what it was doing last; None when all seem to be well."""
        self._leaving = True
        patience = max(_SILENCE_AFTER_A_BREAK, 3 * self._pause)
        deadline = time.monotonic() + 2 * patience
        while time.monotonic() < deadline:
            others = [item for item in self._heard() if item.beat.rank != self._rank]
            verdict = find_reported_failure(self._all_beats()) or diagnose_lost_ranks(others, self._machine, patience)
            if verdict is not None:
                return self._with_last_words(verdict)
            time.sleep(0.2)
        beats = [replace(beat, allowance=Allowance.NONE, quiet=beat.seconds) for beat in self._all_beats()]
        return diagnose_hangs(beats, patience)

    def announce(self, error: BaseException) -> None:
        """Tell the others that this rank is about to end, and why."""
        self._leaving = True
        self._failure = f"{error}" if isinstance(error, ProteinLMError) else f"{type(error).__name__}: {error}"
        self._tell()
        if self._rank == 0:
            time.sleep(2 * self._pause)  # the store is in this process: let the others read it

    def _tell(self) -> None:
        """Wait until what is to be said has been written."""
        self._told.clear()
        self._told.wait(2 * self._pause + 1.0)

    def is_speaker(self, verdict: Diagnosis) -> bool:
        """Whether this rank is the one to say why the run ends: the lowest of those that live.

        A failing rank 0 says so itself.
        """
        culprits = {beat.rank for beat in verdict.culprits}
        if self._said or verdict.said or (verdict.failed and 0 in culprits):
            return False
        alive = [item.beat.rank for item in self._heard() if self._is_alive(item)]
        return self._rank == min(set(alive) - culprits, default=None)

    def rank_0_lives(self) -> bool:
        return self._is_alive(self._heard()[0])

    def _is_alive(self, item: RankStatus) -> bool:
        if item.beat.rank == self._rank:
            return True
        return item.silence < _SILENCE_AFTER_A_BREAK + self._pause and not has_ended(item.beat, self._machine)

    def _with_last_words(self, verdict: Diagnosis) -> Diagnosis:
        """A process that is gone may have said why in a beat that hasn't been read here yet."""
        if verdict.said:
            return verdict
        read, deadline = self._reads, time.monotonic() + _LAST_WORDS
        while self._reads < read + 2 and time.monotonic() < deadline and not verdict.failed:
            time.sleep(0.05)
        others = [item for item in self._heard() if item.beat.rank != self._rank and item.beat.failure is not None]
        last = diagnose_lost_ranks(others, self._machine, float("inf"))
        return find_reported_failure(self._all_beats()) or last or verdict

    def _all_beats(self) -> list[Heartbeat]:
        return [self._progress.last if rank == self._rank else beat for rank, beat in enumerate(self._beats)]

    def _heard(self) -> list[RankStatus]:
        now = self._clock.now()
        return [RankStatus(beat, now - at) for beat, at in zip(self._all_beats(), self._heard_at, strict=True)]

    def _talk(self) -> None:
        # The only thread that uses the store: a store that doesn't answer must hold up no one else.
        # A store that is gone after the end was announced is as it should be, and asking it again makes noise.
        while not self._closed.is_set() and not (self._unanswered and find_reported_failure(self._all_beats())):
            says = self._failure is not None or self._ending is not None
            # silence is judged by the other thread
            with self._store_in_use, suppress(dist.DistError, RuntimeError):
                self._unanswered = True
                self.beat()
                self._unanswered = False
                if says:
                    self._told.set()
            self._closed.wait(self._pause)

    def _watch(self) -> None:
        leaving_since: float | None = None
        while not self._closed.wait(self._pause / 2):
            if self._leaving:  # the main thread knows already; it gets some time to end in good order
                leaving_since = leaving_since or time.monotonic()
                if time.monotonic() - leaving_since > _END_AT_LAST:
                    os._exit(1)
                continue
            verdict = diagnose(self._heard(), self._rank, self._machine, self._patience)
            if verdict is None:
                continue
            verdict = self._with_last_words(verdict)
            if verdict.failed:
                time.sleep(_GRACE)  # the main thread may be about to say the same
            if not self._leaving and not self._closed.is_set():
                self._end(verdict)

    def _end(self, verdict: Diagnosis) -> None:
        """End this process whatever its main thread is doing, and those that can't end themselves.

        One rank tells the user, then the others, and only then is anybody killed: whoever comes to a verdict of its own
        a moment later would find ranks gone, and say so.
        """
        speaks, self._said = self.is_speaker(verdict), True  # the main thread may be on its way to say it again
        if speaks:
            self._speak(verdict)
        elif not (verdict.said or verdict.failed):
            self._await_word()
        if not verdict.failed:
            kill_all(verdict.culprits, self._machine)
        if self._rank in {beat.rank for beat in verdict.culprits}:
            time.sleep(_GRACE)  # the others say why; a process that is gone would be all that they see
        os._exit(1)

    def _speak(self, verdict: Diagnosis) -> None:
        sys.stdout.flush()
        print(f"error: {verdict.text}", file=sys.stderr, flush=True)
        self._ending = FailureReport(verdict.text, tuple(beat.rank for beat in verdict.culprits))
        self._tell()
        time.sleep(2 * self._pause)  # and be heard, while the store is there

    def _await_word(self) -> None:
        deadline = time.monotonic() + _GRACE + 2 * self._pause
        while find_reported_failure(self._all_beats()) is None and time.monotonic() < deadline:
            time.sleep(self._pause / 4)
        if self._rank == 0:
            time.sleep(2 * self._pause)  # the store is in this process


def seconds_between_beats(world_size: int) -> float:
    return max(_BEAT_SECONDS, world_size / _RANKS_A_SECOND)


def least_patience(asked: float, world_size: int) -> float:
    """Seconds after which a rank is given up: as asked (0: never), but none is heard oftener than it speaks."""
    return max(asked, _PATIENT_BEATS * seconds_between_beats(world_size)) if asked else float("inf")


@contextmanager
def watched(
    processes: ParallelContext, launch: Launch, operations: Operations, ranks: ControlGroup, patience: float
) -> Iterator[None]:
    """Around all that the ranks do together.

    Args:
        processes, launch: who they are, and where rank 0 is.
        operations: of this process.
        ranks: a group for the main thread.
        patience: seconds of silence after which a rank is given up; 0: for ever.

    Raises:
        LostRankError: in place of the broken connection that another rank's end makes.
        SystemExit: with code 1, when another rank says why all end.
    """
    world = processes.dims.world_size
    if world == 1:
        yield
        return
    board = _open_board(processes.rank, world, launch.host, ranks)
    clock = AwakeClock(max(_SUSPENDED, 4 * seconds_between_beats(world)))
    marks, waits_show = collective_counts(processes, ranks, operations), processes.device.type == "cpu"
    progress = RankProgress(processes.rank, operations, marks, clock, waits_show)
    watchdog = Watchdog(processes.rank, world, progress, clock, board, patience)
    board.write(Heartbeat(processes.rank))
    ranks.gather(None)  # from here on every rank's beat can be read
    watchdog.beat()
    watchdog.start()
    try:
        yield
        operations.end()
        ranks.gather(None)
        watchdog.close()
        ranks.gather(None)  # nobody leaves while another one still watches
    except Exception as error:
        _part(watchdog, processes.rank, error)  # the watchdog goes on: it ends a process that hangs at its end
        raise


def _open_board(rank: int, world: int, host: str, ranks: ControlGroup) -> HeartbeatStore:
    board = HeartbeatStore(rank, world, host, 0, _MESSAGE_TIMEOUT) if rank == 0 else None
    port = ranks.gather(board.port if board is not None else 0)[0]
    return board or HeartbeatStore(rank, world, host, port, _MESSAGE_TIMEOUT)


def _part(watchdog: Watchdog, rank: int, error: Exception) -> None:
    """This rank ends with ``error``: tell the others, and see to it that one rank says why."""
    if _is_broken_connection(error):
        verdict = watchdog.explain()
        if verdict is None:
            return
        if watchdog.is_speaker(verdict):
            raise LostRankError(verdict.text) from error
        raise SystemExit(1) from error
    watchdog.announce(error)
    if rank == 0 or not isinstance(error, (ProteinLMError, OSError)):
        return  # rank 0 has the word; and of a fault of ours the traceback is wanted
    if watchdog.rank_0_lives():
        raise SystemExit(1) from error  # it says the same, or hears it from us and says so
    raise LostRankError(f"rank {rank}: {error}") from error


def _is_broken_connection(error: Exception) -> bool:
    words = ("gloo", "Connection closed", "Connection reset", "Connection refused", "Broken pipe", "imed out")
    return isinstance(error, RuntimeError) and (
        isinstance(error, dist.DistError) or any(word in str(error) for word in words)
    )
