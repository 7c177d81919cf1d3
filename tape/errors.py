"""User errors, and the function that reports them on the command line.

Library code raises a subclass of :class:`ProteinLMError` whose message names the file, the record and what is allowed.
Commands run inside :func:`run_cli`, which prints that message instead of a traceback, and returns an exit code.
"""

from __future__ import annotations

import atexit
import os
import re
import reprlib
import select
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from io import TextIOWrapper
from itertools import islice
from pathlib import PurePath
from typing import Any, TextIO

from .interrupts import LAST_LINES, StopByException, Terminated, has_default_handler


class ProteinLMError(Exception):
    """Base class of all errors that are caused by the user's files or options.

    Args:
        parts: the message, which is printed as one line.
        details: lines that are printed below the message, such as the end of a log.

    Attributes:
        exit_code: exit code of a command that ends with the error.
    """

    details: Sequence[str] = ()
    exit_code = 1

    def __init__(self, *parts: object, details: Sequence[str] = ()) -> None:
        super().__init__(*parts)
        self.details = details

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


class UsageError(ConfigError):
    """A command line can't be parsed: an option is unknown or missing, or has a value of another kind."""

    exit_code = 2  # that of argparse


class CheckpointError(ProteinLMError):
    """A checkpoint or model directory is missing, incomplete or damaged."""


class EarlyStopping(Exception):
    """Stops a training loop, in code written for TAPE; this library does not raise it."""


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
_LONGEST_MESSAGE = 4000  # lists of options that differ are long
_LONGEST_WORD = 500
_LONGEST_SUGGESTED = 80  # the search takes time
_OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 1},}}")


# in the messages of torch's RuntimeErrors, and of errors in a data loader's worker process
_MEMORY_MESSAGES = ("DefaultCPUAllocator", "not enough memory", "MemoryError")
_GPU_MEMORY_MESSAGES = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
NO_MEMORY_REMEDY = "a smaller model or a machine with more memory is needed"


def exhausted_memory(error: BaseException) -> str | None:
    """The memory that an error reports as exhausted, ``memory`` or ``GPU memory``; None for any other error."""
    if isinstance(error, MemoryError):
        return "memory"
    text = str(error) if isinstance(error, RuntimeError) else ""
    if any(part in text for part in _MEMORY_MESSAGES):
        return "memory"
    return "GPU memory" if any(part in text for part in _GPU_MEMORY_MESSAGES) else None


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


