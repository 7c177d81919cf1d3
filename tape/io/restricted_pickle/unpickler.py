"""Interpreter of the instructions of a pickle, which calls nothing that the pickle names.

A pickle is a program for a stack machine, some of whose instructions call any function by name. This module interprets
the program itself: names are keys of a table of constructors that check their arguments (:mod:`.types`,
:mod:`.arrays`), a state is applied only to objects of these constructors, and an instruction that plain data doesn't
need is an error. Python's own unpickler can't be restricted in this way: it sets attributes of whatever lies on its
stack, classes and functions included.

Everything is bounded by the size of the file before memory is allocated: declared lengths, the number of objects, the
bytes that constructors copy, nesting, and the number of values counted as often as they are referred to. A few hundred
bytes can otherwise hold a list of lists with 2^60 elements.
"""

from __future__ import annotations

import _compat_pickle
import codecs
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from typing import Any

from tape.errors import DataError, quoted

from .arrays import ARRAY_TYPES
from .bounds import check_values
from .types import (
    PYTHON_TYPES,
    Constructor,
    ForbiddenNameError,
    PickleTypes,
    RefusedPickleError,
    Unfinished,
    check_key,
    described,
)

PLAIN_DATA = PYTHON_TYPES | ARRAY_TYPES

_MOST_OBJECTS = 1 << 23
_CONSTRUCTED = 4  # a constructed object counts as this many containers, by the memory it takes
_INTEGER_BYTES = 1024
_INTEGER_DIGITS = 2000
# What constructors may copy, in bytes, and the number of values counted as often as they are referred to: these and a
# multiple of the file's size.
_SPARE_BYTES, _COPIES = 1 << 26, 4
_SPARE_VALUES, _REPETITIONS = 1 << 22, 64
_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)
_TEXT_INTEGER = re.compile(rb"[+-]?\d+L?")
_TEXT_STRING = re.compile(rb"""(?:[^\\]|\\[\\'"nrt]|\\x[0-9a-fA-F]{2})*""", re.DOTALL)

# Errors of Python that damaged or absurd pickles cause here and in constructors.
_DAMAGES = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)

