"""Stop signals as exceptions, so that an interrupted command removes its temporary files and releases its locks.

:func:`.errors.run_cli` runs commands inside :class:`StopByException`. What a command creates, and removes at its end,
it creates inside :func:`stop_deferred`, so that no signal gets between the creation and the ``try`` whose ``finally``
removes it:

.. code-block:: python

    with stop_deferred():
        path = create()
        try:
            with stop_allowed():
                yield path
        finally:
            remove(path)
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any


class Terminated(SystemExit):
    """SIGTERM or SIGHUP as an exception, which passes through the blocks that remove files and release locks."""


SAME_REQUEST_SECONDS = 2.0
"""Time in which another stop signal is the same request: launchers forward signals that a process may have already."""

_LONGEST_IMPORT_SECONDS = 30.0
_POLL_SECONDS = 0.005

LAST_LINES = {signal.SIGTERM: "terminated", signal.SIGHUP: "hangup", signal.SIGINT: "interrupted"}
"""What a command prints when a stop signal ends it."""


class _Deferral(threading.local):
    """State of a thread; Python raises the exceptions of signals in the main thread only.

    Attributes:
        depth: blocks of :func:`stop_deferred` without one of :func:`stop_allowed` inside.
        pending: the signal whose exception is to be raised when the depth is 0 again; 0: none.
    """

    depth = 0
    pending = 0

    def raise_pending(self) -> None:
        if self.pending and self.depth <= 0:
            number, self.pending = self.pending, 0
            raise _exception_of(number)


_deferral = _Deferral()
_open_blocks: list[int] = []  # one element per block of stop_deferred in all threads: what is to be cleaned up


@contextmanager
def stop_deferred() -> Iterator[None]:
    """Let a stop signal inside the block raise its exception at the end of the block."""
    _deferral.depth += 1
    _open_blocks.append(_deferral.depth)
    try:
        yield
    finally:
        _open_blocks.pop()
        _deferral.depth -= 1
        _deferral.raise_pending()


@contextmanager
def stop_allowed() -> Iterator[None]:
    """Suspend the innermost :func:`stop_deferred`; a signal that has arrived meanwhile is raised at the beginning."""
    _deferral.depth -= 1
    try:
        _deferral.raise_pending()
        yield
    finally:
        _deferral.depth += 1


def end_at_once(number: int) -> None:
    """End this process by a signal, without cleaning up."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def exit_on_stop_signals() -> None:
    """Let a stop signal print its line and end the process, during the imports of a script; torch takes seconds.

    Scripts call it before they import anything else; :func:`.errors.run_cli` takes over. There is nothing to clean up
    yet, and the module that is being imported might catch an exception.
    """
    for number in LAST_LINES:
        if has_default_handler(number):
            signal.signal(number, _exit)


def _exit(number: int, frame: object) -> None:
    with suppress(OSError):  # closed
        os.write(2, f"{LAST_LINES[signal.Signals(number)]}\n".encode())
    os._exit(128 + number)


def has_default_handler(number: int) -> bool:
    """Whether Python's handler is in place, or that of a script's imports; not one of a caller, and not nohup's."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _exit)


def _exception_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else Terminated(128 + number)


class StopByException:
    """Context manager that raises the first stop signal as an exception; Python's defaults end a process uncleaned.

    SIGINT is raised as KeyboardInterrupt, SIGTERM and SIGHUP as :class:`Terminated`. Further signals are ignored for
    two seconds, so that the cleanup is not interrupted; a later one ends the process at once. An exception that Python
    discards, because it was raised in a destructor or a callback, is raised again.

    No exception is raised during an import: modules catch exceptions of what they import, and extension modules in C++
    abort the process. If there is nothing to clean up, the process ends as by :func:`exit_on_stop_signals`, else the
    exception waits for the end of the import.

    Only in the main thread, and only in place of Python's defaults and of :func:`exit_on_stop_signals`: a handler that
    the caller has set remains, and signals that are ignored (nohup, background jobs of a shell) stay so.

    Attributes:
        received: number of the first signal; 0: none yet.
    """

    def __init__(self) -> None:
        self.received = 0
        self._first = 0.0
        self._waiting_since: float | None = None  # for the end of an import
        self._before: dict[int, Any] = {}
        self._caller: FrameType | None = None

    def __enter__(self) -> StopByException:
        self._caller = sys._getframe(1)
        self._hook = sys.unraisablehook
        _deferral.depth = _deferral.pending = 0  # of an earlier command in this process that a signal has ended
        if threading.current_thread() is threading.main_thread():
            for number in LAST_LINES:
                if has_default_handler(number):
                    self._before[number] = signal.signal(number, self._receive)
        if self._before:
            sys.unraisablehook = self._raise_again
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._before:
            sys.unraisablehook = self._hook
        self._before.clear()
        self._caller = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received:
            if now - self._first >= SAME_REQUEST_SECONDS:
                end_at_once(number)
        elif self._is_importing(frame) and now - (self._waiting_since or now) < _LONGEST_IMPORT_SECONDS:
            if not _open_blocks:
                _exit(number, frame)
            if self._waiting_since is None:
                self._waiting_since = now
                _thread.start_new_thread(self._send_again, (number,))
        else:
            self.received, self._first = number, now
            _deferral.pending = number
            _deferral.raise_pending()

    def _is_importing(self, frame: FrameType | None) -> bool:
        """Whether an import that has begun inside the block is running."""
        while frame is not None and frame is not self._caller:
            if frame.f_code.co_filename.startswith("<frozen importlib._bootstrap"):
                return True
            frame = frame.f_back
        return False

    def _send_again(self, number: int) -> None:
        """Send this process a signal until its exception has been raised, or the block has ended; in a thread."""
        while self._before and not self.received:
            time.sleep(_POLL_SECONDS)
            if self._before and not self.received:
                os.kill(os.getpid(), number)

    def _raise_again(self, unraisable: Any) -> None:
        if not self.received or not isinstance(unraisable.exc_value, (KeyboardInterrupt, Terminated)):
            self._hook(unraisable)
            return
        number, self.received = self.received, 0
        # from another thread, because an exception raised here would be discarded as well
        _thread.start_new_thread(self._send_again, (number,))
