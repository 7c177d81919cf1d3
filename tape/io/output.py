"""Where a command writes: the check before its work, and the errors of a disk that is full or can't be written.

Every command calls :func:`check_output_file` or :func:`check_output_directory` before it loads a model, so that hours
of computation are not lost because of a read-only disk. Every writer runs inside :func:`output_errors`, which
:mod:`tape.io.atomic` does for its callers.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tape.errors import ConfigError, OutputError, ProteinLMError

from .disk_space import format_bytes, free_bytes, nearest_existing

_ADVICE = "choose another place"
_PROBE_BYTES = 4096  # a block; a full disk still creates empty files
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over quota, over the file size limit (ulimit -f)
_DISK_ERRORS = (*_FULL, errno.EROFS, errno.EIO)
# What torch's zip writer raises when the stream below it fails; the stream's own error may be lost.
_TORCH_WRITER = ("PytorchStreamWriter failed", "unexpected pos")


def check_output_file(path: Path, option: str, advice: str = _ADVICE) -> None:
    """Check that a file can be written, before the work that is to be stored in it.

    Args:
        path: the file, which may exist; missing parent directories can be created.
        option: the option that names it, for the message.
        advice: what to do if it can't be written.

    Raises:
        ConfigError: it is a directory, or its directory can't be written. Names the reason.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a directory; give the name of a file")
    _check_directory(path.parent, f"{option} {path}", advice)


def check_output_directory(path: Path, option: str, advice: str = _ADVICE) -> None:
    """Check that files can be written in a directory, which may be a new one, before the work.

    Args:
        path: the directory; missing ones can be created.
        option: the option that names it, for the message.
        advice: what to do if it can't be written.

    Raises:
        ConfigError: it, or one of its parents, is a file or can't be written. Names the reason.
    """
    _check_directory(path, f"{option} {path}", advice)


def _check_directory(directory: Path, shown: str, advice: str) -> None:
    if "\0" in shown:
        raise ConfigError(f"{shown!r}: a path can't contain a NUL character")
    try:
        existing = nearest_existing(directory)
        if not existing.is_dir():
            raise ConfigError(f"{shown}: {existing} is a file; give the name of a directory, which may be a new one")
        # an unnamed file where the system has them: os.access doesn't know of quotas, NFS servers or root
        with tempfile.TemporaryFile(dir=existing) as stream:
            stream.write(bytes(_PROBE_BYTES))
    except OSError as error:
        raise ConfigError(f"{shown}: can't be written ({error.strerror}); {advice}") from error


def check_replaceable(directory: Path, is_output: Callable[[str], bool], option: str) -> None:
    """Check that a directory that is replaced as a whole contains nothing but what the command itself writes.

    Args:
        directory: the directory, which need not exist.
        is_output: whether a name is one that the command writes.
        option: the option that names the directory, for the message.

    Raises:
        ConfigError: it is a file, or contains other files, which the message names.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{option} {directory} is a file; give the name of a directory")
    present = [child.name for child in directory.iterdir()] if directory.is_dir() else []
    others = sorted(name for name in present if not is_output(name))
    if others:
        raise ConfigError(
            f"{option} {directory} contains {', '.join(others[:3])}, which this command does not write and would"
            " delete; choose another name, or move it away"
        )


@contextmanager
def output_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn the errors of a full, failing or read-only disk inside the block into one that names the file.

    Libraries report such an error in their own ways: torch as a RuntimeError of its zip writer, safetensors, lmdb and
    HDF5 as an error that quotes the system's message. Other errors, and those of this package, pass unchanged.

    Args:
        path: what the block writes.
        needed: bytes that it takes, if known.

    Raises:
        OutputError: names the file and the reason; for a full disk, also the bytes needed if known and the free space.
    """
    try:
        yield
    except ProteinLMError:
        raise
    except Exception as error:
        reason = _disk_error(error)
        if reason is None:
            raise
        if free_bytes(path) < _PROBE_BYTES:  # lmdb and torch report a short write, whatever its reason
            reason = os.strerror(errno.ENOSPC)
        has_no_space = reason not in (os.strerror(errno.EROFS), os.strerror(errno.EIO))
        raise OutputError(path, reason, _space(path, needed) if has_no_space else "") from error


def _disk_error(error: BaseException) -> str | None:
    """The system's message if the error, or one that led to it, is that of a disk; otherwise None."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRORS:
            return os.strerror(seen.errno)
        text = str(seen)
        quoted = [os.strerror(number) for number in _DISK_ERRORS if os.strerror(number) in text]
        if quoted and not isinstance(seen, ProteinLMError):
            return quoted[0]
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _TORCH_WRITER):
        return "the data were not written completely"
    return None


def _space(path: Path, needed: int | None) -> str:
    free = f"{format_bytes(free_bytes(path))} are free"
    return free if needed is None else f"{format_bytes(needed)} are needed, {free}"
