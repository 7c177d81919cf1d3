"""Instructions that make and fill tuples, lists, dictionaries and sets."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from typing import Any

from .bounds import CONSTRUCTED
from .machine import Machine, Operation
from .types import RefusedPickleError, check_key


def _tuple_of(size: int) -> Operation:
    def make(machine: Machine) -> None:
        machine.budget.count()
        stack = machine.stack
        start = len(stack) - size
        if start < 0:
            raise IndexError
        stack[start:] = [tuple(stack[start:])]

    return make


def _empty_tuple(machine: Machine) -> None:
    machine.stack.append(())


def _marked_tuple(machine: Machine) -> None:
    items = machine.pop_marked()
    machine.budget.count()
    machine.stack.append(tuple(items))


def _empty(kind: type[list[Any]] | type[dict[Any, Any]] | type[set[Any]]) -> Operation:
    objects = CONSTRUCTED if kind is set else 1  # an empty set takes four times as much as a list

    def make(machine: Machine) -> None:
        machine.budget.count(objects)
        machine.stack.append(kind())

    return make


def _marked_list(machine: Machine) -> None:
    items = machine.pop_marked()
    machine.stack.append(items)


def _marked_dict(machine: Machine) -> None:
    items = machine.pop_marked()
    machine.budget.count()
    machine.stack.append({})
    _update(machine, items)


def _marked_frozenset(machine: Machine) -> None:
    items = machine.pop_marked()
    _check_keys(machine, items)
    machine.stack.append(frozenset(items))


def _append(machine: Machine) -> None:
    item = machine.stack.pop()
    machine.top(list).append(item)


def _append_marked(machine: Machine) -> None:
    items = machine.pop_marked()
    machine.top(list).extend(items)


def _add_marked(machine: Machine) -> None:
    items = machine.pop_marked()
    _check_keys(machine, items)
    machine.top(set).update(items)


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _update(machine, [key, value])


def _set_marked(machine: Machine) -> None:
    _update(machine, machine.pop_marked())


def _update(machine: Machine, items: list[Any]) -> None:
    keys, values = items[::2], items[1::2]
    if len(keys) != len(values):
        raise RefusedPickleError("a dictionary has a key without a value")
    _check_keys(machine, keys)
    machine.top(dict).update(zip(keys, values, strict=True))


def _check_keys(machine: Machine, keys: Iterable[Any]) -> None:
    for key in keys:
        if type(key) is not str:
            check_key(key, machine.types.keys)


CONTAINER_OPERATIONS: Mapping[bytes, Operation] = {
    pickle.EMPTY_TUPLE: _empty_tuple,
    pickle.TUPLE1: _tuple_of(1),
    pickle.TUPLE2: _tuple_of(2),
    pickle.TUPLE3: _tuple_of(3),
    pickle.TUPLE: _marked_tuple,
    pickle.EMPTY_LIST: _empty(list),
    pickle.EMPTY_DICT: _empty(dict),
    pickle.EMPTY_SET: _empty(set),
    pickle.LIST: _marked_list,
    pickle.DICT: _marked_dict,
    pickle.FROZENSET: _marked_frozenset,
    pickle.APPEND: _append,
    pickle.APPENDS: _append_marked,
    pickle.ADDITEMS: _add_marked,
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _set_marked,
}
