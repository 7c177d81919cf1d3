"""Hidden names of unfinished files and directories, and the removal of those that killed processes have left.

=====================================  ==================================================================
``.NAME.XXXXXXXX.tmp``                 an unfinished file
``.NAME.XXXXXXXX.tmp/{NAME,lock}``     an unfinished directory
``.NAME.XXXXXXXX.old/{NAME,lock}``     a directory that was moved away to be replaced
=====================================  ==================================================================

They are in the folder of the final name. The process that writes one holds a lock on the file, or on the file ``lock``
beside the directory (see :mod:`tape.io.file_locks` on locks of directories themselves), until it is renamed or removed;
the lock ends with the process. What a killed process has left is therefore not locked, and the next command removes it
by :func:`remove_leftovers`.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from tape.interrupts import stop_allowed, stop_deferred
from tape.io.file_locks import lock_file

# tempfile's names have eight of these characters; those of version 0.1.0 had the number of the process
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.(?P<unique>[a-z0-9_]{8}|[0-9]{1,7})\.(?P<kind>tmp|old)")
_UNIQUE_CHARACTERS = 8
_LOCK_NAME = "lock"
_WITHOUT_LOCKS = (
    "temporary files there (.NAME.*.tmp) are kept, since a running command might be writing them; remove them when no "
    "command writes there"
)


@contextmanager
def temporary_file(folder: Path, name: str, mode: str = "wb") -> Iterator[tuple[Path, IO[Any]]]:
    """A hidden file ``.NAME.XXXXXXXX.tmp``, open inside the block; removed at its end, unless it was renamed.

    The block flushes what it has written before it renames the file.

    Args:
        folder: where to create it.
        name: the final name.
        mode: ``"wb"``, ``"w+b"`` or ``"w"`` (UTF-8).

    Yields:
        Its path and the open file.
    """
    with stop_deferred():
        path, stream = _create_locked_file(folder, name, mode)
        try:
            with stop_allowed():
                yield path, stream
        finally:
            _remove_file(path, stream)


def _create_locked_file(folder: Path, name: str, mode: str) -> tuple[Path, IO[Any]]:
    while True:
        descriptor, created = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
        path, stream = Path(created), os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8")
        try:
            if _lock_new(stream, path):
                return path, stream
        except BaseException:
            _remove_file(path, stream)
            raise
        stream.close()


def _remove_file(path: Path, stream: IO[Any]) -> None:
    with suppress(OSError):  # after an error of the disk, which is raised already, closing would raise another
        stream.close()
    with suppress(OSError):  # renamed, as a rule; what can't be removed now is removed by the next command
        path.unlink()


@contextmanager
def temporary_directory(parent: Path, name: str, kind: Literal["tmp", "old"] = "tmp") -> Iterator[Path]:
    """A hidden directory ``.NAME.XXXXXXXX.KIND/NAME`` inside the block; removed at its end, unless it was renamed.

    Args:
        parent: where to create it.
        name: the final name.
        kind: ``"old"``: only the name is yielded, for a directory that the block moves there. It is kept if nothing
            has the final name at the end, since it may hold the only copy.
    """
    with stop_deferred():
        folder, lock = _create_locked_directory(parent, name, kind)
        try:
            if kind == "tmp":
                (folder / name).mkdir()
            with stop_allowed():
                yield folder / name
        finally:
            lock.close()  # before its removal: NFS keeps deleted files that are open, and their directory with them
            if kind == "tmp" or (parent / name).exists():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_directory(prefix: str) -> Iterator[Path]:
    """A directory among the system's temporary files inside the block; removed at its end with all that it contains.

    Args:
        prefix: beginning of its name.
    """
    with stop_deferred(), tempfile.TemporaryDirectory(prefix=prefix) as folder, stop_allowed():
        yield Path(folder)


def _create_locked_directory(parent: Path, name: str, kind: str) -> tuple[Path, IO[bytes]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=f".{kind}", dir=parent))
        try:
            lock = (folder / _LOCK_NAME).open("xb")
            if _lock_new(lock, folder / _LOCK_NAME):
                return folder, lock
            lock.close()
        except FileNotFoundError:  # removed by another process, since it was not locked yet
            continue
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _lock_new(stream: IO[Any], path: Path) -> bool:
    """Lock a file that this process has created; False if another one has removed it before, as a leftover."""
    lock_file(stream, path, consequence=None)  # without locks, nothing is removed either
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    return False


def remove_leftovers(folder: Path, name: str | None = None, exclusive: bool = False) -> None:
    """Remove the temporary files and directories that killed processes have left; none of a running process.

    A directory that was moved away to be replaced, and whose name is free, gets its name back. Where the file system
    has no locks, nothing is removed, with one notice, unless ``exclusive`` is set.

    Args:
        folder: the folder of the final names; it need not exist.
        name: the final name of the file or directory; None: all names.
        exclusive: no other process writes these names, because the caller holds their run lock.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is not None and (name == match["name"] or _is_any(name, match)):
                with suppress(OSError):  # of another user, locked, or removed by another process meanwhile
                    _remove(path, match, exclusive)


def _is_any(name: str | None, match: re.Match[str]) -> bool:
    """Whether all names are meant; without its final name, a number is not plainly one of this module."""
    return name is None and len(match["unique"]) == _UNIQUE_CHARACTERS


def _remove(path: Path, match: re.Match[str], exclusive: bool) -> None:
    """Remove a temporary file or directory unless it is in use.

    Raises:
        OSError: it is in use, or can't be removed.
    """
    if path.is_symlink() or not path.is_dir():
        _remove_unlocked(path, exclusive)
        return
    children = os.listdir(path)
    if not children:  # perhaps of a process that is about to create the lock in it, and then chooses another name
        path.rmdir()
        return
    if _LOCK_NAME in children:  # else of an earlier version, or half removed
        _remove_unlocked(path / _LOCK_NAME, exclusive)
    target = path.parent / match["name"]
    if match["kind"] == "old" and (path / target.name).is_dir() and not target.exists():
        os.replace(path / target.name, target)
    shutil.rmtree(path)


def _remove_unlocked(file: Path, exclusive: bool) -> None:
    """Remove a file while this process holds its lock, so that a process that has just created it notices.

    Raises:
        OSError: another process holds it, it is no file, or the file system has no locks and ``exclusive`` is not set.
    """
    with os.fdopen(os.open(file, os.O_RDWR | os.O_NOFOLLOW), "r+b") as stream:
        is_locked = lock_file(stream, file, None if exclusive else _WITHOUT_LOCKS, wait=False)
        if not (is_locked or exclusive):
            raise BlockingIOError
        file.unlink()


def set_default_permissions(path: str | os.PathLike[str]) -> None:
    """Give a file of :mod:`tempfile`, which only its owner can read, the permissions of any new one."""
    mask = os.umask(0)  # a umask can only be read by setting it
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
