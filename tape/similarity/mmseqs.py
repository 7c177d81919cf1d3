"""MMseqs2 (Steinegger and Soeding 2017), the program ``mmseqs`` on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tape.errors import ProteinLMError
from tape.interrupts import stop_allowed, stop_deferred

PROGRAM = "mmseqs"
INSTALL = "apt install mmseqs2, brew install mmseqs2, or conda install -c bioconda mmseqs2"
_LAST_LINES = 10


def find_mmseqs() -> str | None:
    """Path of the program; None if it is not installed."""
    return shutil.which(PROGRAM)


def mmseqs_version(program: str) -> str:
    """The version that the program prints.

    Raises:
        ProteinLMError: it can't be run.
    """
    try:
        printed = subprocess.run([program, "version"], capture_output=True, text=True, check=True, errors="replace")
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProteinLMError(f"{program} version: can't be run ({error}); install MMseqs2 again: {INSTALL}") from error
    return printed.stdout.strip()


def run_mmseqs(command: Sequence[str], log: Path) -> None:
    """Run a command to its end; a stop signal ends it and the processes that it has started."""
    with log.open("wb") as stream, stop_deferred():
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            with stop_allowed():
                code = process.wait()
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ProteinLMError(f"MMseqs2 failed ({how}): {' '.join(command[:2])}; the end of its output:", details=end)
