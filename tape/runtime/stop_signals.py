"""Stop signals: a run finishes its step and saves; another command cleans up and ends.

Schedulers preempt a job with SIGTERM, followed by SIGKILL, or with a signal of the user's choice, mostly SIGUSR1; a
terminal sends SIGINT, and SIGHUP when it is closed. Pretraining and finetuning record these signals
(:class:`StopSignals`), save after the step, and exit with code 0. All other commands end by an exception, which removes
their temporary files (:class:`tape.interrupts.StopByException`).

torchrun, Slurm and terminals signal process groups, so the worker processes of the DataLoader receive the signal, too.
They ignore it, because the run needs batches for the step that it finishes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from tape.interrupts import SAME_REQUEST_SECONDS, end_at_once

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StopSignals:
    """Context manager that records stop signals; a second one, two seconds after the first, ends the process at once.

    Outside the main thread it records nothing, because Python sets signal handlers in the main thread only. SIGHUP is
    ignored if nohup has set that.

    Args:
        signals: the signals to record.

    Attributes:
        received: number of the first signal that was received; 0: none yet.
    """

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._first: float | None = None
        self.received = 0

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _record(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self.received = now, number
        elif now - self._first >= SAME_REQUEST_SECONDS:
            end_at_once(number)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block stop signals in this thread while worker processes are started, which inherit the blocked signals.

    Otherwise a signal could end a worker before it calls :func:`ignore_stop_signals_in_worker`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals_in_worker(number: int) -> None:
    """Ignore stop signals in a DataLoader's worker process, except those of its parent; a ``worker_init_fn``.

    The parent's must be obeyed: a run that ends with an error terminates its workers and waits for them. On systems
    that don't report the sender of a signal (macOS), workers keep torch's handlers.

    Args:
        number: number of the worker.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    # Threads that the worker starts later inherit the blocked signals, so that only the thread below receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()  # the run, also if a fork server has started this worker
    parent_pid = os.getppid() if parent is None else parent.pid
    threading.Thread(target=_end_by_parent, args=(parent_pid,), name="stop signals", daemon=True).start()


def _end_by_parent(parent: int | None) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
        pass
    os._exit(0)  # as torch's own handler does
