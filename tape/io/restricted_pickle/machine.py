"""The stack machine whose program a pickle is: stack, marks and memo, and the instructions that use nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .arguments import ArgumentReader, line, memo_index, unsigned
from .bounds import Budget
from .types import PickleTypes, RefusedPickleError, Unfinished, described

Operation: TypeAlias = "Callable[[Machine], None]"
ArgumentOperation: TypeAlias = "Callable[[Machine, Any], None]"


class Machine:
    """State of the interpreter of one pickle.

    Args:
        types: what the pickle may contain.
        budget: what it may still create.
        persistent_load: returns the object for a persistent id, if there are any.

    Attributes:
        stack: the values since the last mark, the newest at the end.
        memo: index -> value, for values to which the pickle refers repeatedly.
    """

    def __init__(self, types: PickleTypes, budget: Budget, persistent_load: Callable[[Any], Any] | None) -> None:
        self.types = types
        self.budget = budget
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self._marked: list[list[Any]] = []

    def mark(self) -> None:
        """Begin a new stack on top of the one until now."""
        self.budget.count()
        self._marked.append(self.stack)
        self.stack = []

    def pop_marked(self) -> list[Any]:
        """Remove the values since the last mark, and the mark."""
        items = self.stack
        self.stack = self._marked.pop()
        return items

    def top(self, kind: type) -> Any:
        """The newest value, which must be an instance of ``kind``."""
        top = self.stack[-1]
        if not isinstance(top, kind):
            raise RefusedPickleError(f"{described(top)} is used as a {kind.__name__}")
        return top


def _push(constant: bool | None) -> Operation:
    return lambda machine: machine.stack.append(constant)


def _pop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_marked()


def _drop_marked(machine: Machine) -> None:
    machine.pop_marked()


def _duplicate(machine: Machine) -> None:
    machine.stack.append(machine.stack[-1])


def _get(machine: Machine, index: int) -> None:
    value = machine.memo[index]
    if isinstance(value, Unfinished):
        if not value.finished:
            raise RefusedPickleError("an object refers to itself")
        value = value.value
    machine.stack.append(value)


def _put(machine: Machine, index: int) -> None:
    machine.budget.count()
    machine.memo[index] = machine.stack[-1]


def _memoize(machine: Machine) -> None:
    machine.budget.count()
    memo = machine.memo
    memo[len(memo)] = machine.stack[-1]


STACK_OPERATIONS: Mapping[bytes, Operation] = {
    pickle.MARK: Machine.mark,
    pickle.POP: _pop,
    pickle.POP_MARK: _drop_marked,
    pickle.DUP: _duplicate,
    pickle.NONE: _push(None),
    pickle.NEWTRUE: _push(True),
    pickle.NEWFALSE: _push(False),
    pickle.MEMOIZE: _memoize,
}
MEMO_OPERATIONS: Mapping[bytes, tuple[ArgumentReader, ArgumentOperation]] = {
    pickle.GET: (line(memo_index), _get),
    pickle.BINGET: (unsigned(1), _get),
    pickle.LONG_BINGET: (unsigned(4), _get),
    pickle.PUT: (line(memo_index), _put),
    pickle.BINPUT: (unsigned(1), _put),
    pickle.LONG_BINPUT: (unsigned(4), _put),
}
