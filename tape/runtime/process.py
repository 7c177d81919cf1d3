"""The setup of a command's processes: device, process group and log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tape.errors import print_notice, readable

from .worker_exit import explain_worker_exit

if TYPE_CHECKING:
    from .distributed import DistributedContext

LOG_FORMAT = "%(asctime)s - %(levelname)s - %(name)s -   %(message)s"
DATE_FORMAT = "%y/%m/%d %H:%M:%S"
_VERBOSE_LIBRARIES = ("matplotlib",)  # which log INFO on every font


@dataclass(frozen=True)
class ProcessConfig:
    """Options of a process.

    Attributes:
        no_cuda: compute on the CPU even if there is a GPU.
        local_rank: ``--local_rank``, which old launchers pass instead of LOCAL_RANK; -1 if not given.
        log_level: level of the terminal's log on rank 0; other ranks log warnings.
    """

    no_cuda: bool = False
    local_rank: int = -1
    log_level: int = logging.INFO


@contextmanager
def process_context(config: ProcessConfig) -> Iterator[DistributedContext]:
    """Initialize the process group and log to the terminal inside the block.

    Raises:
        ConfigError: see :func:`tape.runtime.distributed.distributed_context`.
        WorkerExitError: a worker process of a data loader ended inside the block.
    """
    from .distributed import distributed_context  # imports torch, which parsing options does not need

    with distributed_context(config.no_cuda, config.local_rank) as context, explain_worker_exit():
        with log_to_terminal(config.log_level if context.is_main else logging.WARNING):
            yield context


@contextmanager
def log_to_terminal(level: int) -> Iterator[None]:
    """Log messages of at least ``level`` to stderr inside the block. Files of :func:`log_to_file` get INFO at least.

    Each of these files begins with the messages from before the first of them was opened.
    """
    root = logging.getLogger()
    before = root.level
    root.setLevel(min(level, logging.INFO))
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setLevel(level)
    try:
        with _handler(terminal), _handler(_Beginning(logging.NOTSET)):
            yield
    finally:
        root.setLevel(before)


@contextmanager
def log_to_file(file: Path) -> Iterator[None]:
    """Append log messages to ``file`` inside the block."""
    handler = _LogFile(file, encoding="utf-8")
    with _handler(handler):
        for beginning in logging.getLogger().handlers:
            if isinstance(beginning, _Beginning):
                beginning.end()
                for record in beginning.records:
                    handler.handle(record)
        yield


@contextmanager
def print_warnings_on_error() -> Iterator[None]:
    """Keep warnings back inside the block, which are logged later, when the same is done again, unless it fails."""
    warnings = _Beginning(logging.WARNING)
    try:
        with _handler(warnings):
            yield
    except BaseException:
        for record in warnings.records:
            print_notice(f"warning: {record.getMessage()}")
        raise


def _is_of_interest(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in _VERBOSE_LIBRARIES


class _Formatter(logging.Formatter):
    """Shows names and texts from files with escapes, and messages in limited length."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = readable(record.message)
        return super().formatMessage(record)


class _Beginning(logging.Handler):
    """Keeps the messages up to a point."""

    _has_ended = False

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def end(self) -> None:
        self._has_ended = True

    def emit(self, record: logging.LogRecord) -> None:
        if not self._has_ended:
            self.records.append(record)


class _LogFile(logging.FileHandler):
    """A file handler that prints one line if the disk is full, instead of a traceback per message."""

    _has_failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            print_notice(f"warning: {self.baseFilename}: can't be written: {error.strerror}")
            self._has_failed = True

    def close(self) -> None:
        with suppress(OSError):  # of the buffered rest
            super().close()


@contextmanager
def _handler(handler: logging.Handler) -> Iterator[None]:
    """Attach a handler to the root logger inside the block."""
    root = logging.getLogger()
    handler.setFormatter(_Formatter(LOG_FORMAT, DATE_FORMAT))
    handler.addFilter(_is_of_interest)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
