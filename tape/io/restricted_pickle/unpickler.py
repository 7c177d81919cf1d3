"""Interpreter of the instructions of a pickle, which calls nothing that the pickle names.

A pickle is a program for a stack machine, some of whose instructions call any function by name. Here the program itself
is interpreted: names are keys of a table of constructors that check their arguments (:mod:`.types`, :mod:`.arrays`), a
state is applied only to objects of these constructors, and an instruction that plain data doesn't need is an error.
Python's own unpickler can't be restricted in this way: it sets attributes of whatever lies on its stack, classes and
functions included.

Everything is bounded by the size of the file before memory is allocated: declared lengths (:mod:`.arguments`), the
number of objects, the bytes that constructors copy, nesting, and the size of the result (:mod:`.bounds`).
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from typing import Any

from tape.errors import DataError

from .arguments import Data, frame, unsigned
from .arrays import ARRAY_TYPES
from .bounds import Budget, check_values
from .containers import CONTAINER_OPERATIONS
from .literals import LITERALS
from .machine import MEMO_OPERATIONS, STACK_OPERATIONS, Machine
from .objects import NAME_OPERATIONS, OBJECT_OPERATIONS
from .python_types import PYTHON_TYPES
from .types import PickleTypes, RefusedPickleError

PLAIN_DATA = PYTHON_TYPES | ARRAY_TYPES

# Errors of Python that damaged or absurd pickles cause here and in constructors.
_DAMAGES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)


def _check_protocol(machine: Machine, version: int) -> None:
    if version > pickle.HIGHEST_PROTOCOL:
        raise RefusedPickleError(f"pickle protocol {version} is unknown")


def _ignore_frame(machine: Machine, size: int) -> None:
    """Frames help readers of streams; :func:`.arguments.frame` has checked the size."""


_FRAMING = {pickle.PROTO: (unsigned(1), _check_protocol), pickle.FRAME: (frame, _ignore_frame)}

# Code of an instruction -> what it does, in one of three tables: literals push what follows them, others run
# without an argument, or with the one that follows them.
_STOP = pickle.STOP[0]
_LITERALS = {code[0]: read for code, read in LITERALS.items()}
_OPERATIONS = {
    code[0]: operation
    for table in (STACK_OPERATIONS, CONTAINER_OPERATIONS, OBJECT_OPERATIONS)
    for code, operation in table.items()
}
_ARGUMENT_OPERATIONS = {
    code[0]: entry for table in (_FRAMING, MEMO_OPERATIONS, NAME_OPERATIONS) for code, entry in table.items()
}


def restricted_loads(data: bytes, where: str) -> Any:
    """Unpickle plain data: containers, numbers, text, ``OrderedDict``, and numpy's arrays, scalars and data types.

    Args:
        data: a pickle of any protocol, also of Python 2, whose byte strings become text.
        where: file and record, for the error message.

    Raises:
        DataError: the pickle is damaged or holds anything else, in which case nothing was executed.
    """
    try:
        return RestrictedUnpickler(data).load()
    except RefusedPickleError as error:
        raise DataError(f"{where}: refused or damaged pickle: {error}") from error


class RestrictedUnpickler:
    """Interpreter of one or several pickles, one after the other.

    Args:
        data: the pickles; what follows them is not read.
        types: what they may contain.
        persistent_load: returns the object for a persistent id; without it, persistent ids are refused.

    Attributes:
        position: number of bytes read.
    """

    def __init__(
        self, data: Data, types: PickleTypes = PLAIN_DATA, persistent_load: Callable[[Any], Any] | None = None
    ) -> None:
        self.position = 0
        self._data = data
        self._types = types
        self._persistent_load = persistent_load
        self._budget = Budget(len(data))

    def load(self) -> Any:
        """The value of the pickle at :attr:`position`.

        Raises:
            RefusedPickleError: it is damaged, or holds anything but the allowed types.
        """
        start = self.position
        try:
            value = self._run(Machine(self._types, self._budget, self._persistent_load))
            check_values(value, self._types, self.position - start)
        except _DAMAGES as error:
            reason = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
            raise RefusedPickleError(f"damaged at byte {self.position} ({reason})") from error
        return value

    def _run(self, machine: Machine) -> Any:
        """Interpret instructions until the pickle's end; :attr:`position` is after the last one, also in an error."""
        data, position, size = self._data, self.position, len(self._data)
        try:
            while position < size:
                code = data[position]
                position += 1
                if (operation := _OPERATIONS.get(code)) is not None:
                    operation(machine)
                elif (read := _LITERALS.get(code)) is not None:
                    value, position = read(data, position)
                    machine.stack.append(value)
                elif code in _ARGUMENT_OPERATIONS:
                    read, argument_operation = _ARGUMENT_OPERATIONS[code]
                    argument, position = read(data, position)
                    argument_operation(machine, argument)
                elif code == _STOP:
                    return machine.stack.pop()
                else:
                    raise RefusedPickleError(f"instruction {bytes([code])!r} at byte {position - 1} is not allowed")
        finally:
            self.position = position
        raise RefusedPickleError(f"truncated: it ends at byte {position} without a stop")
