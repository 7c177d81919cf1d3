"""A command under test: a process that is started, interrupted and examined."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pretrain.tools.verify_resume import kill_family
from tape.errors import ConfigError
from tape.runtime.process_identity import ProcessIdentity, identify, stat_fields

ROOT = Path(__file__).resolve().parents[2]
_POLL_SECONDS = 0.001
_LIMIT_SECONDS = 1800.0  # of one run
_END_SECONDS = 120.0  # from a signal to the end of a command
_LAST_LINES = ("interrupted", "terminated", "hangup")
_ORPHAN_SECONDS = 5.0  # from the end of a command to that of its last descendant


class Run:
    """A running command with its output in a file.

    Args:
        words: the command.
        largest_file: limit of the size of its files in bytes; None: no limit.
    """

    def __init__(self, words: Sequence[str], largest_file: int | None = None) -> None:
        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._log = Path("output.log")
        with self._log.open("wb") as log:
            pipe = subprocess.PIPE if largest_file is not None else log  # the limit would cut the log as well
            self._process = subprocess.Popen(
                words,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                preexec_fn=limit,
                start_new_session=True,  # signals to its process group must not reach this process
            )

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        output, _ = self._process.communicate(timeout=_LIMIT_SECONDS)
        if output is not None:
            self._log.write_bytes(output)
        return self._process.returncode

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, moment: float | None, out: Path, delay: float) -> bool:
        """Wait for the moment of an interruption; False if it ends before.

        Args:
            moment: seconds from now; None: ``delay`` seconds after a temporary file has appeared in ``out``.
            out: the output directory.
            delay: seconds from the temporary file to the interruption.
        """
        began, before = time.monotonic(), set(temporary_files(out))
        while self._process.poll() is None:
            if moment is not None and time.monotonic() - began >= moment:
                break
            if moment is None and not before.issuperset(temporary_files(out)):
                time.sleep(delay)
                break
            time.sleep(_POLL_SECONDS)
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it and its descendants."""
        kill_family(self._process.pid)
        self._process.wait()

    def stop(self, number: signal.Signals, to_group: bool) -> list[str]:
        """Send a signal to it, or to its process group, and wait for its end; descriptions of problems."""
        descendants = _descendants(self._process.pid)
        (os.killpg if to_group else os.kill)(self._process.pid, number)
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return [f"runs on for {_END_SECONDS:.0f} s"]
        output, problems = self.output(), []
        if code not in (0, -number, 128 + number):
            problems.append(f"exit code {code}: {output[-400:]!r}")
        if "Traceback" in output or "Exception ignored" in output:
            problems.append(f"traceback: {output[-2000:]!r}")
        if code == 128 + number and sum(line in _LAST_LINES for line in output.splitlines()) != 1:
            problems.append(f"not one line: {output[-400:]!r}")
        return problems + [f"process {process} outlives it" for process in self._survivors(descendants)]

    def _survivors(self, descendants: set[ProcessIdentity]) -> list[int]:
        """Processes that go on after the end: descendants from before the signal, and others of its session."""
        end = time.monotonic() + _ORPHAN_SECONDS
        while True:
            others = {process for process in _processes() if _session_of(process.number) == self._process.pid}
            running = [process.number for process in descendants | others if not process.has_ended()]
            if not running or time.monotonic() > end:
                return running
            time.sleep(_POLL_SECONDS)


def _descendants(leader: int) -> set[ProcessIdentity]:
    """The descendants of a process on this machine."""
    parents = {process: _parent_of(process.number) for process in _processes()}
    family = {leader}
    while found := {process.number for process, parent in parents.items() if parent in family} - family:
        family |= found
    return {process for process in parents if process.number in family - {leader}}


def _processes() -> list[ProcessIdentity]:
    return [identify(int(path.name)) for path in Path("/proc").glob("[0-9]*")]


def _parent_of(process: int) -> int | None:
    return _stat_number(process, 1)


def _session_of(process: int) -> int | None:
    return _stat_number(process, 3)


def _stat_number(process: int, field_number: int) -> int | None:
    """A number from /proc/PID/stat; None for a process that has ended."""
    with suppress(OSError):
        return int(stat_fields(Path(f"/proc/{process}"))[field_number])
    return None


def temporary_files(out: Path) -> Iterator[Path]:
    """Files that are being written, or that a killed process has left."""
    for folder, folders, files in os.walk(out):
        yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(".") and name != ".metadata")


def check(words: Sequence[str]) -> None:
    run = Run(words)
    if run.wait() != 0:
        raise ConfigError(f"{' '.join(words)} failed: {run.output()[-1000:]}")
