"""The names that a pickle refers to, found by reading its opcodes without executing them.

``torch.load(weights_only=True)`` supports protocol 2 and stops at the first opcode of any other, before it reaches the
offending name. Error messages should give that name nevertheless.
"""

from __future__ import annotations

import _compat_pickle
import pickletools
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

# pickles in torch.save's legacy format: magic number, protocol, system information, the object, storage keys
_MOST_PICKLES = 5
_NO_VALUE = frozenset({"PROTO", "FRAME", "STOP"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


@dataclass
class PickleContent:
    """What a pickle file refers to.

    Attributes:
        names: ``module.name`` of every import in order, with Python 3's module names.
        protocol: protocol of the first pickle.
        complete: whether all pickles were read to their ends without an invalid opcode.
    """

    names: list[str] = field(default_factory=list)
    protocol: int = 0
    complete: bool = False


def read_pickle_names(path: Path) -> PickleContent:
    """Read a file of torch.save, in zip or legacy format, or a plain pickle; other files give no names."""
    found = PickleContent()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (member,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
                with archive.open(member) as stream:
                    _read(stream, found, 1)
        else:
            with path.open("rb") as stream:
                _read(stream, found, _MOST_PICKLES)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError, IndexError):
        pass  # keep what was read before the damage
    return found


def _read(stream: IO[bytes], found: PickleContent, most: int) -> None:
    for number in range(most):
        first = stream.read(1)
        if not first:
            return
        stream.seek(-1, 1)
        names = _Names()
        found.complete = False
        for instruction, argument, _ in pickletools.genops(stream):
            if instruction.name == "PROTO" and isinstance(argument, int) and not number:
                found.protocol = argument
            found.names += names.follow(instruction.name, argument)
        found.complete = True


class _Names:
    """Tracks the strings on the unpickler's stack that may name an import."""

    def __init__(self) -> None:
        self._last: list[Any] = [None, None]
        self._memo: dict[int, Any] = {}

    def follow(self, instruction: str, argument: Any) -> Iterator[str]:
        """Names that an opcode imports."""
        if instruction in _NO_VALUE:
            return
        if instruction in _PUTS:
            self._memo[len(self._memo) if instruction == "MEMOIZE" else int(argument)] = self._last[-1]
            return
        if instruction in ("GLOBAL", "INST"):
            yield _modern(*argument.split(" ", 1))
        elif instruction == "STACK_GLOBAL":
            module, name = self._last
            if isinstance(module, str) and isinstance(name, str):
                yield _modern(module, name)
            else:
                yield "a computed name"
        elif instruction.startswith("EXT"):
            yield f"the registered extension {argument}"
        value = self._memo.get(int(argument)) if instruction in _GETS else argument
        known = isinstance(value, str) and instruction not in ("GLOBAL", "INST")
        self._last = [self._last[-1], value if known else None]


def _modern(module: str, name: str) -> str:
    """Translate the Python 2 names of protocols 0 to 2, such as ``commands.call`` for ``subprocess.call``."""
    if (module, name) in _compat_pickle.NAME_MAPPING:
        module, name = _compat_pickle.NAME_MAPPING[module, name]
    else:
        module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    return f"{module}.{name}"
