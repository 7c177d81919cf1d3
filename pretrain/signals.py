"""Signals that ask a run to end: it finishes its step, writes a checkpoint, and the process exits with code 0.

Schedulers send SIGTERM (before SIGKILL) or a signal of the user's choice, mostly SIGUSR1; a terminal sends SIGINT.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# Launchers pass on to their processes what these have received already, so that one request arrives twice.
_SAME_REQUEST_SECONDS = 2.0


class StopRequests:
    """Takes note of signals while entered; the second one, seconds after the first, ends the process at once.

    Only the main thread may enter it, as Python wants it for handlers.

    Args:
        signals: which to take note of.
    """

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}
        self._process = os.getpid()
        self._first: float | None = None
        self.received = 0

    def __enter__(self) -> StopRequests:
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
        # Workers that prepare batches inherit this handler. A terminal or a scheduler signals them as well, and the
        # run still needs them; the second one comes from the run, which is done with them.
        is_worker = os.getpid() != self._process
        if self._first is None:
            self._first, self.received = now, number
        elif is_worker or now - self._first >= _SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
