"""Errors of a disk that is full, failing or can't be written, under one type that names the file.

Every writer runs inside :func:`output_errors`, which :mod:`.atomic` does for its callers.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tape.errors import OutputError, ProteinLMError

from .disk_space import BLOCK_BYTES, describe_space, free_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over quota, over the file size limit (ulimit -f)
_DISK_ERRORS = (*_FULL, errno.EROFS, errno.EIO)
# What torch's zip writer raises when the stream below it fails; the stream's own error may be lost.
_TORCH_WRITER = ("PytorchStreamWriter failed", "unexpected pos")


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
        if free_bytes(path) < BLOCK_BYTES:  # lmdb and torch report a short write, whatever its reason
            reason = os.strerror(errno.ENOSPC)
        has_no_space = reason not in (os.strerror(errno.EROFS), os.strerror(errno.EIO))
        raise OutputError(path, reason, describe_space(path, needed) if has_no_space else "") from error


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
