"""Locks of open files (flock), and file systems without them, such as NFS without its lock service.

Only regular files that are open for writing are locked: NFS refuses an exclusive lock of a file that is open for
reading, and NFS and Lustre lock directories for the processes of one host only, without an error.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_announced: set[tuple[int, str]] = set()  # file systems (by device number) and consequences


def lock_file(stream: IO[Any], path: Path, consequence: str | None, wait: bool = True) -> bool:
    """Lock an open file exclusively until it is closed, by this process and those that it has forked meanwhile.

    Args:
        stream: the file, open for writing.
        path: its name, for the notice.
        consequence: what follows if there are no locks, or what the user has to ensure then; logged once per file
            system. None: nothing follows.
        wait: wait until other processes have released the file.

    Returns:
        Whether it is locked; False where the system or the file system has no such locks.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        _announce(stream, path, "not a POSIX system", consequence)
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _announce(stream, path, error.strerror or str(error), consequence)
        return False
    return True


def _announce(stream: IO[Any], path: Path, reason: str, consequence: str | None) -> None:
    if consequence is None:
        return
    notice = (os.fstat(stream.fileno()).st_dev, consequence)
    if notice not in _announced:
        _announced.add(notice)
        logger.warning("%s: its file system has no locks (%s); %s", path, reason, consequence)
