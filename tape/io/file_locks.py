"""Locks of open files (flock), and file systems without them, such as NFS without its lock service."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def lock_file(stream: IO[Any], path: Path, advice: str, wait: bool = True) -> bool:
    """Lock an open file exclusively until it is closed.

    Args:
        stream: the file.
        path: its name, for the notice.
        advice: what the user has to ensure if there are no locks.
        wait: wait until other processes have released the file.

    Returns:
        Whether it is locked; False, with a notice, where the system or the file system has no such locks.

    Raises:
        BlockingIOError: another process holds it, and ``wait`` is False.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        logger.warning("%s: its file system has no locks (%s); %s", path, error.strerror, advice)
        return False
    return True
