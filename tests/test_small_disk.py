"""The disks of tests/support/small_disk.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.small_disk import mounted_tmpfs, remove_abandoned

KILLED = """
import os, signal
from tests.support.small_disk import mounted_tmpfs
with mounted_tmpfs("size=64k") as disk:
    print(disk, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_disk_of_a_killed_test_is_unmounted(tmp_path: Path) -> None:
    with mounted_tmpfs("size=64k") as own:  # skipped without root
        result = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
        left = Path(result.stdout.strip())
        assert os.path.ismount(left)
        assert tmp_path.parents[1] not in left.parents
        remove_abandoned()
        assert not left.exists()
        assert os.path.ismount(own)
