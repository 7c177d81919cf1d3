"""Signals that ask a run to end: it finishes its step, writes a checkpoint, and the process exits with code 0.

Schedulers send SIGTERM (before SIGKILL) or a signal of the user's choice, mostly SIGUSR1; a terminal sends SIGINT. They
reach the processes that prepare batches as well (torchrun, Slurm and terminals signal groups): those leave them to the
run, which needs batches for the step that it finishes.
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

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Launchers pass on to their processes what these have received already, so that one request arrives twice.
_SAME_REQUEST_SECONDS = 2.0


class StopSignals:
    """Takes note of signals while entered; the second one, seconds after the first, ends the process at once.

    Only the main thread may enter it, as Python wants it for handlers.

    Args:
        signals: which to take note of.
    """

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._first: float | None = None
        self.received = 0

    def __enter__(self) -> StopSignals:
        for number in self._signals:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first, self.received = now, number
        elif now - self._first >= _SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Let stop signals of this thread wait; a process that is forked meanwhile begins with them blocked.

    Between a worker's start and :func:`ignore_stop_signals_in_worker` no signal can end it this way.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals_in_worker(number: int) -> None:
    """Make a worker of a DataLoader deaf to stop signals, those of its parent excepted; a ``worker_init_fn``.

    To ignore them altogether would not do: a run that ends by an error terminates its workers, and waits for them.
    Where the system cannot tell who sent a signal (macOS), they keep torch's handlers.

    Args:
        number: of the worker.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return
    # Threads that the worker starts later have them blocked too, so that only this one receives them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    parent = multiprocessing.parent_process()  # the run, also where a server forks for it
    number_of_parent = os.getppid() if parent is None else parent.pid
    threading.Thread(target=_end_by_parent, args=(number_of_parent,), name="stop signals", daemon=True).start()


def _end_by_parent(parent: int | None) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
        pass
    os._exit(0)  # as torch's workers do
