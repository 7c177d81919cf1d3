"""The identity of a process on this machine: its number may be used again, its number with its start time is not."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# torchrun sets it for the processes that it starts, and does not have it itself.
_TORCHRUN_VARIABLE = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True)
class ProcessIdentity:
    """A process.

    Attributes:
        machine: see :func:`this_machine`.
        number: process id.
        started: start time in kernel ticks since boot, as text; empty on systems without /proc.
    """

    machine: str
    number: int
    started: str

    def has_ended(self) -> bool:
        """Whether the process has ended; False if it is on another machine, where that can't be determined."""
        if self.machine != this_machine():
            return False
        try:
            return start_of(self.number) != self.started
        except OSError:
            return not _exists(self.number)


def identify(number: int) -> ProcessIdentity:
    """The identity of a process that is running on this machine."""
    started = ""
    with suppress(OSError):
        started = start_of(number) or ""
    return ProcessIdentity(this_machine(), number, started)


def find_launcher(environment: Mapping[str, str]) -> ProcessIdentity | None:
    """The torchrun process that started this process, directly or through wrapper scripts; None without torchrun.

    Args:
        environment: the variables of this process.
    """
    if _TORCHRUN_VARIABLE not in environment:
        return None
    number = os.getppid()
    while (parent := _parent_of_worker(number)) is not None:
        number = parent
    return identify(number)


def this_machine() -> str:
    """A name of the process table of this process; containers on one machine have different ones, and so do reboots."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    return " ".join(parts)


def start_of(number: int) -> str | None:
    """Start time of a process on this machine in kernel ticks; None if it is gone or a zombie.

    Raises:
        OSError: if there is no /proc.
    """
    if not Path("/proc/self/stat").exists():
        raise OSError("no /proc")
    try:
        fields = stat_fields(Path(f"/proc/{number}"))  # the state, 18 others, the start time
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def stat_fields(folder: Path) -> list[str]:
    """The fields of /proc/.../stat after the name, beginning with the state.

    Raises:
        OSError: the process has ended, or there is no /proc.
    """
    # the name in parentheses may contain anything
    return (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def _parent_of_worker(number: int) -> int | None:
    """The parent of a process that torchrun started, as it started this one; None for any other process."""
    try:
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        if not any(variable.startswith(f"{_TORCHRUN_VARIABLE}=".encode()) for variable in variables):
            return None
        return int(stat_fields(Path(f"/proc/{number}"))[1])
    except OSError:
        return None


def _exists(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
