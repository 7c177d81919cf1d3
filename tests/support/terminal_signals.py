"""Stop signals as a process has them that was started from a terminal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

LAST_LINES = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGHUP: "hangup"}


@contextmanager
def terminal_handlers() -> Iterator[None]:
    """Python's default handlers inside the block; nohup and background jobs of a shell ignore signals."""
    before = {number: signal.getsignal(number) for number in LAST_LINES}
    for number in LAST_LINES:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