Operation = Callable[["RestrictedUnpickler"], None]


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
        self,
        data: bytes | mmap.mmap,
        types: PickleTypes = PLAIN_DATA,
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        self.position = 0
        self._data, self._size = data, len(data)
        self._types = types
        self._persistent_load = persistent_load
        self._objects = self._copied = 0

    def load(self) -> Any:
        """The value of the pickle at :attr:`position`.

        Raises:
            RefusedPickleError: it is damaged, or holds anything but the allowed types.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        start = self.position
        try:
            value = self._run()
            check_values(value, self._types, _SPARE_VALUES + _REPETITIONS * (self.position - start))
        except _DAMAGES as error:
            reason = "not enough memory" if isinstance(error, MemoryError) else type(error).__name__
            raise RefusedPickleError(f"damaged at byte {self.position} ({reason})") from error
        return value

    def _run(self) -> Any:
        data, size = self._data, self._size
        while self.position < size:
            code = data[self.position]
            self.position += 1
            if code == _STOP:
                return self._stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise RefusedPickleError(f"instruction {bytes([code])!r} at byte {self.position - 1} is not allowed")
            operation(self)
        raise RefusedPickleError(f"truncated: it ends at byte {size} without a stop")

    # --- reading ----------------------------------------------------------------------------------------------------

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if size < 0 or end > self._size:
            left = self._size - self.position
            raise RefusedPickleError(f"truncated: {size} bytes are declared at byte {self.position}, {left} are left")
        chunk = self._data[self.position : end]
        self.position = end
        return chunk

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self.position)
        if end < 0:
            raise RefusedPickleError(f"truncated: the line at byte {self.position} does not end")
        line = self._take(end - self.position)
        self.position += 1
        return line

    # --- bounds -----------------------------------------------------------------------------------------------------

    def _count(self, objects: int = 1) -> None:
        self._objects += objects
        if self._objects > _MOST_OBJECTS:
            raise RefusedPickleError(f"more than {_MOST_OBJECTS:,} objects")

    def _charge(self, values: Iterable[Any]) -> None:
        """Bound what constructors copy: a small pickle can pass the same bytes to a thousand of them."""
        self._count(_CONSTRUCTED)
        self._copied += sum(len(value) for value in values if isinstance(value, _SIZED))
        if self._copied > _SPARE_BYTES + _COPIES * self._size:
            raise RefusedPickleError("its objects are many times larger than the file")

    # --- operations -------------------------------------------------------------------------------------------------

    def _protocol(self) -> None:
        version = self._number(1)
        if version > pickle.HIGHEST_PROTOCOL:
            raise RefusedPickleError(f"pickle protocol {version} is unknown")

    def _frame(self) -> None:
        size = self._number(8)
        if size > self._size - self.position:
            raise RefusedPickleError(f"truncated: a frame of {size} bytes is declared at byte {self.position}")

    def _mark(self) -> None:
        self._count()
        self._marked.append(self._stack)
        self._stack = []

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _drop_marked(self) -> None:
        self._pop_mark()

    def _duplicate(self) -> None:
        self._stack.append(self._stack[-1])

    def _text_integer(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):  # protocol 0's booleans
            self._stack.append(line == b"01")
            return
        if len(line) > _INTEGER_DIGITS or not _TEXT_INTEGER.fullmatch(line):
            raise RefusedPickleError(f"not an integer of ordinary size: {quoted(line)}")
        self._stack.append(int(line.rstrip(b"L")))

    def _signed_integer(self) -> None:
        self._stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def _long_integer(self, width: int) -> None:
        size = self._number(width)
        if size > _INTEGER_BYTES:
            raise RefusedPickleError(f"an integer of {size} bytes")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def _text_float(self) -> None:
        self._stack.append(float(self._line()[:_INTEGER_DIGITS]))

    def _binary_float(self) -> None:
        self._stack.append(struct.unpack(">d", self._take(8))[0])

    def _text_string(self) -> None:
        """A byte string of Python 2, as text with the same code points."""
        line = self._line().strip()
        if len(line) < 2 or line[:1] not in b"'\"" or line[-1:] != line[:1] or not _TEXT_STRING.fullmatch(line):
            raise RefusedPickleError(f"not a quoted string: {quoted(line)}")
        content, _ = codecs.escape_decode(line[1:-1])
        self._stack.append(content.decode("latin1"))

    def _text_unicode(self) -> None:
        text = self._line().decode("raw-unicode-escape")
        text.encode("utf-8")  # no lone surrogates
        self._stack.append(text)

    def _get(self, index: int) -> None:
        value = self._memo[index]
        if isinstance(value, Unfinished):
            if not value.finished:
                raise RefusedPickleError("an object refers to itself")
            value = value.value
        self._stack.append(value)

    def _put(self, index: int) -> None:
        self._count()
        self._memo[index] = self._stack[-1]

    def _text_index(self) -> int:
        """A decimal index of the memo; larger ones have computable hash collisions, as keys of dictionaries do."""
        index = int(self._line()[:_INTEGER_DIGITS])
        if not 0 <= index < 1 << 32:
            raise RefusedPickleError("an index of its memo is out of range")
        return index

    def _memoize(self) -> None:
        self._put(len(self._memo))

    def _make_tuple(self, size: int) -> None:
        self._count()
        start = len(self._stack) - size
        if start < 0:
            raise RefusedPickleError(f"damaged at byte {self.position}")
        self._stack[start:] = [tuple(self._stack[start:])]

    def _marked_tuple(self) -> None:
        items = self._pop_mark()
        self._count()
        self._stack.append(tuple(items))

    def _container(self, make: Callable[[], Any]) -> None:
        self._count(_CONSTRUCTED if make is set else 1)  # an empty set takes four times as much as a list
        self._stack.append(make())

    def _marked_list(self) -> None:
        items = self._pop_mark()
        self._stack.append(items)

    def _marked_dict(self) -> None:
        items = self._pop_mark()
        self._container(dict)
        self._update(items)

    def _marked_frozenset(self) -> None:
        items = self._pop_mark()
        self._check_keys(items)
        self._stack.append(frozenset(items))

    def _append(self) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _append_marked(self) -> None:
        items = self._pop_mark()
        self._top(list).extend(items)

    def _add_marked(self) -> None:
        items = self._pop_mark()
        self._check_keys(items)
        self._top(set).update(items)

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_marked(self) -> None:
        self._update(self._pop_mark())

    def _update(self, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values):
            raise RefusedPickleError("a dictionary has a key without a value")
        self._check_keys(keys)
        self._top(dict).update(zip(keys, values, strict=True))

    def _check_keys(self, keys: Iterable[Any]) -> None:
        for key in keys:
            if type(key) is not str:
                check_key(key, self._types.keys)

    def _top(self, kind: type) -> Any:
        top = self._stack[-1]
        if not isinstance(top, kind):
            raise RefusedPickleError(f"{described(top)} is used as a {kind.__name__}")
        return top

    def _global(self) -> None:
        self._stack.append(self._find(self._line().decode(), self._line().decode()))

    def _computed_name(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise ForbiddenNameError("a computed name")
        self._stack.append(self._find(module, name))

    def _find(self, module: str, name: str) -> object:
        full_name = python3_name(module, name)
        try:
            return self._types.names[full_name]
        except KeyError:
            raise ForbiddenNameError(full_name) from None

    def _reduce(self) -> None:
        arguments, constructor = self._stack.pop(), self._stack.pop()
        self._construct(constructor, arguments)

    def _construct_with_names(self) -> None:
        names = self._stack.pop()
        if type(names) is not dict or names:
            raise RefusedPickleError("an object has arguments by name, which plain data does not need")
        self._reduce()

    def _construct_marked(self) -> None:
        constructor, *arguments = self._pop_mark()
        self._construct(constructor, tuple(arguments))

    def _construct_by_name(self) -> None:
        constructor = self._find(self._line().decode(), self._line().decode())
        arguments = tuple(self._pop_mark())
        self._construct(constructor, arguments)

    def _construct(self, constructor: object, arguments: object) -> None:
        if not isinstance(constructor, Constructor) or not isinstance(arguments, tuple):
            raise RefusedPickleError(f"it calls {described(constructor)}")
        self._charge(arguments)
        self._stack.append(constructor.build(*arguments))

    def _apply_state(self) -> None:
        state = self._stack.pop()
        instance = self._stack[-1]
        self._charge(state if isinstance(state, tuple) else [state])
        if isinstance(instance, Unfinished) and not instance.finished:
            instance.value = self._stack[-1] = instance.finish(state)
            instance.finished = True
        elif type(instance) in self._types.states:
            self._types.states[type(instance)](instance, state)
        else:
            raise RefusedPickleError(f"it sets attributes of {described(instance)}")

    def _persistent(self, identifier: object) -> None:
        if self._persistent_load is None:
            raise RefusedPickleError(f"it refers to an object outside the file, {described(identifier)}")
        self._stack.append(self._persistent_load(identifier))

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _extension(self) -> None:
        raise ForbiddenNameError("a registered extension")


def python3_name(module: str, name: str) -> str:
    """``module.name``; names of Python 2 are translated, such as ``commands.call`` to ``subprocess.call``."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


