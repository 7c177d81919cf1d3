"""Atomic writing of files and directories: write under a temporary name in the same folder, fsync, rename.

A temporary name is ``.NAME.XXXXXXXX.tmp``, for files and directories. Its writer holds a lock (flock) on it, which ends
with the process; what a killed process has left is removed by :func:`remove_leftovers` when the next command begins.

A directory is replaced by exchanging the two names in one system call, so that there is a complete one at any time.
Where the file system can't do that, the old directory is moved to ``.NAME.XXXXXXXX.old/NAME`` and the new one gets its
name; after a kill in between, :func:`remove_leftovers` moves the old one back.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tape.errors import ConfigError, OutputError

from .output import output_errors

# tempfile's names: eight of these characters
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>tmp|old)")
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
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with output_errors(path, needed), _held(name):  # which reads the free space before the file is removed
            with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o666 & ~current_umask())  # mkstemp creates private files
            os.replace(name, path)
            sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def atomic_directory(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling directory that is renamed to ``path`` if the block ends without an error.

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
            with _final_names(temporary, path):
                yield temporary
            os.chmod(temporary, 0o777 & ~current_umask())
            replace_directory(temporary, path)


@contextmanager
def _final_names(temporary: Path, path: Path) -> Iterator[None]:
    """Let errors of writers inside the block name the files as they would be called at the end."""
    try:
        yield
    except OutputError as error:
        raise OutputError(error.path.replace(str(temporary), str(path)), error.reason, error.space) from error


@contextmanager
def temporary_directory(parent: Path, name: str) -> Iterator[Path]:
    """A hidden directory ``.NAME.XXXXXXXX.tmp`` inside the block; removed at its end, unless it was renamed."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".tmp", dir=parent))
    with _held(temporary):
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(temporary: Path, path: Path) -> None:
    """Give ``temporary`` the name ``path`` in the same folder, and delete a directory that has this name.

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
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
    with _held(aside):
        os.replace(path, aside / path.name)
        try:
            os.replace(temporary, path)
        except BaseException:
            os.replace(aside / path.name, path)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


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


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the temporary files and directories that killed processes have left; none of a running process.

    A directory that was moved away to be replaced, and whose name is free, gets its name back.

    Args:
        folder: the folder of the final names; it need not exist.
        name: the final name of the file or directory; None: all names.
    """
    with suppress(OSError):
        for path in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match is not None and name in (None, match["name"]) and _is_abandoned(path):
                with suppress(OSError):  # of another user, or removed by another process meanwhile
                    _remove(path, folder / match["name"], is_aside=match["kind"] == "old")


def _remove(path: Path, target: Path, is_aside: bool) -> None:
    if not path.is_dir():
        path.unlink()
        return
    if is_aside and (path / target.name).is_dir() and not target.exists():
        os.replace(path / target.name, target)
    shutil.rmtree(path)


@contextmanager
def _held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Mark a temporary file or directory as in use by this process, as far as its file system has locks."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Whether no process holds it; False where that can't be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


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


def current_umask() -> int:
    """The umask of this process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
