"""Workers of torchrun end with it; other processes may outlive what started them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tape.runtime.process_identity import identify

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

# Writes to argv[1] what happens to it, and to argv[2] its number when it is being monitored.
_WORKER = """
import os, signal, sys, time
from pathlib import Path
from tape.runtime import launcher_monitor as module
module.POLL_SECONDS, module.GRACE_SECONDS = 0.05, 0.5
log, ready = Path(sys.argv[1]), Path(sys.argv[2])
os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
def stop(number, frame):
    print("SIGTERM", file=sys.stderr, flush=True)
    if sys.argv[3] == "obeys":
        os._exit(0)
signal.signal(signal.SIGTERM, stop)
with module.end_with_launcher(os.environ):
    ready.with_suffix(".tmp").write_text(str(os.getpid()))
    ready.with_suffix(".tmp").rename(ready)
    time.sleep(3)
print("finished", file=sys.stderr, flush=True)
"""
# Starts its arguments in a session of their own, as torchrun does, and waits.
_LAUNCHER = """
import os, subprocess, sys
variables = {"TORCHELASTIC_RUN_ID": "none"} if sys.argv[1] == "torchrun" else {}
subprocess.Popen(sys.argv[2:], env=os.environ | variables, start_new_session=True).wait()
"""
WRAPPER = ["bash", "-c", '"$@"; true', "wrapper"]


def orphaned(folder: Path, kind: str, wrapper: list[str], behavior: str) -> str:
    """What becomes of a worker whose launcher is killed."""
    log, ready = folder / "log", folder / "ready"
    worker = [*wrapper, sys.executable, "-c", _WORKER, str(log), str(ready), behavior]
    with subprocess.Popen([sys.executable, "-c", _LAUNCHER, kind, *worker]) as launcher:
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        worker_process = identify(int(ready.read_text()))
        launcher.kill()
    while not worker_process.has_ended():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return log.read_text()


@pytest.mark.parametrize("wrapper", [[], WRAPPER], ids=["direct", "wrapped"])
def test_a_worker_gets_sigterm_when_torchrun_is_killed(wrapper: list[str], tmp_path: Path) -> None:
    lines = orphaned(tmp_path, "torchrun", wrapper, "obeys").splitlines()
    assert lines[0].startswith("error: torchrun (process ")
    assert lines[1:] == ["SIGTERM"]


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path) -> None:
    lines = orphaned(tmp_path, "torchrun", [], "ignores").splitlines()
    assert lines[1:] == ["SIGTERM"]  # and not: finished


def test_a_plain_process_outlives_the_shell_that_started_it(tmp_path: Path) -> None:
    assert orphaned(tmp_path, "shell", [], "obeys") == "finished\n"
