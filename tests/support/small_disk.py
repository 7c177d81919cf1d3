"""Small and read-only disks, as tmpfs mounts; tests that need one are skipped without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_PREFIX = "proteinlm-test-disk-"


@contextmanager
def mounted_tmpfs(options: str) -> Iterator[Path]:
    """A tmpfs mounted inside the block, such as `size=600k` or `ro`.

    It is mounted outside pytest's own directory, which could otherwise not be cleaned up by the next session if this
    one is killed. A disk that a killed process has left is unmounted by the next call.
    """
    remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    try:
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a file system")
        yield disk
    finally:
        _remove(folder)


def remove_abandoned() -> None:
    """Unmount the disks of processes that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and not _is_running(int(process)):
            _remove(folder)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(folder: Path) -> None:
    disk = folder / "disk"
    if os.path.ismount(disk):
        subprocess.run(["umount", "-l", str(disk)], check=False, capture_output=True)
    with suppress(OSError):  # of another user
        disk.rmdir()
        folder.rmdir()
