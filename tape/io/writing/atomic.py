"""Atomic writing of files and directories: write under a temporary name in the same folder, fsync, rename.

A directory is replaced by exchanging the two names in one system call, so that there is a complete one at any time.
Where the file system can't do that, the old directory is moved away first and the new one gets its name; after a kill
in between, :func:`.temporary.remove_leftovers` moves the old one back.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tape.errors import ConfigError, OutputError
from tape.interrupts import stop_deferred

from .disk_errors import output_errors
from .temporary import remove_leftovers, set_default_permissions, temporary_directory, temporary_file

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)
_NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def sync_folder(folder: Path) -> None:
    """fsync ``folder``, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "wb", needed: int | None = None) -> Iterator[IO[Any]]:
    """Open a temporary file that is renamed to ``path`` if the block ends without an error.

    Args:
        path: the final name; its folder is created if it does not exist.
        mode: ``"wb"``, ``"w+b"`` or ``"w"`` (UTF-8).
        needed: size of the file in bytes, if known, for the message about a full disk.

    Raises:
        OutputError: the disk is full, read-only or failing.
    """
    path = Path(path)
    with output_errors(path, needed):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_file(path.parent, path.name, mode) as (temporary, stream):
            with output_errors(path, needed):  # which reads the free space before the file is removed
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                set_default_permissions(temporary)
                os.replace(temporary, path)
                sync_folder(path.parent)


@contextmanager
def atomic_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary directory that is renamed to ``path`` if the block ends without an error.

    Raises:
        ConfigError: ``path`` exists and ``overwrite`` is False.
        OutputError: the disk is full, read-only or failing.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; remove it or choose another name")
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent, path.name)
        with temporary_directory(path.parent, path.name) as temporary:
            with final_names(temporary, path):
                yield temporary
            replace_directory(temporary, path)


@contextmanager
def final_names(temporary: Path, path: Path) -> Iterator[None]:
    """Let errors of writers inside the block name the files as they would be called at the end.

    Args:
        temporary: the directory that they write to.
        path: its final name.

    Raises:
        OutputError: that of a writer, with the final name of the file.
    """
    try:
        yield
    except OutputError as error:
        raise OutputError(error.path.replace(str(temporary), str(path)), error.reason, error.space) from error


def replace_directory(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path`` on the same file system, and delete a directory that has this name.

    There is a complete directory at ``path`` at any time; on file systems that can't exchange two names, it is missing
    for a moment between two renames.
    """
    if not path.exists():
        os.replace(temporary, path)
    elif _exchange(temporary, path):
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        _replace_in_two_steps(temporary, path)
    sync_folder(path.parent)


def _replace_in_two_steps(temporary: Path, path: Path) -> None:
    """Move the old directory away first, since rename(2) does not replace one with contents; after an error, back."""
    with temporary_directory(path.parent, path.name, kind="old") as aside, stop_deferred():
        os.replace(path, aside)
        try:
            os.replace(temporary, path)
        except BaseException as error:
            try:
                os.replace(aside, path)
            except OSError:
                reason = f"not replaced ({error}); the earlier one is kept as {aside}, move it back"
                raise OutputError(str(path), reason) from error
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two directories; False where the system or the file system has no such call."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # not Linux, or an old C library
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(other))


def link_or_copy(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, replacing an earlier file; a copy where links are not possible."""
    with output_errors(target):
        try:
            with temporary_directory(target.parent, target.name) as folder:
                os.link(source, folder / target.name)
                os.replace(folder / target.name, target)
        except OSError:
            with atomic_write(target) as stream, source.open("rb") as original:
                shutil.copyfileobj(original, stream, 1 << 20)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write ``value`` as JSON (sorted keys, indent 2, final newline), atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    content = text.encode("utf-8")
    with atomic_write(path, needed=len(content)) as stream:
        stream.write(content)
