"""What a process is doing, so that those who wait for it can say where it got stuck."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum


class Allowance(str, Enum):
    """How long an operation may take while other ranks wait for it.

    Attributes:
        NONE: as long as the watchdog's patience.
        WORKING: longer, while the process does something: compiling, allocating, filling caches.
        ANY: until exchanges between ranks time out. Storage may take its time, and a process that waits for it need
            not do anything that could be seen.
    """

    NONE = "none"
    WORKING = "working"
    ANY = "any"


@dataclass(frozen=True)
class Operation:
    """One operation of a process.

    Attributes:
        name: for people: ``iteration 12: forward and backward pass of micro-batch 2``.
        number: operations before it. Ranks do the same ones in the same order, so that numbers compare.
        moves: grows whenever the process gets on, within an operation too.
        allowance: how long it may take.
        exchanging: whether the main thread may be waiting for what it sends to, or receives from, one other rank.
    """

    name: str = "start"
    number: int = 0
    moves: int = 0
    allowance: Allowance = Allowance.ANY
    exchanging: bool = False


class Operations:
    """Where the main thread stands; other threads read :attr:`current`, which changes as a whole.

    Attributes:
        sent, wanted: how often something was handed to, and waited for from, each other rank, by its number. Counted
            when it begins, so that a rank that wants more than was sent is waiting.
    """

    def __init__(self) -> None:
        self.current = Operation()
        self.sent: Counter[int] = Counter()
        self.wanted: Counter[int] = Counter()
        self._prefix = ""
        self._name = ""
        self._least = Allowance.NONE

    def iteration(self, number: int, lenient: bool) -> None:
        """A step begins; the operations that follow are its own. The first steps compile and allocate: be lenient."""
        self._prefix, self._least = f"iteration {number}: ", Allowance.WORKING if lenient else Allowance.NONE

    def at(self, name: str, allowance: Allowance = Allowance.NONE) -> None:
        """An operation begins."""
        before, self._name = self.current, self._prefix + name
        allowed = self._least if allowance is Allowance.NONE else allowance
        self.current = Operation(self._name, before.number + 1, before.moves + 1, allowed)

    def within(self, name: str, exchanging: bool = False) -> None:
        """The operation gets on, with a part of it that other ranks needn't do at the same time, or at all."""
        before = self.current
        self.current = replace(before, name=f"{self._name}: {name}", moves=before.moves + 1, exchanging=exchanging)

    def settle(self) -> None:
        """What made the operation slow at first is done."""
        self.current = replace(self.current, allowance=self._least)

    def linger(self) -> None:
        """The operation has failed, which other ranks don't know yet; what must be finished first may take long."""
        self.current = replace(self.current, moves=self.current.moves + 1, allowance=Allowance.ANY)

    def end(self) -> None:
        """All work is done; only the other ranks are waited for."""
        self._prefix = ""
        self.at("end of the run", Allowance.ANY)
