"""A command that gets SIGTERM when the process that started it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_command_replaces_the_script(run_script: Run) -> None:
    result = run_script("proteinlm/workflow/run_with_parent.py", os.getpid(), "sh", "-c", "echo done; exit 3")
    assert (result.returncode, result.stdout) == (3, "done\n")


def test_a_command_that_does_not_exist_is_one_printable_line(run_script: Run) -> None:
    result = run_script("proteinlm/workflow/run_with_parent.py", os.getpid(), "absent\x1b[2J\n")
    assert (result.returncode, result.stderr) == (1, "error: absent\\x1b[2J\\n: No such file or directory\n")
