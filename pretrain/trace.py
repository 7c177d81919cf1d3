"""A trace of what this process is doing, so that the hang monitor can report where a rank is stuck.

    with trace.span("all-reduce loss"):
        context.all_reduce_losses(total)

Spans are also ranges in a profile of the run. Like those of ``torch.profiler.record_function``, they belong to the
process and not to an object: the training step needs no parameter for them. The main thread opens spans; the monitor's
thread reads :func:`position`, which is replaced as a whole. This is the only process-wide state of pretraining, and no
result depends on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from enum import Enum

from torch.profiler import record_function


class SpanTimeout(str, Enum):
    """How long a span may take while other ranks wait for this one.

    Attributes:
        HANG: ``--hang-timeout-seconds``.
        BUSY: longer, as long as the process is busy: compiling, allocating, filling caches.
        COLLECTIVE: until the collectives of the waiting ranks time out. Storage may stall, and a process that waits for
            it shows no activity.
    """

    HANG = "hang"
    BUSY = "busy"
    COLLECTIVE = "collective"


@dataclass(frozen=True)
class Position:
    """Where the main thread is.

    Attributes:
        name: outermost and innermost span and the last mark, such as ``iteration 12: pipeline: input of micro-batch
            2``.
        number: spans opened so far. All ranks open the same spans in the same order, so that numbers can be compared.
        progress: grows with every span and mark.
        timeout: how long the innermost span may take.
        communicating: whether the main thread may be waiting for a send to, or a receive from, a single other rank.
    """

    name: str = "start"
    number: int = 0
    progress: int = 0
    timeout: SpanTimeout = SpanTimeout.COLLECTIVE
    communicating: bool = False


class Trace:
    """The spans of one process.

    Attributes:
        position: see :class:`Position`.
        sent, received: point-to-point operations with each other rank, by its number. They are counted when they start,
            so that a rank that has started more receives than the peer has started sends is waiting for it.
    """

    def __init__(self) -> None:
        self.position = Position()
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self._names: tuple[str, ...] = ()
        self._timeouts: tuple[SpanTimeout, ...] = (SpanTimeout.COLLECTIVE,)

    @contextmanager
    def span(self, name: str, timeout: SpanTimeout | None = None, profiled: bool = True) -> Iterator[None]:
        """Open a span.

        Args:
            name: for messages, such as ``all-reduce gradients``.
            timeout: by default that of the enclosing span, or HANG if there is none.
            profiled: whether it is a range in a profile, which must not end inside.
        """
        names, timeouts = self._names, self._timeouts
        inherited = timeouts[-1] if names else SpanTimeout.HANG
        self._names, self._timeouts = (*names, name), (*timeouts, timeout or inherited)
        self._move(number=self.position.number + 1)
        with record_function(name) if profiled else nullcontext():
            yield
        # Not in a finally clause: after an error, the position remains where it occurred.
        self._names, self._timeouts = names, timeouts
        self._move()

    def mark(self, name: str, communicating: bool = False) -> None:
        """Note progress within a span that other ranks need not make at the same time, or at all."""
        position = self.position
        self.position = replace(
            position, name=f"{self._name}: {name}", progress=position.progress + 1, communicating=communicating
        )

    def warmed_up(self) -> None:
        """Note that what made the current span slow at first is done: the enclosing span's timeout applies from now."""
        enclosing = self._timeouts[-2] if len(self._names) > 1 else SpanTimeout.HANG
        self.position = replace(self.position, timeout=enclosing)

    def failed(self) -> None:
        """Note that this rank has failed, which other ranks don't know yet: finishing a checkpoint may take long."""
        position = self.position
        self.position = replace(position, progress=position.progress + 1, timeout=SpanTimeout.COLLECTIVE)

    @property
    def _name(self) -> str:
        return ": ".join(dict.fromkeys((self._names[0], self._names[-1]))) if self._names else "start"

    def _move(self, number: int | None = None) -> None:
        before = self.position
        number = before.number if number is None else number
        self.position = Position(self._name, number, before.progress + 1, self._timeouts[-1])


PROCESS = Trace()
"""The trace of this process."""

span, mark, warmed_up, failed = PROCESS.span, PROCESS.mark, PROCESS.warmed_up, PROCESS.failed


def position() -> Position:
    """Where the main thread of this process is."""
    return PROCESS.position
