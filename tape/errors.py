"""User errors, and the function that reports them on the command line.

Library code raises a subclass of :class:`ProteinLMError` whose message names the file, the record and what is allowed.
Commands run inside :func:`run_cli`, which prints that message instead of a traceback, and returns an exit code.
"""

from __future__ import annotations

import os
import reprlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import PurePath
from typing import Any


class ProteinLMError(Exception):
    """Base class of all errors that are caused by the user's files or options."""

    def __str__(self) -> str:
        # KeyError would return the repr of the message.
        return " ".join(str(argument) for argument in self.args)


class DataError(ProteinLMError):
    """A data file or one of its records is invalid."""


class UnknownResidueError(DataError, KeyError):
    """A character is not in the vocabulary. Also a ``KeyError``, as in TAPE."""

    __str__ = ProteinLMError.__str__


class VocabularyMismatchError(DataError):
    """A corpus, checkpoint or model was written with another vocabulary."""


class ConfigError(ProteinLMError, ValueError):
    """An option or a configuration value is invalid."""

    __str__ = ProteinLMError.__str__


class CheckpointError(ProteinLMError):
    """A checkpoint or model directory is missing, incomplete or damaged."""


class OutputError(ProteinLMError):
    """A file can't be written, because the disk is full, read-only or failing.

    Args:
        path: the file or directory.
        reason: the system's message.
        space: the bytes that are needed and free, for the message; empty if the disk is not full.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str, space: str = "") -> None:
        super().__init__(os.fspath(path), reason, space)
        self.path, self.reason, self.space = os.fspath(path), reason, space

    def __str__(self) -> str:
        return f"{self.path}: can't be written: {self.reason}" + (f"; {self.space}" if self.space else "")


_LONGEST_QUOTE = 200


class _Quotes(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write integers of more than 4,300 digits."""
        bits = x.bit_length()
        return f"an integer of {bits:,} bits" if bits > 256 else super().repr_int(x, level)

    def repr_instance(self, x: Any, level: int) -> str:
        """Of other classes, the library makes the whole repr before it shortens it."""
        for kind, shorten in self._containers():
            if isinstance(x, kind):
                return shorten(x, level)
        if isinstance(x, (bytes, bytearray, memoryview)):
            return repr(bytes(x[: self.maxother]))
        if x is None or isinstance(x, (float, complex, type, PurePath)):
            return super().repr_instance(x, level)
        shape = f" of shape {tuple(x.shape)}" if hasattr(x, "shape") else ""
        return f"{type(x).__name__}{shape}"

    def _containers(self) -> tuple[tuple[type, Callable[[Any, int], str]], ...]:
        return (
            (dict, self.repr_dict),
            (list, self.repr_list),
            (tuple, self.repr_tuple),
            (set, self.repr_set),
            (frozenset, self.repr_frozenset),
            (str, self.repr_str),
            (int, self.repr_int),
        )


_QUOTES = _Quotes()
_QUOTES.maxlevel = 3
_QUOTES.maxstring = _QUOTES.maxother = 80
_QUOTES.maxlong = 40


def quoted(value: object) -> str:
    """``repr`` of a value from a file for a message, with at most 200 characters.

    A plain ``repr`` can be of any length: a pickle of 200 bytes holds lists of lists with 2^60 elements. Objects of
    other classes than Python's own containers, numbers and texts, such as tensors and namespaces, are shown by class.
    """
    text = _QUOTES.repr(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."


def listed(names: Iterable[object], most: int = 20) -> str:
    """Names from a file for a message, such as columns: at most ``most`` of them, with at most 40 characters each."""
    shown = [name if len(name) <= 40 else f"{name[:37]}..." for name in map(str, islice(names, most + 1))]
    return ", ".join(shown[:most]) + (" ..." if len(shown) > most else "") or "none"


class Terminated(SystemExit):
    """SIGTERM, as an exception that passes through the blocks that remove temporary files and release locks."""


@contextmanager
def terminated_by_exception() -> Iterator[None]:
    """Raise :class:`Terminated` at SIGTERM inside the block, once; Python's default ends a process without cleaning up.

    Only in the main thread, and only in place of the default: a handler that the caller has set remains.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def terminate(number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # launchers forward a signal that the process may have received already
        raise Terminated(128 + number)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run_cli(main: Callable[[], object]) -> int:
    """Run the ``main`` function of a command, and print user errors as one line on stderr.

    Args:
        main: the command, without arguments. It may return an exit code.

    Returns:
        The exit code: 0 or that of ``main``; 1 for a :class:`ProteinLMError` or an ``OSError`` (a full disk, a path
        that can't be written); 130 for an interrupt (Ctrl-C); 143 for SIGTERM.
    """
    try:
        with terminated_by_exception():
            result = main()
    except ProteinLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated as error:
        print("terminated", file=sys.stderr)
        return int(error.code or 0)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the output has exited (`| head`)
        return 1
    except OSError as error:
        path = error.filename if error.filename2 is None else error.filename2  # the new name of a rename
        print(f"error: {'' if path is None else f'{path}: '}{error.strerror or error}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
