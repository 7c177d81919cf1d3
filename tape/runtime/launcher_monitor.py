"""Ends a process whose launcher has ended.

torchrun starts its workers in sessions of their own. After ``kill -9`` of torchrun alone, or when it runs out of
memory, they would continue as orphans and write into the directory of the same command started again. A thread looks at
the launcher once per second, which works through wrapper scripts, too, where a parent-death signal (prctl) would not.

Only torchrun's workers are monitored. A plain process may outlive the shell that started it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tape.errors import print_error

from .process_identity import ProcessIdentity, find_launcher

POLL_SECONDS = 1.0
GRACE_SECONDS = 300.0
"""Time to finish a step and to save after SIGTERM; :mod:`tape.runtime.run_lock` waits a little longer."""


@contextmanager
def end_with_launcher(environment: Mapping[str, str]) -> Iterator[None]:
    """Send this process SIGTERM when its launcher ends inside the block, and SIGKILL five minutes later.

    Args:
        environment: the variables of this process; without torchrun's, nothing is monitored.
    """
    launcher = find_launcher(environment)
    if launcher is None:
        yield
        return
    closed = threading.Event()
    thread = threading.Thread(target=_monitor, args=(launcher, closed), name="launcher monitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()


def _monitor(launcher: ProcessIdentity, closed: threading.Event) -> None:
    while not _has_ended(launcher):
        if closed.wait(POLL_SECONDS):
            return
    print_error(f"torchrun (process {launcher.number}) has ended, so this process ends")
    os.kill(os.getpid(), signal.SIGTERM)
    if not closed.wait(GRACE_SECONDS):
        os.kill(os.getpid(), signal.SIGKILL)


def _has_ended(launcher: ProcessIdentity) -> bool:
    """Whether it is gone. Orphans are adopted by process 1, which in a container may be torchrun itself."""
    if launcher.number == 1:
        with suppress(OSError):
            return b"python" not in Path("/proc/1/cmdline").read_bytes()
    return launcher.has_ended()
