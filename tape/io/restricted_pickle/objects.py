"""Instructions that name, construct and complete objects. Here it is decided what a pickle reaches: constructors of
:class:`~.types.PickleTypes`, nothing else.
"""

from __future__ import annotations

import _compat_pickle
import pickle
from collections.abc import Mapping

from .arguments import ArgumentReader, line, two_lines
from .machine import ArgumentOperation, Machine, Operation
from .types import Constructor, ForbiddenNameError, RefusedPickleError, Unfinished, described


def python3_name(module: str, name: str) -> str:
    """``module.name``; names of Python 2 are translated, such as ``commands.call`` to ``subprocess.call``."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


# --- names ----------------------------------------------------------------------------------------------------------


def _find(machine: Machine, module: str, name: str) -> object:
    """What stands for a name; nothing is imported or looked up elsewhere."""
    full_name = python3_name(module, name)
    try:
        return machine.types.names[full_name]
    except KeyError:
        raise ForbiddenNameError(full_name) from None


def _global(machine: Machine, name: tuple[str, str]) -> None:
    machine.stack.append(_find(machine, *name))


def _computed_name(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        raise ForbiddenNameError("a computed name")
    machine.stack.append(_find(machine, module, name))


def _extension(machine: Machine) -> None:
    raise ForbiddenNameError("a registered extension")


def _persistent(machine: Machine, identifier: object) -> None:
    if machine.persistent_load is None:
        raise RefusedPickleError(f"it refers to an object outside the file, {described(identifier)}")
    machine.stack.append(machine.persistent_load(identifier))


def _popped_persistent(machine: Machine) -> None:
    _persistent(machine, machine.stack.pop())


# --- construction ---------------------------------------------------------------------------------------------------


def _construct(machine: Machine, constructor: object, arguments: object) -> None:
    if not isinstance(constructor, Constructor) or not isinstance(arguments, tuple):
        raise RefusedPickleError(f"it calls {described(constructor)}")
    machine.budget.charge(arguments)
    machine.stack.append(constructor.build(*arguments))


def _reduce(machine: Machine) -> None:
    arguments, constructor = machine.stack.pop(), machine.stack.pop()
    _construct(machine, constructor, arguments)


def _construct_with_names(machine: Machine) -> None:
    names = machine.stack.pop()
    if type(names) is not dict or names:
        raise RefusedPickleError("an object has arguments by name, which plain data does not need")
    _reduce(machine)


def _construct_marked(machine: Machine) -> None:
    constructor, *arguments = machine.pop_marked()
    _construct(machine, constructor, tuple(arguments))


def _construct_by_name(machine: Machine, name: tuple[str, str]) -> None:
    constructor = _find(machine, *name)
    _construct(machine, constructor, tuple(machine.pop_marked()))


def _apply_state(machine: Machine) -> None:
    """Finish an unfinished object. No attribute of anything is set."""
    state = machine.stack.pop()
    instance = machine.stack[-1]
    machine.budget.charge(state if isinstance(state, tuple) else (state,))
    if isinstance(instance, Unfinished) and not instance.finished:
        instance.value = machine.stack[-1] = instance.finish(state)
        instance.finished = True
    elif type(instance) in machine.types.states:
        machine.types.states[type(instance)](instance, state)
    else:
        raise RefusedPickleError(f"it sets attributes of {described(instance)}")


OBJECT_OPERATIONS: Mapping[bytes, Operation] = {
    pickle.STACK_GLOBAL: _computed_name,
    pickle.REDUCE: _reduce,
    pickle.NEWOBJ: _reduce,
    pickle.NEWOBJ_EX: _construct_with_names,
    pickle.OBJ: _construct_marked,
    pickle.BUILD: _apply_state,
    pickle.BINPERSID: _popped_persistent,
    pickle.EXT1: _extension,
    pickle.EXT2: _extension,
    pickle.EXT4: _extension,
}
NAME_OPERATIONS: Mapping[bytes, tuple[ArgumentReader, ArgumentOperation]] = {
    pickle.GLOBAL: (two_lines, _global),
    pickle.INST: (two_lines, _construct_by_name),
    pickle.PERSID: (line(bytes), _persistent),
}