def import_extra(module: str, need: str, extra: str) -> Any:
    """A module of an optional package, imported when it is needed.

    Args:
        module: its name.
        need: what needs which package, the beginning of the message.
        extra: the extra of this project that installs the package.

    Raises:
        ConfigError: it can't be imported. Names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{need} ({error}): pip install 'proteinlm[{extra}]'") from error


def did_you_mean(words: Iterable[str], known: Iterable[str]) -> str:
    """The known name that is closest to one of ``words``, as the end of a message; empty if none is close."""
    import difflib  # only errors need it

    names = list(known)
    for word in words:
        if len(word) <= _LONGEST_SUGGESTED:
            for near in difflib.get_close_matches(word, names, n=1):
                return f"; did you mean {near}?"
    return ""


@contextmanager
def options_as_arguments() -> Iterator[None]:
    """Inside the block, errors name the arguments of a Python function, such as ``split_by`` instead of ``--split-by``.

    Also a decorator.
    """
    try:
        yield
    except ProteinLMError as error:
        texts = [_OPTION.sub(lambda found: found[1].replace("-", "_"), str(part)) for part in error.args]
        error.args = tuple(texts)
        raise


def readable(message: str, longest: int = _LONGEST_MESSAGE) -> str:
    """A message as one line of limited length, with escapes for characters that terminals interpret.

    File names and texts from files can have any length and any characters.

    Args:
        message: the message, with such names and texts.
        longest: the largest number of characters, at least 100; the middle of longer messages and words is left out.
    """
    if len(message) > 2 * longest:
        message = message[:longest] + message[-longest:]
    printable = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in message
    )
    words = _LONG_WORD.sub(lambda word: _without_middle(word.group(), _LONGEST_WORD, "..."), printable)
    return _without_middle(words, longest, " ... ")


def _without_middle(text: str, longest: int, ellipsis: str) -> str:
    if len(text) <= longest:
        return text
    end = longest // 4
    return f"{text[: longest - end - len(ellipsis)]}{ellipsis}{text[-end:]}"


def print_error(message: str, details: Iterable[str] = ()) -> None:
    """Print a :func:`readable` message after ``error:`` on stderr, with details in lines below it."""
    _print_to_stderr("\n".join([f"error: {readable(message)}", *map(readable, details)]))


def print_notice(message: str) -> None:
    """Print a :func:`readable` message on stderr."""
    _print_to_stderr(readable(message))


def _print_to_stderr(text: str) -> None:
    """Print a text unless stderr is closed, or what showed it has exited."""
    if sys.stderr is not None:  # print would write to stdout
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def _end_quietly_on_stop_signals() -> None:
    """Let a stop signal end the process at once and without a traceback during its exit."""
    for number in LAST_LINES:
        if has_default_handler(number):
            signal.signal(number, signal.SIG_DFL)


def run_cli(main: Callable[[], object]) -> int:
    """Run the ``main`` function of a command, and print user errors as one line on stderr.

    Args:
        main: the command, without arguments. It may return an exit code.

    Returns:
        The exit code: 0 or that of ``main``; 1 for a :class:`ProteinLMError`, an ``OSError`` (a full disk, a path that
        can't be written) or a lack of memory, and, without a message, if the reader of stdout has exited (``| head``);
        128 and the number of a stop signal: 129 for SIGHUP, 130 for SIGINT (Ctrl-C), 143 for SIGTERM.
    """
    stop = StopByException()
    _open_output()
    try:
        with stop:
            result = _run_and_flush(main)
    except KeyboardInterrupt:
        return _report_stop(signal.SIGINT)
    except Terminated as error:
        return _report_stop(int(error.code or 0) - 128)
    except Exception as error:
        # libraries turn the exception of a signal into others, such as an ImportError, or fail as its consequence
        return _report_stop(stop.received) if stop.received else _report_error(error)
    finally:
        _discard_if_broken(sys.stderr)
        # among functions of torch that take long at the exit, the last registered is called first
        atexit.unregister(_end_quietly_on_stop_signals)
        atexit.register(_end_quietly_on_stop_signals)
    return result if isinstance(result, int) else 0


def _open_output() -> None:
    """Open closed streams, because libraries expect them and the next file would get their number; set up stdout.

    File names may have bytes that are no characters, which can't be printed; Python escapes them on stderr only.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - until the exit
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _run_and_flush(main: Callable[[], object]) -> object:
    """Run ``main`` and write what stdout has buffered; at the exit of the process, errors of that are tracebacks."""
    try:
        result = main()
    except SystemExit:  # --help
        _flush_output()
        raise
    _flush_output()
    return result


def _flush_output() -> None:
    try:
        if not sys.stdout.closed:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError("the standard output", error.strerror or str(error)) from None


def _discard_if_broken(stream: TextIO) -> bool:
    """Whether a stream can't be written; its buffer is then discarded, which would raise an error at the exit."""
    try:
        stream.flush()
        broken = _reader_has_exited(stream)
    except OSError:
        broken = True
    except ValueError:  # closed
        return False
    if broken:
        with suppress(OSError), open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), stream.fileno())
    return broken


def _reader_has_exited(stream: TextIO) -> bool:
    """Whether a stream is a pipe that nothing reads any more."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # errors alone
        return bool(poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this system; the stream is closed, or no file
        return False


def _report_stop(number: int) -> int:
    _discard_if_broken(sys.stdout)
    _print_to_stderr(LAST_LINES.get(signal.Signals(number), signal.Signals(number).name))
    return 128 + number


def _report_error(error: Exception) -> int:
    """Print a user's error; any other is raised."""
    broken = _discard_if_broken(sys.stdout)
    if isinstance(error, BrokenPipeError) and broken:
        return 1
    if isinstance(error, ProteinLMError):
        print_error(str(error), error.details)
        return error.exit_code
    if isinstance(error, OSError):
        path = error.filename if error.filename2 is None else error.filename2  # the new name of a rename
        print_error(f"{'' if path is None else f'{path}: '}{error.strerror or error}")
    elif (memory := exhausted_memory(error)) is not None:
        print_error(f"out of {memory}; {NO_MEMORY_REMEDY}")
    else:
        raise error
    return 1
