"""Hidden names of unfinished files and directories, and the removal of those that killed processes have left.

A temporary name is ``.NAME.XXXXXXXX.tmp`` in the folder of the final name, and ``.NAME.XXXXXXXX.old/NAME`` for a
directory that was moved away to be replaced. Its writer holds a lock (flock) on it, which ends with the process; what a
killed process has left is removed by :func:`remove_leftovers` when the next command begins.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

# tempfile's names: eight of these characters
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.(?P<kind>tmp|old)")


@contextmanager
def temporary_directory(parent: Path, name: str, kind: Literal["tmp", "old"] = "tmp") -> Iterator[Path]:
    """A hidden directory ``.NAME.XXXXXXXX.KIND`` inside the block; removed at its end, unless it was renamed.

    One of kind ``old`` is kept if nothing has the final name at the end, since it may hold the only copy.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=f".{kind}", dir=parent))
    with held(temporary):
        try:
            yield temporary
        finally:
            if kind == "tmp" or (parent / name).exists():
                shutil.rmtree(temporary, ignore_errors=True)


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
def held(path: str | os.PathLike[str]) -> Iterator[None]:
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


def set_default_permissions(path: str | os.PathLike[str]) -> None:
    """Give a file or directory of :mod:`tempfile`, which only its owner can read, the permissions of any new one."""
    mask = os.umask(0)  # a umask can only be read by setting it
    os.umask(mask)
    os.chmod(path, (0o777 if os.path.isdir(path) else 0o666) & ~mask)
