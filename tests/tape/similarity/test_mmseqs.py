"""Running MMseqs2, by a stand-in for the program."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tape.errors import ProteinLMError
from tape.similarity.mmseqs import mmseqs_version, run_mmseqs
from tests.support.child_processes import exit_code_of_child
from tests.support.fake_mmseqs import VERSION, install_fake_mmseqs


def has_processes(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_version_is_the_programs(tmp_path: Path) -> None:
    assert mmseqs_version(str(install_fake_mmseqs(tmp_path))) == VERSION
    with pytest.raises(ProteinLMError, match="can't be run .* install MMseqs2 again"):
        mmseqs_version(str(tmp_path / "gone"))


def test_a_stop_signal_also_ends_the_processes_of_the_search(tmp_path: Path) -> None:
    """MMseqs2 is a shell script that starts others, which a signal to this process would leave running."""
    program = tmp_path / "mmseqs"
    program.write_text(f"#!/bin/sh\n(echo $$ > {tmp_path}/running; exec sleep 60)\necho late > {tmp_path}/late\n")
    program.chmod(0o755)

    def interrupted() -> int:
        parent = os.getpid()
        if os.fork() == 0:
            while not (tmp_path / "running").exists():
                time.sleep(0.02)
            os.kill(parent, signal.SIGINT)
            os._exit(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            run_mmseqs([str(program)], tmp_path / "log")
        except KeyboardInterrupt:
            return 7
        return 0

    assert exit_code_of_child(interrupted, seconds=20) == 7
    group = int((tmp_path / "running").read_text())
    for _ in range(100):  # until init has collected the members of the group
        if not has_processes(group):
            break
        time.sleep(0.05)
    assert not has_processes(group)
    assert not (tmp_path / "late").exists()