_STOP = pickle.STOP[0]
_UTF8 = "utf-8"
_U = RestrictedUnpickler
_BY_NAME: dict[bytes, Operation] = {
    pickle.PROTO: _U._protocol,
    pickle.FRAME: _U._frame,
    pickle.MARK: _U._mark,
    pickle.POP: _U._pop,
    pickle.POP_MARK: _U._drop_marked,
    pickle.DUP: _U._duplicate,
    pickle.NONE: lambda self: self._push(None),
    pickle.NEWTRUE: lambda self: self._push(True),
    pickle.NEWFALSE: lambda self: self._push(False),
    pickle.INT: _U._text_integer,
    pickle.LONG: _U._text_integer,
    pickle.BININT: _U._signed_integer,
    pickle.BININT1: lambda self: self._push(self._number(1)),
    pickle.BININT2: lambda self: self._push(self._number(2)),
    pickle.LONG1: lambda self: self._long_integer(1),
    pickle.LONG4: lambda self: self._long_integer(4),
    pickle.FLOAT: _U._text_float,
    pickle.BINFLOAT: _U._binary_float,
    pickle.STRING: _U._text_string,
    pickle.SHORT_BINSTRING: lambda self: self._push(self._take(self._number(1)).decode("latin1")),
    pickle.BINSTRING: lambda self: self._push(self._take(self._number(4)).decode("latin1")),
    pickle.SHORT_BINBYTES: lambda self: self._push(self._take(self._number(1))),
    pickle.BINBYTES: lambda self: self._push(self._take(self._number(4))),
    pickle.BINBYTES8: lambda self: self._push(self._take(self._number(8))),
    pickle.BYTEARRAY8: lambda self: self._push(bytearray(self._take(self._number(8)))),
    pickle.UNICODE: _U._text_unicode,
    pickle.SHORT_BINUNICODE: lambda self: self._push(self._take(self._number(1)).decode(_UTF8)),
    pickle.BINUNICODE: lambda self: self._push(self._take(self._number(4)).decode(_UTF8)),
    pickle.BINUNICODE8: lambda self: self._push(self._take(self._number(8)).decode(_UTF8)),
    pickle.EMPTY_TUPLE: lambda self: self._push(()),
    pickle.TUPLE1: lambda self: self._make_tuple(1),
    pickle.TUPLE2: lambda self: self._make_tuple(2),
    pickle.TUPLE3: lambda self: self._make_tuple(3),
    pickle.TUPLE: _U._marked_tuple,
    pickle.EMPTY_LIST: lambda self: self._container(list),
    pickle.EMPTY_DICT: lambda self: self._container(dict),
    pickle.EMPTY_SET: lambda self: self._container(set),
    pickle.LIST: _U._marked_list,
    pickle.DICT: _U._marked_dict,
    pickle.FROZENSET: _U._marked_frozenset,
    pickle.APPEND: _U._append,
    pickle.APPENDS: _U._append_marked,
    pickle.ADDITEMS: _U._add_marked,
    pickle.SETITEM: _U._set_item,
    pickle.SETITEMS: _U._set_marked,
    pickle.GET: lambda self: self._get(self._text_index()),
    pickle.BINGET: lambda self: self._get(self._number(1)),
    pickle.LONG_BINGET: lambda self: self._get(self._number(4)),
    pickle.PUT: lambda self: self._put(self._text_index()),
    pickle.BINPUT: lambda self: self._put(self._number(1)),
    pickle.LONG_BINPUT: lambda self: self._put(self._number(4)),
    pickle.MEMOIZE: _U._memoize,
    pickle.GLOBAL: _U._global,
    pickle.STACK_GLOBAL: _U._computed_name,
    pickle.REDUCE: _U._reduce,
    pickle.NEWOBJ: _U._reduce,
    pickle.NEWOBJ_EX: _U._construct_with_names,
    pickle.OBJ: _U._construct_marked,
    pickle.INST: _U._construct_by_name,
    pickle.BUILD: _U._apply_state,
    pickle.PERSID: lambda self: self._persistent(self._line()),
    pickle.BINPERSID: lambda self: self._persistent(self._stack.pop()),
    pickle.EXT1: _U._extension,
    pickle.EXT2: _U._extension,
    pickle.EXT4: _U._extension,
}
_OPERATIONS = {code[0]: operation for code, operation in _BY_NAME.items()}
