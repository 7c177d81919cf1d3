"""What a process is doing, so that those who wait for it can say where it got stuck."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Operation:
    """One operation of a process.

    Attributes:
        name: for people: ``iteration 12: backward pass of micro-batch 2``.
        number: operations before it. Ranks do the same ones in the same order, so that numbers compare.
        since: when it began, of time.monotonic().
        may_take_long: whether ranks may differ by more than the watchdog's patience.
    """

    name: str = "start"
    number: int = 0
    since: float = 0.0
    may_take_long: bool = True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class Operations:
    """Where the main thread stands; other threads read :attr:`current`, which changes as a whole."""

    def __init__(self) -> None:
        self.current = Operation(since=time.monotonic())
        self.prefix = ""
        self.lenient = False

    def iteration(self, number: int, lenient: bool) -> None:
        """A step begins; the operations that follow are its own. The first steps compile and allocate: be lenient."""
        self.prefix, self.lenient = f"iteration {number}: ", lenient

    def at(self, name: str, may_take_long: bool = False) -> None:
        """An operation begins."""
        number, long = self.current.number + 1, may_take_long or self.lenient
        self.current = Operation(self.prefix + name, number, time.monotonic(), long)

    def end(self) -> None:
        """All work is done; only the other ranks are waited for."""
        self.prefix = ""
        self.at("end of the run", may_take_long=True)

    def goes_on(self) -> None:
        """The operation has moved on by itself."""
        self.current = replace(self.current, since=time.monotonic())
