"""Locks of other commands: as if one were writing the same directory or file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from tape.runtime.process_identity import identify
from tape.runtime.run_lock import LockOwner


def owner_of(number: int, **changes: str) -> LockOwner:
    """The owner of a lock that the process `number` holds; `changes` of its identity."""
    process = replace(identify(number), **changes)
    return LockOwner("token", process, None, "2026-01-01 00:00:00 UTC", "pretrain_tape.py --save X")


def write_lock(file: Path, owner: LockOwner) -> None:
    file.write_text(json.dumps(asdict(owner)), encoding="utf-8")


@contextmanager
def idle_process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does nothing; killed at the end."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def locked_by_another(file: Path) -> Iterator[int]:
    """Another process holds the lock inside the block; gives its number."""
    with idle_process() as child:
        write_lock(file, owner_of(child.pid))
        yield child.pid
